"""Data sets of Hugging Face's `datasets` library: from the hub, from a folder, or from a data file."""

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
from ..hub_files import READERS, check_arrow, check_once, check_table, local_path, saved_files, split_files
from ..sample_dataset import OwnFiles
from ..samples import BYTES, ByColumn, Columns, Samples


class HuggingFace(OwnFiles):
    """`path` is a name on the hub (`uoft-cs/cifar10`), a folder that `save_to_disk` wrote, a folder of data files, or
    one data file (parquet, csv, tsv, json, jsonl, arrow). `subset` is the name of the configuration; it is needed if
    there are several configurations without a default.

    `train`, `val` and `test` are the names of splits in the data set. Without `val`, a tenth of train is used for
    validation (selected by the hash of the row number). The columns are those of the data set (`data.columns` maps
    inputs to columns); images and sounds are decoded later, by the choppers. Only data files are read: no code of a
    data set is executed, no file is unpickled, and no address in a data set is opened.
    """

    paths, on_server = ("path",), True

    def __init__(
        self, *, path: str, subset: str | None = None, train: str = "train", val: str | None = None,
        test: str | None = None,
    ):  # fmt: skip
        super().__init__(train, val, test)
        self.path, self.subset = path, subset

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the training split."""
        return tuple(self.table(self.train).column_names)

    def read(self, where: str) -> Samples:
        table, files = undecoded(self.table(where))
        return Rows([f"{where} {number}" for number in range(len(table))], table, files, class_names(table))

    def addresses(self) -> list[str]:
        return [] if os.path.exists(self.location) else [f"hf://datasets/{self.path}"]

    def whole(self) -> HuggingFace:
        return undivided(self, self.path) if len(self.tables) == 1 else self

    @property
    def location(self) -> Path:
        """`path` as an absolute local path. The path does not exist if the data set is on the hub."""
        return Path(os.path.abspath(os.path.expanduser(self.path)))

    def table(self, name: str) -> Any:
        """Returns the table of a split. `name` is the name of the split in the data set. Raises DataError if there is
        no such split."""
        if name not in self.tables:
            raise DataError(f"{self.path} has no split {name!r}; possible: {', '.join(self.tables)}")
        return self.tables[name]

    @cached_property
    def tables(self) -> Mapping[str, Any]:
        """The table of every split, by the name of the split in the data set. Raises DataError if the library is not
        installed or the data set cannot be loaded."""
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
        except DataError:
            raise
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{self.path} cannot be loaded: {error}") from error
        return tables if isinstance(tables, Mapping) else {"train": tables}

    def read_files(self, path: Path) -> Any:
        """Returns the tables, by split, of a data file (with the split `train`) or of the data files in a folder.
        Raises DataError if a file is not supported or fails `check_table`."""
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
    """The rows of a table as samples. `files` contains the names of the columns with images or sounds, whose values are
    {bytes, path}. `names` contains, by column of class numbers, the names of the classes."""

    keys: Sequence[str]
    table: Any
    files: Collection[str]
    names: Mapping[str, Sequence[str]]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        columns = tuple(name for name in self.table.column_names if names is None or name in names)
        if columns not in self._narrowed:  # reading a row of this table does not read the images of other columns
            self._narrowed[columns] = self.table.select_columns(list(columns))
        row = self._narrowed[columns][number] if columns else {}
        return {name: self.converted(name, value) for name, value in row.items()}

    def select(self, numbers: Sequence[int]) -> Samples:
        return replace(self, keys=[self.keys[number] for number in numbers], table=self.table.select(numbers))

    @cached_property
    def _narrowed(self) -> dict[tuple[str, ...], Any]:
        """A cache of tables that contain only some of the columns; the key is the tuple of column names."""
        return {}

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        """Returns a hash of all values if the table has at most BYTES bytes; otherwise see `Samples.fingerprint`."""
        if self.table.data.nbytes > BYTES:
            return super().fingerprint(labels)
        fingerprint = Fingerprint(list(self.keys), {name: list(names) for name, names in self.names.items()})
        for batch in self.table.iter(1000):
            external = {name: [Path(f["path"]) for f in batch[name] if f and f["path"] and not f["bytes"]]
                        for name in self.files}  # fmt: skip
            fingerprint.add(batch, external)
        return fingerprint.hex

    def numbered(self, name: str) -> Iterator[tuple[int, Any]]:
        """See `Samples.numbered`. Reads only this column, many rows at once. Raises DataError if the column does not
        exist."""
        columns = self.table.column_names
        if name not in columns:
            possible = f"possible: {', '.join(columns)} (data.columns selects the columns)"
            raise DataError(f"there is no column {name!r}; {possible}")
        for number, row in enumerate(self.table.select_columns([name])):
            if (value := self.converted(name, row[name])) is not None:
                yield number, value

    def converted(self, name: str, value: Any) -> Any:
        """Returns the converted value of the column `name`. For a file, returns its bytes, or its path if the table
        does not contain the bytes. For a class number, returns the name of the class, or None for a negative number (no
        class). Returns any other value unchanged."""
        if value is not None and name in self.names:
            return self.names[name][value] if value >= 0 else None
        if name not in self.files or value is None:
            return value
        return value["path"] if value["bytes"] is None else value["bytes"]


def undecoded(table: Any) -> tuple[Any, list[str]]:
    """Returns (table that does not decode images and sounds, names of the columns with images or sounds). The choppers
    decode them later. Files inside of lists and mappings, videos and documents are not decoded either: the library
    would open any address in them."""
    from datasets import Audio, Image

    table = table.with_format(None)
    files = [name for name, kind in table.features.items() if isinstance(kind, Audio | Image)]
    for name, kind in table.features.items():
        if (plain := without_decoding(kind)) != kind:
            table = table.cast_column(name, plain)  # copies the column if files are inside of lists
    return table, files


def without_decoding(feature: Any) -> Any:
    """Returns the type of a column, changed so that files are not decoded, also inside of lists and mappings."""
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
    """Returns, by column of class numbers, the names of the classes in the order of their numbers."""
    from datasets import ClassLabel

    return {name: kind.names for name, kind in table.features.items() if isinstance(kind, ClassLabel) and kind.names}


def downloaded(name: str) -> Path:
    """Downloads the README.md and the data files of a repository on the hub, and returns their folder. Raises DataError
    if the download fails."""
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
    """Returns the name of the library's reader for a file. Raises DataError if the ending of the file is not in
    READERS."""
    if file.suffix.lower() not in READERS:
        raise DataError(f"{file}: no reader for files that end in {file.suffix!r}; possible: {', '.join(READERS)}")
    return READERS[file.suffix.lower()]
