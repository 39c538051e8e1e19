"""The data of a run, opened: choppers, tasks and splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...data.processes import Processes
from ...data.split import Split
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ..settings.config import Config
from .fitting import fit
from .splits import open_split


@dataclass(frozen=True)
class OpenedData:
    """The fitted choppers of a run's inputs, its fitted tasks, and the splits `train` and `val`."""

    name: str
    """The data set's name."""
    choppers: dict[str, Chopper]
    tasks: dict[str, Task]
    splits: dict[str, Split]
    about: Mapping[str, Any]
    """Of a text corpus: facts about its source (version, bytes, counts), as kept in `data.json`."""

    @property
    def contents(self) -> dict[str, str]:
        """The fingerprint of each split's content: a resumed run must find the same."""
        return {name: split.fingerprint for name, split in self.splits.items()}


def open_data(config: Config, processes: Processes, say: Callable[[str], None]) -> OpenedData:
    """Open the data of a configuration, and fit choppers and tasks on the training split. Raises DataError for data
    that cannot be trained on."""
    dataset = config.data.dataset()
    choppers, tasks = fit(config, dataset, processes, say)
    with processes.in_turn():
        splits = {name: open_split(config, dataset, name, choppers, tasks, say=say) for name in ("train", "val")}
    about = dataset.about() if splits["train"].unit != "samples" else {}
    return OpenedData(dataset.name, choppers, tasks, splits, about)
