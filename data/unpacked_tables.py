"""The size to which a data file of a table unpacks, found before Hugging Face's `datasets` reads it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from ..tokenizers.files.reading import DataError
from ..tokenizers.files.writing import make_folder, write_bytes
from .root import cache_folder

ROOM = 2**29
"""The bytes to which every parquet file may unpack, however small it is (512 MiB)."""

WIDEST = 8
"""The bytes of a value without its content: a number of 64 bits, or where a text begins."""


def check_once(file: Path, check: Callable[[Path], None]) -> None:
    """Check a file, unless the cache says that this content was checked before: large ones take a while. Raises
    DataError as `check` does."""
    found = os.stat(file)
    known = f"{check.__name__} {os.path.abspath(file)} {found.st_size} {found.st_mtime_ns} {found.st_ino}"
    note = cache_folder() / "tables" / "checked" / hashlib.sha256(known.encode()).hexdigest()[:32]
    if not os.path.exists(note):
        check(file)
        make_folder(note.parent)
        write_bytes(note, b"")


def check_table(file: Path) -> None:
    """Raises DataError for a data file that is an archive or compressed as a whole, for an arrow file with compressed
    columns, and a parquet file that unpacks to more than 100 times its size and `ROOM`. Errors of a damaged file
    are left to the library."""
    from datasets.utils.extract import Extractor

    if kind := Extractor.infer_extractor_format(str(file)):  # the library would unpack it without a limit
        raise DataError(f"{file}: it is a {kind} file; unpack it, and name the file inside")
    if file.suffix.lower() == ".arrow":
        check_arrow(file)
    if file.suffix.lower() == ".parquet":
        most = max(100 * os.path.getsize(file), ROOM)
        if (size := unpacked_size(file, most)) > most:
            raise DataError(f"{file}: its columns unpack to {size:,} bytes or more; possible: up to {most:,}")


def check_arrow(file: Path) -> None:
    """Raises DataError for an arrow file with compressed columns: their sizes are not known before they are read."""
    if any(map(is_compressed, messages(file))):
        raise DataError(f"{file}: its columns are compressed; write it without compression, or as parquet")


def unpacked_size(file: Path, most: int) -> int:
    """The bytes of all columns of a parquet file, by its own counts; texts that it stores once and repeats are counted
    as often as they occur. Counting stops above `most`."""
    import pyarrow as arrow
    from pyarrow import compute, parquet

    try:
        with parquet.ParquetFile(file) as opened:
            groups = [opened.metadata.row_group(n) for n in range(opened.num_row_groups)]
            columns = [group.column(n) for group in groups for n in range(group.num_columns)]
            widths = [max(WIDEST, opened.schema.column(n).length or 0) for n in range(len(opened.schema))] * len(groups)
            total = sum(e.total_uncompressed_size + w * e.num_values for e, w in zip(columns, widths, strict=True))
            repeated = {each.path_in_schema for each in columns if each.physical_type == "BYTE_ARRAY"}
            if total > most or total + sum(e.num_values * e.total_uncompressed_size for e in columns) <= most:
                return total
        with parquet.ParquetFile(file, read_dictionary=sorted(repeated)) as opened:
            for batch in opened.iter_batches(columns=sorted(repeated)):
                for column in chain.from_iterable(map(leaves, batch.columns)):
                    if isinstance(column, arrow.DictionaryArray):
                        lengths = compute.binary_length(column.dictionary).take(column.indices)
                        total += compute.sum(lengths).as_py() or 0
                if total > most:
                    break
    except NotImplementedError as error:
        raise DataError(f"{file}: its size cannot be counted: {error}") from None
    except (OSError, ValueError):  # damaged: the library says how
        return 0
    return total


def leaves(column: Any) -> Iterator[Any]:
    """The arrays inside of lists, mappings and structs, of any depth."""
    if hasattr(column, "items"):  # of a mapping
        inside = [column.keys, column.items]
    elif column.type.num_fields and hasattr(column, "flatten"):
        inside = found if isinstance(found := column.flatten(), list) else [found]
    else:
        yield column
        return
    yield from chain.from_iterable(map(leaves, inside))


def messages(file: Path) -> Iterator[Any]:
    """The record batches and dictionaries of an arrow file, or of a stream, up to where it is damaged."""
    import pyarrow as arrow

    with arrow.memory_map(str(file)) as source:
        source.seek(8 if source.read(6) == b"ARROW1" else 0)
        with suppress(OSError, ValueError, EOFError):
            yield from arrow.ipc.MessageReader.open_stream(source)


def is_compressed(message: Any) -> bool:
    """Whether the metadata of a message, a flatbuffer, name a compression: field 3 of a record batch, which is field 2
    of the message, or field 1 of a dictionary there."""
    if message.type not in ("record batch", "dictionary"):
        return False
    metadata = message.metadata.to_pybytes()
    batch = pointed(metadata, field(metadata, pointed(metadata, 0), 2))
    if message.type == "dictionary":
        batch = pointed(metadata, field(metadata, batch, 1))
    return field(metadata, batch, 3) != 0


def pointed(metadata: bytes, place: int) -> int:
    """The place that an offset at `place` leads to."""
    return place + int.from_bytes(metadata[place : place + 4], "little")


def field(metadata: bytes, table: int, number: int) -> int:
    """The place of a field of a flatbuffer's table; 0 where the table has no such field."""
    layout = table - int.from_bytes(metadata[table : table + 4], "little", signed=True)
    size, place = int.from_bytes(metadata[layout : layout + 2], "little"), 4 + 2 * number
    offset = int.from_bytes(metadata[layout + place : layout + place + 2], "little") if place < size else 0
    return table + offset if offset else 0
