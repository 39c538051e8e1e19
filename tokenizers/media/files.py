"""Pictures and sounds from files or bytes, and tables of numbers as tensors."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..files.reading import LARGE, DataError, Source, read_bytes

PIXELS = 100_000_000
"""The most pixels that a picture may have."""

SAMPLES, BLOCK = 2**30, 2**20
"""The most samples per channel that a sound may have (six hours at 44.1 kHz), and how many are read at once."""


def read_picture(raw: Source) -> Any:
    """A picture (PIL), turned as its EXIF data says; the first one of an animation. Raises DataError for a file that is
    missing, damaged or no picture, or has more than `PIXELS` pixels."""
    return next(_pictures(raw, "image"))


def picture_bytes(image: UInt8[Tensor, "c h w"], ending: str = ".png") -> bytes:
    """A picture, grey or in colour, as the content of a file with this ending."""
    return animation_bytes([image], ending)


def animation_bytes(
    images: Sequence[UInt8[Tensor, "c h w"]], ending: str = ".gif", seconds: float = 0.2, last: float = 2.0
) -> bytes:
    """Pictures of one size as the content of an animation (`.gif`), each for so many `seconds`, the last one for
    `last`; of another kind of file the first picture."""
    from PIL import Image

    frames = [Image.fromarray(image.permute(1, 2, 0).squeeze(2).cpu().numpy()) for image in images]
    found, several = io.BytesIO(), {}
    if len(frames) > 1:
        shown = [round(1000 * seconds)] * (len(frames) - 1) + [round(1000 * last)]
        several = {"save_all": True, "append_images": frames[1:], "duration": shown, "loop": 0}
    frames[0].save(found, format=ending.removeprefix("."), **several)
    return found.getvalue()


def read_animation(raw: Source, most: int) -> list[Any]:
    """The pictures (PIL, in colour) of an animation, the first `most`. Raises DataError as `read_picture` does."""
    return [frame for frame, _ in zip(_pictures(raw, "video"), range(most))]


def _pictures(raw: Source, what: str) -> Iterator[Any]:
    from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

    path = "" if isinstance(raw, bytes) else os.fspath(raw)
    if isinstance(raw, bytes) and not raw:
        raise DataError(f"the {what} has no bytes")
    try:
        content = raw if isinstance(raw, bytes) else read_bytes(raw)
        picture = Image.open(io.BytesIO(content))
        if picture.width * picture.height > PIXELS:
            raise ValueError(f"its {picture.width:,} x {picture.height:,} pixels are more than {PIXELS:,}")
        if what == "image":
            yield ImageOps.exif_transpose(picture)
        else:
            yield from (frame.convert("RGB") for frame in ImageSequence.Iterator(picture))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files, struct.error among it
        unknown = isinstance(error, UnidentifiedImageError)
        message = "it is damaged, or in no format that Pillow knows" if unknown else str(error) or type(error).__name__
        named = f"{path}: {message}" if path and path not in message else message
        raise DataError(f"the {what} cannot be read: {named}") from error


FFMPEG = {b"ftyp": 4, b"\x1aE\xdf\xa3": 0, b"\xff\xf1": 0, b"\xff\xf9": 0, b"\x30\x26\xb2\x75": 0}
"""Marks of files that libsndfile does not read (mp4 and m4a; webm and mkv; aac, twice; wma), and the byte at which each
mark begins."""

SECONDS = 600
"""Seconds that ffmpeg may work on one file."""


def read_sound(raw: Source) -> tuple[Float[np.ndarray, "t"], int]:
    """The samples of a file, from -1 to 1, its channels averaged, and its rate in hertz. Raises DataError for a file
    that is missing, damaged or no sound, has more than `SAMPLES` samples, or needs an ffmpeg that is not installed.

    The file is read in blocks, so that a header that promises more samples than there are takes no memory.
    """
    import soundfile

    named = "" if isinstance(raw, bytes) else f"{os.fspath(raw)}: "
    try:
        content = raw if isinstance(raw, bytes) else read_bytes(raw)
    except DataError as error:
        raise DataError(f"the sound cannot be read: {error}") from None
    if not content and isinstance(raw, bytes):
        raise DataError("the sound has no bytes")
    try:
        return _blocks(content)
    except (soundfile.SoundFileError, OSError, TypeError, MemoryError, RuntimeError) as error:
        if any(content[start : start + len(mark)] == mark for mark, start in FFMPEG.items()):
            return _through_ffmpeg(raw, named)
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
        raise DataError(f"the sound cannot be read: {named}{reason}") from None
    except ValueError as error:
        raise DataError(f"the sound cannot be read: {named}{error}") from None


def _blocks(content: bytes) -> tuple[np.ndarray, int]:
    import soundfile

    parts, total = [], 0
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        if not 0 < file.samplerate <= 10_000_000:
            raise ValueError(f"a rate of {file.samplerate} Hz")
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            parts.append(block.mean(axis=1) if block.shape[1] > 1 else block[:, 0])
            total += len(block)
            if total > SAMPLES:
                raise ValueError(f"it has more than {SAMPLES:,} samples; cut it into parts")
        rate = file.samplerate
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), rate


def _through_ffmpeg(raw: Source, named: str) -> tuple[np.ndarray, int]:
    """Samples and rate as in `read_sound`, by the program ffmpeg; `named` begins messages. Raises DataError where it is
    not installed, cannot read the file, or takes more than `SECONDS`."""
    if shutil.which("ffmpeg") is None:
        raise DataError(f"the sound cannot be read: {named}this kind of file (mp4, m4a, webm, aac, wma) needs ffmpeg, "
                        "which is not installed here; wav, flac, ogg, opus and mp3 are read without")  # fmt: skip
    source = "pipe:0" if isinstance(raw, bytes) else f"file:{os.fspath(raw)}"  # a file, unlike a pipe, allows seeking
    command = ["ffmpeg", "-v", "error", "-i", source, *f"-vn -c:a pcm_s16le -f wav -fs {LARGE} pipe:1".split()]
    given = raw if isinstance(raw, bytes) else b""
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise DataError(f"the sound cannot be read: {named}ffmpeg did not end within {SECONDS} seconds") from None
    if done.returncode or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(f"the sound cannot be read: {named}ffmpeg says: {lines[-1] if lines else 'nothing'}")
    return _blocks(done.stdout)


def as_tensor(values: Any, where: str) -> Tensor:
    """Numbers, nested lists of them or arrays as a float32 tensor. Raises DataError for what is no number, or rows of
    unequal lengths."""
    try:
        return torch.as_tensor(np.asarray(values, dtype=np.float32))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: no table of numbers: {error}") from None
