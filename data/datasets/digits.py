"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, in the package itself. Split by hash of the
number."""

from __future__ import annotations

import gzip
import io
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ...files.reading import DataError, read_bytes
from ..base import share_by_hash
from ..samples import Listed, SampleDataset, Samples


class Digits(SampleDataset):
    """Columns: `image` (8, 8) with values from 0 to 255, `label` 0 to 9. Eight tenths train, one validates, one
    tests."""

    splits = ("train", "val", "test")
    columns = ("image", "label")

    @cached_property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """All images as uint8 (n, 8, 8), and their labels (n). Raises DataError where scikit-learn is not installed."""
        found = find_spec("sklearn")  # not imported: with scipy and pandas that takes longer than all else of a start
        if found is None:
            raise DataError("the images are in the package scikit-learn: pip install scikit-learn")
        file = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
        table = np.loadtxt(io.BytesIO(gzip.decompress(read_bytes(file))), delimiter=",")
        return np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), table[:, -1].astype(int)

    def numbers(self, split: str) -> list[int]:
        """The numbers of the images that belong to a split."""
        low, high = {"train": (0.2, 1.0), "val": (0.0, 0.1), "test": (0.1, 0.2)}[split]
        return [n for n in range(len(self.images[1])) if low <= share_by_hash(f"digit {n}") < high]

    def open(self, split: str) -> Samples:
        self.check_split(split)
        images, labels = self.images
        numbers = self.numbers(split)
        rows = [{"image": images[n], "label": int(labels[n])} for n in numbers]
        return Listed([f"digit {n}" for n in numbers], rows)
