"""Constraints: which ids may follow those that a row has so far, in sampling and in beam search alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Constraint:
    """Base: a rule about the next id of a row. `a & b` allows what both allow."""

    def allowed(self, ids: Sequence[int], size: int) -> Bool[Tensor, "v"] | None:
        """Which of `size` ids may follow the `ids` that were generated in a row so far, without its prompt; None: any
        may."""
        raise NotImplementedError

    def __and__(self, other: Constraint | None) -> Constraint:
        return self if other is None else Both(self, other)


@dataclass(frozen=True)
class Both(Constraint):
    """What two constraints allow."""

    first: Constraint
    second: Constraint

    def allowed(self, ids, size):
        found = [each for each in (self.first.allowed(ids, size), self.second.allowed(ids, size)) if each is not None]
        return (found[0] & found[-1]) if found else None


@dataclass(frozen=True)
class Forbidden(Constraint):
    """None of these ids, anywhere."""

    ids: tuple[int, ...]

    def allowed(self, ids, size):
        found = torch.ones(size, dtype=torch.bool)
        found[list(self.ids)] = False
        return found


@dataclass(frozen=True)
class Forced(Constraint):
    """The id at each of these places, counted from 0: `Forced({0: 7})` begins with id 7."""

    at: Mapping[int, int]

    def allowed(self, ids, size):
        return only((self.at[len(ids)],), size) if len(ids) in self.at else None


@dataclass(frozen=True)
class Length(Constraint):
    """Exactly `length` ids, none of which ends the item, and then one of `ends`; none of `never` at all."""

    length: int
    ends: tuple[int, ...]
    never: tuple[int, ...] = ()

    def allowed(self, ids, size):
        if len(ids) >= self.length:
            return only(self.ends, size)
        return ~only((*self.ends, *self.never), size)


def only(ids: Collection[int], size: int) -> Bool[Tensor, "v"]:
    """True at these ids, of `size` in all."""
    found = torch.zeros(size, dtype=torch.bool)
    found[list(ids)] = True
    return found


@dataclass(frozen=True)
class Allowed:
    """Which ids rows may be continued with: those of a constraint (None: any), until one of `ends` has ended a row."""

    constraint: Constraint | None = None
    ends: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        """Whether there is a constraint."""
        return self.constraint is not None

    def of(self, scores: Float[Tensor, "b v"], rows: Sequence[Sequence[int]]) -> Float[Tensor, "b v"]:
        """The scores, minus infinity where an id is not allowed behind the ids `rows` that were generated so far.
        Raises ValueError where a row may not be continued at all."""
        masks = [self._mask(ids, scores.shape[1]) for ids in rows]
        return scores.masked_fill(~torch.stack(masks).to(scores.device), -torch.inf)

    def _mask(self, ids: Sequence[int], size: int) -> Bool[Tensor, "v"]:
        found = None if self.ends.intersection(ids) else self.constraint.allowed(ids, size)
        if found is None:
            return torch.ones(size, dtype=torch.bool)
        if not found.any():
            raise ValueError(f"nothing may follow the {len(ids)} ids generated so far, which end in {list(ids)[-8:]}")
        return found
