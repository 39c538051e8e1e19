"""Reading of JSON, typed records, tensors and arrays from untrusted files. Errors are raised as DataError."""

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
    """Base of the types of JSON files. The files are written by chopmix or come from published models. Unknown keys are
    ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())


R = TypeVar("R", bound=BaseModel)


def parse_json(content: bytes | str, where: str) -> Any:
    """Returns the value of a JSON text. Raises DataError if the text is not JSON or is nested deeper than 200 levels.
    `where` begins the message."""
    try:
        return pydantic_core.from_json(content)
    except (ValueError, UnicodeEncodeError) as error:
        raise DataError(f"{where}: not JSON: {_with_character(str(error))}") from None


def _with_character(message: str) -> str:
    """Returns an error message in which ` at line 1 column N` at the end is replaced by ` at character N`."""
    return re.sub(r" at line 1 column (\d+)$", r" at character \1", message)


def read_json(path: str | os.PathLike, most: int = SMALL) -> Any:
    """Returns the value of a JSON file of at most `most` bytes. Raises DataError like `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, most), os.fspath(path))


def read_record(path: str | os.PathLike, kind: type[R], most: int = SMALL) -> R:
    """Returns the content of a JSON file as a record of type `kind`. Raises DataError like `read_bytes` and
    `as_record`."""
    return as_record(read_bytes(path, most), kind, os.fspath(path))


def as_record(content: bytes | str, kind: type[R], where: str) -> R:
    """Returns a JSON text as a record of type `kind`. Raises DataError if the text is not JSON, or if a field is
    missing or has a value that `kind` does not allow; the message names the first such field. `where` begins the
    message."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise DataError(f"{where}: {f'{path}: ' if path else ''}{_in_words(first)}") from None


WORDS = {"Input should be ": "must be ", "a valid integer": "a whole number", "a valid string": "text",
         "a valid dictionary": "a mapping", "a valid boolean": "true or false", "a valid ": "a "}  # fmt: skip
"""Phrases in pydantic's messages, and the phrases that replace them in the messages of chopmix."""


def _in_words(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"not JSON: {_with_character(error['ctx']['error'])}"
    if error["type"] == "missing":
        return "it is missing"
    message = error["msg"].removeprefix("Value error, ")
    for phrase, replacement in WORDS.items():
        message = message.replace(phrase, replacement)
    return message if "must be" not in message else f"{message}, not {shown(error['input'])}"


NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\s*", re.ASCII)


def as_numbers(value: Any) -> Any:
    """Returns the number or the list of a text that is a number or a JSON list, such as a cell of a CSV file. Returns
    all other values unchanged.

        "37.25" -> 37.25      "[1, 2]" -> [1, 2]      "7.npy" -> "7.npy"

    This function is not used for classes, texts and keys, where "007" must remain a text."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(DataError):
            return parse_json(value, "")
    return value


def as_text(value: str | float) -> str:
    """Returns a label as text. Equal numbers have the same text.

    "007" -> "007"      7 -> "7"      7.0 -> "7"      7.5 -> "7.5"      True -> "True"
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file by name, on the CPU. Raises DataError if the file is missing, damaged
    or not a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    regular(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        with open(path, "rb") as file:
            is_pointer = file.read(64).startswith(b"version https://git-lfs")
        reason = "a pointer of Git LFS: run `git lfs pull` there" if is_pointer else "damaged or cut short"
        raise DataError(f"{os.fspath(path)} is {reason}: {error}") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Writes tensors by name to a safetensors file. `about` is metadata for the header of the file. Raises OSError with
    the path if the file cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    on_cpu = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    try:
        save_file(on_cpu, path, about)
    except SafetensorError as error:  # safetensors also raises it for errors of the disk
        os_error = re.search(r"\(os error ([0-9]+)\)", str(error))
        number = int(os_error[1]) if os_error else errno.EIO
        raise not_written(path, OSError(number, os.strerror(number) if os_error else str(error))) from error
    except OSError as error:
        raise not_written(path, error) from error


@contextmanager
def partial_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Iterator[Path]:
    """Context manager: writes the tensors to a temporary file in a temporary folder next to `path`, and yields the path
    of the temporary file. The `with` block must rename this file to `path`. An OSError from writing or from the `with`
    block is raised again with `path` in the message."""
    partial = partial_name(path)  # a folder, because safetensors writes another temporary file next to its file
    try:
        partial.mkdir()
        write_tensors(partial / path.name, tensors)
        flush(partial / path.name)
        yield partial / path.name
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        delete(partial)


VALUES = 2**25
"""The largest number of values of one item (33.5 million, for example 9 channels at 100 Hz for 10 hours)."""


def read_array(content: bytes, where: str) -> np.ndarray:
    """Returns the array of a `.npy` file with this content. Raises DataError if the content is not in this format, if
    the array holds objects or more than `VALUES` numbers, or if the number of bytes is not the one that the header
    declares. `where` begins the message."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(version[0])
        if reader is None:
            raise ValueError(f"version {version[0]} of the format is not supported")
        shape, _, kind = reader(stream)
        count, most = math.prod(shape), math.prod(max(side, 1) for side in shape)
        if most > VALUES:
            raise ValueError(f"its header declares {most:,} numbers; possible: up to {VALUES:,}")
        size = count * kind.itemsize
        if kind.hasobject or size != len(content) - stream.tell():
            declared = f"{size:,} bytes of numbers, but there are {len(content) - stream.tell():,}"
            raise ValueError(f"its header declares {'objects' if kind.hasobject else declared}")
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, TypeError, SyntaxError, MemoryError, RecursionError, TokenError) as error:
        raise DataError(f"{where} is not a readable array: {error}") from None
