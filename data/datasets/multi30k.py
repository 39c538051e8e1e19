"""Multi30k: 29,000 image captions in English and German (Elliott et al. 2016, arXiv:1605.00459), read from `multi30k/`
in the data root."""

from __future__ import annotations

from ...files.reading import DataError
from ..base import data_root
from ..sample_dataset import SampleDataset
from ..samples import Samples
from .parallel_text import Lines

NAMES = {"train": "train", "val": "val", "test": "test2016"}


class Multi30k(SampleDataset):
    """Columns: `en`, `de`. The splits are the official ones: 29,000 pairs of sentences for training, 1,014 for
    validation, and 1,000 of the year 2016 for test. The files are `train.en.gz`, `train.de.gz`, ..., `test2016.de.gz`,
    with one sentence per line."""

    splits = tuple(NAMES)
    columns = ("en", "de")

    def open(self, split: str) -> Samples:
        self.check_split(split)
        folder = data_root() / "multi30k"
        files = {column: folder / f"{NAMES[split]}.{column}.gz" for column in self.columns}
        missing = [str(path) for path in files.values() if not path.exists()]
        if missing:
            needed = "add the sentences, one per line, compressed with gzip"
            raise DataError(f"missing: {' and '.join(missing)}; {needed}")
        return Lines(files)
