"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels. The images are part of the package scikit-learn."""

from __future__ import annotations

import gzip
import io
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ...files.reading import DataError, read_bytes
from ..key_hashes import share_by_hash
from ..sample_dataset import SampleDataset
from ..samples import Listed, Samples


class Digits(SampleDataset):
    """Columns: `image` (8, 8) with values from 0 to 255, and `label` 0 to 9. About 80 % of the images are in train, 10
    % in val and 10 % in test, selected by the hash of the image's number."""

    splits = ("train", "val", "test")
    columns = ("image", "label")

    @cached_property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """All images as uint8 (n, 8, 8), and their labels (n). Raises DataError if scikit-learn is not installed."""
        package = find_spec("sklearn")  # the import would load scipy and pandas, which is slow
        if package is None:
            raise DataError("the images are in the package scikit-learn: pip install scikit-learn")
        file = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
        table = np.loadtxt(io.BytesIO(gzip.decompress(read_bytes(file))), delimiter=",")
        return np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), table[:, -1].astype(int)

    def numbers(self, split: str) -> list[int]:
        """Returns the indices in `images` of the images of a split."""
        low, high = {"train": (0.2, 1.0), "val": (0.0, 0.1), "test": (0.1, 0.2)}[split]
        return [n for n in range(len(self.images[1])) if low <= share_by_hash(f"digit {n}") < high]

    def open(self, split: str) -> Samples:
        self.check_split(split)
        images, labels = self.images
        numbers = self.numbers(split)
        rows = [{"image": images[n], "label": int(labels[n])} for n in numbers]
        return Listed([f"digit {n}" for n in numbers], rows)
