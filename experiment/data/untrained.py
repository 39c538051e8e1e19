"""The data of a configuration for inspection, without a run."""

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
    """Choppers, tasks and one split of a configuration, fitted now; nothing of it is kept. Raises DataError for data
    that cannot be read."""
    dataset = config.data.dataset()
    with tempfile.TemporaryDirectory() as folder:
        choppers = build_choppers(config, Path(folder), dataset, partial(open_part, trust=config.modules))
        tasks = build_tasks(config, choppers, Path(folder), dataset)
    return choppers, tasks, open_split(config, dataset, split, choppers, tasks)
