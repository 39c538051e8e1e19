"""`chopmix upgrade RUN`: rewrite a run of an earlier version with this version's names and format number.

Each file is replaced as a whole, `config.yaml` last: until then the folder counts as one of the earlier format, so that
after a kill in between the same command goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...files.reading import DataError
from ...files.records import read_json
from ...files.writing import write_json, write_text
from ...training import checkpoints as checkpoint
from ...training.checkpoints import FORMAT, other_format
from ..run_folder import RunError, check_links, run_lock
from ..settings.document import ConfigError, Document, dumped
from ..settings.names import rename

KEYS = {
    "data.json": {"card": "dataset"},
    "assets/*/spectrogram.json": {"deviation": "std"},
    "assets/task-*/scale.json": {"deviation": "std"},
}
"""Renamed keys of a run's JSON files, by the files' paths: old name to new."""
UNREPORTED = {"places": "slots"}
"""Renamed keys of the mapping `unreported` in a checkpoint's `state.json`."""


class Change(NamedTuple):
    """A file to be rewritten, its new content (a text, or a value for JSON), and a sentence for each change in it."""

    file: Path
    content: Any
    said: list[str]


def upgrade(folder: Path) -> list[str]:
    """Rewrite a run in this version's format; gives a sentence for every renamed key and every file that changed, none
    where nothing had to. A damaged JSON file is left as it is; whatever reads it later reports it.

    Raises RunError where the folder holds no run that can be rewritten, LockedError while it is in use, ConfigError
    where its `config.yaml` cannot be read; nothing is written then."""
    if not os.path.exists(folder / "config.yaml"):
        raise RunError(f"{folder} is not a run: it has no config.yaml")
    check_links(folder)
    with run_lock(folder):
        checkpoint.sweep(folder)
        changes = [*checkpoints(folder), *json_files(folder), *config(folder)]  # all is read before anything is written
        for file, content, _ in changes:
            (write_text if isinstance(content, str) else write_json)(file, content)
    return [f"{change.file}: {each}" for change in changes for each in change.said]


def checkpoints(folder: Path) -> Iterator[Change]:
    """The `state.json` of every checkpoint of an earlier format, with the new format number."""
    for step in checkpoint.steps(folder):
        file = checkpoint.folder_of(folder, step) / "state.json"
        state = mapping_in(file, folder)
        if state and is_earlier(state.get("format", 1), file, folder):
            inner = state.get("unreported")
            inner, said = with_keys(inner, UNREPORTED) if isinstance(inner, dict) else (inner, [])
            changed = {"unreported": inner} if said else {}
            yield Change(file, state | changed | {"format": FORMAT}, [*said, f"format {FORMAT}"])


def json_files(folder: Path) -> Iterator[Change]:
    """The JSON files in KEYS that have keys under old names."""
    for pattern, names in KEYS.items():
        for file in sorted(folder.glob(pattern)):
            content, said = with_keys(mapping_in(file, folder), names)
            if said:
                yield Change(file, content, said)


def config(folder: Path) -> Iterator[Change]:
    """The `config.yaml`, with this version's names. Raises RunError where a key is there under both names, ConfigError
    where the file is no YAML."""
    file = folder / "config.yaml"
    document = Document.read(inside(folder, file))
    if not isinstance(document.tree, dict):
        raise RunError(f"{file} is no configuration: it must be a mapping")
    if document.problems:
        raise ConfigError(document.file, document.problems, document.lines)
    earlier = is_earlier(document.tree.pop("format", 1), file, folder)
    renamed = rename(document.tree)
    if doubled := [each for each in renamed if each.doubled]:
        raise RunError(f"{file}: {doubled[0]}, and both are there; take one of them out")
    if earlier or renamed:
        content = dumped({"format": FORMAT, **document.tree})
        yield Change(file, content, [*map(str, renamed), *([f"format {FORMAT}"] if earlier else [])])


def with_keys(found: dict[str, Any], names: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """A mapping with its keys renamed, old to new, in the same order, and a sentence for each renamed key. An old key
    whose new name is there too stays."""
    old = {key: new for key, new in names.items() if key in found and new not in found}
    changed = {old.get(key, key): value for key, value in found.items()}
    return changed, [f"{key} is called {new} now" for key, new in old.items()]


def is_earlier(found: Any, file: Path, folder: Path) -> bool:
    """Whether a file's format number `found` is an earlier one. Raises RunError for a later one."""
    if found != 1 and (wrong := other_format(found, folder)):
        raise RunError(f"{file} {wrong}")
    return found != FORMAT


def mapping_in(file: Path, folder: Path) -> dict[str, Any]:
    """The mapping in a JSON file; an empty one where the file is damaged or holds something else."""
    try:
        found = read_json(inside(folder, file))
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}


def inside(folder: Path, file: Path) -> Path:
    """The file itself. Raises RunError where it lies outside the run, by a link in a run from elsewhere."""
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise RunError(f"{file} lies outside the run: a link leads there, and what it leads to is not rewritten")
    return file
