"""HTML of one set of tokens: the tokens in order, how many each input has, and which token attends to which."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import torch

from ...models.attention.graph import Graph
from ...models.attention.mask import dense_mask, reach
from ...models.batch import Batch, SetPlan
from ...models.leaks import leaks
from ...models.model import Model
from ...models.tokens import CORE, Tokens
from ...tokenizers.base import Chopper

COLOURS = ("#9aa0a6", "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948")
"""By the number of the input; 0 are class and register tokens."""
SHOWN = 400
"""At most this many tokens of a set are written out and drawn."""


def parts_of(batch: Batch, model: Model) -> list[tuple[str, SetPlan, Sequence[Graph]]]:
    """(whose, plan, graphs) of every set of a batch: `encoder`, then `decoder`, or empty where there is one set; its
    core's attention graphs, one per layer."""
    main, *encoder = model.graphs
    if batch.encoder is None:
        return [("", batch.main, main)]
    return [("encoder", batch.encoder, *encoder), ("decoder", batch.main, main)]


def set_parts(
    whose: str, planned: SetPlan, graphs: Sequence[Graph], choppers: dict[str, Chopper], names: Sequence[str]
) -> list[str]:
    """HTML of the first row of a set. `whose` as in `parts_of`; `names` are those of the inputs, class and register
    tokens first."""
    tokens, of = planned.tokens.select(slice(0, 1)), f" of the {whose}" if whose else ""
    cut = f"<p>The first {SHOWN} of its {tokens.shape[1]:,} tokens are shown.</p>" if tokens.shape[1] > SHOWN else ""
    return [
        f"<h2>The set{of}</h2>", cut, strip(planned, tokens, choppers, names), counts_table(tokens, names),
        f"<h2>Who reads whom{' in it' if of else ''}</h2>", *graph_parts(graphs, tokens),
    ]  # fmt: skip


def cross_parts(batch: Batch) -> list[str]:
    """HTML: a sentence about cross-attention, where there is an encoder."""
    if batch.encoder is None:
        return []
    count = int((batch.encoder.tokens.sample[0] > 0).sum())
    return [f"<p>In every layer each token of the decoder's set also reads all {count} of the encoder's.</p>"]


def labels_of(planned: SetPlan, tokens: Tokens, choppers: dict[str, Chopper]) -> list[str]:
    """A short text for every slot of the first row: the text of an id, `·` for anything else."""
    found = ["·"] * tokens.shape[1]
    for name, chunks in planned.chunks.items():
        vocabulary = choppers[name].vocabulary
        if vocabulary is None:
            continue
        values = chunks.values.flatten().tolist()
        places = range(len(values)) if chunks.slots is None else chunks.slots.tolist()
        for place, id in zip(places, values):
            if place < len(found):
                found[place] = vocabulary.shown(id).replace("\n", "⏎")
    return found


def strip(planned: SetPlan, tokens: Tokens, choppers: dict[str, Chopper], names: Sequence[str]) -> str:
    """HTML: the tokens in order, in the colours of their inputs."""
    spans = [
        f"<span style='background:{COLOURS[input % len(COLOURS)]}' title='{names[input]}'>{html.escape(label)}</span>"
        for input, label in zip(tokens.input[0, :SHOWN].tolist(), labels_of(planned, tokens, choppers))
    ]
    return f"<p class=set>{''.join(spans)}</p>"


def counts_table(tokens: Tokens, names: Sequence[str]) -> str:
    """HTML: a table of tokens per input, and their share of the set."""
    total = int((tokens.sample > 0).sum())
    rows = []
    for number, name in enumerate(names):
        count = int(((tokens.input == number) & (tokens.sample > 0)).sum())
        if count or number != CORE:
            style = f"color:{COLOURS[number % len(COLOURS)]}"
            share = f"{count / max(total, 1):.0%}"
            rows.append(f"<tr><td style='{style}'>{html.escape(name)}</td><td>{count}</td><td>{share}</td></tr>")
    return f"<table><tr><th>input</th><th>tokens</th><th>share</th></tr>{''.join(rows)}</table>"


