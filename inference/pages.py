"""Pages and pictures of an evaluation: generated items, and confusions of classes."""

from __future__ import annotations

import base64
import html
import io
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.sampler import SampleIndex
from ..data.split import SampleSplit, spread
from ..files.printing import printable
from ..files.writing import write_bytes
from ..models.generation.sampling import Sampling
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from .generate import Generating, generate_items, whole, with_item

WRITTEN, NAMED = 40, 100
"""Up to so many classes a confusion matrix shows the counts, or the classes' names; its size grows up to NAMED."""


LETTERS = 40
"""Letters of a class's name that are drawn."""


def draw_confusion(counts: Tensor, classes: Sequence, file: Path) -> None:
    """Write a confusion matrix of n classes as a picture: rows are true classes, columns predicted ones, colours shares
    of the row. `counts` has n * n entries, row by row."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    n = len(classes)
    matrix = counts.reshape(n, n).cpu()
    shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    with rc_context({"text.parse_math": False}):  # a name may have a $ in it
        names = [printable(str(name)) for name in classes[:NAMED]]
        names = [name if len(name) <= LETTERS else f"{name[: LETTERS - 3]}..." for name in names]
        side = 1.5 + 0.45 * min(n, NAMED) + 0.08 * max(map(len, names), default=0)
        figure = Figure(figsize=(side, side), layout="constrained")
        canvas = figure.subplots()
        canvas.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        canvas.set(xlabel="said", ylabel="true")
        for row, column in matrix.nonzero().tolist() if n <= WRITTEN else ():
            color = "white" if shares[row, column] > 0.5 else "black"
            canvas.text(column, row, int(matrix[row, column]), ha="center", va="center", color=color)
        if n <= NAMED:
            canvas.set_xticks(range(n), names, rotation=90)
            canvas.set_yticks(range(n), names)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
    write_bytes(file, content.getvalue(), within=file.parent)


COUNT = 12
"""How many samples a sheet shows."""
PICTURES, SOUNDS = (".png", ".gif"), (".mp3", ".wav")
"""The endings of what is seen, and of what is heard."""


@dataclass(frozen=True)
class Cell:
    """One thing on a sheet: the content of a file with this ending, or the caption alone."""

    caption: str
    ending: str = ""
    content: bytes = b""


@dataclass(frozen=True)
class Samples:
    """What a model generates as it is now: lines of text, and rows of cells where it is more than text."""

    text: str = ""
    rows: Sequence[Sequence[Cell]] = ()


def draws(task: Task) -> bool:
    """Whether a task generates items that are more than text, and are shown on a sheet."""
    return (task.needs.generates or task.needs.refines) and task.choppers[task.target].kind != "text"


def generated_rows(
    model: Model, tasks: Mapping[str, Task], split: SampleSplit, seed: int, most: int, count: int = COUNT
) -> list[list[Cell]]:
    """For every task that draws and some samples, spread over the split: the other inputs, what is generated from them,
    and the true item. Drawn as the task says, else at temperature 1; token by token at most `most`, unless all items
    have one length."""
    drawing = [name for name, task in tasks.items() if draws(task)]
    return [row for name in drawing for row in rows_of(model, tasks, name, split, seed, most, count)]


def rows_of(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, seed: int, most: int, count: int
) -> list[list[Cell]]:
    """The rows of one task."""
    task = tasks[name]
    how = Generating(sampling=task.sampling or Sampling(), guidance=task.guidance, seed=seed,
                     max_tokens=None if task.vocabulary.length or task.needs.refines else most)  # fmt: skip
    places = samples_with(split, task, count)
    written = generate_items(model, tasks, name, split, places, how) if places else {}
    rows = []
    for number, ids in written.items():
        given, own = split.item(number)[0], split.choppers[task.target]
        others = [cell(split.choppers[each], each, item) for each, item in given.items() if each != task.target]
        made = whole(task, ids)
        shown = Cell("generated: no whole item") if made is None else cell(own, "generated", made)
        rows.append([*others, shown, *([cell(own, "true", given[task.target])] if task.target in given else [])])
    return rows


def samples_with(split: SampleSplit, task: Task, count: int) -> list[SampleIndex]:
    """The places of at most `count` samples that have a true item of a task, spread over the split. Where none has one,
    of any samples, but for a task that refines drafts: a draft is as long as the true item."""
    number = count
    while len(found := with_item(split, split.first(number), task.target)) < count and number < len(split):
        number *= 4
    return spread(found, count) or ([] if task.needs.refines else split.first(count))


def cell(chopper: Chopper, name: str, item: Any) -> Cell:
    """An item on a sheet: a text in its caption, a picture or a sound as a file, all else by its name alone."""
    known = chopper.vocabulary
    if known is None or chopper.kind == "text":
        return Cell(f"{name}: {item}" if isinstance(item, str) else name)
    ending = next((each for each in PICTURES + SOUNDS if each in known.endings), known.endings[0])
    return Cell(name, ending, known.content(known.restore(known.encode(item)), ending))


def page(title: str, rows: Sequence[Sequence[Cell]]) -> str:
    """A page of HTML that needs no other file: a row per sample, pictures enlarged without smoothing, sounds as
    players."""
    body = "\n".join(f"<tr>{''.join(f'<td>{shown(each)}</td>' for each in row)}</tr>" for row in rows)
    style = "body{font-family:sans-serif} td{padding:6px;vertical-align:bottom;text-align:center;max-width:40em} "
    style += "img{image-rendering:pixelated;min-width:112px;background:#888} figcaption{font-size:small}"
    head = f"<meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
    return f"<!doctype html>{head}<h1>{html.escape(title)}</h1><table>{body}</table>"


def shown(each: Cell) -> str:
    """One cell as HTML."""
    caption = f"<figcaption>{html.escape(each.caption)}</figcaption>"
    if not each.content:
        return caption
    kind = mimetypes.types_map.get(each.ending, "application/octet-stream")
    address = f"data:{kind};base64,{base64.b64encode(each.content).decode()}"
    if each.ending in PICTURES:
        return f"<figure><img src='{address}'>{caption}</figure>"
    if each.ending in SOUNDS:
        return f"<figure><audio controls src='{address}'></audio>{caption}</figure>"
    return f"<figure><a download='item{each.ending}' href='{address}'>{html.escape(each.ending)}</a>{caption}</figure>"
