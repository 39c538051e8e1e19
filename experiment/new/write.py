"""Configurations for data of the user (`chopmix new`): the data are inspected, and a commented YAML is written that
trains as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...data.sample_dataset import OwnFiles
from ...files.errors import UsageError
from ...files.printing import shell_word
from ...files.writing import write_text
from .commented import commented
from .images import images
from .samples import samples
from .sounds import sounds
from .start import Start
from .table import table
from .text import text

KINDS: Mapping[str, Callable[[Path, str | None], Start]] = {
    "images": images, "sounds": sounds, "table": table, "text": text,
}  # fmt: skip
"""The kinds of data in one file or folder, and the function that inspects them."""
SAMPLES = "samples"
"""The kind of data in several files and folders, which are joined by a key."""


def write_start(
    kind: str, paths: Sequence[Path], output: Path | None, encoder: str | None, key: str | None = None
) -> tuple[Path, Start]:
    """Inspects data and writes the configuration (default: `NAME.yaml` in the working directory). `key`: the column by
    which `samples` are joined. Returns (file, configuration). Raises UsageError if the file exists, if there are no
    data at one of the `paths`, or if the configuration cannot be written as YAML."""
    if missing := [path for path in paths if not os.path.exists(path)]:
        raise UsageError(f"there is no file or folder {str(missing[0])!r}")
    path = paths[0]
    file = output or Path(f"{path.stem or path.absolute().name}.yaml")
    if file.exists():
        raise UsageError(f"{file} exists already; name another file with --output")
    if kind == SAMPLES:
        if key is None:
            raise UsageError("name the column by which the data are joined: --key id")
        start = samples(paths, key, file.parent)
    elif len(paths) > 1 or key is not None:
        raise UsageError(
            f"{kind} are one file or folder; several of them are joined by: chopmix new samples ... --key id"
        )
    else:
        start = KINDS[kind](path, encoder)
    dataset = start.tree["data"]["dataset"]
    dataset |= {
        split: os.path.relpath(dataset[split], file.parent)
        for split in OwnFiles.paths if split in dataset and not os.path.isabs(dataset[split])
    }  # fmt: skip
    header = [start.question, *start.found, f"  chopmix train {shell_word(file)}"]
    write_text(file, commented(start.tree, header, start.all_comments))
    return file, start
