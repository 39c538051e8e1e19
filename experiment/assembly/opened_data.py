"""The data of a run, opened: what chops them, what is asked of them, and their splits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.base import Dataset
from ...data.processes import Processes
from ...data.split import Split
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ..folder.transfer import take_assets
from ..settings.config import Config
from .choppers import build_choppers
from .splits import open_split
from .tasks import build_tasks


@dataclass(frozen=True)
class OpenedData:
    """What a run reads: the choppers of its inputs, its tasks, the splits `train` and `val`."""

    name: str
    """The data set's name."""
    choppers: dict[str, Chopper]
    tasks: dict[str, Task]
    splits: dict[str, Split]
    about: Mapping[str, Any]
    """What the data set says of itself."""

    @property
    def contents(self) -> dict[str, str]:
        """What identifies the data that are read."""
        return {name: split.fingerprint for name, split in self.splits.items()}


def open_data(config: Config, processes: Processes, say: Callable[[str], None]) -> OpenedData:
    """Open the data of a configuration, and learn of them what there is to learn. Raises DataError for data that cannot
    be trained on."""
    dataset = config.data.dataset()
    choppers, tasks = fitted(config, dataset, processes, say)
    with processes.in_turn():
        splits = {name: open_split(config, dataset, name, choppers, tasks, say=say) for name in ("train", "val")}
    about = dataset.about() if splits["train"].unit != "samples" else {}
    return OpenedData(dataset.name, choppers, tasks, splits, about)


def kept_parts(config: Config, assets: Path) -> tuple[dict[str, Chopper], dict[str, Task]]:
    """The choppers and tasks of a run, with what it has kept of its data. Raises DataError for a damaged file."""
    choppers = build_choppers(config, assets)
    return choppers, build_tasks(config, choppers, assets)


def open_aside(config: Config, split: str = "val") -> tuple[dict[str, Chopper], dict[str, Task], Split]:
    """The choppers, tasks and a split of a configuration that is looked at, not trained: nothing is kept."""
    dataset = config.data.dataset()
    with tempfile.TemporaryDirectory() as folder:
        choppers = build_choppers(config, Path(folder), dataset)
        tasks = build_tasks(config, choppers, Path(folder), dataset)
    return choppers, tasks, open_split(config, dataset, split, choppers, tasks)


def fitted(
    config: Config, dataset: Dataset, processes: Processes, say: Callable[[str], None]
) -> tuple[dict[str, Chopper], dict[str, Task]]:
    """Choppers and tasks. The first process learns what is to be learned of the data; the others are told,
    whether or not they share a disk with it."""
    assets = Path(config.out) / "assets"
    if processes.is_first:
        if config.from_run:
            take_assets(config, Path(config.from_run), assets)
        choppers = build_choppers(config, assets, dataset)
        tasks = build_tasks(config, choppers, assets, dataset, say)
        processes.told({file.relative_to(assets): file.read_bytes() for file in assets.rglob("*") if file.is_file()})
        return choppers, tasks
    with tempfile.TemporaryDirectory() as folder:
        for name, content in processes.told(None).items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        return kept_parts(config, Path(folder))
