"""Data files of tables. Finds the data files of each split in a folder, and checks the size to which files unpack."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ..files.plain_yaml import load_plain
from ..files.reading import DataError, read_text, shown
from ..files.records import read_json
from ..files.writing import make_folder, write_bytes
from .base import cache_folder

READERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}
"""The reader of Hugging Face's `datasets` for a data file, by the ending of its name."""
SPLITS = {
    "train": "train|training", "validation": "validation|valid|dev|val", "test": "test|testing|eval|evaluation",
}  # fmt: skip
"""The words in the path of a file that indicate its split, as a regular expression, by split."""
SHARD = re.compile(r"(?:.*/)?(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}\.\w+")
"""The path of a numbered part of a split: `data/train-00000-of-00002.parquet`."""
UNSAFE = re.compile(r"::|://|[*?\[\]]")
"""Characters in a file path that `datasets` would interpret as a pattern or an address."""


def split_files(folder: Path, subset: str | None = None) -> tuple[str, dict[str, list[str]]]:
    """Returns (the reader of `datasets`, the absolute paths of the data files by split):

        ("parquet", {"train": ["/d/train-00000-of-00002.parquet", ...], "test": ["/d/test.parquet"]})

    `subset` is the name of a configuration in the README.md, or of a folder. If the files need different readers, only
    the files of the most frequent reader are used. Raises DataError if there are no data files or no such subset, if
    there are several configurations without a default and `subset` is None, or if a path contains UNSAFE characters.
    """
    names = sorted(name for name in files_below(folder) if PurePosixPath(name).suffix.lower() in READERS)
    if not names:
        raise DataError(
            f"{folder} has no data files; possible: {', '.join(READERS)}. For a folder of images use the data set "
            "image_folder, for tar files webdataset"
        )
    splits = named_splits(folder, names, subset)
    readers = Counter(READERS[PurePosixPath(name).suffix.lower()] for files in splits.values() for name in files)
    reader = readers.most_common(1)[0][0]
    kept = {
        split: [local_path(folder / name) for name in files if READERS[PurePosixPath(name).suffix.lower()] == reader]
        for split, files in splits.items()
    }
    return reader, {split: files for split, files in kept.items() if files}


def files_below(folder: Path) -> Iterator[str]:
    """Yields the paths of all files below a folder, relative to this folder. Hidden files, and folders whose names
    begin with `.` or `__`, are skipped."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for name in files:
            if not name.startswith("."):
                yield (Path(parent) / name).relative_to(folder).as_posix()


def local_path(file: Path) -> str:
    """Returns the absolute path of a data file. Raises DataError if `datasets` would interpret it as a pattern or an
    address."""
    path = os.path.abspath(file)
    if match := UNSAFE.search(path):
        raise DataError(f"{shown(path)}: the path of a data file cannot contain {match[0]!r}; rename it")
    return path


def named_splits(folder: Path, names: Sequence[str], subset: str | None) -> dict[str, list[str]]:
    """Returns the files of each split. If the README.md has configurations, they determine the splits; otherwise the
    names of the files do. Raises DataError if there is no such subset."""
    configurations = {entry["config_name"]: entry for entry in readme_configurations(folder / "README.md")}
    if configurations and (subset or len(configurations) > 1 or "data_files" in next(iter(configurations.values()))):
        chosen = subset or default_name(configurations)
        if chosen not in configurations:
            raise DataError(f"{folder} has no subset {chosen!r}; possible: {', '.join(configurations)}")
        if "data_files" in configurations[chosen]:
            return matched_splits(configurations[chosen]["data_files"], names, folder)
    if subset is not None:
        matching = [name for name in names if name.startswith(f"{subset}/")]
        if not matching:
            folders = sorted({name.partition("/")[0] for name in names if "/" in name})
            raise DataError(f"{folder} has no subset {subset!r}; possible: {', '.join(folders) or 'none'}")
        names = matching
    splits: dict[str, list[str]] = {}
    for name in names:
        splits.setdefault(split_in_name(name), []).append(name)
    return splits


def split_in_name(name: str) -> str:
    """Returns the split that the path of a data file indicates; `train` if it indicates none."""
    if shard := SHARD.fullmatch(name):
        return next((split for split, words in SPLITS.items() if shard["split"] in words.split("|")), shard["split"])
    for split, words in SPLITS.items():
        if re.search(rf"(?:^|[^a-zA-Z])(?:{words})(?:[^a-zA-Z]|$)", name):
            return split
    return "train"


def readme_configurations(readme: Path) -> list[Mapping[str, Any]]:
    """Returns the configurations in the YAML header of a README.md. Returns an empty list if the file or its header
    does not exist, or if the header is not valid YAML.

        [{"config_name": "plain", "data_files": [{"split": "train", "path": "plain/train-*"}]}]
    """
    if not readme.is_file():
        return []
    first, *lines = (line.rstrip() for line in read_text(readme).split("\n"))
    header = "\n".join(lines[: lines.index("---")]) if first == "---" and "---" in lines else ""
    try:
        content = load_plain(header)
    except (yaml.YAMLError, RecursionError, ValueError):
        return []
    entries = content.get("configs") if isinstance(content, dict) else None
    return [
        entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("config_name"), str)
    ]


def default_name(configurations: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the name of the configuration that is read without `subset`: the one that is marked as the default, the
    one named `default`, or the only one. Raises DataError if none of these exists."""
    marked = [name for name, entry in configurations.items() if entry.get("default") is True]
    if marked or "default" in configurations or len(configurations) == 1:
        return marked[0] if marked else "default" if "default" in configurations else next(iter(configurations))
    raise DataError(f"there are several subsets: name one with `subset`: {', '.join(configurations)}")


