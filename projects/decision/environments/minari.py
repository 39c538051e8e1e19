"""Episodes in a folder of Minari's (https://minari.farama.org), in its HDF5 format; nothing of Minari needs to be
installed.

    FOLDER/data/metadata.json      the environment, its spaces, the format
    FOLDER/data/main_data.hdf5     episode_0/{observations, actions, rewards, terminations, truncations}, episode_1, ...

Pictures are kept there as JPEG files, whose bytes stand for them; what is a picture the metadata tell.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....files.reading import DataError, regular
from ....files.records import Record, parse_json, read_record
from ....tokenizers.media.files import read_picture
from .episodes import FORMAT, UNKNOWN, About, Episode, Episodes, joined
from .making import Space, Spaces, named, numbers


class Metadata(Record):
    """What is read of the file `metadata.json`."""

    total_episodes: int
    data_format: str = "hdf5"
    """Before version 0.5 of Minari there was no other."""
    minari_version: str = "unknown"
    env_spec: str | None = None
    """gymnasium's description of the environment, as JSON."""
    observation_space: str | None = None
    action_space: str | None = None
    """Minari's description of what is observed and done, as JSON: `{"type": "Box", "shape": [4], ...}`."""

    def described(self, space: str, where: Path) -> Mapping[str, Any]:
        """One of the two spaces; empty where it is not told."""
        told = getattr(self, space)
        found = parse_json(told, f"{where}: {space}") if told else {}
        return found if isinstance(found, Mapping) else {}

    def observed(self, where: Path) -> dict[str, Mapping[str, Any]]:
        """What is observed, by its name; empty where it is not told."""
        found = self.described("observation_space", where)
        parts = found.get("subspaces") if found.get("type") == "Dict" else {"observation": found}
        return {n: each for n, each in parts.items() if isinstance(each, Mapping)} if isinstance(parts, Mapping) else {}


def read_metadata(folder: Path) -> tuple[Path, Metadata]:
    """The folder of the data, and what it says of itself. Raises DataError where it is none of Minari's, or of a format
    that is not read here."""
    data = folder / "data" if os.path.isdir(folder / "data") else folder
    if not os.path.isfile(data / "metadata.json"):
        raise DataError(f"{folder} is no folder of Minari's: there is no data/metadata.json")
    found = read_record(data / "metadata.json", Metadata)
    if found.data_format != "hdf5":
        raise DataError(f"{data}: its format {found.data_format!r} is not read here, only 'hdf5'")
    return data, found


def environment_in(metadata: Metadata, where: Path) -> tuple[str, dict[str, Any]]:
    """The name of the environment, `unknown` where it is not told, and what it was made with."""
    spec = parse_json(metadata.env_spec, f"{where}: env_spec") if metadata.env_spec else {}
    if not isinstance(spec, Mapping):
        return UNKNOWN, {}
    own = spec.get("kwargs")
    given = {**(own if isinstance(own, Mapping) else {}), "max_episode_steps": spec.get("max_episode_steps")}
    return str(spec.get("id") or UNKNOWN), {
        key: value for key, value in given.items() if value is not None and key != "render_mode"
    }


def about_folder(folder: Path) -> About:
    """What a folder says of itself, with the spaces of its first episode."""
    data, metadata = read_metadata(folder)
    first = _episodes(data, metadata, min(metadata.total_episodes, 1))[0]
    told = {named(name): each for name, each in metadata.observed(data).items()}
    seen = {
        name: Space(shape=each.shape[1:], dtype=str(each.dtype), size=_size(told.get(name, {})))
        for name, each in first.observations.items()
    }
    spaces = Spaces(observations=seen, texts=tuple(first.texts), action=_action(data, metadata, first.actions))
    name, options = environment_in(metadata, data)
    return About(format=FORMAT, environment=name, options=options, policy="minari", spaces=spaces,
                 episodes=metadata.total_episodes)  # fmt: skip


def _size(space: Mapping[str, Any]) -> int | None:
    """How many categories a described space has, counted from 0; None where it holds numbers."""
    size = space.get("n") if space.get("type") == "Discrete" and not space.get("start") else None
    return size if isinstance(size, int) else None


def _action(data: Path, metadata: Metadata, actions: np.ndarray) -> Space:
    """The space of the actions, as it is described, else as the first episode's are. Raises DataError for categories
    that do not begin with 0, or whose number is not told."""
    told = metadata.described("action_space", data)
    if told.get("type") == "Discrete" and told.get("start"):
        raise DataError(f"{data}: its actions are numbers from {told['start']} on; possible are those from 0")
    if (size := _size(told)) is None and np.issubdtype(actions.dtype, np.integer) and actions.ndim == 1:
        raise DataError(f"{data}: its actions are whole numbers, but action_space does not tell how many there are")
    if told.get("type") == "Box" and list(actions.shape[1:]) == told.get("shape"):
        return numbers(actions.shape[1:], str(actions.dtype), told.get("low"), told.get("high"))
    return Space(shape=actions.shape[1:], dtype=str(actions.dtype), size=size)


