"""Pictures and sounds from files or bytes, and tables of numbers as tensors."""

from __future__ import annotations

import io
import math
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...files.reading import ITEM, DataError, Source, open_regular

PIXELS, FRAME, MOVING = 2**26, 2**24, 2**29
"""The most pixels of a picture (8,192 x 8,192), of a frame of an animation (4,096 x 4,096), and of all frames of an
animation that are read (64 of 3,840 x 2,160). While it is decoded each pixel takes 7 to 13 bytes, of JPEG 2000 up to
25, of an animation up to 32."""

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA",
    "TIFF", "WEBP",
)  # fmt: skip
"""Pillow's names of the formats that are read. EPS is left out because Pillow runs Ghostscript on it. Icons (ICNS, ICO)
are left out because their header does not limit the size of the picture inside."""

SCANS = 100
"""The largest number of scans in a JPEG. Each scan decodes all pixels again; a usual progressive JPEG has about ten."""

TILE = 322, 323
"""The TIFF tags of a tile's width and height: a picture of few pixels may lie in a tile of any size."""

SAMPLES, BLOCK, RATE = 2**27, 2**20, 10_000_000
"""The most samples per channel that a sound may have (2 hours 19 minutes at 16 kHz, 50 minutes at 44.1 kHz; 512 MiB),
how many are read at once, and the highest rate in hertz."""


def read_picture(raw: Source) -> Any:
    """A picture (PIL, loaded), turned as its EXIF data says; the first one of an animation. Raises DataError for a file
    that is missing, damaged or no picture, or has more than `PIXELS` pixels."""
    from PIL import ImageOps

    with opened_picture(raw, "image") as picture:
        picture.load()
        return ImageOps.exif_transpose(picture)


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


def read_animation(raw: Source, most: int) -> Iterator[Any]:
    """The pictures (PIL, in colour) of an animation, the first `most`, one by one. Raises DataError as `read_picture`
    does, and where they have more than `MOVING` pixels in all."""
    from PIL import ImageSequence

    with opened_picture(raw, "video") as picture:
        total = 0
        for frame in islice(ImageSequence.Iterator(picture), most):
            check_pixels(frame, FRAME)  # a frame may be larger than the one before it
            total += frame.width * frame.height
            if total > MOVING:
                raise ValueError(f"its frames have more than {MOVING:,} pixels in all; make it smaller")
            yield frame.convert("RGB")


@contextmanager
def opened_picture(raw: Source, what: str) -> Iterator[Any]:
    """A picture (PIL), not decoded yet. Whatever goes wrong inside is raised as DataError; `what` is its name there."""
    from PIL import Image, UnidentifiedImageError

    path = "" if isinstance(raw, bytes) else os.fspath(raw)
    if isinstance(raw, bytes) and not raw:
        raise DataError(f"the {what} has no bytes")
    ours = ("ignore", None, Image.DecompressionBombWarning, None, 0)  # PIXELS is less, and refuses in our words
    if ours not in warnings.filters:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with io.BytesIO(raw) if isinstance(raw, bytes) else open_regular(raw, ITEM) as file:
            picture = Image.open(file, formats=formats)
            check_pixels(picture)
            check_scans(picture, file)
            yield picture
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files, struct.error among it
        unknown = isinstance(error, UnidentifiedImageError)
        message = "it is damaged, or in no format that is read here" if unknown else str(error) or type(error).__name__
        named = f"{path}: {message}" if path and path not in message else message
        raise DataError(f"the {what} cannot be read: {named}") from error


def check_pixels(picture: Any, most: int = PIXELS) -> None:
    """Raises ValueError for a picture (PIL) of more than `most` pixels, or in a larger tile."""
    tags = getattr(picture, "tag_v2", {})
    sizes = [picture.size] + ([tuple(tags[tag] for tag in TILE)] if all(tag in tags for tag in TILE) else [])
    width, height = max(sizes, key=math.prod)
    if width * height > most:
        raise ValueError(f"its {width:,} x {height:,} pixels are more than {most:,}; make it smaller")


def check_scans(picture: Any, file: io.BufferedIOBase) -> None:
    """Raises ValueError if a JPEG has more than `SCANS` scans."""
    if picture.format not in ("JPEG", "MPO"):
        return
    place = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")
    file.seek(place)
    if scans > SCANS:
        raise ValueError(f"it has {scans:,} scans; possible: up to {SCANS}")


FFMPEG = {b"ftyp": 4, b"\x1aE\xdf\xa3": 0, b"\xff\xf1": 0, b"\xff\xf9": 0, b"\x30\x26\xb2\x75": 0}
"""Marks of files that libsndfile does not read (mp4 and m4a; webm and mkv; aac, twice; wma), and the byte at which each
mark begins."""

