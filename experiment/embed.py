"""`chopmix embed RUN`: writes a model's hidden vectors, one per sample or one per token, to a `.npy`, `.csv` or
`.parquet` file, or as JSON lines to standard output.

The vectors are the output of the first core after its final norm. The first core is the encoder if there is one, else
the main core."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data.request import Request
from ..data.samples import Listed, Samples
from ..data.split import SampleSplit
from ..files.arrays import array_file, header
from ..files.errors import RunError
from ..files.printing import json_line, say_aside
from ..files.progress import counting
from ..files.rows import UTF8, ending_of, row_file
from ..files.writing import atomic_file
from ..inference.requests import absent_lines, readable
from ..models.arithmetic import computing_type, finite
from ..models.batch import Batch, SetPlan
from ..training.objective import autocast
from .answers import Shard, parts_of
from .build import read_samples
from .own_data import dataset_for
from .read_ahead import read_ahead
from .run import Run

Pool = Literal["mean", "first", "tokens"]
"""`mean`: the mean over all tokens of a sample; `first`: the vector of the first token; `tokens`: the vectors of all
tokens."""
ENDINGS = (".npy", ".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Embedded:
    """The vectors of one sample, (t, d): one row per token, or a single row if the vectors are pooled.

    An example with one class token and the generated text "ab" as bytes, which begins with the start token:

        inputs    own    text             text    text
        tokens    0      <|endoftext|>    a       b
    """

    key: str
    number: int
    """The number of the sample in its split."""
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
    """Yields the vectors of a split's samples, in the order of the data set. Samples that cannot be read are omitted.
    `rows` is the number of samples that are read at a time."""
    requests = (Request(indices=part) for part in parts_of(len(split), rows))
    with read_ahead(split, run.config.data.workers), counting("samples", len(split)) as count:
        for (batch,) in split.fetch_all(requests):
            if batch.first.keys:
                yield from _embedded(run, batch, pool)
            count(rows)


def _embedded(run: Run, batch: Batch, pool: Pool) -> Iterator[Embedded]:
    device, planned = run.model_device, batch.first
    with torch.inference_mode(), autocast(device, run.precision):
        planned = run.model.plan_first(planned, dtype=computing_type(run.model), device=device).to(device)
        hidden = run.model.read_first(planned).flatten(0, 1).float().cpu()
    samples = planned.tokens.sample.flatten()
    finite(hidden[samples.cpu() > 0])
    descriptions = token_labels(run, planned) if pool == "tokens" else []
    for order, (key, seed) in enumerate(zip(planned.keys, planned.seeds), start=1):
        number, slots = seed[-1], (samples == order).nonzero()[:, 0]
        if pool == "tokens":
            labels = [descriptions[slot] for slot in slots.tolist()]
            inputs, tokens = zip(*labels) if labels else ((), ())
            yield Embedded(key, number, hidden[slots], inputs, tokens)
        else:
            vector = hidden[slots].mean(0) if pool == "mean" else hidden[slots[0]]
            yield Embedded(key, number, vector[None])


def token_labels(run: Run, planned: SetPlan) -> list[tuple[str, str]]:
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
    for number, slot in enumerate(planned.core_slots.T.flatten().tolist() if planned.core_slots is not None else ()):
        labels[slot] = "own", str(number // len(planned.core_slots))
    return labels


# ----------------------------------------------------------------------------------------------- from the command line


def embedded_split(run: Run, data: str, split: str, shard: Shard = Shard()) -> SampleSplit:
    """Returns a shard of a split of the data set that the command line names (see `own_data.py`), with the inputs of
    the run and without labels. Raises RunError or DataError if the data cannot be read."""
    dataset = dataset_for(run, data, split, labels=False)
    samples = (
        dataset.opened(split) if dataset.holds_samples else documents_of(dataset, split, next(iter(run.reads()[0])))
    )
    return read_samples(run.config, shard.of_samples(samples), split, run.choppers, say_aside)


def documents_of(dataset: Any, split: str, name: str) -> Samples:
    """Returns the documents of a text corpus as samples with one column, `name`."""
    documents = list(dataset.documents(split))
    return Listed([document.key for document in documents], [{name: document.text} for document in documents])


def write_embeddings(run: Run, split: SampleSplit, pool: Pool, output: Path | None) -> int:
    """Write the vectors of a split to a file, or, if `output` is None, as JSON lines to standard output. Returns the
    number of samples that could not be read.

        .npy                 float32 (samples, d); a sample that could not be read is a row of NaN
        .csv                 columns key, 0, 1, 2, ... (one column per number of the vector), without, error
        .jsonl, .parquet     columns key, vector, without, error; in JSON lines only if the sample lacks inputs
                             (`without`) or has an error

    The rows are in the order of the data set. With `pool="tokens"` there is one row per token, and the columns input
    and token follow the key; a `.npy` file (tokens, d) has a `.csv` file of the same name with row, key, input and
    token of each token, and no row for a sample that could not be read. Raises DataError for another ending and for
    `.parquet` without pyarrow, OSError if the file cannot be written."""
    ending = "" if output is None else ending_of(output, ENDINGS)
    if output is not None and "\0" in str(output):
        raise RunError(f"{str(output)!r} cannot be the name of a file")
    samples = embedded(run, split, pool)
    if output is None:
        for row in (row for group in embedding_rows(run, split, samples, pool) for row in group):
            print(json_line(row), flush=True)
    elif ending == ".npy":
        (write_tokens if pool == "tokens" else write_array)(samples, output, len(split))
    else:
        with row_file(output) as write:
            for group in embedding_rows(run, split, samples, pool, columns=ending == ".csv"):
                write(group)
    absent = [absent_inputs(run, split, number) for number in split.skipped.absent]
    for line in absent_lines(run, absent, len(split), "read"):
        say_aside(line)
    for number, why in split.skipped.bad.items():
        say_aside(f"{split.samples.keys[number]}: {why}")
    return len(split.skipped.bad)


def absent_inputs(run: Run, split: SampleSplit, number: int) -> list[str]:
    """Returns the inputs of the core whose vectors are read that a sample lacks."""
    expected = run.wiring.encoded or readable(run, run.tasks)
    return [name for name in expected if name in split.skipped.absent.get(number, ())]


def embedding_rows(
    run: Run, split: SampleSplit, samples: Iterable[Embedded], pool: Pool, columns: bool = False
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of each sample: `{"key": "a.png", "vector": [...]}`. With `pool="tokens"` there is one row per
    token, with two more keys: `input` (the name of the token's input) and `token` (the token's text or number). A
    sample that cannot be read has one row, `{"key": "b.png", "error": reason}`. `columns`: instead of `vector`, each
    number has a key: "0", "1", ..."""
    following = 0
    for sample in samples:
        yield from (error_row(split, number) for number in range(following, sample.number))
        following, rows = sample.number + 1, []
        without = {"without": names} if (names := absent_inputs(run, split, sample.number)) else {}
        for number, vector in enumerate(sample.vectors.tolist()):
            token = {"input": sample.inputs[number], "token": sample.tokens[number]} if pool == "tokens" else {}
            values = {str(index): value for index, value in enumerate(vector)} if columns else {"vector": vector}
            rows.append({"key": sample.key, **token, **values, **without})
        yield rows
    yield from (error_row(split, number) for number in range(following, len(split)))


