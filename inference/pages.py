"""Pages with generated items, and cells with the content of samples."""

from __future__ import annotations

import base64
import io
import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from torch import Tensor

from ..data.sampler import SampleIndex
from ..data.split import SampleSplit, spread
from ..files.reading import read_bytes
from ..models.generation.sampling import Sampling
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from .document import document, drawing, escaped, table
from .generate import Generating
from .items import generate_items, restored
from .refine import with_item
from .trained import TrainedModel

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
    drawing: str = ""
    """The address of an embedded drawing, such as the notes of a score; also without a content."""
    is_plot: bool = False
    """Whether the picture is a plot on a white ground, which is dark in dark mode."""


@dataclass(frozen=True)
class Samples:
    """Generated samples: `text` consists of lines; `rows` consists of cells for items of other modalities."""

    text: str = ""
    rows: Sequence[Sequence[Cell]] = ()


def draws(task: Task) -> bool:
    """Returns whether a task generates items that are shown on a page, which are all items except texts."""
    return task.needs.makes_items and task.choppers[task.target].kind != "text"


def generated_rows(
    trained: TrainedModel, split: SampleSplit, seed: int, most: int, count: int | None = None
) -> list[list[Cell]]:
    """Returns rows of cells for the tasks that generate items other than texts, with one row per task and sample. The
    samples (at most `count` per task, by default COUNT) are spread evenly over the split. A row contains the other
    inputs, the generated item and the true item. Items are drawn with the sampling settings of the task (default:
    temperature 1). `most` is the maximum number of tokens of an item that has no fixed length and is generated token by
    token."""
    names = [name for name, task in trained.tasks.items() if draws(task)]
    return [row for name in names for row in rows_of_task(trained, name, split, seed, most, count or COUNT)]


def rows_of_task(
    trained: TrainedModel, name: str, split: SampleSplit, seed: int, most: int, count: int
) -> list[list[Cell]]:
    """Returns the rows of the task `name`, one per sample. The parameters are those of `generated_rows`."""
    task = trained.tasks[name]
    how = Generating(sampling=task.sampling or Sampling(), guidance=task.guidance, seed=seed,
                     max_tokens=None if task.needs.refines or task.vocabulary.length else most)  # fmt: skip
    indices = samples_with(split, task, count)
    ids_by_number = generate_items(trained, name, split, indices, how) if indices else {}
    rows = []
    for number, ids in ids_by_number.items():
        sample, chopper = split.item(number)[0], split.choppers[task.target]
        others = [cell(split.choppers[input], input, value) for input, value in sample.items() if input != task.target]
        item = restored(task, ids)
        generated = Cell("generated: incomplete item") if item is None else item_cell(chopper, "generated", item)
        true = [item_cell(chopper, "true", sample[task.target])] if task.target in sample else []
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


def item_cell(chopper: Chopper, name: str, item: Any) -> Cell:
    """Returns the cell of a generated or true item, as `cell`; an item without a vocabulary is also shown as a file."""
    if chopper.vocabulary is None and chopper.endings:
        return Cell(name, chopper.endings[0], chopper.content(item, chopper.endings[0]))
    return cell(chopper, name, item)


def cell(chopper: Chopper, name: str, item: Any) -> Cell:
    """Returns the cell of an item. A text is shown in the caption, and an item with a vocabulary is shown as a file.
    For any other item, or a text that is not a string, the caption is only `name`."""
    vocabulary = chopper.vocabulary
    if vocabulary is None or chopper.kind == "text":
        return Cell(f"{name}: {item}" if isinstance(item, str) else name)
    ending = next((end for end in PICTURES + SOUNDS if end in vocabulary.endings), vocabulary.endings[0])
    shown = vocabulary.restore(vocabulary.encode(item))
    drawn = "" if ending in PICTURES else drawn_cell(chopper, name, item).drawing
    return Cell(name, ending, vocabulary.content(shown, ending), drawn, is_plot=bool(drawn))


PICTURED = ("image", "video")
"""The kinds of choppers whose drawings keep their colours in dark mode. All other drawings are black on white."""


def drawn_cell(chopper: Chopper, name: str, item: Any) -> Cell:
    """Returns a cell with the drawing of an item by its chopper, such as the channels of a sensor or the notes of a
    score; for a text, the name."""
    if item is None or chopper.kind == "text":
        return Cell(name)
    drawn = drawing(lambda canvas: chopper.draw(canvas, item), (3.6, 1.7))
    return Cell(name, drawing=drawn, is_plot=chopper.kind not in PICTURED)


