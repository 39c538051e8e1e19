"""Configurations for data of the user (`chopmix new`): the data are inspected, and a commented YAML is written that
trains as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ...data.sample_dataset import OwnFiles
from ...files.errors import UsageError
from ...files.printing import shell_word
from ...files.writing import write_text
from .commented import commented
from .images import images
from .sounds import sounds
from .start import Start
from .table import table
from .text import text

KINDS: Mapping[str, Callable[[Path, str | None], Start]] = {
    "images": images, "sounds": sounds, "table": table, "text": text,
}  # fmt: skip
"""The kinds of data, and the function that inspects them."""


def write_start(kind: str, path: Path, output: Path | None, encoder: str | None) -> tuple[Path, Start]:
    """Inspects data and writes the configuration (default: `NAME.yaml` in the working directory). Returns (file,
    configuration). Raises UsageError if the file exists, if there are no data at `path`, or if the configuration cannot
    be written as YAML."""
    if not os.path.exists(path):
        raise UsageError(f"there is no file or folder {str(path)!r}")
    file = output or Path(f"{path.stem or path.absolute().name}.yaml")
    if file.exists():
        raise UsageError(f"{file} exists already; name another file with --output")
    start = KINDS[kind](path, encoder)
    dataset = start.tree["data"]["dataset"]
    dataset |= {
        split: os.path.relpath(dataset[split], file.parent)
        for split in OwnFiles.paths if split in dataset and not os.path.isabs(dataset[split])
    }  # fmt: skip
    header = [start.question, *start.found, f"  chopmix train {shell_word(file)}"]
    write_text(file, commented(start.tree, header, start.all_comments))
    return file, start