def error_row(split: SampleSplit, number: int) -> list[dict[str, Any]]:
    """Returns the row of a sample that cannot be read."""
    return [{"key": split.samples.keys[number], "error": split.skipped.bad[number]}]


def write_array(samples: Iterator[Embedded], output: Path, count: int) -> None:
    """Write one vector per sample as `.npy`. `count` is the number of samples, including those that cannot be read."""
    first = next(samples, None)
    width, following = 0 if first is None else first.vectors.shape[1], 0
    with array_file(output, (count, width)) as write:
        for sample in chain([] if first is None else [first], samples):
            write(np.full((sample.number - following, width), np.nan))
            write(sample.vectors[0].numpy())
            following = sample.number + 1
        write(np.full((count - following, width), np.nan))


def write_tokens(samples: Iterator[Embedded], output: Path, count: int) -> None:
    """Write one vector per token as `.npy`, and a `.csv` file that describes the rows."""
    total, width = 0, 0
    with atomic_file(output.with_suffix(".csv"), "w", newline="", **UTF8) as file, tempfile.TemporaryFile() as vectors:
        table = csv.writer(file)
        table.writerow(["row", "key", "input", "token"])
        for sample in samples:
            labels = enumerate(zip(sample.inputs, sample.tokens), start=total)
            table.writerows((number, sample.key, *token) for number, token in labels)
            vectors.write(sample.vectors.numpy().tobytes())
            total, width = total + len(sample.vectors), sample.vectors.shape[1]
        vectors.seek(0)
        with atomic_file(output, "wb") as array:
            np.lib.format.write_array_header_1_0(array, header((total, width)))
            shutil.copyfileobj(vectors, array)
