"""Minari data sets (https://minari.farama.org) in HDF5 format, read without the package minari.

    FOLDER/data/metadata.json      the environment, its spaces, the format
    FOLDER/data/main_data.hdf5     episode_0/{observations, actions, rewards, terminations, truncations}, episode_1, ...

Images are stored as the bytes of JPEG files; the metadata say which observations are images.
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
from .making import Space, Spaces, box_space, column_of


class Metadata(Record):
    """The fields of `metadata.json` that chopmix uses."""

    total_episodes: int
    data_format: str = "hdf5"
    """Always hdf5 before Minari 0.5."""
    minari_version: str = "unknown"
    env_spec: str | None = None
    """The specification of the gymnasium environment, as JSON."""
    observation_space: str | None = None
    action_space: str | None = None
    """The spaces of the observations and of the actions, as JSON texts: `{"type": "Box", "shape": [4], ...}`."""

    def space(self, field: str, folder: Path) -> Mapping[str, Any]:
        """Returns the description of the space `field` (`observation_space` or `action_space`). Returns an empty
        mapping if the field is empty or does not contain a mapping."""
        text = getattr(self, field)
        space = parse_json(text, f"{folder}: {field}") if text else {}
        return space if isinstance(space, Mapping) else {}

    def observation_spaces(self, folder: Path) -> dict[str, Mapping[str, Any]]:
        """Returns the descriptions of the observations by name. A single observation has the name `observation`.
        Returns an empty mapping if a `Dict` space has no mapping `subspaces`."""
        space = self.space("observation_space", folder)
        parts = space.get("subspaces") if space.get("type") == "Dict" else {"observation": space}
        return {n: part for n, part in parts.items() if isinstance(part, Mapping)} if isinstance(parts, Mapping) else {}


def read_metadata(folder: Path) -> tuple[Path, Metadata]:
    """Returns the folder that contains the data, and the metadata. Raises DataError if the folder has no
    `metadata.json`, if this file cannot be read, or if the data format is not hdf5."""
    data = folder / "data" if os.path.isdir(folder / "data") else folder
    if not os.path.isfile(data / "metadata.json"):
        raise DataError(f"{folder} is not a Minari data set: there is no data/metadata.json")
    metadata = read_record(data / "metadata.json", Metadata)
    if metadata.data_format != "hdf5":
        raise DataError(f"{data}: the format {metadata.data_format!r} is not supported, only 'hdf5'")
    return data, metadata


def environment_in(metadata: Metadata, folder: Path) -> tuple[str, dict[str, Any]]:
    """Returns the name of the environment (`unknown` if the metadata do not contain the name) and its keyword
    arguments. `render_mode` and values of None are left out; `max_episode_steps` is added."""
    spec = parse_json(metadata.env_spec, f"{folder}: env_spec") if metadata.env_spec else {}
    if not isinstance(spec, Mapping):
        return UNKNOWN, {}
    arguments = spec.get("kwargs")
    arguments = dict(arguments) if isinstance(arguments, Mapping) else {}
    arguments["max_episode_steps"] = spec.get("max_episode_steps")
    return str(spec.get("id") or UNKNOWN), {
        key: value for key, value in arguments.items() if value is not None and key != "render_mode"
    }


def about_folder(folder: Path) -> About:
    """Returns the description of the episodes in a folder. The observation spaces are those of the first episode."""
    data, metadata = read_metadata(folder)
    first = _episodes(data, metadata, min(metadata.total_episodes, 1))[0]
    described = {column_of(name): space for name, space in metadata.observation_spaces(data).items()}
    observations = {
        name: Space(shape=array.shape[1:], dtype=str(array.dtype), size=_size(described.get(name, {})))
        for name, array in first.observations.items()
    }
    spaces = Spaces(observations=observations, texts=tuple(first.texts), action=_action(data, metadata, first.actions))
    name, options = environment_in(metadata, data)
    return About(format=FORMAT, environment=name, options=options, policy="minari", spaces=spaces,
                 episodes=metadata.total_episodes)  # fmt: skip


def _size(space: Mapping[str, Any]) -> int | None:
    """Returns the number of categories of a described space. Returns None if the space is not `Discrete`, or if its
    first category is not 0."""
    size = space.get("n") if space.get("type") == "Discrete" and not space.get("start") else None
    return size if isinstance(size, int) else None


def _action(data: Path, metadata: Metadata, actions: np.ndarray) -> Space:
    """Returns the space of the actions. Shape and dtype are those of the array `actions`; the number of categories and
    the limits are those of the description. Raises DataError if the first category is not 0, or if the actions are
    integers and their number of categories is unknown."""
    space = metadata.space("action_space", data)
    if space.get("type") == "Discrete" and space.get("start"):
        raise DataError(f"{data}: the categories of actions start at {space['start']}; they must start at 0")
    if (size := _size(space)) is None and np.issubdtype(actions.dtype, np.integer) and actions.ndim == 1:
        raise DataError(f"{data}: its actions are integers, but action_space has no number of categories")
    if space.get("type") == "Box" and list(actions.shape[1:]) == space.get("shape"):
        return box_space(actions.shape[1:], str(actions.dtype), space.get("low"), space.get("high"))
    return Space(shape=actions.shape[1:], dtype=str(actions.dtype), size=size)


def read_folder(folder: Path) -> Episodes:
    """Returns all episodes of a folder. Raises DataError if the files cannot be read, if an action is outside the
    action space that the metadata of the data set describes, if a reward is not finite, or if the names or shapes of
    observations or actions differ between episodes."""
    data, metadata = read_metadata(folder)
    episodes = _episodes(data, metadata, metadata.total_episodes)
    space = _action(data, metadata, episodes[0].actions)
    try:
        all_episodes = joined(episodes)
        all_episodes.check_actions(space)
    except DataError as error:
        raise DataError(f"{data}: {error}") from None
    except (ValueError, KeyError) as error:
        raise DataError(f"{data}: its episodes have different observations or actions: {error}") from None
    return all_episodes


def _episodes(data: Path, metadata: Metadata, count: int) -> list[Episode]:
    try:
        import h5py
    except ImportError:
        raise DataError(f"{data} needs h5py: pip install 'chopmix[decision]'") from None
    path, spaces = data / "main_data.hdf5", metadata.observation_spaces(data)
    if count < 1:
        raise DataError(f"{data} contains no episodes")
    size = regular(path).st_size
    try:
        with h5py.File(path, "r") as file:
            room = Room(size)
            return [_episode(file, number, spaces, f"{path}, episode {number}", room) for number in range(count)]
    except DataError:
        raise
    except (OSError, KeyError, ValueError, AttributeError, TypeError, RuntimeError) as error:
        version = f"written by Minari {metadata.minari_version}; supported are 0.4 and 0.5"
        raise DataError(f"{path} cannot be read: {error} ({version})") from None


class Room:
    """A limit for the total memory of the arrays that are read from a file. `size` is the number of bytes of the file.
    The limit is 100 times `size`, at least 256 MiB. A file with more data is regarded as a decompression bomb."""

    def __init__(self, size: int):
        self.size, self.most = size, max(100 * size, 2**28)
        self.left = self.most

    def take(self, count: int, what: str) -> None:
        """Subtracts `count` bytes that will be read from the remaining memory. Raises DataError if the limit is
        exceeded."""
        self.left -= count
        if self.left < 0:
            limit = f"all arrays of a file of {self.size:,} bytes may hold at most {self.most:,} bytes"
            raise DataError(f"{what} holds {count:,} bytes; {limit}")


FILTERS = {"gzip": 1, "shuffle": 2, "fletcher32": 3}
"""The supported compression filters, with their numbers in HDF5. Other filters are refused, because they can allocate
any amount of memory that the file demands."""
DENSEST = 1032
"""The maximum compression ratio of gzip."""
NUMBER = 8
"""The minimum number of bytes that are counted for each row of an array, even if a row has fewer bytes in the file."""


def member(group: Any, name: str, location: str) -> Any:
    """Returns the group or array `name` of a group. Raises KeyError if it does not exist, and DataError if it is a
    link, because a link may refer to another file."""
    import h5py

    if not group.id.links.exists(name.encode()):
        raise KeyError(f"{group.name} has no {name}")
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise DataError(f"{location}: {name!r} is a link; links are not followed")
    return group[name]


def check_array(array: Any, what: str, room: Room) -> None:
    """Raises DataError if `array` is not an array, has no shape, is stored in other files, uses a filter that is not in
    FILTERS, or exceeds the memory limit. No data are read."""
    import h5py

    if not isinstance(array, h5py.Dataset):
        raise DataError(f"{what} is not an array")
    if array.shape is None:
        raise DataError(f"{what} has no shape")
    if array.external or array.is_virtual:
        raise DataError(f"{what} is stored in other files, which are not read")
    properties = array.id.get_create_plist()
    chunk = math.prod(array.chunks) * array.dtype.itemsize if array.chunks else 0
    filters = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    for number, _, _, name in filters:
        if number not in FILTERS.values():
            other = name.decode(errors="replace")
            raise DataError(f"{what} is compressed by the filter {other!r}; possible are {', '.join(FILTERS)}")
    room.take(max(math.prod(array.shape) * array.dtype.itemsize, NUMBER * math.prod(array.shape[:1]), chunk), what)
    if filters and DENSEST * (largest := largest_chunk(array)) > room.most:
        limit = f"a file of this size may have chunks of {room.most // DENSEST:,} bytes"
        raise DataError(f"{what} has compressed chunks of up to {largest:,} bytes; {limit}")


def largest_chunk(array: Any) -> int:
    """Returns the number of bytes of the largest chunk of an array in the file. A chunk may decompress to more bytes
    than its shape needs."""
    sizes = [0]
    array.id.chunk_iter(lambda chunk: sizes.append(chunk.size))
    return max(sizes)


def read(array: Any, count: int, what: str, room: Room) -> np.ndarray:
    """Returns the first `count` rows of an array that `check_array` accepts. Rows of variable length (images and texts)
    are read in blocks, and each block is subtracted from the memory limit, because many rows may refer to the same
    bytes of the file."""
    if array.dtype.kind != "O":
        return array[:count]
    rows: list[Any] = []
    step = max(1, 2**26 // room.size)
    while len(rows) < count:
        block = array[len(rows) : min(len(rows) + step, count)]
        room.take(sum(len(row) * getattr(row, "itemsize", 1) for row in block if hasattr(row, "__len__")), what)
        rows += list(block)
    values = np.empty(count, dtype=object)
    values[:] = rows
    return values


def _episode(file: Any, number: int, spaces: Mapping[str, Mapping[str, Any]], location: str, room: Room) -> Episode:
    """Returns the episode number `number`. In the file, an episode has one more observation than actions; the last
    observation is dropped. `spaces` contains the descriptions of the observations by name."""
    group = member(file, f"episode_{number}", location)
    parts = {name: member(group, name, location) for name in ("actions", "rewards", "terminations", "truncations")}
    if isinstance(parts["actions"], Mapping):
        raise DataError(f"{location}: its actions are several arrays; only one is supported")
    columns = {}
    for name, array in parts.items():
        check_array(array, f"{location}: its {name!r}", room)
        columns[name] = read(array, len(array), f"{location}: its {name!r}", room)
    actions, rewards, ends, cuts = columns.values()
    if not len(actions):
        raise DataError(f"{location} has no steps")
    for name, values in columns.items():
        if len(values) != len(actions):
            raise DataError(f"{location} has {len(actions)} actions, but {len(values)} {name}")
        if values.dtype.kind not in "biuf" or (name != "actions" and values.ndim > 1):
            raise DataError(f"{location}: its {name!r} must be numbers, one {'row ' * (name == 'actions')}per step")
    if not (ends[-1] or cuts[-1]):
        reason = "it was neither terminated nor truncated at its last step, so its return is unknown"
        raise DataError(f"{location} is incomplete: {reason}")
    stored = member(group, "observations", location)
    parts = {n: member(stored, n, location) for n in stored} if isinstance(stored, Mapping) else {"observation": stored}
    arrays, texts = {}, {}
    for name, array in parts.items():
        space, what = spaces.get(name, {}), f"{location}: its observation {name!r}"
        if isinstance(array, Mapping):
            raise DataError(f"{what} is nested; possible are arrays and texts")
        check_array(array, f"{location}: its 'observations'" if array is stored else what, room)
        if len(array) < len(actions):
            raise DataError(f"{location} has {len(actions)} actions, but only {len(array)} observations {name!r}")
        values = read(array, len(actions), what, room)
        if _is_bytes(values, space):
            if min(space["shape"][:2]) < 32:
                grid = f"a grid of shape {tuple(space['shape'])}, stored as JPEG, which changes its values"
                raise DataError(
                    f"{what} is {grid}. Record it again with Minari 0.5.4 or later, which stores the exact values"
                )
            room.take(len(values) * math.prod(space["shape"]), what)
            arrays[column_of(name)] = _pictures(values, space, what)
        elif values.dtype.kind in "OS":
            texts[column_of(name)] = _text(values, what)
        elif values.dtype.kind in "biuf":
            arrays[column_of(name)] = values
        else:
            raise DataError(f"{what} must be numbers or a text")
    seed = int(group.attrs.get("seed", 0))
    return Episode(arrays, texts, actions, rewards.astype(np.float64), bool(ends[-1]), seed)


def _text(values: np.ndarray, what: str) -> str:
    """Returns the text of an episode. Raises DataError if the values are not texts, or if the text changes from step to
    step."""
    if not isinstance(values[0], bytes | str):
        raise DataError(f"{what} is stored as bytes, but metadata.json (observation_space) does not describe them")
    if (changed := np.flatnonzero(values != values[0])).size:
        raise DataError(f"{what} is a text that changes at step {changed[0]}; it must stay the same in an episode")
    return values[0].decode() if isinstance(values[0], bytes) else str(values[0])


def _is_bytes(values: np.ndarray, space: Mapping[str, Any]) -> bool:
    """Returns whether the values are the bytes of images, one image per step. The images have different lengths (rows
    of objects), or all the same length (a uint8 array with two axes)."""
    shape = space.get("shape") or []
    is_image = space.get("type") == "Box" and space.get("dtype") == "uint8" and len(shape) in (2, 3)
    is_image = is_image and all(isinstance(side, int) and side > 0 for side in shape)
    return is_image and (values.dtype.kind == "O" or (values.ndim == 2 and values.dtype == np.uint8))


def _pictures(values: np.ndarray, space: Mapping[str, Any], what: str) -> np.ndarray:
    """Returns images with shape (t, h, w) or (t, h, w, channels), decoded from their bytes. Raises DataError if an
    image cannot be decoded, or if its shape is not the shape of the space."""
    pictures = []
    for number, data in enumerate(values):
        try:
            picture = np.asarray(read_picture(np.asarray(data, np.uint8).tobytes()))
        except (DataError, ValueError, TypeError) as error:
            raise DataError(f"{what}, step {number}: {error}") from None
        if list(picture.shape) != list(space["shape"]):
            raise DataError(f"{what}, step {number} is an image of shape {picture.shape}, not {tuple(space['shape'])}")
        pictures.append(picture)
    return np.stack(pictures)
