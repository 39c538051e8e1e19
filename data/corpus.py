"""Text corpora, read in windows of tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..files.reading import DataError
from ..models.batch import IGNORED, Batch, Chunks, SetPlan
from ..models.tokens import PADDING, Tokens, plain_tokens
from .sampler import SampleIndex, Shuffled
from .skipped import Skipped
from .split import Split
from .token_file import TokenFiles


class Windows(Shuffled):
    """A sampler of windows: batches of `rows` windows of `context` ids each, from a stream of `length` ids. The number
    of a window is the index of its first id. In every epoch, the windows are shifted by a random offset, and each
    window is read once, in random order. (nanoGPT draws the start of each window independently.)

    Example: an epoch over 100 ids with a context of 10 has 9 windows, which start at offset + 0, 10, 20, ..., 80 with
    an offset from 0 to 9. At least one id follows the last window.
    """

    def __init__(self, length: int, context: int, rows: int):
        super().__init__(max(1, (length - context) // context), rows)
        self.length, self.context = length, context

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the indices at which the windows of an epoch start, in the order of reading."""
        random = np.random.default_rng([seed, epoch])
        order, room = random.permutation(self.count), self.length - self.count * self.context
        return order * self.context + random.integers(min(self.context, room))


@dataclass(frozen=True, kw_only=True)
class StreamSplit(Split):
    """One split of a corpus as windows of `context` tokens; each token predicts the next one. A global batch has `rows`
    windows, and the model reads them as the input with the name `input`.

    With `separate`, each document (or part of a document) in a window is a separate sample; otherwise a window is one
    sample. Example: the documents "ab" and "c" as bytes, each after the start token 256, in a window of 4 tokens
    (`context`) that starts at index 0:

        values     256  97  98  256
        next_ids    97  98 256   99
        index        0   1   2    3     separate:  0  1  2  0
        sample       1   1   1    1     separate:  1  1  1  2

    A corpus that is shorter than a window can be evaluated, but not trained on. Raises DataError if it has fewer than
    two tokens.
    """

    answerable: ClassVar[bool] = False
    file: TokenFiles
    context: int
    input: str = "text"
    separate: bool = False
    rows: int = 1
    skipped: Skipped = field(default_factory=lambda: Skipped.of(""), repr=False)
    _plain: dict[int, Tokens] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if len(self.file.ids) < 2:
            raise DataError(f"{self._size} are too few; a token predicts the next one")

    @property
    def _size(self) -> str:
        """The number of tokens, for messages."""
        return f"{self.file.header.dataset} {self.name}: {len(self.file.ids)} tokens"

    @property
    def unit(self) -> str:
        return f"rows of {self.context}"

    @cached_property
    def sampler(self) -> Windows:
        """The sampler, which selects the windows of each step."""
        return Windows(len(self.file.ids), self.context, self.rows)

    def check_training(self) -> None:
        if len(self.file.ids) < self.context + 1:
            needed = f"one window of the context ({self.context}) and the token after it"
            raise DataError(f"{self._size} are too few for {needed}; use more text or a smaller model.context")

    def __len__(self) -> int:
        """The number of windows in one training epoch."""
        return self.sampler.count

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        self.check_training()
        return self.sampler.plan(seed, step)

    @property
    def fingerprint(self) -> str:
        """The hash (`source_digest`) of the data set, its options, the split and its text."""
        return self.file.header.source

    def all(self) -> list[SampleIndex]:
        """Returns the windows of an evaluation of the complete split: each token except the first is a target exactly
        once."""
        return [SampleIndex(0, 0, start) for start in range(0, len(self.file.ids) - 1, self.context)]

    def read(
        self, indices: Sequence[SampleIndex], *, training: bool = False, inputs: Collection[str] | None = None
    ) -> Batch:
        """Returns windows as the rows of one set, with the ids (b, context). A window that extends beyond the end of
        the split is padded. The seeds of a row, for tasks that mask tokens at random, are the run's seed, the epoch,
        and the number of the window. `inputs` is ignored, because there is only one input."""
        n, starts = self.context, [sample.number for sample in indices]
        rows = [torch.from_numpy(self.window(start).astype(np.int64)) for start in starts]
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
        batch = Batch(main=SetPlan(tokens=tokens, chunks={self.input: chunks}, seeds=tuple(map(tuple, indices))))
        return batch if training else replace(batch, units={self.input: self.bytes_of(next_ids)})

    def window(self, start: int) -> np.ndarray:
        """Returns the ids of a window and the id after it: at most `context` + 1 ids."""
        return self.file.ids[start : start + self.context + 1]

    def bytes_of(self, next_ids: Int[Tensor, "b n"]) -> float:
        """Returns the approximate number of UTF-8 bytes of the targets in `next_ids`: the bytes of the split, times the
        share of its targets that are in `next_ids`."""
        return self.file.bytes * int((next_ids != IGNORED).sum()) / (len(self.file.ids) - 1)

    def _descriptors(self, starts: Sequence[int], real: Tensor) -> tuple[Tokens, Int[Tensor, "b n"]]:
        """Returns (tokens, index) for rows with padding or several documents: the descriptors of the tokens, and the
        index of each token in its sample (b, n). `starts` contains the index in the stream of each row's first token;
        `real` is false for padding."""
        plain, n = plain_tokens(len(starts), self.context), self.context
        positions = np.asarray(starts)[:, None] + np.arange(n)
        begins = np.zeros(positions.shape, dtype=bool)
        begins[:, 0] = True
        if self.separate:
            next_start = np.searchsorted(self.file.starts, positions)  # there may be millions of documents
            begins |= self.file.starts[np.minimum(next_start, len(self.file.starts) - 1)] == positions
        column = np.broadcast_to(np.arange(n), positions.shape)
        index = column - np.maximum.accumulate(np.where(begins, column, 0), axis=1)
        sample = torch.from_numpy(begins.flatten().cumsum().reshape(positions.shape)) * real
        tokens = Tokens(input=(sample != PADDING).long(), sample=sample, item=sample, position=plain.position)
        return tokens, torch.from_numpy(np.ascontiguousarray(index))


