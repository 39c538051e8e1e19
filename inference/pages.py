"""Pages with generated items, and pictures of confusion matrices, for evaluations."""

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
from .generate import Generating, generate_items, restored, with_item

WRITTEN, NAMED = 40, 100
"""WRITTEN: the maximum number of classes for which a confusion matrix shows the counts. NAMED: the maximum number of
classes for which a confusion matrix shows the class names. With more than NAMED classes the picture does not become
larger."""


LETTERS = 40
"""The maximum length in characters of a class name in a confusion matrix."""


def draw_confusion(counts: Tensor, classes: Sequence, file: Path) -> None:
    """Writes a picture (PNG) of a confusion matrix of n classes. Rows are true classes and columns are predicted
    classes. A color is the count divided by the sum of its row. `counts` has n * n entries, row by row."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    n = len(classes)
    matrix = counts.reshape(n, n).cpu()
    shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    with rc_context({"text.parse_math": False}):  # class names may contain $
        names = [printable(str(name)) for name in classes[:NAMED]]
        names = [name if len(name) <= LETTERS else f"{name[: LETTERS - 3]}..." for name in names]
        side = 1.5 + 0.45 * min(n, NAMED) + 0.08 * max(map(len, names), default=0)
        figure = Figure(figsize=(side, side), layout="constrained")
        canvas = figure.subplots()
        canvas.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        canvas.set(xlabel="predicted", ylabel="true")
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
"""The default number of samples per task on a page."""
PICTURES, SOUNDS = (".png", ".gif"), (".mp3", ".wav")
"""The file extensions of pictures and of sounds."""


@dataclass(frozen=True)
class Cell:
    """A cell of a page. It consists of a caption and the content of a file, whose extension is `ending`, or only of a
    caption."""

    caption: str
    ending: str = ""
    content: bytes = b""


@dataclass(frozen=True)
class Samples:
    """Generated samples: `text` consists of lines; `rows` consists of cells for items of other modalities."""

    text: str = ""
    rows: Sequence[Sequence[Cell]] = ()


def draws(task: Task) -> bool:
    """Returns whether a task generates items that are shown on a page, which are all items except texts."""
    return (task.needs.generates or task.needs.refines) and task.choppers[task.target].kind != "text"


def generated_rows(
    model: Model, tasks: Mapping[str, Task], split: SampleSplit, seed: int, most: int, count: int = COUNT
) -> list[list[Cell]]:
    """Returns rows of cells for the tasks that generate items other than texts, with one row per task and sample. The
    samples (at most `count` per task) are spread evenly over the split. A row contains the other inputs, the generated
    item and the true item. Items are drawn with the sampling settings of the task (default: temperature 1). `most` is
    the maximum number of tokens of an item that has no fixed length and is generated token by token."""
    names = [name for name, task in tasks.items() if draws(task)]
    return [row for name in names for row in rows_of(model, tasks, name, split, seed, most, count)]


def rows_of(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, seed: int, most: int, count: int
) -> list[list[Cell]]:
    """Returns the rows of the task `name`, one per sample. The parameters are those of `generated_rows`."""
    task = tasks[name]
    how = Generating(sampling=task.sampling or Sampling(), guidance=task.guidance, seed=seed,
                     max_tokens=None if task.vocabulary.length or task.needs.refines else most)  # fmt: skip
    indices = samples_with(split, task, count)
    ids_by_number = generate_items(model, tasks, name, split, indices, how) if indices else {}
    rows = []
    for number, ids in ids_by_number.items():
        sample, chopper = split.item(number)[0], split.choppers[task.target]
        others = [cell(split.choppers[input], input, value) for input, value in sample.items() if input != task.target]
        item = restored(task, ids)
        generated = Cell("generated: incomplete item") if item is None else cell(chopper, "generated", item)
        true = [cell(chopper, "true", sample[task.target])] if task.target in sample else []
        rows.append([*others, generated, *true])
    return rows


def samples_with(split: SampleSplit, task: Task, count: int) -> list[SampleIndex]:
    """Returns the indices of at most `count` samples that have a true item of the task's target, spread evenly over the
    split. If no sample has a true item, returns the first `count` samples; for a task that refines drafts, returns an
    empty list, because a draft has the length of the true item."""
    number = count
    while len(indices := with_item(split, split.first(number), task.target)) < count and number < len(split):
        number *= 4
    return spread(indices, count) or ([] if task.needs.refines else split.first(count))


def cell(chopper: Chopper, name: str, item: Any) -> Cell:
    """Returns the cell of an item. A text is shown in the caption, and an item with a vocabulary is shown as a file.
    For any other item, or a text that is not a string, the caption is only `name`."""
    vocabulary = chopper.vocabulary
    if vocabulary is None or chopper.kind == "text":
        return Cell(f"{name}: {item}" if isinstance(item, str) else name)
    ending = next((end for end in PICTURES + SOUNDS if end in vocabulary.endings), vocabulary.endings[0])
    return Cell(name, ending, vocabulary.content(vocabulary.restore(vocabulary.encode(item)), ending))


def page(title: str, rows: Sequence[Sequence[Cell]]) -> str:
    """Returns an HTML page without external files, with one table row per sample. Pictures are enlarged without
    smoothing, and sounds have a player."""
    body = "\n".join(f"<tr>{''.join(f'<td>{cell_html(entry)}</td>' for entry in row)}</tr>" for row in rows)
    style = "body{font-family:sans-serif} td{padding:6px;vertical-align:bottom;text-align:center;max-width:40em} "
    style += "img{image-rendering:pixelated;min-width:112px;background:#888} figcaption{font-size:small}"
    head = f"<meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
    return f"<!doctype html>{head}<h1>{html.escape(title)}</h1><table>{body}</table>"


def cell_html(entry: Cell) -> str:
    """Returns a cell as an HTML `figure`, or only its caption if the cell has no content."""
    caption = f"<figcaption>{html.escape(entry.caption)}</figcaption>"
    if not entry.content:
        return caption
    kind = mimetypes.types_map.get(entry.ending, "application/octet-stream")
    address = f"data:{kind};base64,{base64.b64encode(entry.content).decode()}"
    if entry.ending in PICTURES:
        return f"<figure><img src='{address}'>{caption}</figure>"
    if entry.ending in SOUNDS:
        return f"<figure><audio controls src='{address}'></audio>{caption}</figure>"
    return (
        f"<figure><a download='item{entry.ending}' href='{address}'>{html.escape(entry.ending)}</a>{caption}</figure>"
    )
