"""Choppers and tasks fitted on the training data before anything is trained: by one process, which sends the files to
the others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ...data.base import Dataset
from ...data.processes import Processes
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ..folder.transfer import take_assets
from ..opening.opened_parts import open_part
from ..settings.config import Config
from .choppers import build_choppers
from .from_assets import from_assets
from .tasks import build_tasks


def fit(
    config: Config, dataset: Dataset, processes: Processes, say: Callable[[str], None]
) -> tuple[dict[str, Chopper], dict[str, Task]]:
    """Choppers and tasks by name. The first process fits them, or takes them from the run that `from:` names, and saves
    them in `RUN/assets`; the others receive these files, whether or not they share its disk. Raises DataError for data
    that cannot be fitted."""
    assets, door = Path(config.out) / "assets", partial(open_part, trust=config.modules)
    if processes.is_first:
        if config.from_run:
            take_assets(config, Path(config.from_run), assets)
        choppers = build_choppers(config, assets, dataset, door)
        tasks = build_tasks(config, choppers, assets, dataset, say)
        processes.told({file.relative_to(assets): file.read_bytes() for file in assets.rglob("*") if file.is_file()})
        return choppers, tasks
    with tempfile.TemporaryDirectory() as folder:
        for name, content in processes.told(None).items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        return from_assets(config, Path(folder), door)
