"""The files of the shards of one prediction (`--shard I/N`), and `chopmix merge`, which puts them together.

Next to the file of a shard, `predictions-0.csv`, there is a file `predictions-0.csv.shard.json`. It records what was
predicted, so that only shards that belong together are merged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ..files.arrays import array_file
from ..files.errors import RunError
from ..files.progress import counted
from ..files.reading import DataError
from ..files.records import Record, read_record
from ..files.rows import Row, ending_of, read_rows, row_file
from ..files.writing import write_json
from ..training.checkpoints import content_of
from .answers import Shard
from .run import Run

LISTED = 10
"""The largest number of missing shards that a message lists."""
ENDINGS = (".csv", ".jsonl", ".parquet", ".npy")


class ShardRecord(Record):
    """What a file with the rows of a shard contains. All fields except `run`, `index` and `samples` are equal for all
    shards."""

    command: str
    run: str
    """The folder and the checkpoint of the run; the same run may have another path on another machine."""
    weights: str
    """A hash of the weights."""
    data: str
    """The name of the data."""
    settings: dict[str, Any]
    """The options that change the rows."""
    count: Annotated[int, Field(ge=1, lt=2**40)]
    """The number of shards."""
    index: Annotated[int, Field(ge=0, lt=2**40)]
    samples: Annotated[int, Field(ge=0, lt=2**40)]
    """The number of samples of this shard."""


def record_of(
    run: Run, command: str, data: str, settings: Mapping[str, Any], shard: Shard, samples: int
) -> ShardRecord:
    """Returns the record of a shard. `data` is the name of the data; the other parameters are fields of the record."""
    return ShardRecord(
        command=command, run=run.name, weights=content_of(run.model.state_dict()), data=data, settings=dict(settings),
        count=shard.count, index=shard.index, samples=samples,
    )  # fmt: skip


def record_file(path: Path) -> Path:
    """Returns the file with the `ShardRecord` of the file of a shard."""
    return path.with_name(f"{path.name}.shard.json")


def write_record(path: Path, record: ShardRecord) -> None:
    """Writes the record of the file `path`."""
    write_json(record_file(path), record.model_dump(mode="json"))


def merge(output: Path, files: Sequence[Path]) -> int:
    """Merges the files of all shards into `output`, with the rows in the order of the data set. Returns the number of
    samples. Raises RunError if the files do not belong together or a shard is missing, DataError if a file is
    damaged."""
    for file in files:
        if not file.name or not os.path.isfile(record_file(file)):
            reason = f"there is no {file}.shard.json, which is written with a shard"
            raise RunError(f"{file} is not a file of `--shard I/N`: {reason}")
    records = {file: read_record(record_file(file), ShardRecord) for file in files}
    check_shards(output, records)
    ordered = sorted(files, key=lambda file: records[file].index)
    ordered_records = [records[file] for file in ordered]
    total = sum(record.samples for record in ordered_records)
    if ending_of(output, ENDINGS) == ".npy":
        merge_arrays(output, ordered)
        return total
    with row_file(output) as write:
        for rows in counted(merged_rows(ordered, ordered_records), "samples", total):
            write(rows)
    return total


def check_shards(output: Path, records: Mapping[Path, ShardRecord]) -> None:
    """Raises RunError if the files are not exactly the shards of one prediction, in files with the ending of
    `output`."""
    first_file, first = next(iter(records.items()))
    for file, record in records.items():
        if file.suffix.lower() != output.suffix.lower():
            raise RunError(f"{file} cannot be merged into {output}: the files have different endings")
        for name in ("command", "weights", "data", "settings", "count"):
            if (value := getattr(record, name)) != (expected := getattr(first, name)):
                raise RunError(f"{file} and {first_file} do not belong together: {name} is {value}, not {expected}")
    indices = {record.index for record in records.values()}
    missing = (index for index in range(first.count) if index not in indices)
    if some := list(islice(missing, LISTED + 1)):
        listed = ", ".join(f"{index}/{first.count}" for index in some[:LISTED]) + ", ..." * (len(some) > LISTED)
        raise RunError(f"the shards {listed} are missing")
    if len(records) != first.count:
        raise RunError(f"there are {len(records)} files, but only {first.count} shards: a shard is passed twice")
    total = sum(record.samples for record in records.values())
    for file, record in records.items():
        expected = len(range(record.index, total, first.count))
        if record.samples != expected:
            raise RunError(f"{file} has {record.samples:,} samples instead of {expected:,}: the data have changed")


def merged_rows(files: Sequence[Path], records: Sequence[ShardRecord]) -> Iterator[list[Row]]:
    """Yields the rows of each sample (several with `embed --pool tokens`) in the order of the data set. Raises
    DataError if a file has the rows of another number of samples than its record."""
    readers = [groupby(checked_rows(file), key=itemgetter("key")) for file in files]
    for number in range(sum(record.samples for record in records)):
        shard = number % len(files)
        _, rows = next(readers[shard], (None, None))
        if rows is None:
            raise DataError(f"{files[shard]} is cut short: its record lists {records[shard].samples:,} samples")
        yield list(rows)
    for file, reader in zip(files, readers):
        if next(reader, None) is not None:
            raise DataError(f"{file} has more rows than its record lists")


def checked_rows(file: Path) -> Iterator[Row]:
    """Yields the rows of a file. Raises DataError if a row is not a mapping with a key, or has more cells than the
    header."""
    for number, row in enumerate(read_rows(file), start=1):
        if not isinstance(row, Mapping) or not isinstance(row.get("key"), str | int | float):
            raise DataError(f"{file}: row {number} has no key")
        if None in row:
            raise DataError(f"{file}: row {number} has more cells than the header")
        yield row


def merge_arrays(output: Path, files: Sequence[Path]) -> None:
    """Merges `.npy` files with one row per sample. Raises DataError if a file is damaged, or if the rows have different
    lengths; OSError if the file cannot be written."""
    arrays = list(map(mapped, files))
    if len({(array.shape[1:], array.dtype) for array in arrays}) != 1:
        raise DataError(f"the rows of {', '.join(map(str, files))} have different lengths")
    total = sum(map(len, arrays))
    with array_file(output, (total, *arrays[0].shape[1:])) as write:
        for number in range(total):
            write(arrays[number % len(arrays)][number // len(arrays)])


def mapped(file: Path) -> np.ndarray:
    """Returns the array of a `.npy` file, which is read from the disk where it is used."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    if not array.ndim:
        raise DataError(f"{file} contains a single number instead of rows")
    return array
