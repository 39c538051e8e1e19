"""Decoding of the usual JPEG and PNG files by torchvision, which is several times faster than Pillow and gives the same
pixels. All other files, and those that torchvision cannot decode, are left to Pillow (`files.read_picture`)."""

from __future__ import annotations

import io
import os
import sys
import zlib
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from ...files.reading import ITEM, DataError, Source, open_regular
from .files import PIXELS, SCANS

FEW = 4000
"""The number of PNG files that are left to Pillow before torchvision is imported, which takes a second: as long as it
saves for these files."""
_few = count()


def read_jpeg_png(raw: Source) -> UInt8[Tensor, "c h w"] | None:
    """Returns the pixels of a JPEG or PNG in colour or grey, with its EXIF orientation. Returns None for any other
    file, and for one that torchvision cannot decode, for example because it is damaged or has too many pixels."""
    try:
        with io.BytesIO(raw) if isinstance(raw, bytes) else open_regular(os.fspath(raw), ITEM) as file:
            content = file.read(2)
            if content not in (b"\xff\xd8", b"\x89P"):
                return None
            content += file.read()
    except (DataError, OSError):  # Pillow's reader says what is wrong
        return None
    is_png = content.startswith(b"\x89")
    if is_png and "torchvision" not in sys.modules and next(_few) < FEW:
        return None
    channels = usual_png(content) if is_png else usual_jpeg(content)
    if channels is None or (decode := decoders()) is None:
        return None
    try:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return decode.png(data, MODES[channels], False) if is_png else decode.jpeg(data, MODES[channels], True)
    except RuntimeError:  # Pillow's reader says what is wrong
        return None


class Decoders(NamedTuple):
    """The decoders of torchvision: functions of the bytes, one of MODES, and whether the EXIF orientation is used."""

    png: Callable[[Tensor, int, bool], Tensor]
    jpeg: Callable[[Tensor, int, bool], Tensor]


MODES = {1: 1, 3: 3}
"""The numbers of the modes `GRAY` and `RGB` (`torchvision.io.ImageReadMode`) by the number of channels."""


@cache
def decoders() -> Decoders | None:
    """Returns the operators behind `torchvision.io.decode_png` and `decode_jpeg`, without their Python code, which
    takes a third of the time for a small image. Returns None if torchvision has none (0.29 announces their removal)."""
    try:
        from torchvision.io import ImageReadMode

        found = Decoders(torch.ops.image.decode_png.default, torch.ops.image.decode_jpeg.default)
    except (ImportError, AttributeError):
        return None
    return found if (ImageReadMode.GRAY.value, ImageReadMode.RGB.value) == (MODES[1], MODES[3]) else None


SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNKS = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"tEXt"}
"""The chunks of a usual PNG. Others can contain transparency, a palette, an orientation, an animation or a colour
profile."""
ORIENTED = (b"Raw profile", b"XML:")
"""The first words of texts that can contain an orientation."""


def usual_png(content: bytes) -> int | None:
    """Returns the number of channels, 1 or 3, of a PNG with 8 bits per channel, without interlacing and without other
    chunks than CHUNKS. Returns None for any other PNG, if it has too many pixels, and if a chunk is damaged."""
    if not content.startswith(SIGNATURE + b"\0\0\0\rIHDR"):
        return None
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    bits, kind, _, _, interlaced = content[24:29] if len(content) > 28 else (0,) * 5
    if bits != 8 or kind not in (0, 2) or interlaced or not 0 < width * height <= PIXELS:
        return None
    start, name = len(SIGNATURE), b""
    while start + 12 <= len(content) and name != b"IEND":
        size, name = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        end = start + 8 + size
        if name not in CHUNKS or (name == b"tEXt" and content[start + 8 :].startswith(ORIENTED)):
            return None
        if zlib.crc32(memoryview(content)[start + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return None
        start = end + 4
    return (3 if kind == 2 else 1) if name == b"IEND" else None


def usual_jpeg(content: bytes) -> int | None:
    """Returns the number of channels, 1 or 3, of a JPEG with 8 bits. Returns None for any other JPEG, if its header is
    damaged, and if it has too many pixels or scans."""
    header = jpeg_header(content)
    if header is None or header.height * header.width > PIXELS:
        return None
    if not header.single_scan and content.count(b"\xff\xda") > SCANS:
        return None
    return header.channels


SEGMENTS = {0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE}
"""The markers that may precede the first scan of a JPEG: frames, tables, the restart interval, applications, comments.
Each is followed by its size."""


class JpegHeader(NamedTuple):
    """The size of a JPEG in pixels, its channels, and whether all its pixels are in one scan."""

    height: int
    width: int
    channels: int
    single_scan: bool


def jpeg_header(content: bytes) -> JpegHeader | None:
    """Returns the header of a JPEG in colour or grey with 8 bits. Returns None for any other JPEG, and if the header is
    damaged. The header is a sequence of segments: a marker of two bytes and a size of two bytes."""
    start, frame = 2, None
    while start + 9 < len(content) and content[start] == 0xFF:
        marker, size = content[start + 1], int.from_bytes(content[start + 2 : start + 4], "big")
        if marker in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
            bits, height, width, channels = content[start + 4], *sizes_in(content, start + 5), content[start + 9]
            if frame is not None or bits != 8 or channels not in (1, 3) or not height or not width:
                return None
            frame = height, width, channels, marker != 0xC2
        if marker == 0xDA and frame is not None:  # the first scan; a sequential one with all channels is the only one
            return JpegHeader(*frame[:3], single_scan=frame[3] and content[start + 4] == frame[2])
        if marker not in SEGMENTS or size < 2:  # libjpeg reads other markers differently
            return None
        start += 2 + size
    return None


def sizes_in(content: bytes, start: int) -> tuple[int, int]:
    """Returns the two integers of two bytes each from `start` on."""
    return int.from_bytes(content[start : start + 2], "big"), int.from_bytes(content[start + 2 : start + 4], "big")
