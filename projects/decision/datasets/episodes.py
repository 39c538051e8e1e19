"""What agents did in an environment: windows of episodes, whose returns, observations and actions stand in time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ....data.base import chosen_for_val, split_by_hash
from ....data.fingerprint import Fingerprint
from ....data.samples import ByColumn, Columns, SampleDataset, picked
from ....files.reading import DataError
from ..environments.episodes import Episodes as Played
from ..environments.making import OWN
from ..environments.sources import Source
from ..steps import step_problems


class Windows(ByColumn):
    """Parts of episodes: each is the steps from `firsts` on of one of the `episodes`, at most `window` of them (0:
    all that are left)."""

    def __init__(self, played: Played, episodes: Int[np.ndarray, "s"], firsts: Int[np.ndarray, "s"], window: int):
        self.played, self.episodes, self.firsts, self.window = played, episodes, firsts, window

    @property
    def keys(self) -> Sequence[str]:
        return _Keys(self)

    def __len__(self) -> int:
        return len(self.episodes)

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        played, episode, first = self.played, int(self.episodes[number]), int(self.firsts[number])
        left = int(played.lengths[episode]) - first
        taken = min(left, self.window) if self.window else left
        where = slice(int(played.starts[episode]) + first, int(played.starts[episode]) + first + taken)
        seconds = np.arange(first, first + taken, dtype=np.float32)

        timed = {**played.observations, "return": played.to_go, "reward": played.rewards, "action": played.actions}
        found: dict[str, Any] = {
            name: {"values": each[where], "seconds": seconds} for name, each in picked(timed, names).items()
        }
        found |= {name: texts[episode] for name, texts in picked(played.texts, names).items()}
        own = {"step": {"values": seconds, "seconds": seconds}, "score": float(played.values[episode])}
        return found | picked(own, names)

    def fingerprint(self, labels=()) -> str:
        played = self.played
        arrays = {"actions": played.actions, "rewards": played.rewards, "lengths": played.lengths}
        return Fingerprint(self.episodes, self.firsts, self.window, arrays, played.observations, played.texts).hex

    def balanced(self, bins: int) -> Float[np.ndarray, "s"]:
        """How often each sample is drawn so that returns of `bins` equally wide ranges are drawn equally often."""
        values = self.played.values[self.episodes]
        low, high = values.min(), values.max()
        own = np.minimum((values - low) / max(high - low, 1e-9) * bins, bins - 1).astype(int)
        weights = 1.0 / np.bincount(own, minlength=bins)[own]
        return weights / weights.sum()


class _Keys(Sequence[str]):
    def __init__(self, windows: Windows):
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        return f"episode {self.windows.episodes[number]} from step {self.windows.firsts[number]}"


class Episodes(SampleDataset):
    """Windows of at most `window` steps of the episodes `of` a source (0: whole episodes): `{use: recorded,
    environment: CartPole-v1, policy: script, noise: [0, 1], episodes: 300}`, `{use: folder, path: DIR}` or `{use:
    minari, path: DIR}`. A tenth of the episodes validates, by hash. In training a window begins at any step; those for
    validation do not overlap.

    Columns, of t steps: `return` (what is still to come), `reward`, `action`, `step`, and whatever is observed by its
    name (`observation` where there is only one thing; `observation.step` for one called as a column above), each with
    its seconds, one a step; texts that are observed, such as a `mission`; `score`, the return of the whole episode.
    `best` keeps that share of the training episodes, those of the highest returns; `balance` draws returns from so many
    equally wide ranges equally often (0: as they are).
    """

    splits = ("train", "val")
    renamable = False

    def __init__(self, *, of: Callable[[], Source], window: int = 0, best: float = 1.0, balance: int = 0):
        if window < 0 or balance < 0 or not 0 < best <= 1:
            told = f"window {window}, balance {balance}, best {best}"
            raise ValueError(f"window and balance must be at least 0, best more than 0 and at most 1; they are {told}")
        self.source, self.window, self.best, self.balance = of(), window, best, balance

    @classmethod
    def problems(cls, options, wiring):
        yield from step_problems(wiring, wiring.columns)

    def check(self, wiring):
        columns = {name: column for name, column in wiring.columns.items() if column in self.columns}
        for path, told in step_problems(wiring, columns):
            raise DataError(f"{'.'.join(map(str, path))}: {told}")

    @property
    def options(self) -> dict[str, object]:
        own = {name: getattr(self, name) for name in ("window", "best", "balance")}
        return {"of": [type(self.source).__name__, self.source.options]} | own

    @property
    def columns(self) -> tuple[str, ...]:
        spaces = self.source.about.spaces
        return (*OWN, *spaces.observations, *spaces.texts)

    @cached_property
    def played(self) -> Played:
        """All episodes."""
        return self.source.read()

    def about(self) -> dict[str, object]:
        values = self.played.values
        told = {"mean": values.mean(), "best": values.max(), "worst": values.min()}
        returns = {name: round(float(value), 4) for name, value in told.items()}
        return {
            "episodes": len(values),
            "environment": self.source.about.environment,
            "settings": self.source.about.options,
            "returns": returns,
        }

    def chosen(self, split: str) -> Int[np.ndarray, "e"]:
        """The episodes of a split, by number. Raises DataError where there is none."""
        keys = [f"{self.source.about.environment} {number}" for number in range(len(self.played))]
        alone = chosen_for_val(keys)
        found = np.flatnonzero([("val" if key == alone else split_by_hash(key)) == split for key in keys])
        if split == "train" and self.best < 1:
            kept = max(1, round(self.best * len(found)))
            found = np.sort(found[np.argsort(-self.played.values[found], kind="stable")[:kept]])
        if not len(found):
            raise DataError(f"none of the {len(keys)} episodes is in {split!r}")
        return found

    def open(self, split: str) -> Windows:
        self.check_split(split)
        episodes = self.chosen(split)
        lengths = self.played.lengths[episodes]
        apart = 1 if split == "train" else self.window
        firsts = [np.arange(0, length, apart) if self.window else np.zeros(1, int) for length in lengths]
        found = Windows(
            self.played, np.repeat(episodes, [len(each) for each in firsts]), np.concatenate(firsts), self.window
        )
        if self.balance and split == "train":
            found.weights = found.balanced(self.balance)
        return found
