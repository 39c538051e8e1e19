"""The data set `episodes`: windows of episodes of an agent in an environment, as columns with times."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ....data.fingerprint import Fingerprint
from ....data.key_hashes import chosen_for_val, split_by_hash
from ....data.sample_dataset import SampleDataset
from ....data.samples import ByColumn, Columns, picked
from ....files.reading import DataError
from ..recording.episodes import Episodes as Played
from ..recording.making import EPISODE_COLUMNS
from ..recording.sources import Source
from ..steps import step_problems

MOST_RANGES = 1_000_000
"""The largest number of ranges of returns (`balance`)."""


class Windows(ByColumn):
    """Windows of episodes. Sample i contains the steps of the episode number `episodes[i]` from the step `firsts[i]`
    on, at most `window` steps (0: all remaining steps)."""

    def __init__(self, played: Played, episodes: Int[np.ndarray, "s"], firsts: Int[np.ndarray, "s"], window: int):
        self.played, self.episodes, self.firsts, self.window = played, episodes, firsts, window

    @property
    def keys(self) -> Sequence[str]:
        return _Keys(self)

    def __len__(self) -> int:
        return len(self.episodes)

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        played, episode, first = self.played, int(self.episodes[number]), int(self.firsts[number])
        remaining = int(played.lengths[episode]) - first
        count = min(remaining, self.window) if self.window else remaining
        steps = slice(int(played.starts[episode]) + first, int(played.starts[episode]) + first + count)
        seconds = np.arange(first, first + count, dtype=np.float32)

        timed = {**played.observations, "return": played.to_go, "reward": played.rewards, "action": played.actions}
        row: dict[str, Any] = {
            name: {"values": array[steps], "seconds": seconds} for name, array in picked(timed, names).items()
        }
        row |= {name: texts[episode] for name, texts in picked(played.texts, names).items()}
        others = {"step": {"values": seconds, "seconds": seconds}, "score": float(played.values[episode])}
        return row | picked(others, names)

    def fingerprint(self, labels=()) -> str:
        played = self.played
        arrays = {"actions": played.actions, "rewards": played.rewards, "lengths": played.lengths}
        return Fingerprint(self.episodes, self.firsts, self.window, arrays, played.observations, played.texts).hex

    def balanced(self, bins: int) -> Float[np.ndarray, "s"]:
        """Returns sampling weights for which returns from each of `bins` ranges of equal width are drawn equally
        often."""
        values = self.played.values[self.episodes]
        low, high = values.min(), values.max()
        numbers = np.minimum((values - low) / max(high - low, 1e-9) * bins, bins - 1).astype(int)
        weights = 1.0 / np.bincount(numbers, minlength=bins)[numbers]
        return weights / weights.sum()


class _Keys(Sequence[str]):
    def __init__(self, windows: Windows):
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[index] for index in range(*number.indices(len(self)))]
        return f"episode {self.windows.episodes[number]} from step {self.windows.firsts[number]}"


class Episodes(SampleDataset):
    """Windows of at most `window` steps (0: complete episodes) of the episodes of a source. The source is the option
    `of`: `{use: recorded, environment: CartPole-v1, policy: script, noise: [0, 1], episodes: 300}`, `{use: folder,
    path: DIR}` or `{use: minari, path: DIR}`. A tenth of the episodes, chosen by hash, is the validation split. In
    training a window may begin at any step; windows of the validation split do not overlap.

    Some columns have a value and a time (the number of the step) for each step: `return` (the return to go), `reward`,
    `action`, `step`, and each observation by its name. A single observation is named `observation`; an observation with
    the name of another column, such as `step`, is named `observation.step`. Other columns have one value per episode:
    observed texts, such as a `mission`, and `score`, the return of the episode. `best` is the share of the training
    episodes that is kept, which are those with the highest returns. `balance` is a number of ranges of equal width;
    returns from each range are drawn equally often in training (0: no balancing)."""

    splits = ("train", "val")
    renamable = False

    def __init__(self, *, of: Callable[[], Source], window: int = 0, best: float = 1.0, balance: int = 0):
        if window < 0 or not 0 <= balance <= MOST_RANGES or not 0 < best <= 1:
            limits = f"window must be at least 0, balance from 0 to {MOST_RANGES:,}, best more than 0 and at most 1"
            raise ValueError(f"{limits}, not window {window}, balance {balance}, best {best}")
        self.source, self.window, self.best, self.balance = of(), window, best, balance

    @classmethod
    def problems(cls, options, wiring):
        yield from step_problems(wiring, wiring.columns)

    def check(self, wiring):
        columns = {name: column for name, column in wiring.columns.items() if column in self.columns}
        for path, message in step_problems(wiring, columns):
            raise DataError(f"{'.'.join(map(str, path))}: {message}")

    @property
    def options(self) -> dict[str, object]:
        options = {name: getattr(self, name) for name in ("window", "best", "balance")}
        return {"of": [type(self.source).__name__, self.source.options]} | options

    @property
    def columns(self) -> tuple[str, ...]:
        spaces = self.source.about.spaces
        return (*EPISODE_COLUMNS, *spaces.observations, *spaces.texts)

    @cached_property
    def played(self) -> Played:
        """All episodes."""
        return self.source.read()

    def about(self) -> dict[str, object]:
        values = self.played.values
        figures = {"mean": values.mean(), "best": values.max(), "worst": values.min()}
        returns = {name: round(float(value), 4) for name, value in figures.items()}
        return {
            "episodes": len(values),
            "environment": self.source.about.environment,
            "settings": self.source.about.options,
            "returns": returns,
        }

    def command(self, run: str, columns: Collection[str]) -> str | None:
        target = f" --target {self.played.values.max():g}" if "return" in columns else ""
        return f"chopmix play {run}{target} --record first.gif"

    def chosen(self, split: str) -> Int[np.ndarray, "e"]:
        """Returns the indices of the episodes in a split. Raises DataError if the split is empty."""
        keys = [f"{self.source.about.environment} {number}" for number in range(len(self.played))]
        for_val = chosen_for_val(keys)
        numbers = np.flatnonzero([("val" if key == for_val else split_by_hash(key)) == split for key in keys])
        if split == "train" and self.best < 1:
            count = max(1, round(self.best * len(numbers)))
            numbers = np.sort(numbers[np.argsort(-self.played.values[numbers], kind="stable")[:count]])
        if not len(numbers):
            raise DataError(f"none of the {len(keys)} episodes is in the split {split!r}")
        return numbers

    def open(self, split: str) -> Windows:
        self.check_split(split)
        episodes = self.chosen(split)
        lengths = self.played.lengths[episodes]
        stride = 1 if split == "train" else self.window
        firsts = [np.arange(0, length, stride) if self.window else np.zeros(1, int) for length in lengths]
        windows = Windows(
            self.played, np.repeat(episodes, [len(steps) for steps in firsts]), np.concatenate(firsts), self.window
        )
        if self.balance and split == "train":
            windows.weights = windows.balanced(self.balance)
        return windows
