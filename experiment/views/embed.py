"""`chopmix embed RUN`: a model's hidden vectors of samples, one per sample or one per token.

They are the output of the first core (the encoder, where there is one), after its final norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.samples.dataset import Listed, Samples
from ...data.samples.split import SampleSplit
from ...models.batch import Batch, SetPlan
from ...models.generation.fast_decoder import computing_type
from ...training.objective import autocast
from ..data.columns import columns_of
from ..data.samples import read_samples
from ..folder.reading import say_aside
from ..opening.own_data import whole_data
from ..run import Run

Pool = Literal["mean", "first", "tokens"]
"""`mean`: the mean over all tokens of a sample; `first`: its first token; `tokens`: every token."""
POOLS: tuple[Pool, ...] = ("mean", "first", "tokens")


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
    """A data set named on the command line (see `opening/own_data.py`) as a split of the run's inputs, without labels.
    Raises RunError or DataError for data that cannot be read."""
    columns, corpus = run.reads()
    wanted = {name: kind for name, kind in columns.items() if kind != "label"}
    dataset = whole_data(data, split, wanted, corpus)
    samples = dataset.opened(split) if dataset.holds_samples else documents_of(dataset, split, next(iter(wanted)))
    return read_samples(run.config, samples, split, run.choppers, columns_of(run.config), (), say_aside)


def documents_of(dataset: Any, split: str, name: str) -> Samples:
    """The documents of a corpus as samples of one column."""
    found = list(dataset.documents(split))
    return Listed([document.key for document in found], [{name: document.text} for document in found])
