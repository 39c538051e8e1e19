"""Data sets of Hugging Face's `datasets` library: from the hub, a folder, or a parquet, csv or json file."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from ...files.reading import DataError
from ..base import cache_folder, undivided
from ..fingerprint import Fingerprint
from ..samples import BYTES, ByColumn, Columns, SampleDataset, Samples, share
from ..tables import READERS, check_arrow, check_once, check_table, local_path, saved_files, split_files


class HuggingFace(SampleDataset):
    """`path` is a name on the hub (`uoft-cs/cifar10`), a folder that `save_to_disk` wrote, a folder of data files, or
    one file (parquet, csv, tsv, json, jsonl, arrow). `subset` is the configuration, if there are several.

    `train`, `val` and `test` are the names of the splits in the data set. Without `val`, a tenth of train is used for
    validation (selected by the hash of the row number). The columns are those of the data set (`data.columns` maps
    inputs to columns); images and sounds are not decoded. Only data files are read: no code of a data set is executed,
    no file is unpickled, and no address in a data set is opened.
    """

    def __init__(
        self, *, path: str, subset: str | None = None, train: str = "train", val: str | None = None,
        test: str | None = None,
    ):  # fmt: skip
        self.path, self.subset, self.train, self.val, self.test = path, subset, train, val, test
        self.splits = ("train", "val") if test is None else ("train", "val", "test")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the training split."""
        return tuple(self.table(self.train).column_names)

    def open(self, split: str) -> Samples:
        self.check_split(split)
        name = getattr(self, split) or self.train
        table, files = undecoded(self.table(name))
        rows = Rows([f"{name} {number}" for number in range(len(table))], table, files, class_names(table))
        if self.val is not None or split == "test":
            return rows
        chosen = share(rows, split)
        return replace(rows, keys=chosen.keys, table=table.select(chosen.numbers))

    def addresses(self) -> list[str]:
        return [] if os.path.exists(self.location) else [f"hf://datasets/{self.path}"]

    def whole(self) -> HuggingFace:
        return undivided(self, self.path) if len(self.tables) == 1 else self

    @property
    def location(self) -> Path:
        """`path` as an absolute local path, which may not exist."""
        return Path(os.path.abspath(os.path.expanduser(self.path)))

    def table(self, name: str) -> Any:
        """Returns the table of a split, by its name in the data set. Raises DataError if it does not exist."""
        if name not in self.tables:
            raise DataError(f"{self.path} has no split {name!r}; possible: {', '.join(self.tables)}")
        return self.tables[name]

    @cached_property
    def tables(self) -> Mapping[str, Any]:
        """The table of every split, by its name in the data set. Raises DataError if the library is not installed or
        the data set cannot be loaded."""
        try:
            import datasets
        except ImportError:
            command = "pip install 'chopmix[hub]'"
            raise DataError(f"the data set hugging_face needs the library datasets: {command}") from None
        location = self.location
        try:
            if os.path.exists(location / "dataset_dict.json") or os.path.exists(location / "state.json"):
                for file in saved_files(location):
                    check_once(file, check_arrow)
                tables = datasets.load_from_disk(local_path(location))
            else:
                tables = self.read_files(location if os.path.exists(location) else downloaded(self.path))
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise (
                error if isinstance(error, DataError) else DataError(f"{self.path} cannot be loaded: {error}")
            ) from error
        return tables if isinstance(tables, Mapping) else {"train": tables}

    def read_files(self, path: Path) -> Any:
        """Returns the tables of a data file, or of the data files in a folder."""
        import datasets

        if os.path.isfile(path):
            reader, files = reader_of(path), {"train": [local_path(path)]}
        else:
            reader, files = split_files(path, self.subset)
        for name in chain.from_iterable(files.values()):
            check_once(Path(name), check_table)
        if not sys.stderr.isatty():  # the library would print its progress there
            datasets.disable_progress_bars()
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # the library would report each download to the hub
        names = chain.from_iterable(files.values())
        tabs = {"sep": "\t"} if all(name.lower().endswith(".tsv") for name in names) else {}
        return datasets.load_dataset(reader, data_files=files, cache_dir=str(cache_folder() / "tables"), **tabs)


