"""`chopmix new samples`: a table with one row per sample is joined with folders of images and sounds by a key."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data.datasets.image_folder import ENDINGS
from ...data.datasets.manifest import Manifest, numbered_rows
from ...files.errors import UsageError
from ...files.reading import DataError
from ...files.writing import atomic_file
from .images import image_input
from .sounds import SOUNDS, sound_input
from .start import (
    BAD_SHARE,
    GROUPS,
    Start,
    bad_share_of,
    is_number,
    labelled,
    model_of,
    name_of,
    target_of,
    training_of,
)

NUMBERS = "measurements"
"""The name of the input with the numbers of the table."""
WORDS = 3
"""A column has texts if its values have at least this number of words on average."""
DROPPED = 0.2
"""The share of the training samples from which an input is dropped, so that the model also predicts without it."""


def samples(paths: Sequence[Path], key: str, output: Path) -> Start:
    """Returns the configuration for a table and folders whose files are named by the values in the column `key` of the
    table (`17.png`), and writes the joined table `TABLE-samples.csv` into the folder `output`. The inputs are the files
    of each folder, the numbers of the table, and its columns of texts; `target_of` chooses the target. Raises DataError
    or UsageError if there is not exactly one table, if a key occurs twice or in no folder, or if a folder has no
    files."""
    tables, folders = [path for path in paths if path.is_file()], [path for path in paths if path.is_dir()]
    if len(tables) != 1:
        raise UsageError(f"name one table (.csv, .tsv, .jsonl) and folders of files, not {len(tables)} tables")
    table, rows = tables[0], [row for _, row in numbered_rows(tables[0])]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if key not in columns:
        raise UsageError(f"{table} has no column {key!r}; possible for --key: {', '.join(columns)}")
    check_keys(table, rows, key)
    names = [name_of(folder.resolve().name) for folder in folders]
    if taken := next((name for name in names if name in (*columns, NUMBERS) or names.count(name) > 1), None):
        raise UsageError(f"{taken!r} is the name of a folder and of another folder or a column; rename one of them")
    files = dict(zip(names, map(files_in, folders), strict=True))
    keys = [str(row[key]) for row in rows]
    for name, by_key in files.items():
        if not {*keys} & by_key.keys():
            example = next(iter(by_key.values())).name
            raise UsageError(f"no value of {key!r} in {table} is the name of a file in {name}, such as {example}")
    joined = output / f"{table.name.partition('.')[0]}-samples.csv"
    write_joined(joined, rows, columns, key, files)
    return start_of(joined, key, files, columns)


def check_keys(table: Path, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Raises DataError if a row has no key, or if a key occurs twice."""
    if missing := [number for number, row in enumerate(rows, start=1) if row.get(key) in (None, "")]:
        raise DataError(f"{table}, row {missing[0]} has no value in column {key!r}, the key of the samples")
    value, count = Counter(str(row[key]) for row in rows).most_common(1)[0]
    if count > 1:
        raise DataError(f"{table}: the key {value!r} occurs {count} times in column {key!r}; each sample needs its own")


