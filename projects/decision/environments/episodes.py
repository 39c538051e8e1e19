"""Episodes: what an agent observed, did and was rewarded for, in memory and as a folder of files.

FOLDER/episodes.json              `About`: the environment, who played, and what is observed and done there
FOLDER/part-00000.safetensors     the first hundred episodes, joined; `lengths` says how long each is
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field

from ....files.reading import DataError
from ....files.records import Record, parse_json, read_record, read_tensors, write_tensors
from ....files.writing import not_written, partial_name
from .making import Observed, Space, Spaces, first_outside

FORMAT = 1
UNKNOWN = "unknown"
"""The environment of episodes that do not tell it."""
PART = 100
"""Episodes in a file."""
SEEN = "observation."
"""Begins the names of the observations' arrays in a file."""


class Episode(NamedTuple):
    """One episode of t steps."""

    observations: Mapping[str, np.ndarray]
    """By name, (t, ...): what was seen before each action."""
    texts: Mapping[str, str]
    """The texts among what is observed, by name, such as a mission."""
    actions: np.ndarray
    """(t,) numbers of categories, or (t, ...) numbers."""
    rewards: Float[np.ndarray, "t"]
    """What followed each action."""
    ended: bool = True
    """Whether the environment ended it; False: it was cut after its longest time."""
    seed: int = 0
    """With which the environment was reset."""
    given_up: int = 0
    """How many starts before this one the agent gave up on."""

    @property
    def value(self) -> float:
        """The sum of its rewards: its return."""
        return float(np.sum(self.rewards))


def episode_of(steps: list[Observed], actions: list, rewards: list[float], ended: bool, seed: int) -> Episode:
    """The steps of one episode, joined. Raises DataError where a text changes, or an observation has another shape than
    at the first step."""
    for number, each in enumerate(steps):
        if each.texts != steps[0].texts:
            names = sorted({*steps[0].texts, *each.texts})
            name = next(name for name in names if each.texts.get(name) != steps[0].texts.get(name))
            raise DataError(f"the text {name!r} changes at step {number}; it must stay the same for an episode")
        for name, array in steps[0].arrays.items():
            if name not in each.arrays or each.arrays[name].shape != array.shape:
                other = each.arrays[name].shape if name in each.arrays else "nothing"
                told = f"observation {name!r} has the shape {array.shape} at first, and {other} at step {number}"
                raise DataError(f"{told}; it must stay the same")
    seen = {name: np.stack([each.arrays[name] for each in steps]) for name in steps[0].arrays}
    return Episode(seen, steps[0].texts, np.stack(list(map(np.asarray, actions))), np.array(rewards), ended, seed)


class About(Record):
    """The file `episodes.json`."""

    format: int
    environment: str
    options: dict[str, Any]
    policy: str
    noise: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    spaces: Spaces
    episodes: Annotated[int, Field(ge=1)]
    """How many there are in all, when recording is done."""


