"""`chopmix inspect CONFIG`: writes one HTML page with the tokens of one sample, its attention graphs and its targets.
For a text corpus, it prints tokens in colours and one batch as training examples."""

from __future__ import annotations

import base64
import html
import io
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.text import Text

from ..data.split import Split
from ..files.printing import plain_console, printable
from ..files.progress import counting
from ..files.writing import write_text
from ..models.attention.graph import Graph
from ..models.attention.mask import dense_mask, reach
from ..models.batch import IGNORED, Batch, SetPlan
from ..models.leaks import leaks
from ..models.model import Model
from ..models.tokens import CORE, Tokens
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from .build import build_model, choppers_and_tasks, open_split
from .changes import read_changes
from .run import open_part
from .settings.config import Config
from .settings.document import dumped

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}
h1,h2{line-height:1.2} img{max-width:100%} table{border-collapse:collapse} td,th{padding:.2em .8em;text-align:left;
border-bottom:1px solid #ddd} .set span{display:inline-block;min-width:.9em;margin:1px;padding:0 .15em;color:#fff;
font:12px monospace;white-space:pre} pre{background:#f5f5f5;padding:.7em;overflow:auto} .fine{color:#256029}
.bad{color:#b00}"""
COLOURS = ("on #3b4252", "on #5e4b63", "on #3f5f4f", "on #5f5533", "on #35506b")
"""The background colours of neighbouring tokens in the terminal."""
FEW = 24
"""The largest number of targets of a task that the page lists."""


def open_untrained(config: Config) -> tuple[dict[str, Chopper], dict[str, Task], Split]:
    """Returns (choppers, tasks, split) for a configuration without a run; `split` is the validation split. Choppers and
    tasks are fitted in a temporary folder. Raises DataError if the data cannot be read."""
    dataset, open_run = config.dataset(), partial(open_part, trust=config.nested)
    with tempfile.TemporaryDirectory() as folder:
        choppers, tasks = choppers_and_tasks(config, Path(folder), open_run, dataset)
    return choppers, tasks, open_split(config, dataset, "val", choppers, tasks)


def write_page(config: Config, file: Path) -> str:
    """Write the page for one sample of the validation split. Returns a sentence with the numbers of tokens, inputs and
    attention graphs. Raises DataError if the data cannot be read, OSError if the file cannot be written."""
    with counting("parts of the page", 3) as count:
        choppers, tasks, split = open_untrained(config)
        count(1)
        model = build_model(config, choppers, tasks)
        batch = split.batch(split.all()[:1])
        names = ["(core)", *config.inputs]
        count(1)
        parts = [
            f"<h1>The tokens of {html.escape(config.path.name)}</h1>",
            *(f"<p>{html.escape(line)}</p>" for change in (read_changes(config.out) if config.in_run else ())
              for line in change.lines()),
            items(split, split.all()[0].number, choppers),
            *(part for token_set in parts_of(batch, model) for part in set_parts(*token_set, choppers, names)),
            *cross_parts(batch), proof(batch, model),
            "<h2>The targets</h2>", *(target_table(name, batch, choppers, config) for name in tasks),
            "<h2>The configuration</h2>", f"<pre>{html.escape(dumped(config.tree))}</pre>",
        ]  # fmt: skip
    title = html.escape(str(config.path))
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    write_text(file, printable(head + "\n".join(parts)))
    tokens = sum(planned.tokens.shape[1] for planned in batch.sets.values())
    graphs = sum(len(set(core.graphs)) for core in model.cores.values())
    return f"{file}: {tokens} tokens of {len(config.inputs)} input(s), {graphs} attention graph(s)"


def items(split: Split, number: int, choppers: dict[str, Chopper]) -> str:
    """Returns HTML with every input of sample `number`, drawn as it is cut into tokens, and the labels. Empty for a
    text corpus."""
    if split.samples is None:
        return ""
    inputs, labels = split.item(number)
    parts = [f"<h2>One sample: {html.escape(split.samples.keys[number])}</h2>"]
    for name, item in inputs.items():
        chopper = choppers[name]
        count = chopper.count(item)
        parts.append(f"<h3 style='color:{colour(name, choppers)}'>{html.escape(name)}: {count} tokens</h3>")
        if isinstance(item, str):
            parts.append(f"<p>{html.escape(repr(item))}</p>")
        else:
            parts.append(picture(lambda canvas, chopper=chopper, item=item: chopper.draw(canvas, item), (5, 2.6)))
    parts += [f"<p>{html.escape(name)}: <b>{html.escape(str(value))}</b></p>" for name, value in labels.items()]
    return "\n".join(parts)


def target_table(name: str, batch: Batch, choppers: dict[str, Chopper], config: Config) -> str:
    """Returns HTML with the targets of the task `name` in the batch: a table of the tokens at which the task predicts
    and the ids that it must predict, or, if its target is not an input with ids, the label."""
    targets, target = batch.targets[name], config.tasks[name].options.get("target")
    vocabulary = choppers[target].vocabulary if target in choppers else None
    if vocabulary is None or not {target} & {*batch.set_of(targets).chunks} or targets.values.is_floating_point():
        (label, *_) = batch.set_of(targets).labels.get(target) or [None]
        return f"<p>{html.escape(name)}: {html.escape(str(label))}</p>"
    target_ids = targets.values.flatten().tolist()
    input_ids = batch.set_of(targets).chunks[target].values.flatten().tolist()
    if len(input_ids) != len(target_ids):  # only the masked slots are supervised
        planned = batch.set_of(targets)
        labels = labels_of(planned, planned.tokens, choppers)
        pairs = [(f"slot {slot}, {labels[slot]}", id) for slot, id in zip(targets.slots.tolist(), target_ids)]
    else:
        pairs = [(repr(vocabulary.shown(context)), id) for context, id in zip(input_ids, target_ids)]
    pairs = [(context, id) for context, id in pairs if id != IGNORED]
    rows = "".join(
        f"<tr><td>{html.escape(context)}</td><td>{html.escape(repr(vocabulary.shown(id)))}</td></tr>"
        for context, id in pairs[:FEW]
    )
    more = f"<p>The first {FEW} of {len(pairs):,}.</p>" if len(pairs) > FEW else ""
    return f"<p>{html.escape(name)}</p><table><tr><th>token</th><th>target</th></tr>{rows}</table>{more}"


# ------------------------------------------------------------------------------------------------------ on the terminal


def inspect_text(config: Config, rows: int = 4, tokens: int = 8) -> None:
    """Print the first 160 tokens of the validation text in colours. Then print one batch of `rows` x `tokens` ids as
    training examples, each with a context and the next id (as Karpathy's lecture "Let's build GPT" does):

        when the input is 18, 47 the target is 56   'Fi' -> 'r'
    """
    console = plain_console(highlight=False)
    choppers, _, split = open_untrained(config)
    (name,) = choppers
    encoding = choppers[name].vocabulary
    description = f"input {name!r}: {encoding.name}, {encoding.size:,} ids; start token {encoding.start}"
    console.print(description)
    ids = split.file.ids
    console.print(f"validation: {len(ids):,} tokens for {split.file.bytes:,} bytes, "
                  f"{split.file.bytes / len(ids):.2f} bytes a token\n")  # fmt: skip
    console.print(coloured(encoding, ids[:160].tolist()))
    console.print(f"\none batch of {rows} x {tokens} ids is {rows * tokens} examples:\n")
    for row in range(min(rows, (len(ids) - 1) // tokens)):
        window = ids[row * tokens : row * tokens + tokens + 1].tolist()
        for length in range(1, len(window)):
            context, target = window[:length], window[length]
            console.print(
                f"when the input is {', '.join(map(str, context))} the target is {target}   "
                f"{encoding.decode(context, specials=True)!r} -> {encoding.decode([target], specials=True)!r}",
                soft_wrap=True,
            )  # fmt: skip


def coloured(encoding, ids: list[int]) -> Text:
    """Returns the text of ids, with alternating background colours for the tokens. `⏎` is added before each line
    break."""
    text = Text()
    for number, id in enumerate(ids):
        piece = encoding.decode([id], specials=True)
        text.append(printable(piece).replace("\n", "⏎\n"), style=COLOURS[number % len(COLOURS)])
    return text


INPUT_COLOURS = ("#9aa0a6", "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948")
"""The colours of inputs, by the number of the input. Number 0 is for class and register tokens."""
SHOWN = 400
"""The largest number of tokens of a set that the page shows."""


def parts_of(batch: Batch, model: Model) -> list[tuple[str, SetPlan, Sequence[Graph]]]:
    """Returns (name, plan, graphs) for every set of a batch: first `encoder`, then `decoder`; if there is no encoder,
    one set with an empty name. `graphs` are the attention graphs of the core that reads the set, one per layer."""
    main, *encoder = model.graphs
    if batch.encoder is None:
        return [("", batch.main, main)]
    return [("encoder", batch.encoder, *encoder), ("decoder", batch.main, main)]


def set_parts(
    set_name: str, planned: SetPlan, graphs: Sequence[Graph], choppers: dict[str, Chopper], names: Sequence[str]
) -> list[str]:
    """Returns HTML for the first row of a set. `set_name` is the name in `parts_of`. `names` contains the name for
    class and register tokens, then the names of the inputs."""
    tokens, of = planned.tokens.select(slice(0, 1)), f" of the {set_name}" if set_name else ""
    cut = f"<p>The first {SHOWN} of its {tokens.shape[1]:,} tokens are shown.</p>" if tokens.shape[1] > SHOWN else ""
    return [
        f"<h2>The set{of}</h2>", cut, strip(planned, tokens, choppers, names), counts_table(tokens, names),
        f"<h2>Attention{of}</h2>", *graph_parts(graphs, tokens),
    ]  # fmt: skip


def cross_parts(batch: Batch) -> list[str]:
    """Returns HTML with a sentence about cross-attention. Returns an empty list if there is no encoder."""
    if batch.encoder is None:
        return []
    count = int((batch.encoder.tokens.sample[0] > 0).sum())
    return [f"<p>In every layer each token of the decoder also attends to all {count} tokens of the encoder.</p>"]


def labels_of(planned: SetPlan, tokens: Tokens, choppers: dict[str, Chopper]) -> list[str]:
    """Returns a short text for every slot (position of a token) of the first row: the text of an id, or `·` for a slot
    without an id."""
    labels = ["·"] * tokens.shape[1]
    for name, chunks in planned.chunks.items():
        vocabulary = choppers[name].vocabulary
        if vocabulary is None:
            continue
        values = chunks.values.flatten().tolist()
        slots = range(len(values)) if chunks.slots is None else chunks.slots.tolist()
        for slot, id in zip(slots, values):
            if slot < len(labels):
                labels[slot] = vocabulary.shown(id).replace("\n", "⏎")
    return labels


def strip(planned: SetPlan, tokens: Tokens, choppers: dict[str, Chopper], names: Sequence[str]) -> str:
    """Returns HTML with the texts of the tokens in order, in the colours of their inputs."""
    spans = [
        f"<span style='background:{INPUT_COLOURS[input % len(INPUT_COLOURS)]}' title='{names[input]}'>"
        f"{html.escape(label)}</span>"
        for input, label in zip(tokens.input[0, :SHOWN].tolist(), labels_of(planned, tokens, choppers))
    ]
    return f"<p class=set>{''.join(spans)}</p>"


def counts_table(tokens: Tokens, names: Sequence[str]) -> str:
    """Returns HTML with a table of the number of tokens of each input, and of their share of the set."""
    total = int((tokens.sample > 0).sum())
    rows = []
    for number, name in enumerate(names):
        count = int(((tokens.input == number) & (tokens.sample > 0)).sum())
        if count or number != CORE:
            style = f"color:{INPUT_COLOURS[number % len(INPUT_COLOURS)]}"
            share = f"{count / max(total, 1):.0%}"
            rows.append(f"<tr><td style='{style}'>{html.escape(name)}</td><td>{count}</td><td>{share}</td></tr>")
    return f"<table><tr><th>input</th><th>tokens</th><th>share</th></tr>{''.join(rows)}</table>"


def graph_parts(graphs: Sequence[Graph], tokens: Tokens) -> list[str]:
    """Returns HTML with each different attention graph as a matrix (rows are queries, columns are keys). Then follow
    matrices of the tokens whose information can have reached each token: one matrix for every depth at which the matrix
    changes, and for the last depth."""
    parts = []
    for graph in dict.fromkeys(graphs):
        layers = ", ".join(str(layer + 1) for layer, other in enumerate(graphs) if other == graph)
        parts.append(matrix(dense_mask(graph, tokens, tokens)[0], tokens, f"layer {layers}"))
    reachable = [reach(graphs[:depth], tokens)[0] for depth in range(1, len(graphs) + 1)]
    for depth, reach_matrix in enumerate(reachable, start=1):
        if depth == len(reachable) or (depth > 1 and not torch.equal(reach_matrix, reachable[depth - 2])):
            parts.append(matrix(reach_matrix, tokens, f"reachable after {depth} layer{'s' * (depth > 1)}"))
    return ["<p>Rows attend to columns.</p>", *parts, reach_table(graphs, reachable, tokens)]


def reach_table(graphs: Sequence[Graph], reachable: Sequence[torch.Tensor], tokens: Tokens) -> str:
    """Returns HTML with a table by layer: the average number of tokens that a token attends to, and the average and
    largest number of tokens whose information can have reached a token. `reachable` contains one boolean matrix (n, n)
    per depth."""
    is_token = tokens.sample[0] > 0
    rows = []
    for depth, (graph, sources) in enumerate(zip(graphs, reachable), start=1):
        attended = dense_mask(graph, tokens, tokens)[0][is_token].sum(1).float()
        sources = sources[is_token].sum(1).float()
        cells = f"{depth}</td><td>{attended.mean():.1f}</td><td>{sources.mean():.1f}</td><td>{int(sources.max())}"
        rows.append(f"<tr><td>{cells}</td></tr>")
    return (
        f"<p>Of {int(is_token.sum())} tokens:</p><table><tr><th>layer</th><th>attended to, on average</th>"
        f"<th>reachable, on average</th><th>at most</th></tr>{''.join(rows)}</table>"
    )


def proof(batch: Batch, model: Model) -> str:
    """Returns HTML with a sentence about the number of targets that can reach the slot that predicts them, found by a
    search through all layers."""
    leaked = leaks(batch, *model.graphs)
    bad = sum(map(len, leaked.values()))
    count = sum(targets.count for targets in batch.targets.values())
    if bad:
        return f"<p class=bad>{bad} of {count} targets can reach their own predictor: this graph leaks.</p>"
    return f"<p class=fine>None of the {count} targets can reach its own predictor, through all layers.</p>"


def matrix(mask: torch.Tensor, tokens: Tokens, title: str) -> str:
    """Returns HTML with a boolean mask (n, n) as an image. The colours of the inputs are drawn along the upper and left
    side."""

    def draw(canvas: Any) -> None:
        from matplotlib.colors import to_rgb

        sides = torch.tensor(
            [to_rgb(INPUT_COLOURS[number % len(INPUT_COLOURS)]) for number in tokens.input[0, :SHOWN].tolist()]
        )
        n = len(sides)
        image = torch.ones(n + 2, n + 2, 3)
        image[2:, 2:] = torch.where(mask[:SHOWN, :SHOWN, None], sides[None] * 0.9, torch.ones(3))
        image[2:, 0], image[0, 2:] = sides, sides
        canvas.imshow(image.numpy())
        canvas.set(title=title, xticks=[], yticks=[])

    return picture(draw, (3.4, 3.4))


def picture(draw, size: tuple[float, float]) -> str:
    """Returns HTML with a drawing as an embedded PNG. `draw` is a function that draws on matplotlib's Axes; `size` is
    (width, height) in inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with rc_context({"text.parse_math": False}):  # a `$` in a name does not begin a formula
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.savefig(file, format="png", dpi=110)
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def colour(name: str, choppers: Any) -> str:
    """Returns the colour of the input `name`."""
    return INPUT_COLOURS[(list(choppers).index(name) + 1) % len(INPUT_COLOURS)]
