"""The one door for foreign data: files to bytes, texts, records, tensors, arrays, pictures and sounds.

Whatever is in a file that we did not just write, its reader here either gives the value, of the type and within the bounds that
were asked for, or raises DataError with one sentence that names the file. Nothing in a file is ever executed.
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import lzma
import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
import pydantic_core
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

Source = bytes | str | os.PathLike
"""A file's content, or where it is."""
SMALL, LARGE = 2**24, 2**32
"""Bytes that a file of settings may have, and one of data that is read as a whole."""
PIXELS = 100_000_000
"""The most pixels of a picture."""
SAMPLES, BLOCK = 2**30, 2**20
"""The most samples of a sound, all channels being one (six hours at 44.1 kHz), and how many are read at once."""


class DataError(ValueError):
    """Data that is missing, damaged or not what it should be; the message names the file or the sample."""


class Record(BaseModel):
    """Base of what a JSON file of ours, or of a published model, is read as: typed fields, others passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())


R = TypeVar("R", bound=BaseModel)


# --------------------------------------------------------------------------------------------------- bytes and texts


def regular(path: str | os.PathLike) -> os.stat_result:
    """What the system tells of a regular file. Raises DataError where there is none, or something else stands there: a folder, or a
    pipe or a device, which might never end."""
    named = os.fspath(path)
    try:
        told = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"{named} does not exist") from None
    except (OSError, ValueError) as error:  # a name that is too long, or holds what no name can
        raise DataError(f"{named!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(told.st_mode):
        raise DataError(f"{named} is {'a folder' if stat.S_ISDIR(told.st_mode) else 'no regular file'}")
    return told


def matching(pattern: str) -> list[str]:
    """The paths that a pattern such as `**/*.txt` matches, in their order. Raises DataError for one that is longer than a path."""
    if len(pattern) > 4096:
        raise DataError(f"{shown(pattern)} has {len(pattern):,} characters; a path has 4,096 at most")
    return sorted(glob.glob(pattern, recursive=True))


def read_bytes(path: str | os.PathLike, most: int = LARGE) -> bytes:
    """A regular file's content, as long as it is when asked for: a run may be adding to it. Raises DataError where there is none,
    it cannot be read, or has more than `most` bytes."""
    size = regular(path).st_size
    if size > most:
        raise DataError(f"{os.fspath(path)} has {size:,} bytes, more than the {most:,} that are read")
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise DataError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None


def as_text(content: bytes, where: str, line: int = 1) -> str:
    """A file of UTF-8 as text, without a byte order mark. Raises DataError as `utf8` does."""
    return utf8(content, where, line).removeprefix("\ufeff")


def utf8(content: bytes, where: str, line: int = 1) -> str:
    """UTF-8 bytes, which begin in a `line`, as text. Raises DataError naming the byte and the line that are not."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        place = f"{where}, line {line}" if where else f"line {line}"
        byte = f"byte {error.start} (0x{content[error.start]:02x})"
        raise DataError(f"{place}: {byte} is not valid UTF-8 ({error.reason})") from None


def read_text(path: str | os.PathLike, most: int = SMALL) -> str:
    """A whole UTF-8 file, newlines as they are."""
    return as_text(read_bytes(path, most), os.fspath(path))


PACKED: dict[str, Callable] = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open}
"""What unpacks a file, by its ending."""
LONGEST = 2**28
"""Bytes that one line may have."""


def unpacked_most(path: str | os.PathLike) -> int:
    """How many bytes may come out of a packed file: a hundred times its own, or a GiB; what packs better is made to fill disks."""
    return max(100 * os.path.getsize(path), 2**30)


def read_lines(path: str | os.PathLike) -> Iterator[bytes]:
    """The lines of a plain, `.gz` or `.xz` file, each with its end, one by one. Raises DataError naming the file."""
    named, opener, total = os.fspath(path), PACKED.get(Path(path).suffix), 0
    regular(path)
    try:
        most = unpacked_most(path) if opener else sys.maxsize
        with (opener or open)(path, "rb") as file:
            while line := file.readline(LONGEST):
                total += len(line)
                if len(line) == LONGEST and not line.endswith(b"\n"):
                    raise DataError(f"{named} has a line of more than {LONGEST:,} bytes")
                if total > most:
                    raise DataError(f"{named} unpacks to more than {most:,} bytes; unpack it yourself if that is meant")
                yield line
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{named} cannot be read: {error or type(error).__name__}") from error


