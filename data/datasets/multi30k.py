"""Multi30k: 29,000 image captions in English and German (Elliott et al. 2016, arXiv:1605.00459), from `multi30k/` in
the data root."""

from __future__ import annotations

from ...files.reading import DataError
from ..base import data_root
from ..samples import SampleDataset, Samples
from .parallel_text import Lines

NAMES = {"train": "train", "val": "val", "test": "test2016"}


class Multi30k(SampleDataset):
    """Columns: `en`, `de`. The splits are the data set's own: 29,000 pairs to train, 1,014 to validate, and the 1,000
    of the 2016 test. Files: `train.en.gz`, `train.de.gz`, ..., `test2016.de.gz`, a sentence a line."""

    splits = tuple(NAMES)
    columns = ("en", "de")

    def open(self, split: str) -> Samples:
        self.check_split(split)
        folder = data_root() / "multi30k"
        files = {column: folder / f"{NAMES[split]}.{column}.gz" for column in self.columns}
        missing = [str(path) for path in files.values() if not path.exists()]
        if missing:
            needed = "put the sentences there, one a line, packed with gzip"
            raise DataError(f"{' and '.join(missing)} are not there: {needed}")
        return Lines(files)