def graph_parts(graphs: Sequence[Graph], tokens: Tokens) -> list[str]:
    """HTML: each different attention graph as a matrix, rows (queries) read columns (keys), then the tokens that can
    have reached each token, for each depth at which that changes."""
    pictures = []
    for graph in dict.fromkeys(graphs):
        layers = ", ".join(str(layer + 1) for layer, each in enumerate(graphs) if each == graph)
        pictures.append(matrix(dense_mask(graph, tokens, tokens)[0], tokens, f"layer {layers}"))
    heard = [reach(graphs[:depth], tokens)[0] for depth in range(1, len(graphs) + 1)]
    for depth, known in enumerate(heard, start=1):
        if depth == len(heard) or (depth > 1 and not torch.equal(known, heard[depth - 2])):
            pictures.append(matrix(known, tokens, f"heard of after {depth} layer{'s' * (depth > 1)}"))
    return ["<p>Rows read columns.</p>", *pictures, reach_table(graphs, heard, tokens)]


def reach_table(graphs: Sequence[Graph], heard: Sequence[torch.Tensor], tokens: Tokens) -> str:
    """HTML: a table by layer of how many tokens a token attends to there, on average, and how many can have reached it
    by then, on average and at most. `heard`: a matrix (n, n) for each depth."""
    there = tokens.sample[0] > 0
    rows = []
    for depth, (graph, known) in enumerate(zip(graphs, heard), start=1):
        read = dense_mask(graph, tokens, tokens)[0][there].sum(1).float()
        known = known[there].sum(1).float()
        cells = f"{depth}</td><td>{read.mean():.1f}</td><td>{known.mean():.1f}</td><td>{int(known.max())}"
        rows.append(f"<tr><td>{cells}</td></tr>")
    return (
        f"<p>Of {int(there.sum())} tokens:</p><table><tr><th>layer</th><th>read there, on average</th>"
        f"<th>heard of by then, on average</th><th>at most</th></tr>{''.join(rows)}</table>"
    )


def proof(batch: Batch, model: Model) -> str:
    """HTML: a sentence on how many targets can reach their own predictor, found by search through all layers."""
    found = leaks(batch, *model.graphs)
    bad = sum(map(len, found.values()))
    judged = sum(targets.count for targets in batch.targets.values())
    if bad:
        return f"<p class=bad>{bad} of {judged} targets can be read by their own predictor: this graph leaks.</p>"
    return f"<p class=fine>None of the {judged} targets can reach its own predictor, through all layers.</p>"


def matrix(mask: torch.Tensor, tokens: Tokens, title: str) -> str:
    """HTML: a boolean mask (n, n) as a picture, with the colours of the inputs along both sides."""

    def draw(canvas: Any) -> None:
        from matplotlib.colors import to_rgb

        sides = torch.tensor([to_rgb(COLOURS[number % len(COLOURS)]) for number in tokens.input[0, :SHOWN].tolist()])
        n = len(sides)
        image = torch.ones(n + 2, n + 2, 3)
        image[2:, 2:] = torch.where(mask[:SHOWN, :SHOWN, None], sides[None] * 0.9, torch.ones(3))
        image[2:, 0], image[0, 2:] = sides, sides
        canvas.imshow(image.numpy())
        canvas.set(title=title, xticks=[], yticks=[])

    return picture(draw, (3.4, 3.4))


def picture(draw, size: tuple[float, float]) -> str:
    """HTML: what the function `draw` puts on matplotlib's Axes, as a PNG inside the page; `size` in inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with rc_context({"text.parse_math": False}):  # a `$` in a name is no formula
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.savefig(file, format="png", dpi=110)
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def colour(name: str, choppers: Any) -> str:
    """An input's colour."""
    return COLOURS[(list(choppers).index(name) + 1) % len(COLOURS)]
