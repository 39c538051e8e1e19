"""Data files of tables: which files of a folder belong to which split, and the size to which they unpack."""

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

from ..files.reading import DataError, read_text, shown
from ..files.records import read_json
from ..files.writing import make_folder, write_bytes
from .base import cache_folder

READERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}
"""The library's reader for a data file, by its ending."""
SPLITS = {
    "train": "train|training", "validation": "validation|valid|dev|val", "test": "test|testing|eval|evaluation",
}  # fmt: skip
"""The words in a file's path that stand for a split."""
SHARD = re.compile(r"(?:.*/)?(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}\.\w+")
"""A numbered part of a split: `data/train-00000-of-00002.parquet`."""
UNSAFE = re.compile(r"::|://|[*?\[\]]")
"""What the library would read as a pattern or as an address in a file's path."""


def split_files(folder: Path, subset: str | None = None) -> tuple[str, dict[str, list[str]]]:
    """The library's reader and the absolute paths of the data files of every split.

        ("parquet", {"train": ["/d/train-00000-of-00002.parquet", ...], "test": ["/d/test.parquet"]})

    `subset` names a configuration of the README.md, or a folder. Of files with several endings those with the most
    frequent one are read. Raises DataError if there are no data files, or no such subset."""
    names = sorted(name for name in files_below(folder) if PurePosixPath(name).suffix.lower() in READERS)
    if not names:
        raise DataError(
            f"{folder} has no data files; possible: {', '.join(READERS)}. For a folder of images use the data set "
            "image_folder, for tar files webdataset"
        )
    splits = named_splits(folder, names, subset)
    endings = Counter(READERS[PurePosixPath(name).suffix.lower()] for found in splits.values() for name in found)
    reader = endings.most_common(1)[0][0]
    kept = {
        split: [local_path(folder / name) for name in found if READERS[PurePosixPath(name).suffix.lower()] == reader]
        for split, found in splits.items()
    }
    return reader, {split: found for split, found in kept.items() if found}


def files_below(folder: Path) -> Iterator[str]:
    """The paths of all files below a folder, relative to it, without hidden files and folders."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for name in files:
            if not name.startswith("."):
                yield (Path(place) / name).relative_to(folder).as_posix()


def local_path(file: Path) -> str:
    """The absolute path of a data file. Raises DataError if the library would read it as a pattern or an address."""
    path = os.path.abspath(file)
    if found := UNSAFE.search(path):
        raise DataError(f"{shown(path)}: the path of a data file cannot contain {found[0]!r}; rename it")
    return path


def named_splits(folder: Path, names: Sequence[str], subset: str | None) -> dict[str, list[str]]:
    """The files of each split, by the README's configuration if it has one, else by their names."""
    configurations = {each["config_name"]: each for each in readme_configurations(folder / "README.md")}
    if configurations and (subset or len(configurations) > 1 or "data_files" in next(iter(configurations.values()))):
        chosen = subset or default_name(configurations)
        if chosen not in configurations:
            raise DataError(f"{folder} has no subset {chosen!r}; possible: {', '.join(configurations)}")
        if "data_files" in configurations[chosen]:
            return matched_splits(configurations[chosen]["data_files"], names, folder)
    if subset is not None:
        inside = [name for name in names if name.startswith(f"{subset}/")]
        if not inside:
            folders = sorted({name.partition("/")[0] for name in names if "/" in name})
            raise DataError(f"{folder} has no subset {subset!r}; possible: {', '.join(folders) or 'none'}")
        names = inside
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(split_of(name), []).append(name)
    return found


def split_of(name: str) -> str:
    """The split that the path of a data file names; `train` if it names none."""
    if shard := SHARD.fullmatch(name):
        return next((split for split, words in SPLITS.items() if shard["split"] in words.split("|")), shard["split"])
    for split, words in SPLITS.items():
        if re.search(rf"(?:^|[^a-zA-Z])(?:{words})(?:[^a-zA-Z]|$)", name):
            return split
    return "train"


def readme_configurations(readme: Path) -> list[Mapping[str, Any]]:
    """The configurations in the YAML header of a README.md; none if there is no header or it is damaged.

    [{"config_name": "plain", "data_files": [{"split": "train", "path": "plain/train-*"}]}]
    """
    if not readme.is_file():
        return []
    first, *lines = (line.rstrip() for line in read_text(readme).split("\n"))
    header = "\n".join(lines[: lines.index("---")]) if first == "---" and "---" in lines else ""
    try:
        found = yaml.safe_load(header)
    except (yaml.YAMLError, RecursionError, ValueError):
        return []
    listed = found.get("configs") if isinstance(found, dict) else None
    return [
        each
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict) and isinstance(each.get("config_name"), str)
    ]


def default_name(configurations: Mapping[str, Mapping[str, Any]]) -> str:
    """The configuration that is read if the user names none. Raises DataError if there are several, none of them the
    default."""
    marked = [name for name, each in configurations.items() if each.get("default") is True]
    if marked or "default" in configurations or len(configurations) == 1:
        return marked[0] if marked else "default" if "default" in configurations else next(iter(configurations))
    raise DataError(f"there are several subsets: name one with `subset`: {', '.join(configurations)}")


