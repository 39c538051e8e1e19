"""`chopmix embed RUN`: a model's hidden vectors of samples, one per sample or one per token, written to files: `.npy`,
`.csv`, `.parquet`, or JSON lines on the terminal.

They are the output of the first core (the encoder, where there is one), after its final norm.
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

from ..data.samples import Listed, Samples
from ..data.split import SampleSplit
from ..files.writing import not_written, partial_name, sweep_partials
from ..models.arithmetic import computing_type, finite
from ..models.batch import Batch, SetPlan
from ..training.objective import autocast
from .build import read_samples
from .own_data import whole_data
from .run import Run
from .run_folder import RunError, say_aside

Pool = Literal["mean", "first", "tokens"]
"""`mean`: the mean over all tokens of a sample; `first`: its first token; `tokens`: every token."""
ENDINGS = (".npy", ".csv", ".parquet")


@dataclass(frozen=True)
class Embedded:
    """One sample's vectors: a row per token, or one row (1, d) where they are pooled.

    The generated text "ab" as bytes behind the start token, in a model with one class token, by token:

        inputs    own    text             text    text
        tokens    0      <|endoftext|>    a       b
    """

    key: str
    vectors: Float[Tensor, "t d"]
    inputs: tuple[str, ...] = ()
    """By token: its input, `own` for class and register tokens; empty where vectors are pooled."""
    tokens: tuple[str, ...] = ()
    """By token: its text where the input is a text, else its number in its item (of class and register tokens: among
    these), from 0."""


def embed(run: Run, samples: Sequence[Mapping[str, Any]], pool: Pool = "mean", rows: int = 64) -> list[Tensor | None]:
    """The vectors of samples in memory, (d,) each, or (t, d) with `pool="tokens"`; None for a sample that cannot be
    read.

    `pool`: `mean` over all of a sample's tokens, class and register tokens included (as Sentence-BERT pools, Reimers &
    Gurevych 2019), or the `first` token, the class token where the model has one. `rows` samples are read at a time.
    """
    split = run.given(samples, asked=False)
    found: dict[str, Tensor] = {each.key: each.vectors for each in embedded(run, split, pool, rows)}
    one = (lambda vectors: vectors) if pool == "tokens" else (lambda vectors: vectors[0])
    return [one(found[key]) if key in found else None for key in split.samples.keys]


def embedded(run: Run, split: SampleSplit, pool: Pool, rows: int = 64) -> Iterator[Embedded]:
    """The vectors of a split's samples, without those that cannot be read, in the order in which an evaluation reads
    them: that of the data set, or, of a model with an encoder, from short to long."""
    places = split.all()
    for first in range(0, len(places), rows):
        batch = split.read(places[first : first + rows])
        if batch.first.keys:
            yield from _embedded(run, batch, pool)


def _embedded(run: Run, batch: Batch, pool: Pool) -> Iterator[Embedded]:
    device, planned = run.model_device, batch.first
    with torch.inference_mode(), autocast(device, run.precision):
        planned = run.model.plan_first(planned, dtype=computing_type(run.model), device=device).to(device)
        hidden = run.model.read_first(planned).flatten(0, 1).float().cpu()
    samples = planned.tokens.sample.flatten()
    finite(hidden[samples.cpu() > 0])
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
    """The input and the text (or the number) of the token in every slot, row by row; two empty texts for padding."""
    found = [("", "")] * planned.tokens.sample.numel()
    for name, chunks in planned.chunks.items():
        vocabulary = run.choppers[name].vocabulary
        places = range(len(found)) if chunks.slots is None else chunks.slots.tolist()
        values, numbers = chunks.values.flatten(), chunks.index.flatten().tolist()
        for row, place in enumerate(places):
            text = str(numbers[row]) if vocabulary is None else vocabulary.shown(int(values[row]))
            found[place] = name, text
    for number, place in enumerate(planned.own.T.flatten().tolist() if planned.own is not None else ()):
        found[place] = "own", str(number // len(planned.own))
    return found


# ----------------------------------------------------------------------------------------------- from the command line


def split_of(run: Run, data: str, split: str) -> SampleSplit:
    """A data set named on the command line (see `opening/own_data.py`) as a split of the run's inputs, without labels.
    Raises RunError or DataError for data that cannot be read."""
    columns, corpus = run.reads()
    wanted = {name: kind for name, kind in columns.items() if kind != "label"}
    dataset = whole_data(data, split, wanted, corpus)
    samples = dataset.opened(split) if dataset.holds_samples else documents_of(dataset, split, next(iter(wanted)))
    return read_samples(run.config, samples, split, run.choppers, say_aside)


def documents_of(dataset: Any, split: str, name: str) -> Samples:
    """The documents of a corpus as samples of one column."""
    found = list(dataset.documents(split))
    return Listed([document.key for document in found], [{name: document.text} for document in found])


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
    for number, why in split.skipped.bad.items():
        say_aside(f"{split.samples.keys[number]}: {why}")
    return len(split.skipped.bad)


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