@dataclass(frozen=True)
class Episodes:
    """Several episodes, at least one. The steps of all of them are joined; `lengths` has the number of steps of each.
    Raises DataError for an episode without steps, for arrays that do not have as many steps as all episodes together,
    and for a reward that is not finite."""

    observations: Mapping[str, np.ndarray]
    texts: Mapping[str, Sequence[str]]
    actions: np.ndarray
    rewards: Float[np.ndarray, "n"]
    lengths: Int[np.ndarray, "e"]
    ended: Bool[np.ndarray, "e"]
    seeds: Int[np.ndarray, "e"]
    given_up: Int[np.ndarray, "e"]

    def __post_init__(self):
        if (short := np.flatnonzero(self.lengths < 1)).size:
            raise DataError(f"episode {short[0]} has no steps")
        steps = sum(self.lengths.tolist())  # in int64 it could overflow
        every = {"actions": self.actions, "rewards": self.rewards} | dict(self.observations)
        for name, array in every.items():
            if len(array) != steps:
                raise DataError(f"{name!r} holds {len(array)} steps, but the episodes have {steps}")
        if (bad := np.flatnonzero(~np.isfinite(self.rewards))).size:
            raise DataError(f"{self.place(int(bad[0]))} has no finite reward, but {self.rewards[bad[0]]}")

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Int[np.ndarray, "e"]:
        """The first step of each episode."""
        return np.cumsum(self.lengths) - self.lengths

    def place(self, step: int) -> str:
        """The place of one of all steps: `episode 3, step 12`."""
        episode = int(np.searchsorted(self.starts, step, side="right")) - 1
        return f"episode {episode}, step {step - int(self.starts[episode])}"

    def check_actions(self, space: Space) -> None:
        """Raises DataError for the first action that is outside of the space."""
        if (step := first_outside(self.actions, space)) is not None:
            limits = (0, space.size - 1) if space.size is not None else (space.low, space.high)
            low, high = (list(each) if isinstance(each, tuple) else each for each in limits)
            told = f"{low} to {high}" if low is not None else "finite numbers"
            raise DataError(f"{self.place(step)}: action {self.actions[step].tolist()} is outside the space: {told}")

    @cached_property
    def to_go(self) -> Float[np.ndarray, "n"]:
        """At each step the sum of the rewards from there to the end of its episode: the return to go."""
        found = np.zeros(len(self.rewards))
        for start, length in zip(self.starts, self.lengths):
            found[start : start + length] = np.cumsum(self.rewards[start : start + length][::-1])[::-1]
        return found

    @cached_property
    def values(self) -> Float[np.ndarray, "e"]:
        """The return of each episode."""
        return self.to_go[self.starts]

    def __getitem__(self, number: int) -> Episode:
        where = slice(int(self.starts[number]), int(self.starts[number] + self.lengths[number]))
        texts = {name: each[number] for name, each in self.texts.items()}
        seen = {name: each[where] for name, each in self.observations.items()}
        ended, seed, given_up = bool(self.ended[number]), int(self.seeds[number]), int(self.given_up[number])
        return Episode(seen, texts, self.actions[where], self.rewards[where], ended, seed, given_up)


def joined(episodes: Sequence[Episode]) -> Episodes:
    """Several episodes, at least one, as one value."""
    first = episodes[0]
    return Episodes(
        observations={n: np.concatenate([each.observations[n] for each in episodes]) for n in first.observations},
        texts={name: [each.texts[name] for each in episodes] for name in first.texts},
        actions=np.concatenate([each.actions for each in episodes]),
        rewards=np.concatenate([each.rewards for each in episodes]),
        lengths=np.array([len(each.rewards) for each in episodes]),
        ended=np.array([each.ended for each in episodes]), seeds=np.array([each.seed for each in episodes]),
        given_up=np.array([each.given_up for each in episodes]),
    )  # fmt: skip