def read_packed_text(path: str | os.PathLike) -> str:
    """The whole text of a UTF-8 file (plain, `.gz` or `.xz`), newlines as they are, without a byte order mark."""
    return as_text(b"".join(read_lines(path)), os.fspath(path))


# ------------------------------------------------------------------------------------------------------------ writing


def partial_name(path: Path) -> Path:
    """The name that a file has until it is whole. It tells of the machine and the process that write it, so that what a killed
    one has left can be known for that (see `sweep_partials`)."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{secrets.token_hex(4)}.{os.getpid()}")


def sweep_partials(path: Path) -> None:
    """Delete what processes of this machine that are no more have left of a file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(socket.gethostname())}.*"):
        number = left.name.rpartition(".")[2]
        if number.isdecimal() and len(number) < 10 and not is_alive(int(number)):
            with suppress(OSError):
                left.unlink()


def is_alive(process: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def not_written(path: Path, error: OSError | ValueError) -> OSError:
    """The error of a file or a folder that cannot be written, which names it."""
    why = getattr(error, "strerror", None) or error
    return OSError(getattr(error, "errno", None), f"{path} cannot be written: {why}")


def make_folder(path: Path) -> None:
    """A folder, and those above it, where there is none yet. Raises OSError naming it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise not_written(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole: readers see the old text or the new, never half of it. Raises OSError naming the file."""
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, ValueError) as error:  # ValueError: a name or a text that no file can have
        with suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
        raise not_written(path, error) from error


# ----------------------------------------------------------------------------------------------------------- records


def parse_json(content: bytes | str, where: str) -> Any:
    """The value of a JSON text. Raises DataError, also for what is nested deeper than 200 levels."""
    try:
        return pydantic_core.from_json(content)
    except (ValueError, UnicodeEncodeError) as error:
        raise DataError(f"{where}: not JSON: {_place(str(error))}") from None


def _place(message: str) -> str:
    return re.sub(r" at line 1 column (\d+)$", r" at character \1", message)


def read_json(path: str | os.PathLike, most: int = SMALL) -> Any:
    """The value of a JSON file."""
    return parse_json(read_bytes(path, most), os.fspath(path))


def read_record(path: str | os.PathLike, kind: type[R], most: int = SMALL) -> R:
    """A JSON file as a record."""
    return as_record(read_bytes(path, most), kind, os.fspath(path))


def as_record(content: bytes | str, kind: type[R], where: str) -> R:
    """A JSON text as a record. Raises DataError naming the first field that is missing or not what it should be."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{where}: {f'{place}: ' if place else ''}{_in_words(first)}") from None


WORDS = {"Input should be ": "must be ", "a valid integer": "a whole number", "a valid string": "text",
         "a valid dictionary": "a mapping", "a valid boolean": "true or false", "a valid ": "a "}  # fmt: skip
"""pydantic's words, and those of a configuration's messages."""


def _in_words(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"not JSON: {_place(error['ctx']['error'])}"
    if error["type"] == "missing":
        return "it is not there"
    message = error["msg"].removeprefix("Value error, ")
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return message if "must be" not in message else f"{message}, not {shown(error['input'])}"


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as a whole."""
    write_text(path, json.dumps(value, indent=1))


# ------------------------------------------------------------------------------------------------ tensors and arrays


