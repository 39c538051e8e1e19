"""What raw values are, in a few words, for the lines that a run prints before its first step."""

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
"""The kinds of pictures, by Pillow's name."""


def span(values: Iterable[float], unit: str = "") -> str:
    """The range of some numbers: `3`, `3 to 9`, `0.5 to 2 seconds`."""
    known = sorted(values)
    ends = [f"{value:,}" if isinstance(value, int) else f"{value:.3g}" for value in (known[0], known[-1])]
    return (ends[0] if ends[0] == ends[1] else " to ".join(ends)) + f" {unit}" * bool(unit)


def picture_sizes(raws: Sequence[Any]) -> tuple[str, bool]:
    """The sizes and kinds of some pictures, `40 x 32 pixels RGB` or `30 x 20 to 300 x 200 pixels RGB or grey`, and
    whether one of them has colours. Pictures that cannot be read are skipped. Raises DataError if none can be read."""
    found = [size for raw in raws if (size := picture_size(raw))]
    if not found:
        raise DataError("no picture can be read")
    sizes = sorted({(width * height, width, height) for width, height, _ in found})
    ends = [f"{width} x {height}" for _, width, height in (sizes[0], sizes[-1])]
    kinds = list(dict.fromkeys(kind for *_, kind in found))
    whole = ends[0] if ends[0] == ends[1] else " to ".join(ends)
    return f"{whole} pixels {' or '.join(kinds)}", bool({*kinds} - {"grey", "black and white", "16 bits"})


def picture_size(raw: Any) -> tuple[int, int, str] | None:
    """Width, height and kind of a picture, read from the head of its file; None if it cannot be read."""
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
    """The lengths and rates of some sounds: `0.4 to 1.2 seconds at 44,100 Hz`. Sounds that cannot be read are skipped.
    Raises DataError if none can be read."""
    import soundfile

    found = []
    for raw in raws:
        try:
            if isinstance(raw, tuple):
                samples, rate = np.asarray(raw[0]), int(raw[1])
                found.append((max(samples.shape) / rate, rate))
            elif isinstance(raw, bytes | str | os.PathLike):
                with io.BytesIO(raw) if isinstance(raw, bytes) else open_regular(raw) as file:
                    about = soundfile.info(file)
                found.append((about.frames / about.samplerate, about.samplerate))
        except (RuntimeError, OSError, ValueError, TypeError, ZeroDivisionError):
            continue
    if not found:
        raise DataError("no sound can be read")
    return f"{span((length for length, _ in found), 'seconds')} at {span((rate for _, rate in found), 'Hz')}"
