"""The choppers and tasks of a run, loaded from its `assets`, without its data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...tasks.base import Task
from ...tokenizers.base import Chopper, RunPart
from ..settings.config import Config
from .choppers import build_choppers
from .tasks import build_tasks


def from_assets(
    config: Config, assets: Path, open_run: Callable[..., RunPart]
) -> tuple[dict[str, Chopper], dict[str, Task]]:
    """Choppers and tasks by name. `assets` is the run's folder of that name; `open_run` opens a trained run that is a
    part of it. Raises DataError for a file that is missing or damaged."""
    choppers = build_choppers(config, assets, open_run=open_run)
    return choppers, build_tasks(config, choppers, assets)