def read_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU. Raises DataError where it is missing, damaged, or no such file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    named = os.fspath(path)
    if not os.path.isfile(path):
        raise DataError(f"{named} {'is a folder' if os.path.isdir(path) else 'does not exist'}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        with open(path, "rb") as file:
            pointer = file.read(64).startswith(b"version https://git-lfs")
        why = "a pointer of Git LFS: run `git lfs pull` there" if pointer else "damaged or cut short"
        raise DataError(f"{named} is {why}: {error}") from None


def read_array(content: bytes, where: str) -> np.ndarray:
    """The array of a `.npy` file. Raises DataError for one of objects, and where the file is shorter than it says."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(version[0])
        if reader is None:
            raise ValueError(f"version {version[0]} of the format is not known")
        shape, _, kind = reader(stream)
        size = int(np.prod([int(side) for side in shape], dtype=object)) * kind.itemsize
        if kind.hasobject or size != len(content) - stream.tell():
            there = f"{size:,} bytes of numbers where {len(content) - stream.tell():,} are there"
            raise ValueError(f"it says that it holds {'objects' if kind.hasobject else there}")
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, TypeError, SyntaxError, MemoryError, RecursionError, TokenError) as error:
        raise DataError(f"{where} is no array that can be read: {error}") from None


# ---------------------------------------------------------------------------------------------------------- pictures


def read_picture(raw: Source) -> Any:
    """A picture (PIL), turned as its EXIF data says, the first one of an animation, loaded whole. Raises DataError."""
    return next(_pictures(raw, "image"))


def read_animation(raw: Source, most: int) -> list[Any]:
    """The pictures (PIL, in colour) of an animation, `most` at most. Raises DataError."""
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


# ------------------------------------------------------------------------------------------------------------ sounds

FFMPEG = {b"ftyp": 4, b"\x1aE\xdf\xa3": 0, b"\xff\xf1": 0, b"\xff\xf9": 0, b"\x30\x26\xb2\x75": 0}
"""How files begin that libsndfile does not read (mp4 and m4a, webm and mkv, aac, wma), with the byte where they say so."""
SECONDS = 600
"""How long ffmpeg may work on one file."""


def read_sound(raw: Source) -> tuple[Float[np.ndarray, "t"], int]:
    """The samples of a file, from -1 to 1, its channels averaged, and its rate in hertz. Raises DataError.

    The file is read in blocks: one whose header tells of more samples than it has takes no memory for them.
    """
    import soundfile

    named = "" if isinstance(raw, bytes) else f"{os.fspath(raw)}: "
    content = read_sound_bytes(raw)
    try:
        return _blocks(content)
    except (soundfile.SoundFileError, OSError, TypeError, MemoryError, RuntimeError) as error:
        if any(content[start : start + len(mark)] == mark for mark, start in FFMPEG.items()):
            return _through_ffmpeg(raw, named)
        said = str(error) if not isinstance(error, soundfile.LibsndfileError) else error.error_string
        raise DataError(f"the sound cannot be read: {named}{said}") from None
    except ValueError as error:
        raise DataError(f"the sound cannot be read: {named}{error}") from None


def read_sound_bytes(raw: Source) -> bytes:
    """The bytes of a file of sound."""
    if isinstance(raw, bytes):
        if not raw:
            raise DataError("the sound has no bytes")
        return raw
    try:
        return read_bytes(raw)
    except DataError as error:
        raise DataError(f"the sound cannot be read: {error}") from None


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
    """The same through the program ffmpeg. Raises DataError where it is not installed or cannot read the file."""
    if shutil.which("ffmpeg") is None:
        raise DataError(f"the sound cannot be read: {named}this kind of file (mp4, m4a, webm, aac, wma) needs ffmpeg, which is "
                        "not installed here; wav, flac, ogg, opus and mp3 are read without")  # fmt: skip
    source = "pipe:0" if isinstance(raw, bytes) else f"file:{os.fspath(raw)}"  # by its name it may be read at any place
    command = f"ffmpeg -v error -i SOURCE -vn -c:a pcm_s16le -f wav -fs {LARGE} pipe:1".split()
    command[command.index("SOURCE")] = source
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
    """Numbers of any kind as a float32 tensor. Raises DataError for what is none, or not a whole table of them."""
    try:
        return torch.as_tensor(np.asarray(values, dtype=np.float32))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: no table of numbers: {error}") from None
