"""Episodes: the observations, actions and rewards of an agent, in memory and in a folder of files.

FOLDER/episodes.json              `About`: the environment, the policy, and the spaces of observations and actions
FOLDER/part-00000.safetensors     the first 100 episodes, concatenated; `lengths` has the number of steps of each
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
"""The name of the environment if the recording of the episodes does not contain the name."""
PART = 100
"""The number of episodes per file."""
OBSERVATION = "observation."
"""The prefix of the names of observation arrays in a file."""


class Episode(NamedTuple):
    """One episode of t steps."""

    observations: Mapping[str, np.ndarray]
    """The observations before each action by name, with shape (t, ...)."""
    texts: Mapping[str, str]
    """The observed texts by name, for example a mission."""
    actions: np.ndarray
    """Categories with shape (t,), or numbers with shape (t, ...)."""
    rewards: Float[np.ndarray, "t"]
    """The reward after each action."""
    ended: bool = True
    """True: the environment terminated the episode. False: the episode was truncated after the maximum number of
    steps."""
    seed: int = 0
    """The seed with which the environment was reset."""
    given_up: int = 0
    """The number of start states on which the agent gave up before this episode."""

    @property
    def value(self) -> float:
        """The return: the sum of the rewards."""
        return float(np.sum(self.rewards))


def episode_of(steps: list[Observed], actions: list, rewards: list[float], ended: bool, seed: int) -> Episode:
    """Returns an episode with these observations, actions and rewards, one of each per step. Raises DataError if a text
    changes from step to step, or if an array of the first step is missing or has another shape at a later step."""
    for number, step in enumerate(steps):
        if step.texts != steps[0].texts:
            names = sorted({*steps[0].texts, *step.texts})
            name = next(name for name in names if step.texts.get(name) != steps[0].texts.get(name))
            raise DataError(f"the text {name!r} changes at step {number}; it must stay the same in an episode")
        for name, array in steps[0].arrays.items():
            if name not in step.arrays or step.arrays[name].shape != array.shape:
                other = step.arrays[name].shape if name in step.arrays else "no value"
                shapes = f"observation {name!r} has the shape {array.shape} at step 0, but {other} at step {number}"
                raise DataError(f"{shapes}; it must stay the same")
    observations = {name: np.stack([step.arrays[name] for step in steps]) for name in steps[0].arrays}
    array = np.stack(list(map(np.asarray, actions)))
    return Episode(observations, steps[0].texts, array, np.array(rewards), ended, seed)


class About(Record):
    """The content of the file `episodes.json`."""

    format: int
    environment: str
    options: dict[str, Any]
    policy: str
    noise: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    spaces: Spaces
    episodes: Annotated[int, Field(ge=1)]
    """The number of episodes when the recording is finished."""


@dataclass(frozen=True)
class Episodes:
    """One or more episodes. The n steps of all episodes are concatenated; `lengths` contains the number of steps of
    each episode. Raises DataError if an episode has no steps, if the actions, the rewards or an observation do not have
    n steps, or if a reward is not finite."""

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
        steps = sum(self.lengths.tolist())  # Python integers, since int64 could overflow
        arrays = {"actions": self.actions, "rewards": self.rewards} | dict(self.observations)
        for name, array in arrays.items():
            if len(array) != steps:
                raise DataError(f"{name!r} holds {len(array)} steps, but the episodes have {steps}")
        if (bad := np.flatnonzero(~np.isfinite(self.rewards))).size:
            raise DataError(f"{self.location(int(bad[0]))}: the reward {self.rewards[bad[0]]} is not finite")

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Int[np.ndarray, "e"]:
        """The index of the first step of each episode among the n steps."""
        return np.cumsum(self.lengths) - self.lengths

    def location(self, step: int) -> str:
        """Returns the episode and the step in this episode as text, `episode 3, step 12`. `step` is an index among the
        n steps of all episodes."""
        episode = int(np.searchsorted(self.starts, step, side="right")) - 1
        return f"episode {episode}, step {step - int(self.starts[episode])}"

    def check_actions(self, space: Space) -> None:
        """Raises DataError if an action is not finite or is outside the limits of the space."""
        if (step := first_outside(self.actions, space)) is not None:
            limits = (0, space.size - 1) if space.size is not None else (space.low, space.high)
            low, high = (list(limit) if isinstance(limit, tuple) else limit for limit in limits)
            possible = f"{low} to {high}" if low is not None else "finite numbers"
            action = self.actions[step].tolist()
            raise DataError(f"{self.location(step)}: action {action} is outside the space: {possible}")

    @cached_property
    def to_go(self) -> Float[np.ndarray, "n"]:
        """The return to go at each step: the sum of the rewards from this step to the end of its episode."""
        returns = np.zeros(len(self.rewards))
        for start, length in zip(self.starts, self.lengths):
            returns[start : start + length] = np.cumsum(self.rewards[start : start + length][::-1])[::-1]
        return returns

    @cached_property
    def values(self) -> Float[np.ndarray, "e"]:
        """The return (sum of rewards) of each episode."""
        return self.to_go[self.starts]

    def __getitem__(self, number: int) -> Episode:
        steps = slice(int(self.starts[number]), int(self.starts[number] + self.lengths[number]))
        texts = {name: values[number] for name, values in self.texts.items()}
        observations = {name: array[steps] for name, array in self.observations.items()}
        ended, seed, given_up = bool(self.ended[number]), int(self.seeds[number]), int(self.given_up[number])
        return Episode(observations, texts, self.actions[steps], self.rewards[steps], ended, seed, given_up)


def joined(episodes: Sequence[Episode]) -> Episodes:
    """Returns one or more episodes as one `Episodes` object."""
    first = episodes[0]
    return Episodes(
        observations={n: np.concatenate([e.observations[n] for e in episodes]) for n in first.observations},
        texts={name: [e.texts[name] for e in episodes] for name in first.texts},
        actions=np.concatenate([e.actions for e in episodes]),
        rewards=np.concatenate([e.rewards for e in episodes]),
        lengths=np.array([len(e.rewards) for e in episodes]),
        ended=np.array([e.ended for e in episodes]), seeds=np.array([e.seed for e in episodes]),
        given_up=np.array([e.given_up for e in episodes]),
    )  # fmt: skip


def part_of(folder: Path, number: int) -> Path:
    """Returns the path of the file with the number `number`."""
    return folder / f"part-{number:05}.safetensors"


def write_part(folder: Path, number: int, episodes: Sequence[Episode]) -> None:
    """Writes one file with the episodes. If writing fails, raises OSError with the path of the file; no incomplete file
    remains."""
    part = joined(episodes)
    arrays = {"actions": part.actions, "rewards": part.rewards.astype(np.float64), "lengths": part.lengths,
              "ended": part.ended, "seeds": part.seeds, "given_up": part.given_up}  # fmt: skip
    arrays |= {OBSERVATION + name: array for name, array in part.observations.items()}
    path = part_of(folder, number)
    partial = partial_name(path)
    try:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        tensors |= {f"text.{name}": as_bytes(texts) for name, texts in part.texts.items()}
        write_tensors(partial, tensors)
        partial.replace(path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def as_bytes(texts: Sequence[str]) -> torch.Tensor:
    """Returns texts as the bytes of a JSON list, because safetensors stores only numbers."""
    return torch.frombuffer(bytearray(json.dumps(list(texts)).encode()), dtype=torch.uint8)


def read_about(folder: Path) -> About:
    """Returns the content of `episodes.json` of a folder. Raises DataError if the file does not exist, cannot be read,
    or has another format number."""
    file = folder / "episodes.json"
    if not os.path.exists(file):
        raise DataError(f"{folder} contains no episodes: there is no episodes.json. `chopmix record` writes one")
    about = read_record(file, About)
    if about.format != FORMAT:
        raise DataError(f"{file}: format {about.format} is not supported; this version reads format {FORMAT}")
    return about


def read_part(path: Path) -> Episodes:
    """Returns the episodes of one file. Raises DataError if the file cannot be read, or if an array is missing or has
    another type or shape than `write_part` writes."""
    tensors = read_tensors(path)
    try:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        arrays.setdefault("given_up", np.zeros(arrays["lengths"].shape, np.int64))  # earlier versions did not write it
        texts = {name[5:]: parse_json(a.tobytes(), name) for name, a in arrays.items() if name[:5] == "text."}
        check_types(arrays, texts)
        return Episodes(
            observations={n[len(OBSERVATION) :]: array for n, array in arrays.items() if n.startswith(OBSERVATION)},
            texts=texts,
            **{name: arrays[name] for name in ("actions", "rewards", "lengths", "seeds", "given_up")},
            ended=arrays["ended"].astype(bool),
        )  # fmt: skip
    except KeyError as error:
        raise DataError(f"{path} is not a part of recorded episodes: {error} is missing") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a part of recorded episodes: {error}") from None


def check_types(arrays: Mapping[str, np.ndarray], texts: Mapping[str, Any]) -> None:
    """Raises DataError if there are no episodes, if an array has another type or shape than `write_part` writes, or if
    the number of texts differs from the number of episodes. Raises KeyError if the array `lengths`, `seeds`,
    `given_up`, `ended` or `rewards` is missing."""
    episodes = arrays["lengths"].size
    if not episodes:
        raise DataError("it contains no episodes")
    for name, kinds in {"lengths": "iu", "seeds": "iu", "given_up": "iu", "ended": "biu"}.items():
        if arrays[name].dtype.kind not in kinds or arrays[name].shape != (episodes,):
            raise DataError(f"{name!r} must be {'booleans' if 'b' in kinds else 'integers'}, one per episode")
    for name, values in texts.items():
        if not isinstance(values, list) or len(values) != episodes or not all(isinstance(v, str) for v in values):
            raise DataError(f"'text.{name}' must be texts, one per episode")
    if arrays["rewards"].dtype.kind not in "iuf" or arrays["rewards"].ndim != 1:
        raise DataError("'rewards' must be numbers, one per step")
    for name, array in arrays.items():
        if (name == "actions" or name.startswith(OBSERVATION)) and (array.dtype.kind not in "biuf" or not array.ndim):
            raise DataError(f"{name!r} must be numbers, one row per step")


def parts_in(folder: Path, count: int) -> list[Path]:
    """Returns the existing files of a recording of `count` episodes, in order, up to the first missing file."""
    files = (part_of(folder, number) for number in range(-(-count // PART)))
    return list(takewhile(Path.exists, files))


def read_episodes(folder: Path) -> tuple[About, Episodes]:
    """Returns the content of `episodes.json` and all episodes of a folder. Raises DataError if a file is missing or
    cannot be read, if it has another number of episodes than expected, or if the files contain different arrays."""
    about = read_about(folder)
    files = parts_in(folder, about.episodes)
    if len(files) * PART < about.episodes:
        done = f"{min(len(files) * PART, about.episodes):,} of {about.episodes:,} episodes"
        raise DataError(f"{folder} contains {done}; `chopmix record` with the same options continues the recording")
    parts = [read_part(file) for file in files]
    for number, (file, part) in enumerate(zip(files, parts)):
        if len(part) != (expected := min(PART, about.episodes - number * PART)):
            raise DataError(f"{file} contains {len(part)} episodes instead of {expected}")
        if (shapes := _shapes(part)) != _shapes(parts[0]):
            name = next(iter(shapes ^ _shapes(parts[0])))[0]
            raise DataError(f"{file} differs from {files[0].name} in {name!r}; all parts must contain the same arrays")
    return about, Episodes(
        observations={n: np.concatenate([part.observations[n] for part in parts]) for n in parts[0].observations},
        texts={name: [text for part in parts for text in part.texts[name]] for name in parts[0].texts},
        **{
            n: np.concatenate([getattr(p, n) for p in parts])
            for n in ("actions", "rewards", "lengths", "ended", "seeds", "given_up")
        },
    )


def _shapes(part: Episodes) -> set[tuple[str, Any]]:
    """Returns the names of the arrays and texts of a file as a set of pairs (name, shape of one step). The shape of a
    text is `text`."""
    arrays = {"actions": part.actions, **part.observations}
    return {(name, array.shape[1:]) for name, array in arrays.items()} | {(name, "text") for name in part.texts}
