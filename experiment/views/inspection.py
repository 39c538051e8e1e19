"""`chopmix inspect CONFIG`: one HTML page with the tokens of one real sample, its attention graphs and its targets; on
the terminal, of a text corpus, its tokens in colours, and one batch written out as training examples."""

from __future__ import annotations

import html
from pathlib import Path

from rich.text import Text

from ...data.split import Split
from ...files.printing import plain_console, printable
from ...files.writing import write_text
from ...models.batch import IGNORED, Batch
from ...tokenizers.base import Chopper
from ..assemble import open_untrained
from ..build import build_model
from ..settings.config import Config
from ..settings.document import dumped
from .set_page import colour, cross_parts, labels_of, parts_of, picture, proof, set_parts

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}
h1,h2{line-height:1.2} img{max-width:100%} table{border-collapse:collapse} td,th{padding:.2em .8em;text-align:left;
border-bottom:1px solid #ddd} .set span{display:inline-block;min-width:.9em;margin:1px;padding:0 .15em;color:#fff;
font:12px monospace;white-space:pre} pre{background:#f5f5f5;padding:.7em;overflow:auto} .fine{color:#256029}
.bad{color:#b00}"""
COLOURS = ("on #3b4252", "on #5e4b63", "on #3f5f4f", "on #5f5533", "on #35506b")
"""The colours of neighbouring tokens on the terminal."""
FEW = 24
"""At most this many targets of a task are listed."""


def write_page(config: Config, file: Path) -> str:
    """Write the page for one sample of the validation split; gives a sentence with its numbers of tokens, inputs and
    graphs. Raises DataError for data that cannot be read, OSError where the file cannot be written."""
    choppers, tasks, split = open_untrained(config)
    model = build_model(config, choppers, tasks)
    batch = split.batch(split.all()[:1])
    names = ["(core)", *config.inputs]
    parts = [
        f"<h1>What {html.escape(config.path.name)} sees</h1>", items(split, split.all()[0].number, choppers),
        *(part for each in parts_of(batch, model) for part in set_parts(*each, choppers, names)),
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


def items(split: Split, number: int, choppers: dict[str, Chopper]) -> str:
    """HTML: every input of one of the split's samples, drawn as it is cut into tokens, and its labels; empty for a
    corpus."""
    if split.samples is None:
        return ""
    inputs, labels = split.item(number)
    found = [f"<h2>One sample: {html.escape(split.samples.keys[number])}</h2>"]
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


def asked(name: str, batch: Batch, choppers: dict[str, Chopper], config: Config) -> str:
    """HTML: a task's targets in the batch: the label, or a table of supervised tokens and the ids to predict."""
    targets, target = batch.targets[name], config.tasks[name].options.get("target")
    vocabulary = choppers[target].vocabulary if target in choppers else None
    if vocabulary is None or not {target} & {*batch.set_of(targets).chunks} or targets.values.is_floating_point():
        (label, *_) = batch.set_of(targets).labels.get(target) or [None]
        return f"<p>{html.escape(name)}: {html.escape(str(label))}</p>"
    wanted = targets.values.flatten().tolist()
    read = batch.set_of(targets).chunks[target].values.flatten().tolist()
    if len(read) != len(wanted):  # only some slots are supervised: the masked ones
        planned = batch.set_of(targets)
        shown = labels_of(planned, planned.tokens, choppers)
        pairs = [(f"place {place}, {shown[place]}", id) for place, id in zip(targets.slots.tolist(), wanted)]
    else:
        pairs = [(repr(vocabulary.shown(given)), id) for given, id in zip(read, wanted)]
    pairs = [(given, id) for given, id in pairs if id != IGNORED]
    rows = "".join(
        f"<tr><td>{html.escape(given)}</td><td>{html.escape(repr(vocabulary.shown(id)))}</td></tr>"
        for given, id in pairs[:FEW]
    )
    more = f"<p>The first {FEW} of {len(pairs):,}.</p>" if len(pairs) > FEW else ""
    return f"<p>{html.escape(name)}</p><table><tr><th>after</th><th>say</th></tr>{rows}</table>{more}"


# ------------------------------------------------------------------------------------------------------ on the terminal


def inspect_text(config: Config, rows: int = 4, tokens: int = 8) -> None:
    """Print the first 160 tokens of the validation text in colours, then a batch of `rows` x `tokens` ids as its
    examples of context and next id (as in Karpathy's lecture "Let's build GPT"):

        when the input is 18, 47 the target is 56   'Fi' -> 'r'
    """
    console = plain_console(highlight=False)
    choppers, _, split = open_untrained(config)
    (name,) = choppers
    encoding = choppers[name].vocabulary
    about = f"input {name!r}: {encoding.name}, {encoding.size:,} ids; start token {encoding.start}"
    console.print(about)
    ids = split.file.ids
    console.print(f"validation: {len(ids):,} tokens for {split.file.bytes:,} bytes, "
                  f"{split.file.bytes / len(ids):.2f} bytes a token\n")  # fmt: skip
    console.print(coloured(encoding, ids[:160].tolist()))
    console.print(f"\none batch of {rows} x {tokens} ids is {rows * tokens} examples:\n")
    for row in range(min(rows, (len(ids) - 1) // tokens)):
        window = ids[row * tokens : row * tokens + tokens + 1].tolist()
        for length in range(1, len(window)):
            given, target = window[:length], window[length]
            console.print(
                f"when the input is {', '.join(map(str, given))} the target is {target}   "
                f"{encoding.decode(given, specials=True)!r} -> {encoding.decode([target], specials=True)!r}",
                soft_wrap=True,
            )  # fmt: skip


def coloured(encoding, ids: list[int]) -> Text:
    """The text of ids with neighbouring tokens on different colours; a line break shows as ⏎ and is made."""
    text = Text()
    for number, id in enumerate(ids):
        piece = encoding.decode([id], specials=True)
        text.append(printable(piece).replace("\n", "⏎\n"), style=COLOURS[number % len(COLOURS)])
    return text