def files_in(folder: Path) -> dict[str, Path]:
    """Returns the images or sounds in a folder by their names without endings. Raises DataError if there are none, or
    if two files have the same name."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {*ENDINGS, *SOUNDS})
    if not found:
        raise DataError(f"{folder} has no images or sounds; possible: {', '.join(sorted({*ENDINGS, *SOUNDS}))}")
    by_key: dict[str, Path] = {}
    for path in found:
        if (other := by_key.setdefault(path.stem, path)) != path:
            raise DataError(f"{folder}: two files have the key {path.stem!r}: {other.name} and {path}")
    kinds = {path.suffix.lower() in SOUNDS for path in found}
    if len(kinds) > 1:
        raise DataError(f"{folder} has images and sounds; use a folder for each")
    return by_key


def write_joined(
    file: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], key: str,
    files: Mapping[str, Mapping[str, Path]],
) -> None:  # fmt: skip
    """Writes the rows with a column of paths for each folder. Raises UsageError if the file exists."""
    if file.exists():
        raise UsageError(f"{file} exists already; delete it, or use it: {{use: manifest, train: {file}}}")
    with atomic_file(file, "w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow([*columns, *files])
        for row in rows:
            paths = [by_key.get(str(row[key])) for by_key in files.values()]
            relative = ["" if path is None else os.path.relpath(path, file.parent) for path in paths]
            writer.writerow(["" if row.get(name) is None else row[name] for name in columns] + relative)


@dataclass
class Inputs:
    """The inputs of a configuration, as they are added."""

    options: dict[str, Any] = field(default_factory=dict)
    tokens: int = 1
    found: list[str] = field(default_factory=list)
    comments: dict[str, str] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    inspected: int = 0


def start_of(joined: Path, key: str, files: Mapping[str, Mapping[str, Path]], columns: Sequence[str]) -> Start:
    """Returns the configuration for a joined table."""
    rows = [row for _, row in numbered_rows(joined)]
    others = [name for name in columns if name != key]
    label = target_of(rows, others)
    group = next((name for name in others if name.lower() in GROUPS and name != label), None)
    numbers, texts, unused = kinds_of(rows, [name for name in others if name not in (label, group)])
    inputs = Inputs()
    for name in files:
        add_files(inputs, joined, rows, name, is_sound=next(iter(files[name].values())).suffix.lower() in SOUNDS)
    if numbers:
        inputs.options[NUMBERS] = {"use": "sensor", "channels": dict.fromkeys(numbers), "position": None}
        inputs.tokens += 1
        inputs.found.append(f"numbers: {', '.join(numbers)}")
    for name in texts:
        longest = max(len(str(row.get(name) or "").encode()) for row in rows)
        inputs.options[name_of(name)] = {"use": "text", "encoding": "bytes", "position": None}
        inputs.tokens += longest + 1
        inputs.found.append(f"texts: {name}, up to {longest:,} bytes")
    if unused:
        inputs.found.append(f"not used: {', '.join(unused)}, in which not all values are numbers, or are all equal")
    task = labelled([row[label] for row in rows if row.get(label) not in (None, "")], label, group, inputs.found)
    mapped = {NUMBERS: numbers} if numbers else {}
    mapped |= {name_of(name): name for name in texts if name_of(name) != name}
    read = [*files, *numbers, *texts, label, *([group] if group else [])]
    dataset = {
        "use": "manifest", "train": str(joined), "columns": read,
        "files": [*files], "key": key,
    }  # fmt: skip
    several = len(inputs.options) > 1
    return Start(
        question=f"What is the {label} of a sample?", inputs=inputs.options, tasks=task["tasks"], best=task["best"],
        data={"dataset": dataset, **({"columns": mapped} if mapped else {}), **task["data"],
              **bad_share_of(inputs.bad, inputs.inspected)},
        model=model_of(inputs.tokens, len(rows)),
        training=training_of(len(rows)) | ({"input_dropout": DROPPED} if several else {}), samples=len(rows),
        found=task["found"],
        comments=inputs.comments | ({"data.bad_share": BAD_SHARE} if inputs.bad else {})
        | ({"training.input_dropout": "the model also predicts from some of the inputs"} if several else {}),
    )  # fmt: skip


def kinds_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Returns the columns of numbers, those of texts, and the others."""
    numbers, texts, unused = [], [], []
    for name in names:
        values = [row[name] for row in rows if row.get(name) not in (None, "")]
        if len({*map(str, values)}) < 2:
            unused.append(name)
        elif all(map(is_number, values)):
            numbers.append(name)
        elif sum(len(str(value).split()) for value in values) >= WORDS * len(values):
            texts.append(name)
        else:
            unused.append(name)
    return numbers, texts, unused


def add_files(inputs: Inputs, joined: Path, rows: Sequence[Mapping[str, Any]], name: str, is_sound: bool) -> None:
    """Adds the input of the files in a column."""
    count = sum(row.get(name) not in (None, "") for row in rows)
    if is_sound:
        found = sound_input(joined, rows, name)
    else:
        found = image_input(Manifest(train=str(joined), columns=[name], files=[name]).read(joined), name)
    inputs.options[name] = found.options
    inputs.tokens += found.tokens
    inputs.found.append(found.line(count) + f"; {len(rows) - count:,} samples have none" * (count < len(rows)))
    inputs.comments |= found.comments(name)
    inputs.bad += found.bad
    inputs.inspected += found.inspected
