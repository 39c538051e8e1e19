"""`chopmix embed RUN`: writes a model's hidden vectors, one per sample or one per token, to a `.npy`, `.csv` or
`.parquet` file, or as JSON lines to standard output.

The vectors are the output of the first core after its final norm. The first core is the encoder if there is one, else
the main core."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data.request import Request
from ..data.samples import Listed, Samples
from ..data.split import SampleSplit
from ..files.writing import atomic_file
from ..models.arithmetic import computing_type, finite
from ..models.batch import Batch, SetPlan
from ..training.objective import autocast
from .build import read_samples
from .own_data import dataset_for
from .read_ahead import read_ahead
from .run import Run
from .run_folder import RunError, say_aside

Pool = Literal["mean", "first", "tokens"]
"""`mean`: the mean over all tokens of a sample; `first`: the vector of the first token; `tokens`: the vectors of all
tokens."""
ENDINGS = (".npy", ".csv", ".parquet")


@dataclass(frozen=True)
class Embedded:
    """The vectors of one sample, (t, d): one row per token, or a single row if the vectors are pooled.

    An example with one class token and the generated text "ab" as bytes, which begins with the start token:

        inputs    own    text             text    text
        tokens    0      <|endoftext|>    a       b
    """

    key: str
    vectors: Float[Tensor, "t d"]
    inputs: tuple[str, ...] = ()
    """For each token, the name of its input, or `own` for class and register tokens. Empty if the vectors are
    pooled."""
    tokens: tuple[str, ...] = ()
    """For each token, its text if the input has a vocabulary, else its number in its item, counted from 0. Class and
    register tokens are numbered separately. Empty if the vectors are pooled."""


def embed(run: Run, samples: Sequence[Mapping[str, Any]], pool: Pool = "mean", rows: int = 64) -> list[Tensor | None]:
    """Returns one vector (d,) per sample in memory, or, with `pool="tokens"`, one matrix (t, d) per sample. For a
    sample that cannot be read, returns None instead.

    `pool`: `mean` over all tokens of a sample, including class and register tokens (the pooling of Sentence-BERT,
    Reimers & Gurevych 2019), or `first`, the first token, which is the class token if the model has one. `rows` is the
    number of samples that are read at a time."""
    split = run.as_split(samples, for_prediction=False)
    vectors_by_key: dict[str, Tensor] = {sample.key: sample.vectors for sample in embedded(run, split, pool, rows)}
    select = (lambda vectors: vectors) if pool == "tokens" else (lambda vectors: vectors[0])
    return [select(vectors_by_key[key]) if key in vectors_by_key else None for key in split.samples.keys]


def embedded(run: Run, split: SampleSplit, pool: Pool, rows: int = 64) -> Iterator[Embedded]:
    """Yields the vectors of a split's samples. Samples that cannot be read are omitted. The order is that of the data
    set, or, for a model with an encoder, from short to long samples. `rows` is the number of samples that are read at a
    time."""
    places = split.all()
    requests = (Request(indices=places[first : first + rows]) for first in range(0, len(places), rows))
    with read_ahead(split, run.config.data.workers):
        for (batch,) in split.answers(requests):
            if batch.first.keys:
                yield from _embedded(run, batch, pool)


def _embedded(run: Run, batch: Batch, pool: Pool) -> Iterator[Embedded]:
    device, planned = run.model_device, batch.first
    with torch.inference_mode(), autocast(device, run.precision):
        planned = run.model.plan_first(planned, dtype=computing_type(run.model), device=device).to(device)
        hidden = run.model.read_first(planned).flatten(0, 1).float().cpu()
    samples = planned.tokens.sample.flatten()
    finite(hidden[samples.cpu() > 0])
    descriptions = described(run, planned) if pool == "tokens" else []
    for number, key in enumerate(planned.keys, start=1):
        slots = (samples == number).nonzero()[:, 0]
        if pool == "tokens":
            labels = [descriptions[slot] for slot in slots.tolist()]
            yield Embedded(key, hidden[slots], tuple(name for name, _ in labels), tuple(text for _, text in labels))
        else:
            vector = hidden[slots].mean(0) if pool == "mean" else hidden[slots[0]]
            yield Embedded(key, vector[None])


def described(run: Run, planned: SetPlan) -> list[tuple[str, str]]:
    """Returns (input, text) for the token in every slot (position in a row), row by row. The text is the token's number
    if its input has no vocabulary. For padding both are empty."""
    labels = [("", "")] * planned.tokens.sample.numel()
    for name, chunks in planned.chunks.items():
        vocabulary = run.choppers[name].vocabulary
        slots = range(len(labels)) if chunks.slots is None else chunks.slots.tolist()
        values, numbers = chunks.values.flatten(), chunks.index.flatten().tolist()
        for row, slot in enumerate(slots):
            text = str(numbers[row]) if vocabulary is None else vocabulary.shown(int(values[row]))
            labels[slot] = name, text
    for number, slot in enumerate(planned.own.T.flatten().tolist() if planned.own is not None else ()):
        labels[slot] = "own", str(number // len(planned.own))
    return labels


# ----------------------------------------------------------------------------------------------- from the command line


def split_of(run: Run, data: str, split: str) -> SampleSplit:
    """Returns a split of the data set that the command line names (see `own_data.py`), with the inputs of the run and
    without labels. Raises RunError or DataError if the data cannot be read."""
    dataset = dataset_for(run, data, split, labels=False)
    samples = (
        dataset.opened(split) if dataset.holds_samples else documents_of(dataset, split, next(iter(run.reads()[0])))
    )
    return read_samples(run.config, samples, split, run.choppers, say_aside)


def documents_of(dataset: Any, split: str, name: str) -> Samples:
    """Returns the documents of a text corpus as samples with one column, `name`."""
    documents = list(dataset.documents(split))
    return Listed([document.key for document in documents], [{name: document.text} for document in documents])


def write_embeddings(run: Run, split: SampleSplit, pool: Pool, output: Path | None) -> int:
    """Write the vectors of a split to a file, or, if `output` is None, as JSON lines to standard output. Returns the
    number of samples that could not be read.

        .npy        float32 (samples, d) in the order of the data set; a sample that could not be read is a row of NaN
        .csv        columns key, 0, 1, 2, ... (one column per number of the vector)
        .parquet    columns key, vector; JSON lines have the same keys

    With `pool="tokens"` there is one row per token, and none for a sample that could not be read. The columns input and
    token follow the key; a `.npy` file (tokens, d) has a `.csv` file of the same name with row, key, input and token of
    each token. Raises RunError for another extension and for `.parquet` without pyarrow, OSError if the file cannot be
    written."""
    if output is not None and output.suffix.lower() not in ENDINGS:
        raise RunError(f"--output {output}: possible endings: {', '.join(ENDINGS)}")
    if output is not None and "\0" in str(output):
        raise RunError(f"{str(output)!r} cannot be the name of a file")
    samples = embedded(run, split, pool)
    if output is None:
        for sample in samples:
            for row in rows_of(sample, pool):
                print(json.dumps(row), flush=True)
    elif output.suffix.lower() == ".npy":
        write_array(list(samples), list(split.samples.keys), pool, output)
    elif output.suffix.lower() == ".csv":
        with atomic_file(output, "w", newline="") as file:
            write_table((row for sample in samples for row in rows_of(sample, pool)), file)
    else:
        write_parquet([row for sample in samples for row in rows_of(sample, pool)], output)
    for number, why in split.skipped.bad.items():
        say_aside(f"{split.samples.keys[number]}: {why}")
    return len(split.skipped.bad)


def rows_of(sample: Embedded, pool: Pool) -> Iterator[dict[str, Any]]:
    """Yields the rows of a sample: `{"key": "a.png", "vector": [...]}`. With `pool="tokens"` there is one row per
    token, with two more keys: `input` (the name of the token's input) and `token` (the token's text or number)."""
    for number, vector in enumerate(sample.vectors.tolist()):
        token = {"input": sample.inputs[number], "token": sample.tokens[number]} if pool == "tokens" else {}
        yield {"key": sample.key, **token, "vector": vector}


def write_table(rows: Iterator[Mapping[str, Any]], file: Any) -> None:
    """Write rows as CSV with a header. Each number of a vector has a column, with the name 0, 1, 2, ..."""
    table = csv.writer(file)
    for number, row in enumerate(rows):
        *names, _ = row  # the last column is the vector
        if number == 0:
            table.writerow([*names, *range(len(row["vector"]))])
        table.writerow([*(row[name] for name in names), *row["vector"]])


def write_array(samples: Sequence[Embedded], keys: Sequence[str], pool: Pool, output: Path) -> None:
    """Write vectors as `.npy` (see `write_embeddings`). `keys` are the keys of all samples in the order of the data
    set, including samples that could not be read."""
    if pool == "tokens":
        with atomic_file(output.with_suffix(".csv"), "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["row", "key", "input", "token"])
            rows = ((sample.key, *token) for sample in samples for token in zip(sample.inputs, sample.tokens))
            table.writerows((number, *row) for number, row in enumerate(rows))
        array = torch.cat([sample.vectors for sample in samples]).numpy() if samples else np.zeros((0, 0), np.float32)
    else:
        width = samples[0].vectors.shape[1] if samples else 0
        array = np.full((len(keys), width), np.nan, np.float32)
        numbers = {key: number for number, key in enumerate(keys)}
        for sample in samples:
            array[numbers[sample.key]] = sample.vectors[0].numpy()
    with atomic_file(output, "wb") as file:
        np.save(file, array)


def write_parquet(rows: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Write rows as a parquet file, in which the vectors are one column of lists. Raises RunError if `pyarrow` is not
    installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise RunError(
            f"--output {output}: parquet files need pyarrow: pip install pyarrow; or write .csv or .npy"
        ) from None
    with atomic_file(output, "wb") as file:
        parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), file)
