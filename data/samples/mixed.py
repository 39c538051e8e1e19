"""Several data sets as one: samples of all of them, numbered one source after another."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..base import Dataset, text_of
from ..fingerprint import Fingerprint
from .dataset import ByColumn, Columns, Listed, Samples, picked


@dataclass(frozen=True)
class Source:
    """One data set in a mixture."""

    name: str
    samples: Samples
    share: float
    """Its share of what is trained on, relative to those of the others."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """New names of its columns, by their old ones."""


@dataclass(frozen=True)
class MixedSamples(ByColumn):
    """The samples of several sources: of two with three and two samples 0 to 2 are the first's, 3 and 4 the second's.
    Keys begin with the source's name: `mnist: train-7`."""

    mixture: Sequence[Source]
    by_tokens: bool = False
    """Whether shares are of the tokens, else of the samples."""

    @cached_property
    def starts(self) -> list[int]:
        """The number of each source's first sample, and at the end that of all samples."""
        return [0, *itertools.accumulate(len(source.samples) for source in self.mixture)]

    @cached_property
    def keys(self) -> Sequence[str]:
        return [f"{source.name}: {key}" for source in self.mixture for key in source.samples.keys]

    def __len__(self) -> int:
        return self.starts[-1]

    def _source(self, number: int) -> tuple[Source, int]:
        """The source of a sample, and the sample's number there."""
        which = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.mixture[which], number - self.starts[which]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        source, own = self._source(number)
        row = source.samples.row(own, None if names is None else self._own(source, names))
        return picked({source.columns.get(name, name): value for name, value in row.items()}, names)

    def caches(self, number: int) -> bool:
        source, own = self._source(number)
        return source.samples.caches(own)

    def range_of(self, name: str) -> range:
        """The numbers of one source's samples."""
        which = [source.name for source in self.mixture].index(name)
        return range(self.starts[which], self.starts[which + 1])

    def damaged(self) -> Iterator[tuple[int, str]]:
        for start, source in zip(self.starts, self.mixture):
            for number, why in source.samples.damaged():
                yield start + number, why

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        parts = [
            (source.name, source.samples.fingerprint(self._own(source, labels)), dict(source.columns))
            for source in self.mixture
        ]
        return Fingerprint("Mixed", *map(list, parts)).hex

    def _own(self, source: Source, labels: Collection[str]) -> list[str]:
        """The columns of a source under its own names."""
        old = {new: name for name, new in source.columns.items()}
        return [old.get(label, label) for label in labels]


def pieces_of(dataset: Dataset, split: str, characters: int) -> Samples:
    """A text corpus as samples with the column `text`: its documents cut into pieces of at most so many characters, at
    the last line's end in a piece where there is one."""
    keys, rows = [], []
    for document in dataset.documents(split):
        text, start = text_of(document), 0
        while start < len(text):
            end = start + characters
            line = text.rfind("\n", start, end) + 1
            end = line if start < line < len(text) and end < len(text) else end
            keys.append(f"{document.key} from {start}")
            rows.append({"text": text[start:end]})
            start = end
    return Listed(keys, rows)
