"""Reading of images, animations and sounds from files or bytes, and conversion of tables of numbers to tensors."""

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

from ...files.reading import ITEM, DataError, Source, open_regular, read_bytes
from ...files.records import read_array

PIXELS, FRAME, MOVING = 2**26, 2**24, 2**29
"""The largest number of pixels of an image (8,192 x 8,192), of a frame of an animation (4,096 x 4,096), and of all
frames of an animation together (64 frames of 3,840 x 2,160). Decoding needs 7 to 13 bytes of memory per pixel, up to 25
for JPEG 2000 and up to 32 for animations."""

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA",
    "TIFF", "WEBP",
)  # fmt: skip
"""Pillow's names of the formats that are read. EPS is excluded because Pillow runs Ghostscript on EPS files. Icons
(ICNS, ICO) are excluded because the header of an icon does not limit the size of the image inside."""

SCANS = 100
"""The largest number of scans in a JPEG. Each scan decodes all pixels again; a usual progressive JPEG has about ten."""

TILE = 322, 323
"""The TIFF tags of the width and the height of a tile. A small image may be stored in a very large tile."""

SAMPLES, BLOCK, RATE = 2**27, 2**20, 10_000_000
"""The largest number of samples per channel of a sound (2 hours 19 minutes at 16 kHz, 50 minutes at 44.1 kHz; 512 MiB),
the number of samples that are read at once, and the highest sampling rate in hertz."""


def read_picture(raw: Source) -> Any:
    """Returns a decoded PIL image, rotated according to its EXIF orientation. An animation is read as its first frame.
    Raises DataError if the file is missing, damaged, not an image in one of `FORMATS`, or larger than `ITEM` bytes,
    `PIXELS` pixels or `SCANS` scans."""
    from PIL import ImageOps

    with opened_picture(raw, "image") as picture:
        picture.load()
        return ImageOps.exif_transpose(picture)


def picture_bytes(image: UInt8[Tensor, "c h w"], ending: str = ".png") -> bytes:
    """Returns the bytes of a file, in the format of the suffix `ending`, with a grey or colour image."""
    return animation_bytes([image], ending)


def animation_bytes(
    images: Sequence[UInt8[Tensor, "c h w"]], ending: str = ".gif", seconds: float = 0.2, last: float = 2.0
) -> bytes:
    """Returns the bytes of an animation of images that have the same size. Each image is shown for `seconds` seconds,
    the final image for `last` seconds. `ending` is the suffix of the format. In a format without animation only the
    first image is written."""
    from PIL import Image

    frames = [Image.fromarray(image.permute(1, 2, 0).squeeze(2).cpu().numpy()) for image in images]
    content, options = io.BytesIO(), {}
    if len(frames) > 1:
        durations = [round(1000 * seconds)] * (len(frames) - 1) + [round(1000 * last)]
        options = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": 0}
    frames[0].save(content, format=ending.removeprefix("."), **options)
    return content.getvalue()


def array_of_file(raw: Any, where: str) -> Any:
    """Returns the array of a NumPy file: `raw` is its path, which ends in `.npy`, or its bytes. Returns any other value
    unchanged. Raises DataError if the file is missing, damaged or larger than `ITEM` bytes. `where` begins the
    message."""
    if isinstance(raw, str | os.PathLike) and os.fspath(raw).endswith(".npy"):
        return read_array(read_bytes(raw, ITEM), os.fspath(raw))
    return read_array(raw, where) if isinstance(raw, bytes) and raw.startswith(b"\x93NUMPY") else raw


def read_animation(raw: Source, most: int) -> Iterator[Any]:
    """Yields the first `most` frames of an animation as PIL images in RGB. Raises DataError like `read_picture`, if a
    frame has more than `FRAME` pixels, and if the frames have more than `MOVING` pixels in total."""
    from PIL import ImageSequence

    with opened_picture(raw, "video") as picture:
        total = 0
        for frame in islice(ImageSequence.Iterator(picture), most):
            check_pixels(frame, FRAME)  # a frame may be larger than the one before it
            total += frame.width * frame.height
            if total > MOVING:
                raise ValueError(f"its frames have more than {MOVING:,} pixels in total; make it smaller")
            yield frame.convert("RGB")


@contextmanager
def opened_picture(raw: Source, what: str) -> Iterator[Any]:
    """Context manager: opens a PIL image without decoding it. Every Exception inside the `with` block is raised as
    DataError. `what` is the noun for the file in messages (`image`, `video`)."""
    from PIL import Image, UnidentifiedImageError

    path = "" if isinstance(raw, bytes) else os.fspath(raw)
    if isinstance(raw, bytes) and not raw:
        raise DataError(f"the {what} has no bytes")
    ignored = ("ignore", None, Image.DecompressionBombWarning, None, 0)  # check_pixels has a lower limit
    if ignored not in warnings.filters:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with io.BytesIO(raw) if isinstance(raw, bytes) else open_regular(raw, ITEM) as file:
            picture = Image.open(file, formats=formats)
            check_pixels(picture)
            check_scans(picture, file)
            yield picture
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged files, such as struct.error
        unknown = isinstance(error, UnidentifiedImageError)
        message = "it is damaged or has an unsupported format" if unknown else str(error) or type(error).__name__
        reason = f"{path}: {message}" if path and path not in message else message
        raise DataError(f"the {what} cannot be read: {reason}") from error


def check_pixels(picture: Any, most: int = PIXELS) -> None:
    """Raises ValueError if a PIL image or one of its tiles has more than `most` pixels."""
    tags = getattr(picture, "tag_v2", {})
    sizes = [picture.size] + ([tuple(tags[tag] for tag in TILE)] if all(tag in tags for tag in TILE) else [])
    width, height = max(sizes, key=math.prod)
    if width * height > most:
        raise ValueError(f"its {width:,} x {height:,} pixels are more than {most:,}; make it smaller")