def read_folder(folder: Path) -> Episodes:
    """All episodes of a folder. Raises DataError where it is damaged, an action lies outside the space that it tells, a
    reward is no finite number, or its episodes differ in what they hold."""
    data, metadata = read_metadata(folder)
    episodes = _episodes(data, metadata, metadata.total_episodes)
    space = _action(data, metadata, episodes[0].actions)
    try:
        found = joined(episodes)
        found.check_actions(space)
    except DataError as error:
        raise DataError(f"{data}: {error}") from None
    except (ValueError, KeyError) as error:
        raise DataError(f"{data}: its episodes differ in what is observed or done: {error}") from None
    return found


def _episodes(data: Path, metadata: Metadata, count: int) -> list[Episode]:
    try:
        import h5py
    except ImportError:
        raise DataError(f"{data} needs h5py: pip install 'chopmix[decision]'") from None
    path, told = data / "main_data.hdf5", metadata.observed(data)
    if count < 1:
        raise DataError(f"{data} holds no episodes")
    size = regular(path).st_size
    try:
        with h5py.File(path, "r") as file:
            room = Room(size)
            return [_episode(file, number, told, f"{path}, episode {number}", room) for number in range(count)]
    except (OSError, KeyError, ValueError, AttributeError, TypeError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        version = f"of Minari {metadata.minari_version}; read here is what 0.4 and 0.5 write"
        raise DataError(f"{path} cannot be read: {error} ({version})") from None


class Room:
    """How many bytes of arrays may still be read of a file of `size` bytes: 100 times its size in all, at least 256
    MiB. A file that holds more is a decompression bomb."""

    def __init__(self, size: int):
        self.size, self.most = size, max(100 * size, 2**28)
        self.left = self.most

    def take(self, count: int, what: str) -> None:
        """Note bytes that will be read. Raises DataError if there are too many."""
        self.left -= count
        if self.left < 0:
            rest = f"at most {self.most:,} bytes of a file of {self.size:,} are read"
            raise DataError(f"{what} holds {count:,} bytes; {rest}, all arrays together")


FILTERS = {"gzip": 1, "shuffle": 2, "fletcher32": 3}
"""The filters of packed arrays that are read, with their numbers in HDF5. Others believe the file how much memory they
need."""
DENSEST = 1032
"""The most bytes that gzip makes of one."""
NUMBER = 8
"""The bytes that a number of a step takes in memory, even if it takes fewer in the file."""


def member(group: Any, name: str, where: str) -> Any:
    """A group or an array in a group. Raises KeyError if it is missing, DataError for a link that may lead out of the
    file; it is not followed."""
    import h5py

    if not group.id.links.exists(name.encode()):
        raise KeyError(f"{group.name} has no {name}")
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise DataError(f"{where}: {name!r} is a link, which is not followed")
    return group[name]


def check_array(array: Any, what: str, room: Room) -> None:
    """Raises DataError for what is no array, lies in other files, or takes more memory than there is `room` for.
    Nothing of it is read."""
    import h5py

    if not isinstance(array, h5py.Dataset):
        raise DataError(f"{what} is no array")
    if array.shape is None:
        raise DataError(f"{what} has no shape")
    if array.external or array.is_virtual:
        raise DataError(f"{what} lies in other files, which are not read")
    properties = array.id.get_create_plist()
    chunk = math.prod(array.chunks) * array.dtype.itemsize if array.chunks else 0
    filters = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    for number, _, _, name in filters:
        if number not in FILTERS.values():
            other = name.decode(errors="replace")
            raise DataError(f"{what} is packed by the filter {other!r}; possible are {', '.join(FILTERS)}")
    room.take(max(math.prod(array.shape) * array.dtype.itemsize, NUMBER * math.prod(array.shape[:1]), chunk), what)
    if filters and DENSEST * (largest := largest_chunk(array)) > room.most:
        most = f"possible are {room.most // DENSEST:,} in a file of this size"
        raise DataError(f"{what} is packed in chunks of up to {largest:,} bytes; {most}")


def largest_chunk(array: Any) -> int:
    """The bytes that the largest chunk of a packed array has in the file: a chunk may unpack to more than it should."""
    sizes = [0]
    array.id.chunk_iter(lambda chunk: sizes.append(chunk.size))
    return max(sizes)


def read(array: Any, count: int, what: str, room: Room) -> np.ndarray:
    """The first `count` rows of an array that was checked. Those of varying lengths, pictures and texts, are read a few
    at a time: one item of the file may stand for many of them."""
    if array.dtype.kind != "O":
        return array[:count]
    found: list[Any] = []
    few = max(1, 2**26 // room.size)
    while len(found) < count:
        rows = array[len(found) : min(len(found) + few, count)]
        room.take(sum(len(row) * getattr(row, "itemsize", 1) for row in rows if hasattr(row, "__len__")), what)
        found += list(rows)
    values = np.empty(count, dtype=object)
    values[:] = found
    return values


def _episode(file: Any, number: int, known: Mapping[str, Mapping[str, Any]], where: str, room: Room) -> Episode:
    """One episode. There is one observation more than there are actions; the last one is left out. `known` describes
    what is observed."""
    group = member(file, f"episode_{number}", where)
    parts = {name: member(group, name, where) for name in ("actions", "rewards", "terminations", "truncations")}
    if isinstance(parts["actions"], Mapping):
        raise DataError(f"{where}: its actions are several arrays; possible is one")
    found = {}
    for name, each in parts.items():
        check_array(each, f"{where}: its {name!r}", room)
        found[name] = read(each, len(each), f"{where}: its {name!r}", room)
    actions, rewards, ends, cuts = found.values()
    if not len(actions):
        raise DataError(f"{where} has no steps")
    for name, each in found.items():
        if len(each) != len(actions):
            raise DataError(f"{where} has {len(actions)} actions, but {len(each)} {name}")
        if each.dtype.kind not in "biuf" or (name != "actions" and each.ndim > 1):
            raise DataError(f"{where}: its {name!r} must be numbers, one {'row' * (name == 'actions')} a step")
    if not (ends[-1] or cuts[-1]):
        cut = "at its last step it neither ended nor was cut by its environment, so that nobody knows its return"
        raise DataError(f"{where} is a part of one: {cut}")
    seen = member(group, "observations", where)
    parts = {name: member(seen, name, where) for name in seen} if isinstance(seen, Mapping) else {"observation": seen}
    arrays, texts = {}, {}
    for name, each in parts.items():
        kind, what = known.get(name, {}), f"{where}: its observation {name!r}"
        if isinstance(each, Mapping):
            raise DataError(f"{what} is made of others; possible are arrays and texts")
        check_array(each, f"{where}: its 'observations'" if each is seen else what, room)
        if len(each) < len(actions):
            raise DataError(f"{where} has {len(actions)} actions, but only {len(each)} observations {name!r}")
        values = read(each, len(actions), what, room)
        if _is_bytes(values, kind):
            if min(kind["shape"][:2]) < 32:
                grid = f"kept as JPEG, which does not give the cells of a {tuple(kind['shape'])} grid back"
                raise DataError(f"{what} is {grid}: record it anew (Minari from 0.5.4 on keeps it as it is)")
            room.take(len(values) * math.prod(kind["shape"]), what)
            arrays[named(name)] = _pictures(values, kind, what)
        elif values.dtype.kind in "OS":
            texts[named(name)] = _text(values, what)
        elif values.dtype.kind in "biuf":
            arrays[named(name)] = values
        else:
            raise DataError(f"{what} must be numbers or a text")
    seed = int(group.attrs.get("seed", 0))
    return Episode(arrays, texts, actions, rewards.astype(np.float64), bool(ends[-1]), seed)


def _text(values: np.ndarray, what: str) -> str:
    """The text that stays the same for an episode. Raises DataError where it changes, or these are no texts."""
    if not isinstance(values[0], bytes | str):
        raise DataError(f"{what} is kept as bytes, and metadata.json (observation_space) does not tell of what")
    if (changed := np.flatnonzero(values != values[0])).size:
        raise DataError(f"{what} is a text that changes at step {changed[0]}; possible is one that stays the same")
    return values[0].decode() if isinstance(values[0], bytes) else str(values[0])


def _is_bytes(values: np.ndarray, kind: Mapping[str, Any]) -> bool:
    """Whether these stored steps are pictures' bytes: of different lengths, or by chance of the same."""
    shape = kind.get("shape") or []
    known = kind.get("type") == "Box" and kind.get("dtype") == "uint8" and len(shape) in (2, 3)
    known = known and all(isinstance(side, int) and side > 0 for side in shape)
    return known and (values.dtype.kind == "O" or (values.ndim == 2 and values.dtype == np.uint8))


def _pictures(values: np.ndarray, kind: Mapping[str, Any], what: str) -> np.ndarray:
    """The pictures, (t, h, w) or (t, h, w, channels), whose bytes these are. Raises DataError for a damaged one, or one
    of another shape than is told."""
    found = []
    for number, each in enumerate(values):
        try:
            picture = np.asarray(read_picture(np.asarray(each, np.uint8).tobytes()))
        except (DataError, ValueError, TypeError) as error:
            raise DataError(f"{what}, step {number}: {error}") from None
        if list(picture.shape) != list(kind["shape"]):
            raise DataError(f"{what}, step {number} is a picture of shape {picture.shape}, not {tuple(kind['shape'])}")
        found.append(picture)
    return np.stack(found)