def matched_splits(data_files: Any, names: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """The files that the patterns of a configuration match: a pattern, a list of them, or a list of `{split, path}`.
    Patterns match the names of files that are in the folder, so they cannot lead out of it. Raises DataError if they
    match none."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    found: dict[str, list[str]] = {}
    for entry in entries:
        split = str(entry.get("split", "train")) if isinstance(entry, dict) else "train"
        patterns = entry.get("path") if isinstance(entry, dict) else entry
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            matching = [name for name in names if fnmatch.fnmatchcase(name, str(pattern).removeprefix("./"))]
            found.setdefault(split, []).extend(matching)
    kept = {split: list(dict.fromkeys(files)) for split, files in found.items() if files}
    if not kept:
        raise DataError(f"{folder}/README.md: its data_files {shown(data_files)} match no data file of the folder")
    return kept


ROOM = 2**29
"""A parquet file may unpack to this many bytes, even if it is small (512 MiB)."""

WIDEST = 8
"""The bytes of a value without its content: a number of 64 bits, or the offset of a text."""


BLOCK = 24
"""The bytes of an entry in the footer of an arrow file; the first 8 are the position of a message."""


def check_once(file: Path, check: Callable[[Path], None]) -> None:
    """Check a file, unless it was checked before (the cache has a note): checking a large file takes long. Raises
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
            rows = [group.num_rows for group in groups for n in range(group.num_columns)]
            total = sum(w * max(e.num_values, n) for e, w, n in zip(columns, widths, rows, strict=True))
            total += sum(max(each.total_uncompressed_size, 0) for each in columns)
            texts = sorted({each.path_in_schema for each in columns if each.physical_type == "BYTE_ARRAY"})
    except (OSError, ValueError):  # damaged: the library says how
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
    """The arrays inside of lists, mappings and structs, of any depth."""
    if hasattr(column, "items"):  # of a mapping
        inside = [column.keys, column.items]
    elif column.type.num_fields and hasattr(column, "flatten"):
        inside = found if isinstance(found := column.flatten(), list) else [found]
    else:
        yield column
        return
    yield from chain.from_iterable(map(leaves, inside))


def saved_files(folder: Path) -> Iterator[Path]:
    """The arrow files of a folder that `save_to_disk` wrote. Raises DataError for a name that leads out of the
    folder."""
    splits = [folder]
    if os.path.exists(folder / "dataset_dict.json"):
        splits = [inside(folder, name) for name in listed_in(folder / "dataset_dict.json", "splits")]
    for split in splits:
        for each in listed_in(split / "state.json", "_data_files"):
            yield inside(split, each.get("filename") if isinstance(each, dict) else each)


def listed_in(file: Path, key: str) -> list[Any]:
    """The list under a key of a JSON file. Raises DataError if there is none."""
    content = read_json(file)
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{file} has no list {key!r}")
    return found


def inside(folder: Path, name: Any) -> Path:
    """The file of this name in a folder. Raises DataError for a name with a folder, or one that is no text."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise DataError(f"{folder}: {shown(name)} is no name of a file or folder in it")
    return folder / name


def messages(file: Path) -> Iterator[Any]:
    """The record batches and dictionaries that a reader of an arrow file, or of a stream, finds; up to where it is
    damaged. In a file the footer says where they are."""
    import pyarrow as arrow

    with arrow.memory_map(str(file)) as source, suppress(OSError, ValueError, EOFError):
        if source.read(6) != b"ARROW1":
            source.seek(0)
            yield from arrow.ipc.MessageReader.open_stream(source)
            return
        end = source.size() - 10  # of the footer, behind which are its length and the mark
        source.seek(end)
        length = int.from_bytes(source.read(4), "little")
        source.seek(end - length)
        footer = source.read(length)
        for number in (2, 3):  # dictionaries, record batches
            if place := field(footer, pointed(footer, 0), number):
                vector = pointed(footer, place)
                for block in range(
                    vector + 4, vector + 4 + 24 * int.from_bytes(footer[vector : vector + 4], "little"), 24
                ):
                    source.seek(int.from_bytes(footer[block : block + 8], "little"))
                    yield arrow.ipc.read_message(source)


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
    """The position that the offset stored at `place` points to."""
    return place + int.from_bytes(metadata[place : place + 4], "little")


def field(metadata: bytes, table: int, number: int) -> int:
    """The position of a field in a flatbuffer's table; 0 if the table has no such field."""
    layout = table - int.from_bytes(metadata[table : table + 4], "little", signed=True)
    size, place = int.from_bytes(metadata[layout : layout + 2], "little"), 4 + 2 * number
    offset = int.from_bytes(metadata[layout + place : layout + place + 2], "little") if place < size else 0
    return table + offset if offset else 0
