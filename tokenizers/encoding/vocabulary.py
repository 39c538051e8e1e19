"""Vocabularies: ids and what they stand for, so that an item can be generated id by id, and written to a file.

A text is one kind of item that is ids (`tokenizers/encoding/`); a picture of few colours, a score and a molecule are
others. Tasks, sampling and beam search see ids alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from ...models.generation.constraints import Constraint
from ..media.lettering import lettered


class Unit(NamedTuple):
    """In what an item is measured, so that models with other tokens can be compared: the bytes of a text."""

    metric: str
    """The name of the metric: `bits_per_byte`."""
    told: str
    """Its unit, for messages: `bits per byte of text`."""
    in_bits: bool = True
    """Whether the metric is in bits, else in nats."""


BITS_PER_BYTE = Unit("bits_per_byte", "bits per byte of text")


class Vocabulary:
    """Base of all vocabularies. A subclass gives `size`, `start`, `specials`, `encode` and `restore`, and what of the
    rest differs."""

    unit: ClassVar[Unit] = BITS_PER_BYTE
    endings: ClassVar[tuple[str, ...]] = ()
    """The endings of the files that an item can be written to, such as `.png`; the first is the usual one."""
    rate: int | None = None
    """Samples per second of items that are sounds."""
    size: int
    """How many ids there are, special ones and gaps included."""
    start: int
    """The special id put before every item, with which generation begins."""
    specials: Mapping[int, str]
    """The printable names of the special ids."""
    frame: Mapping[str, Any] = {}
    """How items begin and end, where that is not just `start`: `end`, `ends`, `opening`, `before`, `after` and `roles`
    as the properties of these names; of texts also `prompt`: ids before one that is continued, and `strip`: whether
    white space around generated text is removed."""

    @property
    def length(self) -> int | None:
        """How many ids every item has; None: items differ."""
        return None

    @property
    def end(self) -> int:
        """The special id that ends a generated item."""
        return self.frame.get("end", self.start)

    @property
    def ends(self) -> frozenset[int]:
        """All special ids that end a generated item; most models have one."""
        return frozenset(self.frame.get("ends", (self.end,)))

    @property
    def opening(self) -> tuple[int, ...]:
        """The ids that follow `start` in every generated item (Whisper's language and task)."""
        return tuple(self.frame.get("opening", ()))

    @property
    def before(self) -> tuple[int, ...]:
        """The ids before an item that is only read: BERT's [CLS]."""
        return tuple(self.frame.get("before", (self.start,)))

    @property
    def after(self) -> tuple[int, ...]:
        """The ids after an item that is only read: BERT's [SEP]."""
        return tuple(self.frame.get("after", ()))

    @property
    def roles(self) -> Mapping[str, int]:
        """Special ids by their role in tasks: `mask`, `sentinel_0`, ..."""
        return self.frame.get("roles", {})

    def encode(self, item: Any) -> list[int]:
        """The ids of an item, without special ones. Raises ValueError for one that the vocabulary cannot hold."""
        raise NotImplementedError

    def restore(self, ids: Iterable[int]) -> Any:
        """The item of ids, as `encode` takes it; special ids are left out. Raises ValueError for an id outside the
        vocabulary, and where the ids are no item."""
        raise NotImplementedError

    def units(self, item: Any) -> float:
        """The size of an item in its unit: the divisor of the metric `unit.metric`."""
        raise NotImplementedError

    def content(self, item: Any, ending: str) -> bytes:
        """The content of a file that holds the item; `ending` is one of `endings`."""
        raise NotImplementedError

    def picture(self, ids: Sequence[int], mask: int) -> UInt8[Tensor, "c h w"]:
        """A draft as a picture, in which some ids are still the `mask`: by default its ids, as they are shown."""
        return lettered("".join("░" if id == mask else self.shown(id) for id in ids))

    @property
    def well_formed(self) -> Constraint | None:
        """Which ids may follow which, so that only whole items are generated; None: any may."""
        return None

    def shown(self, id: int) -> str:
        """How one id is shown: `<|image|>` for a special one, else the number."""
        return self.specials.get(id, str(id))

    @cached_property
    def plain(self) -> np.ndarray:
        """Whether each id stands for a part of an item, not for its frame: booleans (v,)."""
        kept = {*self.specials, *self.before, *self.after, self.start, self.end}
        return np.array([number not in kept for number in range(self.size)])

    @property
    def used(self) -> np.ndarray:
        """Whether each id stands for anything; the others are gaps in the numbering: booleans (v,)."""
        return np.ones(self.size, dtype=bool)

    def restored(self, ids: Sequence[int]) -> dict[str, Any]:
        """What an answer for JSON tells of an item with these ids: of a text {"text": ...}, else {"ids": [...]}."""
        return {"ids": [id for id in ids if self.plain[id]]}

    def known(self, ids: Iterable[int]) -> list[int]:
        """The ids as a list. Raises ValueError for one outside the vocabulary."""
        found = [int(i) for i in ids]
        if wrong := [i for i in found if not 0 <= i < self.size]:
            raise ValueError(f"id {wrong[0]} is outside {self.title}, which has {self.size} ids")
        return found

    @property
    def title(self) -> str:
        """What it is called in messages: `encoding 'bytes'`."""
        return "the vocabulary"

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 (hex) of all that decides which ids an item has."""
        known = sorted((field.name, repr(getattr(self, field.name))) for field in fields(self))  # in whatever order
        return hashlib.sha256(repr((type(self).__name__, known)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CodedVocabulary(Vocabulary):
    """Base of the vocabularies whose first ids all stand for parts of items; behind them the id that starts and ends an
    item, then those of the roles `own`. A subclass gives `start`, which is also how many parts there are."""

    kind: ClassVar[str]
    """What an item is, as the id that starts one is shown: `image` as `<|image|>`."""
    own: tuple[str, ...] = ()
    """Roles of special ids, such as `mask`."""

    @property
    def size(self) -> int:
        return self.start + 1 + len(self.own)

    @property
    def before(self) -> tuple[int, ...]:
        return ()

    @property
    def roles(self) -> dict[str, int]:
        return {name: self.start + 1 + number for number, name in enumerate(self.own)}

    @property
    def specials(self) -> dict[int, str]:
        return {self.start: f"<|{self.kind}|>"} | {id: f"<|{name}|>" for name, id in self.roles.items()}
