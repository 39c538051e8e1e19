"""Which files of a folder or of a repository on the hub belong to which split.

Files are chosen by their names and by the patterns in the YAML header of a README.md. This is done here, and not by the
library `datasets`, because that follows any address that a README names, and unpickles some kinds of file.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ..tokenizers.files.reading import DataError, read_text, shown

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