def page(title: str, rows: Sequence[Sequence[Cell]]) -> str:
    """Returns an HTML page without external files, with one table row per sample. Pictures are enlarged without
    smoothing, and sounds have a player."""
    return document(title, [table([], [[cell_html(entry, "pixels") for entry in row] for row in rows])])


SIDE = 320
"""The largest side of a picture of a sample in pixels; larger ones are reduced."""
LARGEST = 2_000_000
"""The largest size of a sound of a sample in bytes; larger ones are not shown."""
STARTS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3"}
"""The ending of the file of a sound by its first bytes."""


def media_cell(name: str, value: Any) -> Cell | None:
    """Returns a cell for a raw value of a column, so that it can be seen or heard: the path or the content of a file,
    an array of pixels (h, w) or (h, w, 3) or (c, h, w), or a sound (samples, rate). A short text is a caption. Returns
    None for any other value, and for a file that cannot be read."""
    if isinstance(value, str):
        return Cell(f"{name}: {value[:200]}")
    try:
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int):
            content = io.BytesIO()
            soundfile.write(content, np.asarray(value[0]), value[1], format="WAV")
            return sound_cell(name, content.getvalue(), ".wav")
        if isinstance(value, np.ndarray | Tensor):
            array = np.asarray(value)
            array = array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] in (1, 3) else array
            is_picture = array.dtype == np.uint8 and array.ndim in (2, 3) and array.shape[2:] in ((), (1,), (3,))
            return picture_cell(name, Image.fromarray(array.squeeze())) if is_picture else None
        return picture_cell(name, value) if isinstance(value, Image.Image) else file_cell(name, value)
    except (ValueError, OSError, TypeError, RuntimeError, SyntaxError, Image.DecompressionBombError):
        return None


def file_cell(name: str, value: Any) -> Cell | None:
    """Returns a cell for the path or the content of a picture or a sound; None for any other value. Raises an error of
    the decoder if it cannot be read."""
    content_bytes = read_bytes(value) if isinstance(value, Path) else value
    if not isinstance(content_bytes, bytes):
        return None
    if ending := next((ending for start, ending in STARTS.items() if content_bytes.startswith(start)), ""):
        return sound_cell(name, content_bytes, ending)
    with Image.open(io.BytesIO(content_bytes)) as picture:
        return picture_cell(name, picture)


def picture_cell(name: str, picture: Image.Image) -> Cell:
    """Returns the cell of a picture, reduced to at most SIDE pixels."""
    content, small = io.BytesIO(), picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    small.save(content, "PNG")
    return Cell(name, ".png", content.getvalue())


def sound_cell(name: str, content: bytes, ending: str) -> Cell | None:
    """Returns the cell of a sound, or None if it is too large."""
    return Cell(name, ending, content) if len(content) <= LARGEST else None


def cell_html(entry: Cell, style: str = "") -> str:
    """Returns a cell as an HTML `figure` with a link to save its file, or only its caption if the cell has no content.
    A picture fills the window while it is selected. `style` is the class of a picture in the style sheet."""
    name = escaped(entry.caption)
    if not entry.content and not entry.drawing:
        return f"<figcaption>{name}</figcaption>"
    style = "plot" if entry.is_plot else style
    if not entry.content:
        return f"<figure>{zoomable(entry.drawing, name, style)}<figcaption>{name}</figcaption></figure>"
    kind = mimetypes.types_map.get(entry.ending, "application/octet-stream")
    address = f"data:{kind};base64,{base64.b64encode(entry.content).decode()}"
    parts = [zoomable(entry.drawing, name, style)] if entry.drawing else []
    if entry.ending in PICTURES:
        parts.append(zoomable(address, name, style))
    elif entry.ending in SOUNDS:
        parts.append(f"<audio controls src='{address}'></audio>")
    file = re.sub(r"\W+", "-", entry.caption).strip("-") or "item"
    link = f"<a download='{file}{entry.ending}' href='{address}' aria-label='save {name}'>{entry.ending}</a>"
    return f"<figure>{''.join(parts)}<figcaption>{name} {link}</figcaption></figure>"


def zoomable(address: str, name: str, style: str = "") -> str:
    """Returns a picture that fills the window while it is selected, by mouse or keyboard."""
    switch = f"<input type=checkbox aria-label='enlarge {name}'>"
    return f"<label class=zoom>{switch}<img class='{style}' alt='{name}' src='{address}'></label>"
