"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, in the package itself. Split by hash of the
number."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..base import share_by_hash
from ..samples.dataset import Listed, SampleDataset, Samples


class Digits(SampleDataset):
    """Columns: `image` (8, 8) with values from 0 to 255, `label` 0 to 9. Eight tenths train, one validates, one
    tests."""

    splits = ("train", "val", "test")
    columns = ("image", "label")

    @cached_property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """All images as uint8 (n, 8, 8), and their labels (n)."""
        from sklearn.datasets import load_digits

        found = load_digits()
        return np.round(found.images * (255 / 16)).astype(np.uint8), found.target

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
