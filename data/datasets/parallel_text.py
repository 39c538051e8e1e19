"""User text files that correspond line by line, for example the same sentences in several languages, or questions and
answers."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from ...files.reading import DataError, read_lines, utf8
from ..fingerprint import Fingerprint
from ..sample_dataset import OwnFiles
from ..samples import ByColumn, Columns, Samples, picked


class Lines(ByColumn):
    """The samples of text files that correspond line by line. Sample n contains line n of every file; the columns are
    the keys of `files`. A sample is bad if one of its lines is empty or contains only spaces. Raises DataError if the
    files have different numbers of lines, or no lines."""

    def __init__(self, files: Mapping[str, Path]):
        self.files = files
        self.texts = {name: lines_of(path) for name, path in files.items()}
        counts = {name: len(lines) for name, lines in self.texts.items()}
        if len(set(counts.values())) > 1:
            sizes = ", ".join(f"{files[name]} has {count:,} lines" for name, count in counts.items())
            shortest = min(counts.values())
            raise DataError(f"{sizes}: line {shortest + 1:,} has no partner in {files[min(counts, key=counts.get)]}")
        if not min(counts.values()):
            raise DataError(f"{next(iter(files.values()))} has no lines")
        self.keys = [f"line {number + 1}" for number in range(min(counts.values()))]

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint(self.texts).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        row = {name: lines[number] for name, lines in self.texts.items()}
        for name, text in row.items():
            if not text.strip():
                raise DataError(f"{self.files[name]}, line {number + 1} is empty or contains only spaces")
        return picked(row, names)


def lines_of(path: Path) -> list[str]:
    """Returns the lines of a file without line ends, and without a byte order mark. Raises DataError if a line is not
    UTF-8."""
    lines = []
    for number, line in enumerate(read_lines(path), start=1):
        text = utf8(line, str(path), number)
        lines.append(text.removeprefix("\ufeff" if number == 1 else "").rstrip("\r\n"))
    return lines


class ParallelText(OwnFiles):
    """`train`, `val` and `test` each map column names to files: `{en: train.en, de: train.de}`. Files with the ending
    `.gz` or `.xz` are decompressed while they are read. All files of a split must have the same number of lines.
    Without `val`, about a tenth of the lines of train (at least one) is used for validation, selected by the hash of
    the line number. Raises ValueError if `val` or `test` has other columns than `train`."""

    def __init__(
        self, *, train: dict[str, str], val: dict[str, str] | None = None, test: dict[str, str] | None = None
    ):  # fmt: skip
        super().__init__(train, val, test)
        self.columns = tuple(train)
        for name, files in (("val", val), ("test", test)):
            if files is not None and files.keys() != train.keys():
                raise ValueError(f"{name} has the columns {', '.join(files)}, but train has {', '.join(train)}")

    def read(self, where: Mapping[str, str]) -> Samples:
        return Lines({name: Path(os.path.expanduser(path)) for name, path in where.items()})
