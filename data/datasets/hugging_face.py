"""A data set read by Hugging Face's `datasets` library: from the hub, a folder, or a parquet, csv or json file."""

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
    one file (parquet, csv, tsv, json, jsonl, arrow); `subset` is the configuration if there are several.

    `train`, `val` and `test` name the splits as the data set calls them; without `val` a tenth of train validates, by
    hash of the row's number. Columns are the data set's own (`data.columns` says which input reads which); images and
    sounds are returned undecoded. Only data files are read: no code of a data set is executed, no file is unpickled,
    and no address in a data set is followed.
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
        named = getattr(self, split) or self.train
        table, files = undecoded(self.table(named))
        found = Rows([f"{named} {number}" for number in range(len(table))], table, files, class_names(table))
        if self.val is not None or split == "test":
            return found
        chosen = share(found, split)
        return replace(found, keys=chosen.keys, table=table.select(chosen.numbers))

    def addresses(self) -> list[str]:
        return [] if os.path.exists(self.place) else [f"hf://datasets/{self.path}"]

    def whole(self) -> HuggingFace:
        return undivided(self, self.path) if len(self.tables) == 1 else self

    @property
    def place(self) -> Path:
        """The path as a local path, whether or not it exists."""
        return Path(os.path.abspath(os.path.expanduser(self.path)))

    def table(self, named: str) -> Any:
        """The table of a split, by the data set's own name for it. Raises DataError where there is none."""
        if named not in self.tables:
            raise DataError(f"{self.path} has no split {named!r}; possible: {', '.join(self.tables)}")
        return self.tables[named]

    @cached_property
    def tables(self) -> Mapping[str, Any]:
        """The table of every split, by the data set's own name for it. Raises DataError where the library is not
        installed or the data set cannot be loaded."""
        try:
            import datasets
        except ImportError:
            how = "pip install 'chopmix[hub]'"
            raise DataError(f"the dataset hugging_face needs the library datasets: {how}") from None
        place = self.place
        try:
            if os.path.exists(place / "dataset_dict.json") or os.path.exists(place / "state.json"):
                for file in saved_files(place):
                    check_once(file, check_arrow)
                found = datasets.load_from_disk(local_path(place))
            else:
                found = self.read_files(place if os.path.exists(place) else downloaded(self.path))
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise (
                error if isinstance(error, DataError) else DataError(f"{self.path} cannot be loaded: {error}")
            ) from error
        return found if isinstance(found, Mapping) else {"train": found}

    def read_files(self, place: Path) -> Any:
        """The tables in one data file or in those of a folder."""
        import datasets

        if os.path.isfile(place):
            reader, files = reader_of(place), {"train": [local_path(place)]}
        else:
            reader, files = split_files(place, self.subset)
        for name in chain.from_iterable(files.values()):
            check_once(Path(name), check_table)
        if not sys.stderr.isatty():  # the library would draw its progress there, too
            datasets.disable_progress_bars()
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # the library would report every file that is read
        tabs = {"sep": "\t"} if all(name.lower().endswith(".tsv") for each in files.values() for name in each) else {}
        return datasets.load_dataset(reader, data_files=files, cache_dir=str(cache_folder() / "tables"), **tabs)


@dataclass(frozen=True)
class Rows(ByColumn):
    """The rows of a table. `files` are the columns that hold images or sounds, as {bytes, path}; `names` holds the
    classes' names for each column of class numbers."""

    keys: Sequence[str]
    table: Any
    files: Collection[str]
    names: Mapping[str, Sequence[str]]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        there = tuple(name for name in self.table.column_names if names is None or name in names)
        if there not in self._narrowed:  # a row of it reads no image of another column
            self._narrowed[there] = self.table.select_columns(list(there))
        row = self._narrowed[there][number] if there else {}
        return {name: self.converted(name, value) for name, value in row.items()}

    @cached_property
    def _narrowed(self) -> dict[tuple[str, ...], Any]:
        """The table of some columns alone, by their names."""
        return {}

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        """Over all values of tables of up to BYTES bytes; of larger ones as `Samples.fingerprint`."""
        if self.table.data.nbytes > BYTES:
            return super().fingerprint(labels)
        found = Fingerprint(list(self.keys), {name: list(names) for name, names in self.names.items()})
        for batch in self.table.iter(1000):
            outside = {name: [Path(each["path"]) for each in batch[name] if each and each["path"] and not each["bytes"]]
                       for name in self.files}  # fmt: skip
            found.add(batch, outside)
        return found.hex

    def numbered(self, name: str) -> Iterator[tuple[int, Any]]:
        """As `Samples.numbered`; many rows are read at once. Raises DataError if there is no such column."""
        possible = self.table.column_names
        if name not in possible:
            known = f"possible: {', '.join(possible)} (data.columns says what is read)"
            raise DataError(f"there is no column {name!r}; {known}")
        for number, row in enumerate(self.table.select_columns([name])):
            if (value := self.converted(name, row[name])) is not None:
                yield number, value

    def converted(self, name: str, value: Any) -> Any:
        """A file's bytes, or its path where the table does not hold it; a class's name, None for number -1 (the
        library's sign for none); any other value unchanged."""
        if value is not None and name in self.names:
            return self.names[name][value] if value >= 0 else None
        if name not in self.files or value is None:
            return value
        return value["path"] if value["bytes"] is None else value["bytes"]


def undecoded(table: Any) -> tuple[Any, list[str]]:
    """The table with images and sounds left encoded, for the choppers to decode, and the names of those columns. Also
    those inside of lists and mappings, and videos and documents: the library would open whatever address they name."""
    from datasets import Audio, Image

    table = table.with_format(None)
    files = [name for name, kind in table.features.items() if isinstance(kind, Audio | Image)]
    for name, kind in table.features.items():
        if (plain := without_decoding(kind)) != kind:
            table = table.cast_column(name, plain)  # copies the column if files are inside of lists
    return table, files


def without_decoding(feature: Any) -> Any:
    """The type of a column without the decoding of files, also of those inside of lists and mappings."""
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
    """The names of the classes, in the order of their numbers, by column."""
    from datasets import ClassLabel

    return {name: kind.names for name, kind in table.features.items() if isinstance(kind, ClassLabel) and kind.names}


def downloaded(name: str) -> Path:
    """The folder with the data files of a repository on the hub. Raises DataError if it cannot be downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", allow_patterns=["README.md", *(f"*{e}" for e in READERS)])
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        why = str(error).partition("\n")[0]
        raise DataError(f"{name} is no local path, and cannot be downloaded from the hub: {why}") from error


def reader_of(file: Path) -> str:
    """The library's reader for a file. Raises DataError for an ending that it has none for."""
    if file.suffix.lower() not in READERS:
        raise DataError(f"{file}: no reader for files that end in {file.suffix!r}; possible: {', '.join(READERS)}")
    return READERS[file.suffix.lower()]
