"""`chopmix embed RUN`: what a model makes of samples, as vectors: one a sample, or one a token.

The vectors are what the first core gives (of an encoder and a decoder: the encoder), behind its last normalisation.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...data.samples.dataset import Listed, SampleDataset, Samples
from ...data.samples.split import SampleSplit
from ...models.batch import Batch, SetPlan
from ...models.generation.fast_decoder import computing_type
from ...tokenizers.files.writing import not_written, partial_name, sweep_partials
from ...training.objective import autocast
from ..build import columns_of
from ..folder.reading import RunError, say_aside
from ..given import read_split
from ..own_data import whole_data
from ..run import Run

Pool = Literal["mean", "first", "tokens"]
POOLS: tuple[Pool, ...] = ("mean", "first", "tokens")
ENDINGS = (".npy", ".csv", ".parquet")


@dataclass(frozen=True)
class Embedded:
    """One sample's vectors: a row for each of its tokens, or one row for all of them."""

    key: str
    vectors: Float[Tensor, "t d"]
    inputs: tuple[str, ...] = ()
    """Of vectors by token: the input of each, `own` for the core's own tokens."""
    tokens: tuple[str, ...] = ()
    """Of vectors by token: its text where it has one, else its number in its input."""


def embed(run: Run, samples: Sequence[Mapping[str, Any]], pool: Pool = "mean", rows: int = 64) -> list[Tensor | None]:
    """The vectors of samples given by hand, (d,) each, or with `pool="tokens"` (t, d); None for one that cannot be
    read.

    `pool`: the `mean` over all of a sample's tokens (as sentence encoders have it), the `first` token (a class token).
    """
    split = run.given(samples, asked=False)
    found: dict[str, Tensor] = {each.key: each.vectors for each in embedded(run, split, pool, rows)}
    one = (lambda vectors: vectors) if pool == "tokens" else (lambda vectors: vectors[0])
    return [one(found[key]) if key in found else None for key in split.samples.keys]


def embedded(run: Run, split: SampleSplit, pool: Pool, rows: int = 64) -> Iterator[Embedded]:
    """The vectors of a split's samples, in its order, without those that cannot be read."""
    places = split.all()
    for first in range(0, len(places), rows):
        sets = split.sets(places[first : first + rows])
        name, planned = next(iter(sets.items()))
        if planned.keys:
            yield from _embedded(run, name, planned, pool)


def _embedded(run: Run, name: str, planned: SetPlan, pool: Pool) -> Iterator[Embedded]:
    device = run.model_device
    with torch.inference_mode(), autocast(device, run.precision):
        batch = run.model.plan(Batch(sets={name: planned}), dtype=computing_type(run.model), device=device).to(device)
        hidden = run.model.read(batch)[name].flatten(0, 1).float().cpu()
    samples = planned.tokens.sample.flatten()
    told = described(run, planned) if pool == "tokens" else []
    for number, key in enumerate(planned.keys, start=1):
        own = (samples == number).nonzero()[:, 0]
        if pool == "tokens":
            each = [told[place] for place in own.tolist()]
            yield Embedded(key, hidden[own], tuple(name for name, _ in each), tuple(text for _, text in each))
        else:
            vector = hidden[own].mean(0) if pool == "mean" else hidden[own[0]]
            yield Embedded(key, vector[None])


def described(run: Run, planned: SetPlan) -> list[tuple[str, str]]:
    """The input and the text (or the number) of the token at every place."""
    found = [("", "")] * planned.tokens.sample.numel()
    for name, chunks in planned.chunks.items():
        encoding = getattr(run.choppers[name], "text", None)
        places = range(len(found)) if chunks.slots is None else chunks.slots.tolist()
        values, numbers = chunks.values.flatten(), chunks.index.flatten().tolist()
        for row, place in enumerate(places):
            text = str(numbers[row]) if encoding is None else encoding.decode([int(values[row])], specials=True)
            found[place] = name, text
    for number, place in enumerate(planned.own.T.flatten().tolist() if planned.own is not None else ()):
        found[place] = "own", str(number // len(planned.own))
    return found


# ----------------------------------------------------------------------------------------------- from the command line


def split_of(run: Run, data: str, split: str) -> SampleSplit:
    """A data set of the command line (see `own_data.py`) as a split of the run's inputs; its labels are not
    looked at."""
    columns, corpus = run.reads()
    wanted = {name: kind for name, kind in columns.items() if kind != "label"}
    dataset = whole_data(data, split, wanted, corpus)
    samples = (
        dataset.opened(split)
        if isinstance(dataset, SampleDataset)
        else documents_of(dataset, split, next(iter(wanted)))
    )
    return read_split(run, samples, split, columns_of(run.config))


def documents_of(dataset: Any, split: str, name: str) -> Samples:
    """The documents of a corpus as samples of one column."""
    found = list(dataset.documents(split))
    return Listed([document.key for document in found], [{name: document.text} for document in found])


def write_embeddings(run: Run, split: SampleSplit, pool: Pool, output: Path | None) -> int:
    """Write the vectors of a split to a file, or as JSON lines to the terminal; gives how many samples could not be
    read.

    `.npy`: (samples, d), not a number where a sample could not be read; by token (tokens, d), with FILE.csv beside it,
    which says whose each row is. `.csv` and `.parquet`: a column for the key (and the input and the token), one for
    each number."""
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
    for number, why in split.bad.items():
        say_aside(f"{split.samples.keys[number]}: {why}")
    return len(split.bad)


def rows_of(each: Embedded, pool: Pool) -> Iterator[dict[str, Any]]:
    """A sample's rows: its key, of a token its input and text, and the vector."""
    for number, vector in enumerate(each.vectors.tolist()):
        token = {"input": each.inputs[number], "token": each.tokens[number]} if pool == "tokens" else {}
        yield {"key": each.key, **token, "vector": vector}


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with a column for each number of its vector: 0, 1, 2, ..."""
    return {k: v for k, v in row.items() if k != "vector"} | {str(n): value for n, value in enumerate(row["vector"])}


def write_table(rows: Iterator[Mapping[str, Any]], file: Any) -> None:
    """Rows as CSV, with a header."""
    writer = None
    for row in map(flat, rows):
        if writer is None:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
        writer.writerow(row)


def write_array(found: Sequence[Embedded], keys: Sequence[str], pool: Pool, output: Path) -> None:
    """Vectors as NumPy's `.npy`."""
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
    """Rows as a parquet file. Raises RunError where its library is not installed."""
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
    """A file that has its name when all of it is written. Raises OSError naming it."""
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
