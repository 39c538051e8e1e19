"""The data of a configuration that is looked at, not trained."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from ...data.split import Split
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ..opening.opened_parts import open_part
from ..settings.config import Config
from .choppers import build_choppers
from .splits import open_split
from .tasks import build_tasks


def open_untrained(config: Config, split: str = "val") -> tuple[dict[str, Chopper], dict[str, Task], Split]:
    """The choppers, tasks and a split of a configuration that is looked at, not trained: nothing is kept."""
    dataset = config.data.dataset()
    with tempfile.TemporaryDirectory() as folder:
        choppers = build_choppers(config, Path(folder), dataset, partial(open_part, trust=config.modules))
        tasks = build_tasks(config, choppers, Path(folder), dataset)
    return choppers, tasks, open_split(config, dataset, split, choppers, tasks)
