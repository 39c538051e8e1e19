"""JSON, typed records, tensors and arrays from files of any origin; errors as in `files/reading.py`."""

from __future__ import annotations

import errno
import io
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
import pydantic_core
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from .reading import SMALL, DataError, read_bytes, regular, shown
from .writing import delete, flush, not_written, partial_name


class Record(BaseModel):
    """Base of the typed contents of JSON files, ours or a published model's; keys that are no field are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())


R = TypeVar("R", bound=BaseModel)


def parse_json(content: bytes | str, where: str) -> Any:
    """The value of a JSON text. Raises DataError for what is not JSON, or is nested deeper than 200 levels; `where`
    begins its message."""
    try:
        return pydantic_core.from_json(content)
    except (ValueError, UnicodeEncodeError) as error:
        raise DataError(f"{where}: not JSON: {_place(str(error))}") from None


def _place(message: str) -> str:
    return re.sub(r" at line 1 column (\d+)$", r" at character \1", message)


def read_json(path: str | os.PathLike, most: int = SMALL) -> Any:
    """The value of a JSON file of at most `most` bytes. Raises DataError as `read_bytes` and `parse_json` do."""
    return parse_json(read_bytes(path, most), os.fspath(path))


def read_record(path: str | os.PathLike, kind: type[R], most: int = SMALL) -> R:
    """A JSON file as a record. Raises DataError as `read_bytes` and `as_record` do."""
    return as_record(read_bytes(path, most), kind, os.fspath(path))


def as_record(content: bytes | str, kind: type[R], where: str) -> R:
    """A JSON text as a record. Raises DataError naming the first field that is missing or wrong."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{where}: {f'{place}: ' if place else ''}{_in_words(first)}") from None


WORDS = {"Input should be ": "must be ", "a valid integer": "a whole number", "a valid string": "text",
         "a valid dictionary": "a mapping", "a valid boolean": "true or false", "a valid ": "a "}  # fmt: skip
"""pydantic's words, and those that messages about configurations use instead."""


def _in_words(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"not JSON: {_place(error['ctx']['error'])}"
    if error["type"] == "missing":
        return "it is not there"
    message = error["msg"].removeprefix("Value error, ")
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return message if "must be" not in message else f"{message}, not {shown(error['input'])}"


NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\s*", re.ASCII)


def as_numbers(value: Any) -> Any:
    """The number or the list that a text holds, such as a cell of a CSV file; any other value unchanged.

        "37.25" -> 37.25      "[1, 2]" -> [1, 2]      "7.npy" -> "7.npy"

    Classes, texts and keys are not passed through it, so that "007" stays a text there."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(DataError):
            return parse_json(value, "")
    return value


def read_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU. Raises DataError for a file that is missing, damaged or of
    another format."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    regular(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        with open(path, "rb") as file:
            pointer = file.read(64).startswith(b"version https://git-lfs")
        why = "a pointer of Git LFS: run `git lfs pull` there" if pointer else "damaged or cut short"
        raise DataError(f"{os.fspath(path)} is {why}: {error}") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write tensors by name as a safetensors file, with `about` in its header. Raises OSError naming the file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    try:
        save_file(whole, path, about)
    except SafetensorError as error:  # safetensors reports errors of the disk so
        found = re.search(r"\(os error ([0-9]+)\)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise not_written(path, OSError(number, os.strerror(number) if found else str(error))) from error
    except OSError as error:
        raise not_written(path, error) from error


@contextmanager
def partial_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Iterator[Path]:
    """A context with the tensors in a file next to `path`, flushed to the disk, which the body renames to `path`.
    Raises OSError naming `path`."""
    partial = partial_name(path)  # a folder: safetensors writes a file of its own next to the one that is asked for
    try:
        partial.mkdir()
        write_tensors(partial / path.name, tensors)
        flush(partial / path.name)
        yield partial / path.name
    except OSError as error:
        raise not_written(path, error.__cause__ if isinstance(error.__cause__, OSError) else error) from error
    finally:
        delete(partial)


VALUES = 2**25
"""The most numbers of one item (33.5 million: 9 channels at 100 Hz for 10 hours)."""


def read_array(content: bytes, where: str) -> np.ndarray:
    """The array of a `.npy` file's content. Raises DataError for what is none, holds objects, has another length than
    its header says, or more than `VALUES` numbers."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(version[0])
        if reader is None:
            raise ValueError(f"version {version[0]} of the format is not known")
        shape, _, kind = reader(stream)
        count, most = math.prod(shape), math.prod(max(side, 1) for side in shape)
        if most > VALUES:
            raise ValueError(f"it says that it holds {most:,} numbers, more than {VALUES:,}")
        size = count * kind.itemsize
        if kind.hasobject or size != len(content) - stream.tell():
            there = f"{size:,} bytes of numbers where {len(content) - stream.tell():,} are there"
            raise ValueError(f"it says that it holds {'objects' if kind.hasobject else there}")
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, TypeError, SyntaxError, MemoryError, RecursionError, TokenError) as error:
        raise DataError(f"{where} is no array that can be read: {error}") from None
