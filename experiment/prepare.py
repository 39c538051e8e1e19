"""`chopmix prepare CONFIG`: prepares the data of a configuration, so that its runs start quickly."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..data.base import cache_folder
from ..data.processes import Processes
from ..data.split import Split
from ..files.printing import duration
from .assemble import open_data
from .build import open_split
from .settings.config import Config
from .steps import counted


def prepare_data(config: Config, say: Callable[[str], None] = print) -> None:
    """Opens all splits of the data set of a configuration. What this stores in the cache folder is used by all runs
    with the same data: indexes of tar shards, tables, token files, unpacked archives, and the codes of other runs. If
    it is interrupted, the next call continues. Raises the errors of training for data that cannot be used."""
    started, before = time.perf_counter(), stored()
    processes = Processes.start("cpu")
    with tempfile.TemporaryDirectory() as folder:
        config = counted(replace(config, out=Path(folder)))
        data = open_data(config, processes, say)
        splits = dict(data.splits)
        for name in data.dataset.splits:
            if name not in splits:
                splits[name] = open_split(config, data.dataset, name, data.choppers, data.tasks, say=say)
    for name, split in splits.items():
        split.keep()
        say(f"{name}: {size_of(split)}")
    new = len(stored() - before)
    written = f"{new:,} new files in {cache_folder()}" if new else "nothing was missing or had to be stored"
    say(f"{data.dataset.name} is prepared after {duration(time.perf_counter() - started)}: {written}")


def stored() -> set[str]:
    """Returns the paths of all files in the cache folder."""
    return {os.path.join(folder, name) for folder, _, names in os.walk(cache_folder()) for name in names}


def size_of(split: Split) -> str:
    """Returns the size of a split as text: `1,000 samples`, or `5,000 tokens from 20,000 bytes in 1 file`."""
    if split.answerable:
        return f"{len(split.samples):,} samples"
    files = len(split.file.files)
    return f"{len(split.file.ids):,} tokens from {split.file.bytes:,} bytes in {files} file{'s' * (files > 1)}"
