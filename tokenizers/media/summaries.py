"""Short descriptions of raw values for the data summary that a run prints before its first step."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ...files.reading import DataError, open_regular
from .files import opened_picture

MODES = {
    "1": "black and white",
    "L": "grey",
    "P": "palette",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "I;16": "16 bits",
    "CMYK": "CMYK",
}
"""Descriptions of Pillow's image modes."""


def span(values: Iterable[float], unit: str = "") -> str:
    """Returns the range of the values as text: `3`, `3 to 9`, `0.5 to 2 seconds`."""
    ordered = sorted(values)
    ends = [f"{value:,}" if isinstance(value, int) else f"{value:.3g}" for value in (ordered[0], ordered[-1])]
    return (ends[0] if ends[0] == ends[1] else " to ".join(ends)) + f" {unit}" * bool(unit)


def picture_sizes(raws: Sequence[Any]) -> tuple[str, bool]:
    """Returns (text, coloured). The text contains sizes and modes: `40 x 32 pixels RGB` or `30 x 20 to 300 x 200 pixels
    RGB or grey`. `coloured` is False if all modes are grey, black and white or 16 bits. Images that cannot be read are
    skipped. Raises DataError if no image can be read."""
    pictures = [size for raw in raws if (size := picture_size(raw))]
    if not pictures:
        raise DataError("no image can be read")
    sizes = sorted({(width * height, width, height) for width, height, _ in pictures})
    ends = [f"{width} x {height}" for _, width, height in (sizes[0], sizes[-1])]
    modes = list(dict.fromkeys(mode for *_, mode in pictures))
    size_range = ends[0] if ends[0] == ends[1] else " to ".join(ends)
    return f"{size_range} pixels {' or '.join(modes)}", bool({*modes} - {"grey", "black and white", "16 bits"})


def picture_size(raw: Any) -> tuple[int, int, str] | None:
    """Returns (width, height, mode) of an image. Files are read only up to the header. Returns None if the image cannot
    be read, or if an array or tensor does not have 2 or 3 dimensions."""
    from PIL import Image

    if isinstance(raw, Tensor | np.ndarray):
        shape = tuple(raw.shape) if isinstance(raw, np.ndarray) else (*raw.shape[1:], raw.shape[0])
        if len(shape) not in (2, 3):
            return None
        return int(shape[1]), int(shape[0]), "RGB" if shape[2:] == (3,) else "grey"
    try:
        if isinstance(raw, Image.Image):
            return *raw.size, MODES.get(raw.mode, raw.mode)
        with opened_picture(raw, "image") as picture:
            return *picture.size, MODES.get(picture.mode, picture.mode)
    except (DataError, TypeError):
        return None


def sound_lengths(raws: Sequence[Any]) -> str:
    """Returns the lengths and rates of sounds as text: `0.4 to 1.2 seconds at 44,100 Hz`. Sounds that soundfile cannot
    read are skipped. Raises DataError if no sound can be read."""
    import soundfile

    sounds = []
    for raw in raws:
        try:
            if isinstance(raw, tuple):
                samples, rate = np.asarray(raw[0]), int(raw[1])
                sounds.append((max(samples.shape) / rate, rate))
            elif isinstance(raw, bytes | str | os.PathLike):
                with io.BytesIO(raw) if isinstance(raw, bytes) else open_regular(raw) as file:
                    info = soundfile.info(file)
                sounds.append((info.frames / info.samplerate, info.samplerate))
        except (RuntimeError, OSError, ValueError, TypeError, ZeroDivisionError):
            continue
    if not sounds:
        raise DataError("no sound can be read")
    return f"{span((length for length, _ in sounds), 'seconds')} at {span((rate for _, rate in sounds), 'Hz')}"