@dataclass(frozen=True, kw_only=True)
class TextsSplit(StreamSplit):
    """Texts in memory, for an evaluation. No window contains ids of two texts. In each text, every id except the first
    is a target exactly once; a text of one id has no target."""

    starts: Sequence[int]
    """The index of the first id of each text in the concatenated ids."""

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], **options: Any) -> TextsSplit:
        """Returns texts, given as lists of ids, as a split. `options` are those of `StreamSplit` except `file`."""
        ends = np.cumsum([0, *map(len, texts)]).tolist()
        ids = np.array([id for text in texts for id in text], dtype=np.int64)
        header = SimpleNamespace(dataset="texts", source="texts in memory")
        file = SimpleNamespace(ids=ids, starts=np.array(ends[:-1], dtype=np.int64), bytes=0, header=header)
        return cls(file=file, starts=ends[:-1], **options)

    def __post_init__(self):
        """Texts without a target are possible."""

    def owner_of(self, index: int) -> int:
        """Returns the number of the text that contains the id with this index."""
        return bisect_right(self.starts, index) - 1

    @property
    def owners(self) -> int:
        """The number of texts."""
        return len(self.starts)

    def end_of(self, text: int) -> int:
        """Returns the index after the last id of a text."""
        return self.starts[text + 1] if text + 1 < len(self.starts) else len(self.file.ids)

    def all(self) -> list[SampleIndex]:
        """Returns the windows of all texts."""
        return [
            SampleIndex(0, 0, first)
            for number, start in enumerate(self.starts)
            for first in range(start, self.end_of(number) - 1, self.context)
        ]

    def window(self, start: int) -> np.ndarray:
        return super().window(start)[: self.end_of(self.owner_of(start)) - start]
