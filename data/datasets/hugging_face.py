"""A data set read by Hugging Face's `datasets` library: from the hub, a folder, or a parquet, csv or json file."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...tokenizers.files.reading import DataError
from ..fingerprint import Fingerprint
from ..samples.dataset import BYTES, Columns, SampleDataset, Samples, share

READERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}
"""The library's reader for a single file, by its ending."""


class HuggingFace(SampleDataset):
    """`path` is a name on the hub (`uoft-cs/cifar10`), a folder that `save_to_disk` wrote, a folder of data files, or
    one file (parquet, csv, tsv, json, jsonl, arrow); `subset` the configuration, where there are several.

    `train`, `val` and `test` name the splits as the data set calls them; without `val` a tenth of train validates, by
    hash of the row's number. Columns are the data set's own (`data.columns` says which input reads which); images and
    sounds are handed on undecoded. No code of a data set is ever executed.
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
            how = "uv sync --extra hub, or pip install -e .[hub]"
            raise DataError(f"the dataset hugging_face needs the library datasets: {how}") from None
        place = Path(os.path.expanduser(self.path))
        try:
            if os.path.exists(place / "dataset_dict.json") or os.path.exists(place / "state.json"):
                found = datasets.load_from_disk(str(place))
            elif os.path.isfile(place):
                tabs = {"sep": "\t"} if place.suffix.lower() == ".tsv" else {}
                found = datasets.load_dataset(reader_of(place), data_files=str(place), **tabs)
            else:
                found = datasets.load_dataset(str(place) if os.path.isdir(place) else self.path, self.subset)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{self.path} cannot be loaded: {error}") from error
        return found if isinstance(found, Mapping) else {"train": found}


@dataclass(frozen=True)
class Rows(Samples):
    """The rows of a table. `files` are the columns that hold images or sounds, as {bytes, path}; `names` holds the
    classes' names for each column of class numbers."""

    keys: Sequence[str]
    table: Any
    files: Collection[str]
    names: Mapping[str, Sequence[str]]

    def __getitem__(self, number: int) -> Columns:
        return {name: self._value(name, value) for name, value in self.table[number].items()}

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
        """As `Samples.numbered`, reading this column alone, not the images beside it. Raises DataError where there is
        no such column."""
        possible = self.table.column_names
        if name not in possible:
            told = f"possible: {', '.join(possible)} (data.columns says what is read)"
            raise DataError(f"there is no column {name!r}; {told}")
        for number, row in enumerate(self.table.select_columns([name])):
            if (value := self._value(name, row[name])) is not None:
                yield number, value

    def _value(self, name: str, value: Any) -> Any:
        """A file's bytes, or its path where the table does not hold it; a class's name, None for number -1 (the
        library's sign for none); any other value unchanged."""
        if value is not None and name in self.names:
            return self.names[name][value] if value >= 0 else None
        if name not in self.files or value is None:
            return value
        return value["path"] if value["bytes"] is None else value["bytes"]


def undecoded(table: Any) -> tuple[Any, list[str]]:
    """The table with images and sounds left encoded, for the choppers to decode, and the names of those columns."""
    from datasets import Audio, Image

    table = table.with_format(None)
    files = [name for name, kind in table.features.items() if isinstance(kind, Audio | Image)]
    for name in files:
        table = table.cast_column(name, type(table.features[name])(decode=False))
    return table, files


def class_names(table: Any) -> dict[str, list[str]]:
    """The names of the classes, in the order of their numbers, by column."""
    from datasets import ClassLabel

    return {name: kind.names for name, kind in table.features.items() if isinstance(kind, ClassLabel) and kind.names}


def reader_of(file: Path) -> str:
    """The library's reader for a file. Raises DataError for an ending that it has none for."""
    if file.suffix.lower() not in READERS:
        raise DataError(f"{file}: no reader for files that end in {file.suffix!r}; possible: {', '.join(READERS)}")
    return READERS[file.suffix.lower()]
