"""MNIST: handwritten digits of 28 x 28 pixels, from `mnist/` in the data root; a tenth of train validates, by hash."""

from __future__ import annotations

from operator import itemgetter

from ..samples import Columns, Renamed, Samples
from ..shards import ShardDataset

WORDS = "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"
"""The names of the digits."""


class Mnist(ShardDataset):
    """Columns: `image` (28 x 28, grey), `label` 0 to 9, and `word`, `zero` to `nine`."""

    folder = "mnist"
    sources = {"image": "png", "label": "cls"}

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.sources, "word")

    def read(self, *files: str) -> Samples:
        found = super().read(*files)
        reading = {name: itemgetter(name) for name in self.sources} | {"word": word}
        return Renamed(found, reading, dict(zip(reading, (*self.sources, "label"))))


def word(row: Columns) -> str:
    """The name of a sample's digit."""
    return WORDS[row["label"]]
