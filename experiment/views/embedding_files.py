"""Vectors written to files: `.npy`, `.csv`, `.parquet`, or JSON lines on the terminal."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.samples.split import SampleSplit
from ...tokenizers.files.writing import not_written, partial_name, sweep_partials
from ..folder.reading import RunError, say_aside
from ..run import Run
from .embed import Embedded, Pool, embedded

ENDINGS = (".npy", ".csv", ".parquet")


def write_embeddings(run: Run, split: SampleSplit, pool: Pool, output: Path | None) -> int:
    """Write the vectors of a split to a file, or as JSON lines to standard output where `output` is None; gives how
    many samples could not be read.

    `.npy`      float32 (samples, d) in the order of the data set, NaN where a sample could not be read; with
                `pool="tokens"` (tokens, d), and beside it a `.csv` with row, key, input and token of each
    `.csv`      columns key (, input, token), 0, 1, 2, ..., one per number of the vector
    `.parquet`  columns key (, input, token), vector; JSON lines have the same keys

    Raises RunError for another ending, OSError where the file cannot be written."""
    if output is not None and output.suffix not in ENDINGS:
        raise RunError(f"--output {output}: possible endings: {', '.join(ENDINGS)}")
    found = embedded(run, split, pool)
    if output is None:
        for each in found:
            for row in rows_of(each, pool):
                print(json.dumps(row), flush=True)
    elif output.suffix == ".npy":
        write_array(list(found), list(split.samples.keys), pool, output)
    elif output.suffix == ".csv":
        with whole_file(output, "w", newline="") as file:
            write_table((row for each in found for row in rows_of(each, pool)), file)
    else:
        write_parquet([row for each in found for row in rows_of(each, pool)], output)
    for number, why in split.unread.bad.items():
        say_aside(f"{split.samples.keys[number]}: {why}")
    return len(split.unread.bad)


def rows_of(each: Embedded, pool: Pool) -> Iterator[dict[str, Any]]:
    """A sample's rows: `{"key": "a.png", "vector": [...]}`, by token with `input` and `token` between."""
    for number, vector in enumerate(each.vectors.tolist()):
        token = {"input": each.inputs[number], "token": each.tokens[number]} if pool == "tokens" else {}
        yield {"key": each.key, **token, "vector": vector}


def write_table(rows: Iterator[Mapping[str, Any]], file: Any) -> None:
    """Write rows as CSV, with a header, and a column for each number of the vectors, named 0, 1, 2, ..."""
    table = csv.writer(file)
    for number, row in enumerate(rows):
        *names, _ = row  # the last is the vector
        if number == 0:
            table.writerow([*names, *range(len(row["vector"]))])
        table.writerow([*(row[name] for name in names), *row["vector"]])


def write_array(found: Sequence[Embedded], keys: Sequence[str], pool: Pool, output: Path) -> None:
    """Write vectors as `.npy` (see `write_embeddings`). `keys` are those of all samples, in order."""
    if pool == "tokens":
        with whole_file(output.with_suffix(".csv"), "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["row", "key", "input", "token"])
            whose = ((each.key, *told) for each in found for told in zip(each.inputs, each.tokens))
            table.writerows((number, *told) for number, told in enumerate(whose))
        array = torch.cat([each.vectors for each in found]).numpy() if found else np.zeros((0, 0), np.float32)
    else:
        width = found[0].vectors.shape[1] if found else 0
        array = np.full((len(keys), width), np.nan, np.float32)
        numbers = {key: number for number, key in enumerate(keys)}
        for each in found:
            array[numbers[each.key]] = each.vectors[0].numpy()
    with whole_file(output, "wb") as file:
        np.save(file, array)


def write_parquet(rows: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Write rows as a parquet file, the vector as one column of lists. Raises RunError without `pyarrow`."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise RunError(
            f"--output {output}: parquet files need pyarrow: pip install pyarrow; or write .csv or .npy"
        ) from None
    with whole_file(output, "wb") as file:
        parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), file)


@contextmanager
def whole_file(path: Path, mode: str, **options: Any) -> Iterator[Any]:
    """A context with a temporary file that gets its name once it is written as a whole. Raises OSError naming it."""
    partial = partial_name(path)
    if "\0" in str(path):
        raise RunError(f"{str(path)!r} cannot be the name of a file")
    sweep_partials(path)
    try:
        with open(partial, mode, **options) as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