def matched_splits(data_files: Any, names: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Returns the files of each split that match `data_files`: a pattern, a list of patterns, or a list of `{split,
    path}`. Patterns are compared only with `names`, the files in the folder, so they cannot match files outside of it.
    Raises DataError if a pattern is not a text, or if no file matches."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    matches: dict[str, list[str]] = {}
    for entry in entries:
        split = str(entry.get("split", "train")) if isinstance(entry, dict) else "train"
        patterns = entry.get("path") if isinstance(entry, dict) else entry
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            if not isinstance(pattern, str):
                raise DataError(f"{folder}/README.md: a pattern of data_files must be a text, not {shown(pattern)}")
            matching = [name for name in names if fnmatch.fnmatchcase(name, pattern.removeprefix("./"))]
            matches.setdefault(split, []).extend(matching)
    kept = {split: list(dict.fromkeys(files)) for split, files in matches.items() if files}
    if not kept:
        raise DataError(f"{folder}/README.md: its data_files {shown(data_files)} match no data file of the folder")
    return kept


ROOM = 2**29
"""A parquet file may always unpack to this number of bytes (512 MiB), even if the file is small."""

WIDEST = 8
"""The size in bytes that is counted for each value of a column: the size of a 64-bit number, or of the offset of a
text."""


BLOCK = 24
"""The size in bytes of an entry in the footer of an arrow file; the first 8 bytes are the position of a message."""


def check_once(file: Path, check: Callable[[Path], None]) -> None:
    """Calls `check(file)`, unless the cache folder contains a marker that this unchanged file was already checked;
    checking a large file takes long. Raises the DataError of `check`."""
    stat = os.stat(file)
    identity = f"{check.__name__} {os.path.abspath(file)} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
    marker = cache_folder() / "tables" / "checked" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    if not os.path.exists(marker):
        check(file)
        make_folder(marker.parent)
        write_bytes(marker, b"")


def check_table(file: Path) -> None:
    """Raises DataError if a data file is an archive or a compressed file, an arrow file with compressed columns, or a
    parquet file that unpacks to more than 100 times its size and more than `ROOM` bytes. Also raises DataError if the
    size of the texts in a parquet file cannot be counted. Other damage is not reported here."""
    from datasets.utils.extract import Extractor

    if kind := Extractor.infer_extractor_format(str(file)):  # `datasets` would unpack it without a limit
        raise DataError(f"{file}: it is a {kind} file; unpack it, and use the file inside")
    if file.suffix.lower() == ".arrow":
        check_arrow(file)
    if file.suffix.lower() == ".parquet":
        check_unpacked_size(file)


def check_arrow(file: Path) -> None:
    """Raises DataError if an arrow file has compressed columns, because their sizes are unknown before they are
    unpacked."""
    if any(map(is_compressed, messages(file))):
        raise DataError(f"{file}: its columns are compressed; write it without compression, or as parquet")


def check_unpacked_size(file: Path) -> None:
    """Raises DataError if a parquet file unpacks to more than 100 times its size and more than `ROOM` bytes, or if the
    size of its texts cannot be counted."""
    most = max(100 * os.path.getsize(file), ROOM)
    if (size := unpacked_size(file, most)) > most:
        raise DataError(f"{file}: its columns unpack to {size:,} bytes or more; possible: up to {most:,}")


def unpacked_size(file: Path, most: int) -> int:
    """Returns the number of bytes to which all columns of a parquet file unpack, according to its metadata. A text that
    is stored once and repeated is counted at each repetition. Counting stops above `most`. Returns 0 if the metadata
    are damaged. Raises DataError if the size of the texts cannot be counted."""
    import pyarrow as arrow
    from pyarrow import compute, parquet

    try:
        with parquet.ParquetFile(file) as opened:
            groups = [opened.metadata.row_group(n) for n in range(opened.num_row_groups)]
            columns = [group.column(n) for group in groups for n in range(group.num_columns)]
            widths = [max(WIDEST, opened.schema.column(n).length or 0) for n in range(len(opened.schema))] * len(groups)
            rows = [group.num_rows for group in groups for n in range(group.num_columns)]
            total = sum(w * max(e.num_values, n) for e, w, n in zip(columns, widths, rows, strict=True))
            total += sum(max(column.total_uncompressed_size, 0) for column in columns)
            texts = sorted({column.path_in_schema for column in columns if column.physical_type == "BYTE_ARRAY"})
    except (OSError, ValueError):  # damaged: `datasets` reports the error
        return 0
    if total > most or not texts:
        return total
    try:
        with parquet.ParquetFile(file, read_dictionary=texts) as opened:
            for batch in opened.iter_batches(columns=texts):
                for column in chain.from_iterable(map(leaves, batch.columns)):
                    if isinstance(column, arrow.DictionaryArray):
                        lengths = compute.binary_length(column.dictionary).take(column.indices)
                        total += compute.sum(lengths).as_py() or 0
                if total > most:
                    break
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{file}: the size of its texts cannot be counted: {error}") from None
    return total


def leaves(column: Any) -> Iterator[Any]:
    """Yields the arrays that a column contains inside of lists, mappings and structs, at any depth."""
    if hasattr(column, "items"):  # a mapping
        children = [column.keys, column.items]
    elif column.type.num_fields and hasattr(column, "flatten"):
        children = flat if isinstance(flat := column.flatten(), list) else [flat]
    else:
        yield column
        return
    yield from chain.from_iterable(map(leaves, children))


def saved_files(folder: Path) -> Iterator[Path]:
    """Yields the arrow files of a folder that `save_to_disk` wrote. Raises DataError if a list of files or splits is
    missing, or if a name in it contains a folder, so that it could refer to a file outside of the folder."""
    splits = [folder]
    if os.path.exists(folder / "dataset_dict.json"):
        splits = [inside(folder, name) for name in listed_in(folder / "dataset_dict.json", "splits")]
    for split in splits:
        for entry in listed_in(split / "state.json", "_data_files"):
            yield inside(split, entry.get("filename") if isinstance(entry, dict) else entry)


def listed_in(file: Path, key: str) -> list[Any]:
    """Returns the list under a key of a JSON file. Raises DataError if the file cannot be read or has no list under
    this key."""
    content = read_json(file)
    values = content.get(key) if isinstance(content, dict) else None
    if not isinstance(values, list):
        raise DataError(f"{file} has no list {key!r}")
    return values


def inside(folder: Path, name: Any) -> Path:
    """Returns the path of the file with this name in a folder. Raises DataError if the name is empty, is not a text, is
    `.` or `..`, or contains a slash or backslash."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise DataError(f"{folder}: {shown(name)} is not the name of a file or folder in it")
    return folder / name


def messages(file: Path) -> Iterator[Any]:
    """Yields the record batches and dictionaries (and, from a stream, its schema) of an arrow file or stream, up to the
    first damage. The footer of a file contains the positions of these messages."""
    import pyarrow as arrow

    with arrow.memory_map(str(file)) as source, suppress(OSError, ValueError, EOFError):
        if source.read(6) != b"ARROW1":
            source.seek(0)
            yield from arrow.ipc.MessageReader.open_stream(source)
            return
        end = source.size() - 10  # the end of the footer, which is followed by its length and the magic bytes
        source.seek(end)
        length = int.from_bytes(source.read(4), "little")
        source.seek(end - length)
        footer = source.read(length)
        for number in (2, 3):  # dictionaries, record batches
            if position := field(footer, pointed(footer, 0), number):
                vector = pointed(footer, position)
                for block in range(
                    vector + 4, vector + 4 + 24 * int.from_bytes(footer[vector : vector + 4], "little"), 24
                ):
                    source.seek(int.from_bytes(footer[block : block + 8], "little"))
                    yield arrow.ipc.read_message(source)


def is_compressed(message: Any) -> bool:
    """Returns whether the columns of a message are compressed. The metadata of a message are a flatbuffer: field 3 of
    the record batch is the compression, and the record batch is field 2 of the message; in a dictionary message, it is
    field 1 of field 2."""
    if message.type not in ("record batch", "dictionary"):
        return False
    metadata = message.metadata.to_pybytes()
    batch = pointed(metadata, field(metadata, pointed(metadata, 0), 2))
    if message.type == "dictionary":
        batch = pointed(metadata, field(metadata, batch, 1))
    return field(metadata, batch, 3) != 0


def pointed(metadata: bytes, position: int) -> int:
    """Returns the position to which an offset points; the offset is stored at `position` (4 bytes) and is relative to
    it."""
    return position + int.from_bytes(metadata[position : position + 4], "little")


def field(metadata: bytes, table: int, number: int) -> int:
    """Returns the position of a field in a table of a flatbuffer; 0 if the table does not have this field."""
    layout = table - int.from_bytes(metadata[table : table + 4], "little", signed=True)
    size, entry = int.from_bytes(metadata[layout : layout + 2], "little"), 4 + 2 * number
    offset = int.from_bytes(metadata[layout + entry : layout + entry + 2], "little") if entry < size else 0
    return table + offset if offset else 0
