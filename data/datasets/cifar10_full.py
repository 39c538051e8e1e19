"""The complete CIFAR-10 in its binary version: 50,000 colour photographs of 32 x 32 pixels for training, 10,000 for
test.

A record has 3,073 bytes: the class, then the red, green and blue values, each row by row (Krizhevsky 2009,
https://www.cs.toronto.edu/~kriz/cifar.html). The Python version of CIFAR-10 is not supported, because it is a pickle,
which can execute code.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...files.reading import DataError
from ..base import data_root
from ..fingerprint import hash_files
from ..sample_dataset import SampleDataset, share
from ..samples import ByColumn, Columns, Samples, picked

ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
SIDE, CLASSES = 32, 10
RECORD = 1 + 3 * SIDE * SIDE
"""The size in bytes of one image and its class."""


class Cifar10Full(SampleDataset):
    """Columns: `image` (32 x 32, colour) and `label` 0 to 9, the number of the class in alphabetical order (airplane,
    automobile, ...).

    The files are in `cifar10_full/cifar-10-batches-bin/` in the data root. With `download: true`, they are downloaded
    (162 MB) if this folder does not exist. A tenth of train is used for validation (selected by the hash of the key).
    """

    splits = ("train", "val", "test")
    columns = ("image", "label")

    def __init__(self, *, download: bool = False):
        self.download = download

    def addresses(self) -> list[str]:
        return [ADDRESS] if self.download else []

    def open(self, split: str) -> Samples:
        self.check_split(split)
        records = Records(tuple(self.folder() / name for name in FILES["test" if split == "test" else "train"]))
        return records if split == "test" else share(records, split)

    def folder(self) -> Path:
        """Returns the folder of the files. If the folder does not exist and `download` is true, it is downloaded.
        Raises DataError if `download` is false or the download fails."""
        root = data_root() / "cifar10_full"
        folder = root / "cifar-10-batches-bin"
        if folder.is_dir():
            return folder
        if not self.download:
            raise DataError(f"there is no folder {folder}: unpack {ADDRESS} there, or set data.dataset.download=true")
        from torchvision.datasets.utils import download_and_extract_archive

        try:
            root.mkdir(parents=True, exist_ok=True)
            download_and_extract_archive(ADDRESS, str(root), md5=MD5)
        except (OSError, RuntimeError) as error:  # no network, a read-only folder, a wrong checksum
            raise DataError(f"{folder} is missing and {ADDRESS} cannot be downloaded: {error}") from error
        return folder


@dataclass(frozen=True)
class Records(ByColumn):
    """The records of files, one file after another. The files are mapped into memory. Raises DataError, at the first
    access, if a file is missing, has a size that is not a multiple of RECORD, or contains a class above 9."""

    files: tuple[Path, ...]

    @cached_property
    def tables(self) -> list[np.ndarray]:
        """One uint8 array (number of records, RECORD) per file."""
        return [table_of(file) for file in self.files]

    @cached_property
    def _rows(self) -> list[tuple[int, int]]:
        return [(file, row) for file, table in enumerate(self.tables) for row in range(len(table))]

    @cached_property
    def keys(self) -> Sequence[str]:
        return [f"{self.files[file].stem} {row}" for file, row in self._rows]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        file, row = self._rows[number]
        record = self.tables[file][row]
        parts = {"image": lambda: np.array(record[1:]).reshape(3, SIDE, SIDE).transpose(1, 2, 0),
                 "label": lambda: int(record[0])}  # fmt: skip
        return {name: read() for name, read in picked(parts, names).items()}

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return hash_files(self.files)


def table_of(file: Path) -> np.ndarray:
    """Returns the records of a file, mapped into memory, as uint8 (number of records, RECORD). Raises DataError if the
    file is missing, has a size that is not a multiple of RECORD, or contains a class above 9."""
    try:
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; it belongs to {ADDRESS}") from None
    if not size or size % RECORD:
        raise DataError(f"{file} has {size} bytes, not a multiple of the record size {RECORD}: it is cut short")
    table = np.memmap(file, np.uint8, "r").reshape(-1, RECORD)
    if (highest := int(table[:, 0].max())) >= CLASSES:
        raise DataError(f"{file} contains the class {highest}; possible in CIFAR-10: 0 to {CLASSES - 1}")
    return table