def check_scans(picture: Any, file: io.BufferedIOBase) -> None:
    """Raises ValueError if the image is a JPEG with more than `SCANS` scans. `file` is the open file of the image."""
    if picture.format not in ("JPEG", "MPO"):
        return
    offset = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")
    file.seek(offset)
    if scans > SCANS:
        raise ValueError(f"it has {scans:,} scans; possible: up to {SCANS}")


FFMPEG = {b"ftyp": 4, b"\x1aE\xdf\xa3": 0, b"\xff\xf1": 0, b"\xff\xf9": 0, b"\x30\x26\xb2\x75": 0}
"""Signatures (first bytes) of file formats that libsndfile does not read: mp4 and m4a; webm and mkv; aac (two
signatures); wma. The value is the offset of the signature in the file, in bytes."""

FFMPEG_SECONDS, CONVERTED = 600, 2**30
"""The seconds that ffmpeg may take for one file, and the largest size of the output in bytes (93 minutes of stereo at
48 kHz)."""


def read_sound(raw: Source) -> tuple[Float[np.ndarray, "t"], int]:
    """Returns (samples, rate) of a file: samples (t,) from -1 to 1, averaged over the channels, and the sampling rate
    in hertz. Raises DataError if the file is missing, damaged or not a sound, if it has more than `SAMPLES` samples per
    channel or a rate above `RATE`, or if ffmpeg is needed but is not installed or fails.

    The file is read in blocks, because a wrong number of samples in the header could otherwise exhaust the memory.
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
        prefix = f"the sound cannot be read: {'' if isinstance(raw, bytes) else f'{os.fspath(raw)}: '}"
        needs_ffmpeg = any(first[start : start + len(mark)] == mark for mark, start in FFMPEG.items())
        if needs_ffmpeg and not isinstance(error, ValueError):
            return _through_ffmpeg(raw, prefix)
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
        raise DataError(f"{prefix}{reason}") from None


def _samples(file: io.BufferedIOBase) -> tuple[np.ndarray, int]:
    """Returns (samples, rate) of an open file. Raises ValueError if the rate is not from 1 to `RATE`, or if there are
    more than `SAMPLES` samples per channel. Errors of soundfile are not caught."""
    import soundfile

    with soundfile.SoundFile(file) as sound:
        if not 0 < sound.samplerate <= RATE:
            raise ValueError(f"its rate of {sound.samplerate} Hz is not supported")
        samples, total = np.empty(min(max(sound.frames, 0), SAMPLES), np.float32), 0  # uses memory only when written to
        frames = max(1, BLOCK // sound.channels)
        while len(block := sound.read(frames, dtype="float32", always_2d=True)):
            start, total = total, total + len(block)
            if total > SAMPLES:
                raise ValueError(f"it has more than {SAMPLES:,} samples; cut it into parts")
            if total > len(samples):  # more than the header says
                samples.resize(min(max(total, len(samples) * 3 // 2), SAMPLES), refcheck=False)
            samples[start:total] = block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
        return samples[:total], sound.samplerate


def _through_ffmpeg(raw: Source, prefix: str) -> tuple[np.ndarray, int]:
    """Returns (samples, rate) like `read_sound`, from a file that ffmpeg converts. `prefix` begins messages. Raises
    DataError if ffmpeg is not installed, fails, takes longer than `FFMPEG_SECONDS`, or writes about `CONVERTED` bytes
    or more, and if `_samples` raises ValueError for the result."""
    if shutil.which("ffmpeg") is None:
        raise DataError(f"{prefix}this kind of file (mp4, m4a, webm, aac, wma) needs ffmpeg, which is not installed "
                        "here; wav, flac, ogg, opus and mp3 do not need it")  # fmt: skip
    source = "pipe:0" if isinstance(raw, bytes) else f"file:{os.fspath(raw)}"  # a file, unlike a pipe, allows seeking
    command = ["ffmpeg", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", source]
    command += f"-vn -c:a pcm_s16le -f wav -fs {CONVERTED} pipe:1".split()
    standard_input = {"input": raw} if isinstance(raw, bytes) else {"stdin": subprocess.DEVNULL}
    with tempfile.TemporaryFile() as converted:
        try:
            done = subprocess.run(
                command, **standard_input, stdout=converted, stderr=subprocess.PIPE, check=False, timeout=FFMPEG_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"{prefix}ffmpeg did not end within {FFMPEG_SECONDS} seconds") from None
        size = converted.seek(0, os.SEEK_END)
        converted.seek(0)
        if done.returncode or not size:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise DataError(f"{prefix}ffmpeg failed{f': {lines[-1]}' if lines else ' without a message'}")
        if size > CONVERTED - BLOCK:
            raise DataError(f"{prefix}ffmpeg writes more than {CONVERTED:,} bytes of samples; cut it into parts")
        try:
            return _samples(converted)
        except ValueError as error:
            raise DataError(f"{prefix}{error}") from None


def as_tensor(values: Any, where: str) -> Tensor:
    """Returns a number, a nested list of numbers or an array as a float32 tensor. Raises DataError if a value is not a
    real number, or if rows differ in length. `where` begins the message."""
    try:
        array = np.asarray(values)
        if array.dtype.kind == "c":
            raise TypeError("its numbers are complex")
        return torch.as_tensor(array.astype(np.float32, copy=False))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{where}: not a number, nor an array or nested list of real numbers with rows of equal length: {error}"
        ) from None
