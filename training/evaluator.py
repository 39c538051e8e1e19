"""What training asks of the validation split, in the arithmetic of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..data.processes import Processes
from ..data.split import Split
from ..inference.evaluation import directions, evaluate_split, left_unread
from .checkpoints import files as checkpoint
from .objective import Objective, autocast


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Evaluates the model as it is."""

    objective: Objective
    splits: Mapping[str, Split]
    processes: Processes
    rows: int
    """Samples read at once."""
    generated: int
    """On how many samples texts that are written are judged."""
    sample: Callable[[int], str] = lambda step: ""  # noqa: E731
    """Gives a text that the model writes as it is at a step, to see it learn; empty where it writes none."""

    def evaluate(self, step: int) -> tuple[dict[str, float], str]:
        """The metrics of the whole validation split, and a text of the model's at this step. Raises NotFiniteError for
        weights that are no numbers."""
        model, tasks = self.objective.model, self.objective.tasks
        with autocast(self.processes.device, self.objective.precision):
            checkpoint.check_finite({"model": model.state_dict()})
            metrics = evaluate_split(
                model, tasks, self.splits["val"], rows=self.rows, processes=self.processes, generated=self.generated
            )
            return metrics, self.sample(step) if self.processes.is_first else ""

    def unread(self) -> dict[str, float]:
        """What of the data was left out so far, by all processes."""
        counts = left_unread(self.splits, self.objective.tasks)
        return dict(zip(counts, self.processes.agree(list(counts.values()))))

    def larger_is_better(self, metric: str) -> bool:
        """Whether more of a metric is better."""
        return directions(self.objective.tasks, "val")[metric]
