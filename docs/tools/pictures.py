"""The pictures of the page "The path of a batch": what each package makes of a sample of the trained quickstart."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from html import escape

import chopmix
from chopmix.inference.explorer import Explorer, shown_set
from chopmix.models.attention.mask import dense_mask
from chopmix.models.batch import IGNORED

CELL = 20


@cache
def quickstart():
    """Returns the trained run that the package contains."""
    return chopmix.load("quickstart")


@cache
def split():
    """Returns its validation samples."""
    return quickstart().open("val")


@cache
def trace():
    """Returns the trace of the first validation sample."""
    item, _ = split().item(split().all()[0].number)
    return quickstart().trace(item)


def figure(width: float, height: float, body: str, caption: str) -> str:
    """Returns a drawing with a caption."""
    head = "<marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
    return (
        f"<figure class='drawing'><svg viewBox='0 0 {width} {height}' "
        f"style='max-width:{width}px;min-width:{min(width, 620)}px' role='img' "
        f"aria-label='{escape(caption, quote=True)}'><defs>{head}<path class='head' d='M0 0L8 4L0 8z'/></marker></defs>"
        f"{body}</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Returns a text. `kind`: classes of the style sheet, such as `left`, `soft` and `code`."""
    return f"<text x='{x:.1f}' y='{y:.1f}' class='{kind}'>{escape(words)}</text>"


def box(x: float, y: float, width: float, height: float, *lines: str, kind: str = "") -> str:
    """Returns a box with lines of text in the middle."""
    first = y + height / 2 + 4 - 8 * (len(lines) - 1)
    words = "".join(
        text(x + width / 2, first + 16 * number, line, kind if number else "") for number, line in enumerate(lines)
    )
    return f"<rect class='box' rx='5' x='{x}' y='{y}' width='{width}' height='{height}'/>{words}"


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """Returns an arrow."""
    return f"<path class='arrow' d='M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}'/>"


def cell(x: float, y: float, colour: int, words: str = "", size: float = CELL, filled: bool = False) -> str:
    """Returns a token: a square with the colour of its input."""
    kind = "fill" if filled else "frame"
    font, middle = min(12, 1.5 * size / max(len(words), 1)), f"x='{x + size / 2 - 1}' y='{y + size / 2 + 4}'"
    label = f"<text style='font-size:{font:.1f}px' {middle}>{escape(words)}</text>"
    square = f"<rect class='{kind}' x='{x}' y='{y}' width='{size - 3}' height='{size - 3}' rx='2'/>"
    return f"<g class='c{colour}'>{square}{label}</g>"


def tokens() -> list[tuple[int, str]]:
    """Returns (number of the input, text) of the tokens of the sample."""
    shown = shown_set("", trace().batch.main, {})
    data = explorer(shown).set_data(shown)
    return [(token["colour"], "▸" if token["text"].startswith("<|") else token["text"]) for token in data["tokens"]]


def explorer(shown) -> Explorer:
    """Returns the tokens of a set with the names of their inputs."""
    run = quickstart()
    return Explorer(sets=[shown], views=[], choppers=run.choppers, names=list(run.model.inputs))


# ------------------------------------------------------------------------------------------------------- the pictures


def experiment() -> str:
    """The sections of a YAML, and the object that each becomes."""
    rows = [
        ("inputs:", "  sound: {use: audio, mels: 24}", "AudioChopper, AudioTokenizer", "one pair per input"),
        ("model:", "  width: 64, depth: 4, heads: 2", "Transformer in a Model", "one core for all inputs"),
        (
            "tasks:",
            "  answer: {use: language_modeling}",
            "LanguageModeling, Unembedding",
            "targets, loss, metrics; head",
        ),
        ("data:", "  dataset: arithmetic", "Dataset, Split, Loader", "batches"),
        ("training:", "  optimizer: {use: muon}", "Optimizer, Schedule, Trainer", "the loop"),
    ]
    body = ""
    for number, (section, line, made, role) in enumerate(rows):
        y = 8 + 52 * number
        body += f"<rect class='box' rx='5' x='4' y='{y}' width='250' height='44'/>"
        body += text(14, y + 18, section, "code") + text(14, y + 34, line, "code")
        body += arrow(258, y + 22, 336, y + 22) + box(342, y, 240, 44, made, role, kind="soft")
    return figure(590, 268, body, "The sections of configs/quickstart.yaml, and the objects that they become")


