"""Keys of samples that are computed when they are needed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .key_hashes import share_by_hash


def shares_of(keys: Sequence[str]) -> np.ndarray:
    """Returns `share_by_hash` of each key (n)."""
    return keys.shares() if isinstance(keys, Keys) else np.fromiter(map(share_by_hash, keys), np.float64, len(keys))


class Keys(Sequence[str]):
    """Base class of keys that are computed when they are needed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def shares(self) -> np.ndarray:
        """Returns `share_by_hash` of each key (n)."""
        return np.fromiter(map(share_by_hash, self), np.float64, len(self))


@dataclass(frozen=True, eq=False)
class ChosenKeys(Keys):
    """The keys with these numbers, in this order."""

    keys: Sequence[str]
    numbers: Sequence[int] | np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> str:
        return self.keys[int(self.numbers[number])]

    def shares(self) -> np.ndarray:
        return shares_of(self.keys)[np.asarray(self.numbers, dtype=np.int64)]
