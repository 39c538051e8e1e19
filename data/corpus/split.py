"""A corpus as one stream of tokens, read in windows: the batches of language modelling, each a pure function of (seed,
step)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ...models.batch import IGNORED, Batch, Chunks, SetPlan
from ...models.tokens import PADDING, Tokens, plain_tokens
from ...tokenizers.files.reading import DataError
from ..sampler import Place, Shuffled
from ..split import Split
from ..unread import Unread
from .token_file import TokenFile


class Windows(Shuffled):
    """Batches of `rows` windows of `context` ids each from a stream of `length` ids; a window's number is the index of
    its first id. Every epoch shifts the windows by a random offset and reads each once, in a random order (nanoGPT
    draws every start independently).

    Of 100 ids and a context of 10 an epoch reads 9 windows, from offset + 0, 10, 20, ..., 80, with an offset of 0 to 9:
    the last window, too, has an id after it.
    """

    def __init__(self, length: int, context: int, rows: int):
        super().__init__(max(1, (length - context) // context), rows)
        self.length, self.context = length, context

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """The first id of each of an epoch's windows, in their order."""
        random = np.random.default_rng([seed, epoch])
        order, room = random.permutation(self.count), self.length - self.count * self.context
        return order * self.context + random.integers(min(self.context, room))


@dataclass(frozen=True, kw_only=True)
class StreamSplit(Split):
    """One split of a corpus as windows of `context` tokens, of which each is to predict the next; `rows` windows are a
    global batch, read as the input `input`.

    With `separate` every document (or part of one) in a window is a sample of its own; else the window is one sample.
    The documents "ab" and "c" as bytes, behind the start token 256, in a window of 4 (context) from 0:

        values     256  97  98  256
        next_ids    97  98 256   99
        index        0   1   2    3     separate:  0  1  2  0
        sample       1   1   1    1     separate:  1  1  1  2

    Raises DataError for a corpus shorter than one window and the token after it.
    """

    file: TokenFile
    context: int
    input: str = "text"
    separate: bool = False
    rows: int = 1
    unread: Unread = field(default_factory=lambda: Unread.of(""), repr=False)
    _plain: dict[int, Tokens] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if len(self.file.ids) < self.context + 1:
            there = f"{self.file.header.dataset} {self.name}: {len(self.file.ids)} tokens"
            needed = f"one window of the context ({self.context}) and the token after it"
            raise DataError(f"{there} are too few for {needed}; use more text or a smaller model.context")

    @property
    def unit(self) -> str:
        return f"rows of {self.context}"

    @cached_property
    def sampler(self) -> Windows:
        """Which windows a step reads."""
        return Windows(len(self.file.ids), self.context, self.rows)

    def __len__(self) -> int:
        """Windows in one training epoch."""
        return self.sampler.count

    def plan(self, seed: int, step: int) -> list[Place]:
        return self.sampler.plan(seed, step)

    @property
    def fingerprint(self) -> str:
        """The hash of the dataset, its options, the split and its text (`source_digest`)."""
        return self.file.header.source

    def all(self) -> list[Place]:
        """The windows of a whole evaluation: every token but the first is a target exactly once."""
        return [Place(0, 0, start) for start in range(0, len(self.file.ids) - 1, self.context)]

    def read(self, places: Sequence[Place], *, training: bool = False, inputs: Collection[str] | None = None) -> Batch:
        """These windows as rows of one set, ids (b, context); a row that reaches past the split's end is padded. The
        seeds of a row (for a task that hides tokens at random) are its run's seed, epoch and window. `inputs` is
        ignored: there is one."""
        n, starts = self.context, [place.number for place in places]
        rows = [torch.from_numpy(self.file.ids[start : start + n + 1].astype(np.int64)) for start in starts]
        ids = torch.full((len(rows), n + 1), IGNORED)
        for row, window in zip(ids, rows):
            row[: len(window)] = window
        next_ids = ids[:, 1:].contiguous()
        values = ids[:, :-1].clamp(min=0)
        if not self.separate and (next_ids[:, -1] != IGNORED).all():
            tokens = self._plain.setdefault(len(rows), plain_tokens(len(rows), n))
            index = torch.arange(n)
        else:
            tokens, index = self._descriptors(starts, next_ids != IGNORED)
        chunks = Chunks(values=values, index=index, next_ids=next_ids)
        batch = Batch(main=SetPlan(tokens=tokens, chunks={self.input: chunks}, seeds=tuple(map(tuple, places))))
        return batch if training else replace(batch, units={self.input: self.bytes_of(next_ids)})

    def bytes_of(self, next_ids: Int[Tensor, "b n"]) -> float:
        """The UTF-8 bytes of the split, times the share of its targets that these windows hold."""
        return self.file.bytes * int((next_ids != IGNORED).sum()) / (len(self.file.ids) - 1)

    def _descriptors(self, starts: Sequence[int], real: Tensor) -> tuple[Tokens, Int[Tensor, "b n"]]:
        """Descriptors of rows with padding or several documents, and each token's index in its document's part."""
        plain, n = plain_tokens(len(starts), self.context), self.context
        place = np.asarray(starts)[:, None] + np.arange(n)
        begins = np.zeros(place.shape, dtype=bool)
        begins[:, 0] = True
        if self.separate:
            next_start = np.searchsorted(self.file.starts, place)  # binary: there may be millions of documents
            begins |= self.file.starts[np.minimum(next_start, len(self.file.starts) - 1)] == place
        column = np.broadcast_to(np.arange(n), place.shape)
        index = column - np.maximum.accumulate(np.where(begins, column, 0), axis=1)
        sample = torch.from_numpy(begins.flatten().cumsum().reshape(place.shape)) * real
        tokens = Tokens(input=(sample != PADDING).long(), sample=sample, item=sample, position=plain.position)
        return tokens, torch.from_numpy(np.ascontiguousarray(index))
