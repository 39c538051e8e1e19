"""`chopmix inspect CONFIG` as one HTML page: what the model sees of one real sample, and who may read whom."""

from __future__ import annotations

import base64
import html
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...data.sample_split import SampleSplit
from ...data.split import Split
from ...models.attention.graph import Graph, dense_mask, reach
from ...models.batch import IGNORED, Batch
from ...models.leaks import leaks
from ...models.model import Model
from ...models.tokens import CORE, Tokens
from ...tokenizers.base import Chopper
from ...tokenizers.files.printing import printable
from ...tokenizers.files.writing import write_text
from ..build import build_choppers, build_model, build_tasks, open_split
from ..settings.config import Config
from ..settings.document import dumped

COLOURS = ("#9aa0a6", "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948")
"""One per input, the core's own tokens first."""
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}
h1,h2{line-height:1.2} img{max-width:100%} table{border-collapse:collapse} td,th{padding:.2em .8em;text-align:left;
border-bottom:1px solid #ddd} .set span{display:inline-block;min-width:.9em;margin:1px;padding:0 .15em;color:#fff;
font:12px monospace;white-space:pre} pre{background:#f5f5f5;padding:.7em;overflow:auto} .fine{color:#256029} .bad{color:#b00}"""
SHOWN = 400
"""Tokens of a set that are written out and drawn at most."""


FEW = 24
"""Targets that are written out at most."""


def write_page(config: Config, file: Path) -> str:
    """Write the page for a sample of the validation split; gives one sentence that says what it shows."""
    dataset = config.data.dataset()
    with tempfile.TemporaryDirectory() as folder:
        choppers = build_choppers(config, Path(folder), dataset)
        tasks = build_tasks(config, choppers, Path(folder), dataset)
    split = open_split(config, dataset, "val", choppers, tasks)
    model = build_model(config, choppers, tasks)
    batch = split.batch(split.all()[:1])
    names = ["(core)", *config.inputs]
    parts = [
        f"<h1>What {html.escape(config.path.name)} sees</h1>", items(split, choppers),
        *(part for set in batch.sets for part in set_parts(set, batch, model, choppers, names)),
        *cross_parts(batch), proof(batch, model),
        "<h2>What is asked</h2>", *(asked(name, batch, choppers, config) for name in tasks),
        "<h2>The configuration</h2>", f"<pre>{html.escape(dumped(config.tree))}</pre>",
    ]  # fmt: skip
    title = html.escape(str(config.path))
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    write_text(file, printable(head + "\n".join(parts)))
    tokens = sum(planned.tokens.shape[1] for planned in batch.sets.values())
    graphs = sum(len(set(core.graphs)) for core in model.cores.values())
    return f"{file}: {tokens} tokens of {len(config.inputs)} input(s), {graphs} attention graph(s)"


def set_parts(set: str, batch: Batch, model: Model, choppers: dict[str, Chopper], names: Sequence[str]) -> list[str]:
    """One set: its tokens in order, how many each input has, and who reads whom in it."""
    tokens, graphs = batch.sets[set].tokens.select(slice(0, 1)), model.cores[set].graphs
    of = f" of the {set}" if len(batch.sets) > 1 else ""
    cut = f"<p>The first {SHOWN} of its {tokens.shape[1]:,} tokens are shown.</p>" if tokens.shape[1] > SHOWN else ""
    return [
        f"<h2>The set{of}</h2>", cut, strip(set, batch, tokens, choppers, names), counts_table(tokens, names),
        f"<h2>Who reads whom{' in it' if of else ''}</h2>", *graph_parts(graphs, tokens),
    ]  # fmt: skip


def cross_parts(batch: Batch) -> list[str]:
    """Who reads the encoder's set, where there is one."""
    if len(batch.sets) < 2:
        return []
    (encoder, source), (decoder, _) = batch.sets.items()
    count = int((source.tokens.sample[0] > 0).sum())
    return [f"<p>In every layer each token of the {decoder} set also reads all {count} of the {encoder} set.</p>"]


def items(split: Split, choppers: dict[str, Chopper]) -> str:
    """Every input of the first sample, drawn as it is cut."""
    if not isinstance(split, SampleSplit):
        return ""
    inputs, labels = split.item(0)
    found = [f"<h2>One sample: {html.escape(split.samples.keys[0])}</h2>"]
    for name, item in inputs.items():
        chopper = choppers[name]
        count = chopper.count(item)
        found.append(f"<h3 style='color:{colour(name, choppers)}'>{html.escape(name)}: {count} tokens</h3>")
        if isinstance(item, str):
            found.append(f"<p>{html.escape(repr(item))}</p>")
        else:
            found.append(picture(lambda canvas, chopper=chopper, item=item: chopper.draw(canvas, item), (5, 2.6)))
    found += [f"<p>{html.escape(name)}: <b>{html.escape(str(value))}</b></p>" for name, value in labels.items()]
    return "\n".join(found)


def colour(name: str, choppers: Any) -> str:
    """An input's colour."""
    return COLOURS[(list(choppers).index(name) + 1) % len(COLOURS)]


def picture(draw, size: tuple[float, float]) -> str:
    """What `draw` puts on matplotlib's Axes, as an image inside the page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with rc_context({"text.parse_math": False}):  # a `$` in a name is no formula
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.savefig(file, format="png", dpi=110)
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def labels_of(set: str, batch: Batch, tokens: Tokens, choppers: dict[str, Chopper]) -> list[str]:
    """A short text for every token of the first row: the text of an id, or a dot."""
    found = ["·"] * tokens.shape[1]
    for name, chunks in batch.sets[set].chunks.items():
        text = getattr(choppers[name], "text", None)
        if text is None:
            continue
        values = chunks.values.flatten().tolist()
        places = range(len(values)) if chunks.slots is None else chunks.slots.tolist()
        for place, id in zip(places, values):
            if place < len(found):
                found[place] = text.decode([id], specials=True).replace("\n", "⏎")
    return found


def strip(set: str, batch: Batch, tokens: Tokens, choppers: dict[str, Chopper], names: Sequence[str]) -> str:
    """The tokens in their order, in the colours of their inputs."""
    spans = [
        f"<span style='background:{COLOURS[input % len(COLOURS)]}' title='{names[input]}'>{html.escape(label)}</span>"
        for input, label in zip(tokens.input[0, :SHOWN].tolist(), labels_of(set, batch, tokens, choppers))
    ]
    return f"<p class=set>{''.join(spans)}</p>"


def counts_table(tokens: Tokens, names: Sequence[str]) -> str:
    """Tokens per input."""
    total = int((tokens.sample > 0).sum())
    rows = []
    for number, name in enumerate(names):
        count = int(((tokens.input == number) & (tokens.sample > 0)).sum())
        if count or number != CORE:
            rows.append(f"<tr><td style='color:{COLOURS[number % len(COLOURS)]}'>{html.escape(name)}</td><td>{count}</td>"
                        f"<td>{count / max(total, 1):.0%}</td></tr>")  # fmt: skip
    return f"<table><tr><th>input</th><th>tokens</th><th>share</th></tr>{''.join(rows)}</table>"


def graph_parts(graphs: Sequence[Graph], tokens: Tokens) -> list[str]:
    """Each attention graph as a matrix, rows read columns; and what every token has heard of after each layer."""
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
    """Layer by layer, how many tokens one reads there, and how many it has heard of by then."""
    there = tokens.sample[0] > 0
    rows = []
    for depth, (graph, known) in enumerate(zip(graphs, heard), start=1):
        read = dense_mask(graph, tokens, tokens)[0][there].sum(1).float()
        known = known[there].sum(1).float()
        rows.append(
            f"<tr><td>{depth}</td><td>{read.mean():.1f}</td><td>{known.mean():.1f}</td><td>{int(known.max())}</td></tr>"
        )
    return (
        f"<p>Of {int(there.sum())} tokens:</p><table><tr><th>layer</th><th>read there, on average</th>"
        f"<th>heard of by then, on average</th><th>at most</th></tr>{''.join(rows)}</table>"
    )


def matrix(mask: torch.Tensor, tokens: Tokens, title: str) -> str:
    """A mask as a picture, with the inputs' colours along both sides."""

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


def proof(batch: Batch, model: Model) -> str:
    """Whether a target can reach its own predictor."""
    found = leaks(batch, {name: core.graphs for name, core in model.cores.items()})
    bad = sum(map(len, found.values()))
    judged = sum(targets.count for targets in batch.targets.values())
    if bad:
        return f"<p class=bad>{bad} of {judged} targets can be read by their own predictor: this graph leaks.</p>"
    return f"<p class=fine>None of the {judged} targets can reach its own predictor, through all layers.</p>"


def asked(name: str, batch: Batch, choppers: dict[str, Chopper], config: Config) -> str:
    """What a task wants to hear of this sample."""
    targets, target = batch.targets[name], config.tasks[name].options.get("target")
    text = getattr(choppers.get(target), "text", None)
    if text is None:
        (label, *_) = batch.sets[targets.set].labels.get(target) or [None]
        return f"<p>{html.escape(name)}: {html.escape(str(label))}</p>"
    wanted = targets.values.flatten().tolist()
    read = batch.sets[targets.set].chunks[target].values.flatten().tolist()
    if len(read) != len(wanted):  # only some of the tokens are judged: what was hidden
        tokens = batch.sets[targets.set].tokens
        shown = labels_of(targets.set, batch, tokens, choppers)
        pairs = [(f"place {place}, {shown[place]}", id) for place, id in zip(targets.slots.tolist(), wanted)]
    else:
        pairs = [(repr(text.decode([given], specials=True)), id) for given, id in zip(read, wanted)]
    pairs = [(given, id) for given, id in pairs if id != IGNORED]
    rows = "".join(
        f"<tr><td>{html.escape(given)}</td><td>{html.escape(repr(text.decode([id], specials=True)))}</td></tr>"
        for given, id in pairs[:FEW]
    )
    more = f"<p>The first {FEW} of {len(pairs):,}.</p>" if len(pairs) > FEW else ""
    return f"<p>{html.escape(name)}</p><table><tr><th>after</th><th>say</th></tr>{rows}</table>{more}"