def part_of(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"part-{number:05}.safetensors"


def write_part(folder: Path, number: int, episodes: Sequence[Episode]) -> None:
    """Write one part, complete or not at all. Raises OSError, which names the file, if that fails."""
    whole = joined(episodes)
    arrays = {"actions": whole.actions, "rewards": whole.rewards.astype(np.float64), "lengths": whole.lengths,
              "ended": whole.ended, "seeds": whole.seeds, "given_up": whole.given_up}  # fmt: skip
    arrays |= {SEEN + name: each for name, each in whole.observations.items()}
    path = part_of(folder, number)
    partial = partial_name(path)
    try:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in arrays.items()}
        tensors |= {f"text.{name}": as_bytes(each) for name, each in whole.texts.items()}
        write_tensors(partial, tensors)
        partial.replace(path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def as_bytes(texts: Sequence[str]) -> torch.Tensor:
    """Texts as the bytes of a JSON list: safetensors holds numbers only."""
    return torch.frombuffer(bytearray(json.dumps(list(texts)).encode()), dtype=torch.uint8)


def read_about(folder: Path) -> About:
    """What a folder of episodes says of itself. Raises DataError where it is none, or of another format."""
    file = folder / "episodes.json"
    if not os.path.exists(file):
        raise DataError(f"{folder} holds no episodes: there is no episodes.json; `chopmix record` writes one")
    about = read_record(file, About)
    if about.format != FORMAT:
        raise DataError(f"{file}: format {about.format} is not known; this version reads {FORMAT}")
    return about


def read_part(path: Path) -> Episodes:
    """The episodes of one part. Raises DataError for a file that is damaged, or holds values of other types."""
    tensors = read_tensors(path)
    try:
        arrays = {name: each.numpy() for name, each in tensors.items()}
        arrays.setdefault("given_up", np.zeros(arrays["lengths"].shape, np.int64))  # earlier versions did not write it
        texts = {name[5:]: parse_json(each.tobytes(), name) for name, each in arrays.items() if name[:5] == "text."}
        check_types(arrays, texts)
        return Episodes(
            observations={n[len(SEEN) :]: each for n, each in arrays.items() if n.startswith(SEEN)}, texts=texts,
            **{name: arrays[name] for name in ("actions", "rewards", "lengths", "seeds", "given_up")},
            ended=arrays["ended"].astype(bool),
        )  # fmt: skip
    except KeyError as error:
        raise DataError(f"{path} is no part of recorded episodes: {error} is missing") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no part of recorded episodes: {error}") from None


def check_types(arrays: Mapping[str, np.ndarray], texts: Mapping[str, Any]) -> None:
    """Raises DataError for an array of a part that has a wrong type or shape, and for texts that are none, or are not
    one for each episode; KeyError for an array that is missing."""
    episodes = arrays["lengths"].size
    if not episodes:
        raise DataError("it holds no episodes")
    for name, kinds in {"lengths": "iu", "seeds": "iu", "given_up": "iu", "ended": "biu"}.items():
        if arrays[name].dtype.kind not in kinds or arrays[name].shape != (episodes,):
            raise DataError(f"{name!r} must be {'true or false' if 'b' in kinds else 'whole numbers'}, one an episode")
    for name, each in texts.items():
        if not isinstance(each, list) or len(each) != episodes or not all(isinstance(text, str) for text in each):
            raise DataError(f"'text.{name}' must be texts, one an episode")
    if arrays["rewards"].dtype.kind not in "iuf" or arrays["rewards"].ndim != 1:
        raise DataError("'rewards' must be numbers, one a step")
    for name, each in arrays.items():
        if (name == "actions" or name.startswith(SEEN)) and (each.dtype.kind not in "biuf" or not each.ndim):
            raise DataError(f"{name!r} must be numbers, one row a step")


def parts_in(folder: Path, wanted: int) -> list[Path]:
    """The files of the first parts of `wanted` episodes, up to the first that is missing."""
    every = (part_of(folder, number) for number in range(-(-wanted // PART)))
    return list(takewhile(Path.exists, every))


def read_episodes(folder: Path) -> tuple[About, Episodes]:
    """All episodes of a folder. Raises DataError if parts are missing or damaged, or do not belong together."""
    about = read_about(folder)
    files = parts_in(folder, about.episodes)
    if len(files) * PART < about.episodes:
        done = f"{min(len(files) * PART, about.episodes):,} of {about.episodes:,} episodes"
        raise DataError(f"{folder} holds {done}; `chopmix record` with the same options goes on")
    parts = [read_part(file) for file in files]
    for number, (file, part) in enumerate(zip(files, parts)):
        if len(part) != (wanted := min(PART, about.episodes - number * PART)):
            raise DataError(f"{file} holds {len(part)} episodes; {wanted} belong there")
        if (other := _kinds(part)) != _kinds(parts[0]):
            name = next(iter(other ^ _kinds(parts[0])))[0]
            raise DataError(f"{file} differs from {files[0].name} in {name!r}; all parts must hold the same arrays")
    return about, Episodes(
        observations={n: np.concatenate([each.observations[n] for each in parts]) for n in parts[0].observations},
        texts={name: [text for each in parts for text in each.texts[name]] for name in parts[0].texts},
        **{
            n: np.concatenate([getattr(p, n) for p in parts])
            for n in ("actions", "rewards", "lengths", "ended", "seeds", "given_up")
        },
    )


def _kinds(part: Episodes) -> set[tuple[str, Any]]:
    """The names of a part's arrays and texts, with the shape of one step."""
    arrays = {"actions": part.actions, **part.observations}
    return {(name, each.shape[1:]) for name, each in arrays.items()} | {(name, "text") for name in part.texts}