def data() -> str:
    """Rows of a batch: samples next to each other, one colour per input."""
    train = quickstart().open("train")
    planned, body = train.batch(train.plan(seed=0, step=0), training=True).main, ""
    n = planned.tokens.shape[1]
    names, size = list(quickstart().model.inputs), 14
    several = [row for row, samples in enumerate(planned.tokens.sample.tolist()) if len({*samples} - {0}) > 1]
    chosen = sorted({0, 1, 2, 3, *several[:2]})
    for number, row in enumerate(chosen):
        y = 30 + number * (size + 8)
        body += text(4, y + 11, f"row {row + 1}", "left soft")
        before = 0
        for slot in range(n):
            owner, sample = int(planned.tokens.input[row, slot]), int(planned.tokens.sample[row, slot])
            x = 50 + slot * size
            if sample == 0:
                body += f"<rect class='off' x='{x}' y='{y}' width='{size - 3}' height='{size - 3}' rx='2'/>"
            else:
                body += cell(x, y, owner, size=size, filled=True)
                if sample != before:
                    body += f"<path class='border' d='M{x - 1.5} {y - 6}V{y + size + 2}'/>"
            before = sample
    legend = "".join(
        cell(50 + 110 * number, 4, number + 1, size=size, filled=True) + text(68 + 110 * number, 15, name, "left")
        for number, name in enumerate(names)
    )
    caption = (
        f"Some rows of the first training batch. Each row has {n} slots. Short samples share a row. Inputs that were "
        "dropped have no tokens. A sample begins at a dashed line. Grey slots are padding."
    )
    return figure(60 + n * size, 40 + len(chosen) * (size + 8), legend + body, caption)


def tokenizers() -> str:
    """An image cut into patches, a sound into slices, a text into ids."""
    item, _ = split().item(split().all()[0].number)
    shown = shown_set("", trace().batch.main, item)
    body, x = "", 10.0
    for panel in explorer(shown).set_data(shown)["inputs"]:
        if panel["name"] == "answer":
            continue
        body += text(x, 16, f"{panel['name']}: {len(panel['slots'])} tokens", "left")
        if "picture" in panel:
            width, height = panel["width"] / panel["height"] * 110, 110
            w, h = width / panel["columns"], height / panel["rows"]
            size = f"width='{width:.1f}' height='{height}' preserveAspectRatio='none'"
            body += f"<image x='{x}' y='26' {size} href='{panel['picture']}'/><g class='c{panel['colour']}'>"
            body += "".join(
                f"<rect class='frame' x='{x + (column - 1) * w:.1f}' y='{26 + (row - 1) * h:.1f}' "
                f"width='{w:.1f}' height='{h:.1f}'/>" for row, column in panel["places"]
            ) + "</g>"  # fmt: skip
        else:
            width = 130
            chunks, vocabulary = (
                trace().batch.main.chunks[panel["name"]],
                quickstart().choppers[panel["name"]].vocabulary,
            )
            for number, id in enumerate(chunks.values.flatten().tolist()):
                shown_text = vocabulary.shown(id)
                body += cell(
                    x + number * 34, 62, panel["colour"], "▸" if shown_text.startswith("<|") else shown_text, 30
                )
                body += text(x + number * 34 + 14, 108, f"id {id}", "soft")
        x += max(width, 120) + 36
    return figure(
        round(x), 146, body, "One raw value per input, and the tokens into which its chopper cuts it; ▸ begins a text"
    )


def tasks() -> str:
    """The slots of the row, and what is predicted at them."""
    targets, vocabulary = trace().batch.targets["answer"], quickstart().tasks["answer"].vocabulary
    known = dict(zip(targets.slots.tolist(), targets.values.flatten().tolist()))
    body = text(4, 26, "token", "left soft") + text(4, 62, "target", "left soft") + text(4, 92, "id", "left soft")
    for slot, (colour, words) in enumerate(tokens()):
        x = 50 + slot * CELL
        body += cell(x, 12, colour, words)
        if known.get(slot, IGNORED) != IGNORED:
            body += cell(x, 48, 6, vocabulary.shown(known[slot]).replace("<|endoftext|>", "end"))
            body += text(x + 8, 92, str(known[slot]), "soft")
    return figure(
        60 + len(tokens()) * CELL, 104, body, "Only the slots of the answer have a target: the id of the next token"
    )


