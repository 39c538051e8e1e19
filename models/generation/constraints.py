"""Constraints restrict the next id of a row of text, in sampling and in beam search."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Constraint:
    """Base class: a rule for the next id of a row. `a & b` allows an id if both constraints allow it."""

    def allowed(self, ids: Sequence[int], size: int) -> Bool[Tensor, "v"] | None:
        """Returns a mask of `size` values, where `size` is the number of ids in the vocabulary: True if the id may
        follow `ids`. `ids` are the ids generated in the row so far, without the prompt. None: all ids are allowed."""
        raise NotImplementedError

    def __and__(self, other: Constraint | None) -> Constraint:
        return self if other is None else Both(self, other)


@dataclass(frozen=True)
class Both(Constraint):
    """Allows an id if both constraints allow it."""

    first: Constraint
    second: Constraint

    def allowed(self, ids, size):
        masks = [mask for mask in (self.first.allowed(ids, size), self.second.allowed(ids, size)) if mask is not None]
        return (masks[0] & masks[-1]) if masks else None


@dataclass(frozen=True)
class Forbidden(Constraint):
    """Excludes the ids in `ids` at all positions."""

    ids: tuple[int, ...]

    def allowed(self, ids, size):
        mask = torch.ones(size, dtype=torch.bool)
        mask[list(self.ids)] = False
        return mask


@dataclass(frozen=True)
class Forced(Constraint):
    """Fixes the ids at some positions. `at` maps a position of the generated text, from 0, to an id: with `Forced({0:
    7})` the first generated id is 7."""

    at: Mapping[int, int]

    def allowed(self, ids, size):
        return only((self.at[len(ids)],), size) if len(ids) in self.at else None


@dataclass(frozen=True)
class Length(Constraint):
    """Allows texts of exactly `length` ids, which are neither in `ends` nor in `never`. The next id is one of
    `ends`."""

    length: int
    ends: tuple[int, ...]
    never: tuple[int, ...] = ()

    def allowed(self, ids, size):
        if len(ids) >= self.length:
            return only(self.ends, size)
        return ~only((*self.ends, *self.never), size)


def only(ids: Collection[int], size: int) -> Bool[Tensor, "v"]:
    """Returns a mask of `size` values that is True at the positions `ids`."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(ids)] = True
    return mask


@dataclass(frozen=True)
class Allowed:
    """Applies a constraint (None: all ids are allowed) to the scores of rows. After one of the ids `ends` has occurred
    in a row, all ids are allowed in this row."""

    constraint: Constraint | None = None
    ends: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        """Whether there is a constraint."""
        return self.constraint is not None

    def of(self, scores: Float[Tensor, "b v"], rows: Sequence[Sequence[int]]) -> Float[Tensor, "b v"]:
        """Returns the scores with minus infinity for ids that are not allowed. `rows` has the ids that were generated
        so far in each row of `scores`. Raises ValueError if no id is allowed in a row."""
        masks = [self._mask(ids, scores.shape[1]) for ids in rows]
        return scores.masked_fill(~torch.stack(masks).to(scores.device), -torch.inf)

    def _mask(self, ids: Sequence[int], size: int) -> Bool[Tensor, "v"]:
        mask = None if self.ends.intersection(ids) else self.constraint.allowed(ids, size)
        if mask is None:
            return torch.ones(size, dtype=torch.bool)
        if not mask.any():
            text = f"no id is allowed after the {len(ids)} ids generated so far"
            raise ValueError(f"{text}, which end in {list(ids)[-8:]}")
        return mask