@dataclass(frozen=True)
class Rows(ByColumn):
    """The rows of a table. `files` contains the columns with images or sounds, as {bytes, path}; `names` contains the
    names of the classes for each column of class numbers."""

    keys: Sequence[str]
    table: Any
    files: Collection[str]
    names: Mapping[str, Sequence[str]]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        columns = tuple(name for name in self.table.column_names if names is None or name in names)
        if columns not in self._narrowed:  # a row of this table does not read the images of other columns
            self._narrowed[columns] = self.table.select_columns(list(columns))
        row = self._narrowed[columns][number] if columns else {}
        return {name: self.converted(name, value) for name, value in row.items()}

    @cached_property
    def _narrowed(self) -> dict[tuple[str, ...], Any]:
        """A cache of tables that contain only some of the columns; the key is the tuple of column names."""
        return {}

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        """Covers all values if the table has at most BYTES bytes; otherwise see `Samples.fingerprint`."""
        if self.table.data.nbytes > BYTES:
            return super().fingerprint(labels)
        fingerprint = Fingerprint(list(self.keys), {name: list(names) for name, names in self.names.items()})
        for batch in self.table.iter(1000):
            external = {name: [Path(f["path"]) for f in batch[name] if f and f["path"] and not f["bytes"]]
                        for name in self.files}  # fmt: skip
            fingerprint.add(batch, external)
        return fingerprint.hex

    def numbered(self, name: str) -> Iterator[tuple[int, Any]]:
        """See `Samples.numbered`; many rows are read at once. Raises DataError if the column does not exist."""
        columns = self.table.column_names
        if name not in columns:
            possible = f"possible: {', '.join(columns)} (data.columns selects the columns)"
            raise DataError(f"there is no column {name!r}; {possible}")
        for number, row in enumerate(self.table.select_columns([name])):
            if (value := self.converted(name, row[name])) is not None:
                yield number, value

    def converted(self, name: str, value: Any) -> Any:
        """Returns the bytes of a file, or its path if the table does not contain it; the name of a class, or None for
        -1 (no class); any other value unchanged."""
        if value is not None and name in self.names:
            return self.names[name][value] if value >= 0 else None
        if name not in self.files or value is None:
            return value
        return value["path"] if value["bytes"] is None else value["bytes"]


def undecoded(table: Any) -> tuple[Any, list[str]]:
    """Returns the table without decoding of images and sounds, which choppers decode, and the names of these columns.
    This includes files inside of lists and mappings, videos and documents: the library would open any address in
    them."""
    from datasets import Audio, Image

    table = table.with_format(None)
    files = [name for name, kind in table.features.items() if isinstance(kind, Audio | Image)]
    for name, kind in table.features.items():
        if (plain := without_decoding(kind)) != kind:
            table = table.cast_column(name, plain)  # copies the column if files are inside of lists
    return table, files


def without_decoding(feature: Any) -> Any:
    """Returns the type of a column without decoding of files, including those inside of lists and mappings."""
    if isinstance(feature, Mapping):
        return {name: without_decoding(inner) for name, inner in feature.items()}
    if isinstance(feature, list):
        return [without_decoding(inner) for inner in feature]
    changed = copy.copy(feature)
    if hasattr(feature, "feature"):  # a list
        changed.feature = without_decoding(feature.feature)
    if hasattr(feature, "decode"):  # Image, Audio, Video, Pdf
        changed.decode = False
    return changed


def class_names(table: Any) -> dict[str, list[str]]:
    """Returns the names of the classes, in the order of their numbers, by column."""
    from datasets import ClassLabel

    return {name: kind.names for name, kind in table.features.items() if isinstance(kind, ClassLabel) and kind.names}


def downloaded(name: str) -> Path:
    """Downloads the data files of a repository on the hub. Returns their folder. Raises DataError if this fails."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", allow_patterns=["README.md", *(f"*{e}" for e in READERS)])
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{name} is not a local path, and cannot be downloaded from the hub: {reason}") from error


def reader_of(file: Path) -> str:
    """Returns the library's reader for a file. Raises DataError if the ending is not supported."""
    if file.suffix.lower() not in READERS:
        raise DataError(f"{file}: no reader for files that end in {file.suffix!r}; possible: {', '.join(READERS)}")
    return READERS[file.suffix.lower()]
