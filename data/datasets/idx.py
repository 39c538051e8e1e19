"""Images and labels in IDX files, the format of MNIST (`train-images-idx3-ubyte.gz`)."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...files.reading import DataError, read_packed
from ..fingerprint import Fingerprint, file_fingerprint
from ..sample_dataset import OwnFiles
from ..samples import ByColumn, Columns, Samples, picked

IMAGES, LABELS = "images-idx3", "labels-idx1"
"""The parts of the names of the two files of a split."""


class Idx(OwnFiles):
    """`train`, `val` and `test` are files of images, `.../train-images-idx3-ubyte`, possibly with the ending `.gz`. The
    labels are in the file of the same name with `labels-idx1`. Without `val`, about a tenth of the samples of train is
    used for validation. Columns: `image` (height, width) and `label` (a number)."""

    columns = ("image", "label")

    def __init__(self, *, train: str, val: str | None = None, test: str | None = None):
        super().__init__(train, val, test)

    def read(self, where: str) -> Samples:
        images = Path(os.path.expanduser(where))
        if IMAGES not in images.name:
            raise DataError(f"{images}: the name of a file of images must contain {IMAGES!r}")
        labels = images.with_name(images.name.replace(IMAGES, LABELS))
        samples = IdxSamples(images, read_idx(images, 3), read_idx(labels, 1))
        if len(samples.images) != len(samples.labels) or not len(samples.images):
            raise DataError(f"{images} has {len(samples.images)} images, {labels} has {len(samples.labels)} labels")
        return samples


@dataclass(frozen=True, eq=False)
class IdxSamples(ByColumn):
    """The samples of one pair of files: `images` (samples, height, width) and `labels` (samples)."""

    path: Path
    images: np.ndarray
    labels: np.ndarray

    @cached_property
    def keys(self) -> list[str]:
        return [f"{self.path.name} {number}" for number in range(len(self.images))]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        return picked({"image": self.images[number], "label": int(self.labels[number])}, names)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint("Idx", file_fingerprint(self.path), self.labels).hex


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Returns the array of an IDX file of bytes with this number of dimensions. Raises DataError if the file does not
    exist, or is not such a file."""
    content = read_packed(path)
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - start != math.prod(shape):
        raise DataError(f"{path} is not a complete IDX file of bytes with {dimensions} dimension(s)")
    return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(shape)
