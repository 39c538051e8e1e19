"""The data of a run, opened: choppers, tasks and splits.

Choppers and tasks are fitted on the training data before anything is trained: by one process, which sends the files to
the others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...data.base import Dataset
from ...data.processes import Processes
from ...data.split import Split
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ...tokenizers.files.writing import write_bytes
from ...training.checkpoints import files as checkpoint
from ..folder.transfer import take_assets
from ..opening.opened_parts import open_part
from ..settings.config import Config
from .splits import open_split
from .tasks import choppers_and_tasks


@dataclass(frozen=True)
class OpenedData:
    """The fitted choppers of a run's inputs, its fitted tasks, and the splits `train` and `val`."""

    name: str
    """The data set's name."""
    choppers: dict[str, Chopper]
    tasks: dict[str, Task]
    splits: dict[str, Split]
    about: Mapping[str, Any]
    """Facts about the source (version, bytes, counts; of episodes their returns), as kept in `data.json`."""

    @property
    def contents(self) -> dict[str, str]:
        """The fingerprint of each split's content: a resumed run must find the same."""
        return {name: split.fingerprint for name, split in self.splits.items()}


def open_data(config: Config, processes: Processes, say: Callable[[str], None]) -> OpenedData:
    """Open the data of a configuration, and fit choppers and tasks on the training split. Raises DataError for data
    that cannot be trained on."""
    dataset = config.dataset()
    choppers, tasks = fit(config, dataset, processes, say)
    with processes.in_turn():
        splits = {name: open_split(config, dataset, name, choppers, tasks, say=say) for name in ("train", "val")}
    return OpenedData(dataset.name, choppers, tasks, splits, dataset.about())


def fit(
    config: Config, dataset: Dataset, processes: Processes, say: Callable[[str], None]
) -> tuple[dict[str, Chopper], dict[str, Task]]:
    """Choppers and tasks by name. The first process fits them, or takes them from the run that `from:` names, and saves
    them in `RUN/assets`; the others receive these files, whether or not they share its disk. A run that has a
    checkpoint is not fitted again. Raises DataError for data that cannot be fitted, and for a file that is missing."""
    assets, door = Path(config.out) / "assets", partial(open_part, trust=config.nested)
    if processes.is_first:
        if config.from_run:
            take_assets(config, Path(config.from_run), assets)
        trained = checkpoint.steps(Path(config.out))
        made = choppers_and_tasks(config, assets, door, None if trained else dataset, say)
        processes.told({file.relative_to(assets): file.read_bytes() for file in assets.rglob("*") if file.is_file()})
        return made
    with tempfile.TemporaryDirectory() as folder:
        for name, content in processes.told(None).items():
            write_bytes(Path(folder) / name, content)
        return choppers_and_tasks(config, Path(folder), door)


def open_untrained(config: Config) -> tuple[dict[str, Chopper], dict[str, Task], Split]:
    """Choppers, tasks and the validation split of a configuration, for inspection without a run: fitted now; nothing of
    it is kept. Raises DataError for data that cannot be read."""
    dataset, door = config.dataset(), partial(open_part, trust=config.nested)
    with tempfile.TemporaryDirectory() as folder:
        choppers, tasks = choppers_and_tasks(config, Path(folder), door, dataset)
    return choppers, tasks, open_split(config, dataset, "val", choppers, tasks)
