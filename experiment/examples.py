"""`chopmix examples RUN`: samples of a data set as files, to look at, to hear, and to give to `chopmix predict`."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from torch import Tensor

from ..files.reading import regular
from ..files.writing import make_folder, write_bytes, write_json
from .run_folder import RunError
from .settings.config import Config

ENDINGS = {
    b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg",
    b"ID3": ".mp3",
}  # fmt: skip
"""File endings by the first bytes of a file."""


def write_examples(config: Config, split: str, number: int, folder: Path) -> Iterator[str]:
    """Write `number` samples, spread evenly over a split, into `folder`; yields the command that predicts each.

        examples/1/image.png      a file for every column that is no text, number or class
        examples/1/sample.json    {"answer": "7+5=12", "image": "image.png", "operator": "+"}, targets included
        examples/2/...

    The command has all inputs but the targets:

        chopmix predict runs/quickstart --input image=examples/1/image.png --input operator=+

    Raises RunError for a text corpus, DataError for a sample that cannot be read."""
    dataset = config.dataset()
    if not dataset.holds_samples:
        raise RunError(f"{config.path}: dataset {dataset.name!r} is a text corpus: chopmix inspect shows what it holds")
    samples, columns = dataset.opened(split), config.wiring.columns
    tasks = list(config.wiring.tasks.values())
    answers = {column for task in tasks for column in task.needs.columns}
    answers |= {columns[task.target] for task in tasks if task.needs.generates}
    for place in range(min(number, len(samples))):
        row, own = samples[place * len(samples) // number if number < len(samples) else place], folder / str(place + 1)
        make_folder(own)
        there = [name for name in sorted({*columns.values(), *answers}) if row.get(name) is not None]
        told = {name: written(row[name], own, file_name(name)) for name in there}
        write_json(own / "sample.json", told)
        given = {name: column for name, column in columns.items() if column in told and column not in answers}
        yield " ".join(["chopmix predict", shlex.quote(str(config.out)), *asked(given, told, own)])


def asked(given: Mapping[str, str], told: Mapping[str, Any], folder: Path) -> list[str]:
    """The `--input NAME=VALUE` options of `chopmix predict` for a sample. `given` maps inputs to columns, `told` is the
    content of its `sample.json`."""
    found = []
    for name, column in given.items():
        file = folder / str(told[column])
        found.append(f"--input {shlex.quote(f'{name}={file if os.path.isfile(file) else told[column]}')}")
    return found


def file_name(column: str) -> str:
    """The file name of a column, safe even where the column's name (of a run from elsewhere, say) is a path."""
    return re.sub(r"^\.|[^\w.+-]", "_", column)


def written(value: Any, folder: Path, name: str) -> Any:
    """Write a raw value as a file and give its name: a path or bytes as they are, (samples, rate) as WAV, a picture as
    PNG, an array by `as_array`. A text, a number or a class is given back as it is."""
    if isinstance(value, Path):
        regular(value)
        shutil.copyfile(value, folder / f"{name}{value.suffix}")
        return f"{name}{value.suffix}"
    if isinstance(value, bytes):
        ending = next((ending for start, ending in ENDINGS.items() if value.startswith(start)), ".bin")
        write_bytes(folder / f"{name}{ending}", value)
        return f"{name}{ending}"
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int):
        content = io.BytesIO()
        soundfile.write(content, np.asarray(value[0]), value[1], format="WAV")
        write_bytes(folder / f"{name}.wav", content.getvalue())
        return f"{name}.wav"
    if isinstance(value, Image.Image):
        return as_picture(value, folder, name)
    if isinstance(value, np.ndarray | Tensor | list) and np.asarray(value).ndim:
        return as_array(np.asarray(value), folder, name)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)


def as_array(array: np.ndarray, folder: Path, name: str) -> Any:
    """Write an array and give the file's name: uint8 (h, w) or (h, w, 3) as PNG, else as `.npy`. Up to 16 numbers on
    one axis are given back as a list."""
    if array.dtype == np.uint8 and array.ndim in (2, 3) and min(array.shape[:2]) > 1 and array.shape[2:] in ((), (3,)):
        return as_picture(Image.fromarray(array), folder, name)
    if array.ndim == 1 and array.size <= 16:
        return array.tolist()
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(folder / f"{name}.npy", content.getvalue())
    return f"{name}.npy"


def as_picture(picture: Any, folder: Path, name: str) -> str:
    """Write a picture (PIL) as PNG and give the file's name."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    write_bytes(folder / f"{name}.png", content.getvalue())
    return f"{name}.png"
