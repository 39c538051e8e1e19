"""Episodes in a folder of Minari's (https://minari.farama.org), in its HDF5 format; nothing of Minari needs to be
installed.

    FOLDER/data/metadata.json      the environment, its spaces, the format
    FOLDER/data/main_data.hdf5     episode_0/{observations, actions, rewards, terminations, truncations}, episode_1, ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import Record, parse_json, read_record
from .episodes import FORMAT, About, Episode, Episodes, joined
from .making import Space, Spaces


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


def read_metadata(folder: Path) -> tuple[Path, Metadata]:
    """The folder of the data, and what it says of itself. Raises DataError where it is none of Minari's, or of a format
    that is not read here."""
    data = folder / "data" if (folder / "data").is_dir() else folder
    if not (data / "metadata.json").is_file():
        raise DataError(f"{folder} is no folder of Minari's: there is no data/metadata.json")
    found = read_record(data / "metadata.json", Metadata)
    if found.data_format != "hdf5":
        raise DataError(f"{data}: its format {found.data_format!r} is not read here, only 'hdf5'")
    return data, found


def environment_in(metadata: Metadata, where: Path) -> tuple[str, dict[str, Any]]:
    """The name of the environment, `unknown` where it is not told, and what it was made with."""
    spec = parse_json(metadata.env_spec, f"{where}: env_spec") if metadata.env_spec else {}
    if not isinstance(spec, Mapping):
        return "unknown", {}
    own = spec.get("kwargs")
    given = {**(own if isinstance(own, Mapping) else {}), "max_episode_steps": spec.get("max_episode_steps")}
    return str(spec.get("id") or "unknown"), {
        key: value for key, value in given.items() if value is not None and key != "render_mode"
    }


def about_folder(folder: Path) -> About:
    """What a folder says of itself, with the spaces of its first episode."""
    data, metadata = read_metadata(folder)
    first = _episodes(data, min(metadata.total_episodes, 1), metadata.minari_version)[0]
    action = parse_json(metadata.action_space, f"{data}: action_space") if metadata.action_space else {}
    size = action.get("n") if isinstance(action, Mapping) and action.get("type") == "Discrete" else None
    if size is not None and action.get("start"):
        raise DataError(f"{data}: its actions are numbers from {action['start']} on; possible are those from 0")
    if size is None and np.issubdtype(first.actions.dtype, np.integer) and first.actions.ndim == 1:
        raise DataError(f"{data}: its actions are whole numbers, but action_space does not tell how many there are")
    seen = {name: Space(shape=each.shape[1:], dtype=str(each.dtype)) for name, each in first.observations.items()}
    acts = Space(shape=first.actions.shape[1:], dtype=str(first.actions.dtype), size=size)
    spaces = Spaces(observations=seen, texts=tuple(first.texts), action=acts)
    name, options = environment_in(metadata, data)
    return About(format=FORMAT, environment=name, options=options, policy="minari", spaces=spaces,
                 episodes=metadata.total_episodes)  # fmt: skip


def read_folder(folder: Path) -> Episodes:
    """All episodes of a folder. Raises DataError where it is damaged, or its episodes differ in what they hold."""
    data, metadata = read_metadata(folder)
    episodes = _episodes(data, metadata.total_episodes, metadata.minari_version)
    try:
        return joined(episodes)
    except (ValueError, KeyError) as error:
        raise DataError(f"{data}: its episodes differ in what is observed or done: {error}") from None


def _episodes(data: Path, count: int, version: str = "unknown") -> list[Episode]:
    try:
        import h5py
    except ImportError:
        raise DataError(f"{data} needs h5py: pip install 'chopmix[decision]'") from None
    path = data / "main_data.hdf5"
    if count < 1:
        raise DataError(f"{data} holds no episodes")
    try:
        with h5py.File(path, "r") as file:
            return [_episode(file[f"episode_{number}"], f"{path}, episode {number}") for number in range(count)]
    except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        told = f"of Minari {version}; read here is what 0.4 and 0.5 write"
        raise DataError(f"{path} cannot be read: {error} ({told})") from None


def _episode(group: Any, where: str) -> Episode:
    """One episode; of its observations, one more than there are actions, the last is left out."""
    if not hasattr(group["actions"], "dtype"):
        raise DataError(f"{where}: its actions are several arrays; possible is one")
    actions, rewards, ends = (np.asarray(group[name]) for name in ("actions", "rewards", "terminations"))
    if not len(actions) == len(rewards) == len(ends):
        raise DataError(f"{where} has {len(actions)} actions, but {len(rewards)} rewards")
    if not len(actions):
        raise DataError(f"{where} has no steps")
    if not (ends[-1] or np.asarray(group["truncations"])[-1]):
        told = "at its last step it neither ended nor was cut by its environment, so that nobody knows its return"
        raise DataError(f"{where} is a part of one: {told}")
    seen = group["observations"]
    parts = {"observation": seen} if hasattr(seen, "dtype") else {name: seen[name] for name in seen}
    arrays, texts = {}, {}
    for name, each in parts.items():
        if not hasattr(each, "dtype"):
            raise DataError(f"{where}: its observation {name!r} is made of others; possible are arrays and texts")
        if each.dtype.kind in "OS":
            texts[name] = bytes(each[0]).decode() if isinstance(each[0], bytes) else str(each[0])
            continue
        if len(each) < len(actions):
            raise DataError(f"{where} has {len(actions)} actions, but only {len(each)} observations {name!r}")
        arrays[name] = np.asarray(each[: len(actions)])
    return Episode(arrays, texts, actions, rewards.astype(np.float64), bool(ends[-1]), int(group.attrs.get("seed", 0)))
