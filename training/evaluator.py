"""Evaluation during training: metrics of the validation split and a sample text, in the precision of the run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ..data.processes import Processes
from ..data.split import Split
from ..inference.evaluation import directions, evaluate_split, larger_is_better, left_unread
from ..inference.pages import Samples
from . import checkpoints as checkpoint
from .objective import Objective, autocast


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Evaluates the weights that the model holds; `Trainer` puts the averaged ones there first, where there are any."""

    objective: Objective
    splits: Mapping[str, Split]
    processes: Processes
    rows: int
    """Samples (of a text corpus: rows) in one forward pass."""
    generated: int
    """For how many of the samples that have an item of a task, spread over them, items are generated for metrics; 0:
    none."""
    sample: Callable[[int], Samples] = lambda step: Samples()
    """Generates the samples of a step; none where no task generates."""
    play: Callable[[int], dict[str, float]] = lambda step: {}
    """Lets the model act in its environment; gives mean returns by name."""
    returns: Collection[str] = ()
    """The names of these mean returns: `val/return_at_500`."""

    def evaluate(self, step: int) -> tuple[dict[str, float], Samples]:
        """The metrics of the whole validation split by name (`val/loss`), and generated samples (none in all processes
        but the first). Raises NotFiniteError where a weight is not finite."""
        model, tasks = self.objective.model, self.objective.tasks
        with autocast(self.processes.device, self.objective.precision):
            checkpoint.check_finite({"model": model.state_dict()})
            metrics = evaluate_split(
                model, tasks, self.splits["val"], rows=self.rows, processes=self.processes, generated=self.generated
            )
            metrics |= self.processes.told(self.play(step) if self.processes.is_first else None)
            return metrics, self.sample(step) if self.processes.is_first else Samples()

    def unread(self) -> dict[str, float]:
        """Counts of data left out so far, over all processes: bad samples (`data/train_bad`), items dropped for want of
        room (`data/train_without_room`), samples that a task left out (`data/TASK_left_out`)."""
        return dict(left_unread(self.splits, self.objective.tasks, self.processes))

    def larger_is_better(self, metric: str) -> bool:
        """Whether larger values of a metric of the validation split are better. Raises ValueError for a name that is no
        metric."""
        return larger_is_better(metric, directions(self.objective.tasks, "val", self.returns))