SECONDS, CONVERTED = 600, 2**30
"""Seconds that ffmpeg may work on one file, and bytes that it may make of it: 46 minutes of stereo at 48 kHz take half
of them."""


def read_sound(raw: Source) -> tuple[Float[np.ndarray, "t"], int]:
    """The samples of a file, from -1 to 1, its channels averaged, and its rate in hertz. Raises DataError for a file
    that is missing, damaged or no sound, has more than `SAMPLES` samples, or needs an ffmpeg that is not installed.

    The file is read in blocks, so that a header that promises more samples than there are takes no memory.
    """
    import soundfile

    if isinstance(raw, bytes) and not raw:
        raise DataError("the sound has no bytes")
    try:
        with io.BytesIO(raw) if isinstance(raw, bytes) else open_regular(raw) as file:
            first = file.read(8)
            file.seek(0)
            return _samples(file)
    except DataError as error:
        raise DataError(f"the sound cannot be read: {error}") from None
    except (soundfile.SoundFileError, OSError, TypeError, MemoryError, RuntimeError, ValueError) as error:
        named = "" if isinstance(raw, bytes) else f"{os.fspath(raw)}: "
        known = any(first[start : start + len(mark)] == mark for mark, start in FFMPEG.items())
        if known and not isinstance(error, ValueError):
            return _through_ffmpeg(raw, named)
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
        raise DataError(f"the sound cannot be read: {named}{reason}") from None


def _samples(file: io.BufferedIOBase) -> tuple[np.ndarray, int]:
    """Samples and rate of an open file. Raises ValueError as `read_sound`, and the errors of soundfile."""
    import soundfile

    with soundfile.SoundFile(file) as sound:
        if not 0 < sound.samplerate <= RATE:
            raise ValueError(f"a rate of {sound.samplerate} Hz")
        found, total = np.empty(min(max(sound.frames, 0), SAMPLES), np.float32), 0  # takes memory as it is written to
        frames = max(1, BLOCK // sound.channels)
        while len(block := sound.read(frames, dtype="float32", always_2d=True)):
            start, total = total, total + len(block)
            if total > SAMPLES:
                raise ValueError(f"it has more than {SAMPLES:,} samples; cut it into parts")
            if total > len(found):  # the header said less
                found.resize(min(max(total, len(found) * 3 // 2), SAMPLES), refcheck=False)
            found[start:total] = block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
        return found[:total], sound.samplerate


def _through_ffmpeg(raw: Source, named: str) -> tuple[np.ndarray, int]:
    """Samples and rate as in `read_sound`, by the program ffmpeg; `named` begins messages. Raises DataError where it is
    not installed, cannot read the file, takes more than `SECONDS`, or makes more than `CONVERTED` bytes."""
    if shutil.which("ffmpeg") is None:
        raise DataError(f"the sound cannot be read: {named}this kind of file (mp4, m4a, webm, aac, wma) needs ffmpeg, "
                        "which is not installed here; wav, flac, ogg, opus and mp3 are read without")  # fmt: skip
    source = "pipe:0" if isinstance(raw, bytes) else f"file:{os.fspath(raw)}"  # a file, unlike a pipe, allows seeking
    command = ["ffmpeg", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", source]
    command += f"-vn -c:a pcm_s16le -f wav -fs {CONVERTED} pipe:1".split()
    given = {"input": raw} if isinstance(raw, bytes) else {"stdin": subprocess.DEVNULL}
    with tempfile.TemporaryFile() as converted:
        try:
            done = subprocess.run(
                command, **given, stdout=converted, stderr=subprocess.PIPE, check=False, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"the sound cannot be read: {named}ffmpeg did not end within {SECONDS} seconds") from None
        size = converted.seek(0, os.SEEK_END)
        converted.seek(0)
        if done.returncode or not size:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise DataError(f"the sound cannot be read: {named}ffmpeg says: {lines[-1] if lines else 'nothing'}")
        if size > CONVERTED - BLOCK:
            most = f"more than {CONVERTED:,} bytes of samples; cut it into parts"
            raise DataError(f"the sound cannot be read: {named}ffmpeg makes {most}")
        try:
            return _samples(converted)
        except ValueError as error:
            raise DataError(f"the sound cannot be read: {named}{error}") from None


def as_tensor(values: Any, where: str) -> Tensor:
    """Numbers, nested lists of them or arrays as a float32 tensor. Raises DataError for what is no number, or rows of
    unequal lengths."""
    try:
        array = np.asarray(values)
        if array.dtype.kind == "c":
            raise TypeError("its numbers are complex")
        return torch.as_tensor(array.astype(np.float32, copy=False))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: no table of numbers: {error}") from None
