"""`chopmix examples CONFIG`: writes samples of a data set as files, for viewing, listening and `chopmix predict`."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from torch import Tensor

from ..files.errors import RunError
from ..files.reading import regular
from ..files.writing import atomic_file, make_folder, write_bytes, write_json
from ..tasks.base import target_columns
from .next_steps import as_argument, program
from .run_names import name_of
from .settings.config import Config

ENDINGS = {
    b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg",
    b"ID3": ".mp3",
}  # fmt: skip
"""The file extension for the first bytes of a file."""


def write_examples(config: Config, split: str, number: int, folder: Path) -> Iterator[str]:
    """Write `number` samples of a split into `folder`, spread evenly over the split. Yields one `chopmix predict`
    command per sample.

        examples/1/image.png      a file for every column that is not a text, a number or a class
        examples/1/sample.json    {"answer": "7+5=12", "image": "image.png", "operator": "+"}, targets included
        examples/2/...

    The command passes all inputs except the targets:

        chopmix predict runs/quickstart --input image=examples/1/image.png --input operator=+

    Raises RunError for a text corpus, DataError for a sample that cannot be read."""
    dataset = config.dataset()
    if not dataset.holds_samples:
        raise RunError(f"{config.path}: dataset {dataset.name!r} is a text corpus: chopmix inspect shows its content")
    samples, columns = dataset.opened(split), config.wiring.columns
    tasks = list(config.wiring.tasks.values())
    targets = set(target_columns(config.wiring.tasks))
    targets |= {columns[task.target] for task in tasks if task.needs.generates}
    for position in range(min(number, len(samples))):
        row = samples[position * len(samples) // number if number < len(samples) else position]
        sample_folder = folder / str(position + 1)
        make_folder(sample_folder)
        present = [name for name in sorted({*columns.values(), *targets}) if row.get(name) is not None]
        channels = {columns[name]: channels_of(part) for name, part in config.inputs.items() if name in columns}
        contents = {
            name: write_value(row[name], sample_folder, file_name(name), channels.get(name, ())) for name in present
        }
        write_json(sample_folder / "sample.json", contents)
        inputs = {name: column for name, column in columns.items() if column in contents and column not in targets}
        options = input_options(inputs, contents, sample_folder)
        command = "predict" if options else "generate"  # a run whose only input is its target
        yield " ".join([f"{program()} {command} {as_argument(name_of(config.out), config)}", *options])


def input_options(inputs: Mapping[str, str], contents: Mapping[str, Any], folder: Path) -> list[str]:
    """Returns the `--input NAME=VALUE` options of `chopmix predict` for a sample. `inputs` maps inputs to data columns;
    `contents` is the content of `sample.json`; `folder` is the folder of this file."""
    options = []
    for name, column in inputs.items():
        file = folder / str(contents[column])
        options.append(f"--input {shlex.quote(f'{name}={file if os.path.isfile(file) else contents[column]}')}")
    return options


def file_name(column: str) -> str:
    """Returns the name of a column as a file name. Other characters than letters, digits, `_.+-` are replaced, since a
    column of a run from another source may have the name of a path."""
    return re.sub(r"^\.|[^\w.+-]", "_", column)


def channels_of(part: Any) -> Sequence[str]:
    """Returns the names of the channels of a sensor input; empty if they are only counted, or for other inputs."""
    channels = part.options.get("channels")
    return list(channels) if isinstance(channels, Mapping) else ()


def write_value(value: Any, folder: Path, name: str, channels: Sequence[str] = ()) -> Any:
    """Write a raw value to a file in `folder`, if it is not a text, a number or a class, and return the file's name. A
    path and the content of a file are copied, a sound (samples, rate) is written as WAV, an image as PNG, an array as
    `as_array` does, measurements with their times as CSV, whose columns are named by `channels`. Other values are
    returned as JSON values; nothing is written."""
    if isinstance(value, Path):
        regular(value)
        with open(value, "rb") as source, atomic_file(folder / f"{name}{value.suffix}", "wb") as copy:
            shutil.copyfileobj(source, copy)
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
    if isinstance(value, Mapping) and value.keys() in ({"values", "seconds"}, {"values", "interval"}):
        numbers = np.asarray(value["values"], float).reshape(len(value["values"]), -1)
        seconds = value["seconds"] if "seconds" in value else np.arange(len(numbers)) * value["interval"]
        names = channels or [str(number) for number in range(numbers.shape[1])]
        rows = [["" if np.isnan(number) else repr(float(number)) for number in row] for row in numbers]
        lines = [",".join([repr(float(time)), *row]) for time, row in zip(seconds, rows)]
        write_bytes(folder / f"{name}.csv", "\n".join([",".join(["seconds", *names]), *lines, ""]).encode())
        return f"{name}.csv"
    if isinstance(value, np.ndarray | Tensor | list) and np.asarray(value).ndim:
        return as_array(np.asarray(value), folder, name)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)


def as_array(array: np.ndarray, folder: Path, name: str) -> Any:
    """Write an array to a file and return the file's name. A uint8 array (h, w), (h, w, 1) or (h, w, 3) with h and w
    above 1 is written as PNG, any other array as `.npy`. An array with one axis and at most 16 numbers is returned as a
    list."""
    is_picture = array.dtype == np.uint8 and array.ndim in (2, 3) and array.shape[2:] in ((), (1,), (3,))
    if is_picture and min(array.shape[:2]) > 1:
        return as_picture(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array), folder, name)
    if array.ndim == 1 and array.size <= 16:
        return array.tolist()
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(folder / f"{name}.npy", content.getvalue())
    return f"{name}.npy"


def as_picture(image: Any, folder: Path, name: str) -> str:
    """Write a PIL image as PNG and return the file's name."""
    content = io.BytesIO()
    image.save(content, "PNG")
    write_bytes(folder / f"{name}.png", content.getvalue())
    return f"{name}.png"