def models() -> str:
    """The vectors of all inputs in one set, the mask of the row, layers and heads."""
    row = tokens()
    body = "".join(box(8, 10 + 46 * number, 150, 36, f"{name}: tokenizer", "+ type embedding", kind="soft")
                   for number, name in enumerate(quickstart().model.inputs))  # fmt: skip
    body += "".join(arrow(160, 28 + 46 * number, 196, 100) for number in range(4))
    body += "".join(cell(200, 10 + 6 * number, colour, size=7, filled=True) for number, (colour, _) in enumerate(row))
    body += text(204, 206, "(n, d)", "soft") + arrow(214, 100, 246, 100)
    graph, planned = quickstart().model.core.graphs[0], trace().batch.main.tokens
    mask = dense_mask(graph, planned, planned)[0].tolist()
    small = 180 / len(row)
    body += "".join(
        f"<rect class='{'on' if mask[i][j] else 'off'}' x='{252 + j * small:.1f}' y='{10 + i * small:.1f}' "
        f"width='{small - 0.8:.1f}' height='{small - 0.8:.1f}'/>" for i in range(len(row)) for j in range(len(row))
    )  # fmt: skip
    body += text(342, 206, "attention mask of the row (n, n)", "soft") + arrow(436, 100, 462, 100)
    for number in range(4):
        words = ["block", "attention,", "feed-forward"] if number == 3 else []
        body += box(466 + 6 * number, 40 + 6 * number, 92, 110, *words, kind="soft")
    body += text(522, 190, "4 layers", "soft") + arrow(580, 100, 606, 100)
    body += box(610, 78, 96, 44, "head", "logits (t, v)", kind="soft")
    return figure(
        712,
        216,
        body,
        "All inputs become vectors of one set; one transformer reads it; the head reads the slots with a target",
    )


def training() -> str:
    """Sums of losses, one division, one update."""
    body = ""
    for number in range(4):
        process, micro = f"process {number // 2 + 1}", f"micro-batch {number % 2 + 1}"
        y = 8 + 46 * number
        body += box(4, y, 120, 38, micro, process, kind="soft") + arrow(126, y + 19, 152, y + 19)
        body += box(156, y, 150, 38, "sum of losses", "and number of targets", kind="soft") + arrow(
            308, y + 19, 346, 100
        )
    body += box(350, 70, 150, 60, "gradient of the sums", "÷ number of targets", "of the global batch", kind="soft")
    body += arrow(502, 100, 528, 100) + box(532, 78, 96, 44, "clip", "training.clip", kind="soft")
    body += arrow(630, 100, 656, 100) + box(660, 78, 110, 44, "optimizer.step", "new weights", kind="soft")
    return figure(
        776,
        196,
        body,
        "The loss is divided once, so the number of micro-batches and processes does not change the gradient",
    )


def inference() -> str:
    """The answer, token by token, with the probabilities of the most likely tokens."""
    trained, vocabulary = trace(), quickstart().tasks["answer"].vocabulary
    output = trained.outputs["answer"]
    known = trained.batch.targets["answer"].values.flatten() != IGNORED
    shares = output[known][:, : vocabulary.size].float().softmax(-1)
    written, body = "", ""
    for number, row in enumerate(shares):
        x, best = 10 + number * 112, row.topk(3)
        body += text(x, 18, f"after “{written}”", "left soft")
        for line, (share, id) in enumerate(zip(best.values.tolist(), best.indices.tolist())):
            name = "end" if vocabulary.shown(id).startswith("<|") else vocabulary.shown(id)
            body += text(x, 42 + 20 * line, name, "left")
            place = f"x='{x + 24}' y='{33 + 20 * line}' width='{max(share * 46, 0.5):.1f}' height='10'"
            body += f"<g class='c{6 if line == 0 else 0}'><rect class='fill' {place} rx='2'/></g>"
            body += text(x + 26 + share * 46, 42 + 20 * line, f"{share:.2f}", "left soft")
        written += vocabulary.shown(int(best.indices[0]))
    return figure(
        10 + len(shares) * 112,
        92,
        body,
        "The model writes the answer token by token: the three most likely tokens at each step",
    )


PICTURES: dict[str, Callable[[], str]] = {
    f"batch-{draw.__name__}": draw for draw in (experiment, data, tokenizers, tasks, models, training, inference)
}
"""The pictures by their names in the Markdown pages."""
