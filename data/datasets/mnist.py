"""MNIST: handwritten digits of 28 x 28 pixels, read from `mnist/` in the data root."""

from __future__ import annotations

from operator import itemgetter

from ..samples import Columns, Renamed, Samples
from ..shards import ShardDataset

WORDS = "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"
"""The names of the digits."""


class Mnist(ShardDataset):
    """Columns: `image` (28 x 28, grey), `label` 0 to 9, and `word` (`zero` to `nine`). If there is no `val.tar.gz`, a
    tenth of train is used for validation (selected by the hash of the key)."""

    folder = "mnist"
    sources = {"image": "png", "label": "cls"}

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.sources, "word")

    def read(self, *files: str) -> Samples:
        samples = super().read(*files)
        readers = {name: itemgetter(name) for name in self.sources} | {"word": word}
        return Renamed(samples, readers, dict(zip(readers, (*self.sources, "label"))))


def word(row: Columns) -> str:
    """Returns the word for the `label` of a sample."""
    return WORDS[row["label"]]
