"""Evaluation during training: the evaluators of a run, in its precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..data.processes import Processes
from ..data.split import Split
from ..inference.evaluation import directions, larger_is_better, skipped_counts
from ..inference.evaluator import Evaluator, Result, Say, TrainedModel
from . import checkpoints as checkpoint
from .objective import Objective, autocast


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """Evaluates the weights that the model holds; `Trainer` puts the averaged ones there first, where there are any."""

    objective: Objective
    splits: Mapping[str, Split]
    processes: Processes
    evaluators: Sequence[Evaluator]
    """In the order in which they run."""
    trained: Callable[[int], TrainedModel]
    """The model at a step, with everything that belongs to it."""
    say: Say = field(default=print)

    def run(self, step: int, when: str = "evaluations") -> Result:
        """The results of the evaluators that run at this time (`Evaluator.when`). Raises NotFiniteError where a weight
        is not finite."""
        model = self.objective.model
        training = model.training
        with autocast(self.processes.device, self.objective.precision):
            checkpoint.check_finite({"model": model.state_dict()})
            model.eval()
            try:
                trained = self.trained(step)
                return Result.joined(each.run(trained, self.say) for each in self.evaluators if each.when == when)
            finally:
                model.train(training)

    def skipped(self) -> dict[str, float]:
        """Counts of data left out so far, over all processes: bad samples (`data/train_bad`), items dropped for want of
        room (`data/train_without_room`), samples that a task left out (`data/TASK_left_out`)."""
        return dict(skipped_counts(self.splits, self.objective.tasks, self.processes))

    def larger_is_better(self, metric: str) -> bool:
        """Whether larger values of a metric of the validation split are better. Raises ValueError for a name that is no
        metric."""
        return larger_is_better(metric, directions(self.objective.tasks, "val", self.evaluators))
