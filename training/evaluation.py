"""Evaluation during training. The evaluators of a run compute in the precision of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ..data.processes import Processes
from ..data.split import Split
from ..inference.evaluation import directions, larger_is_better, skipped_counts
from ..inference.evaluator import Evaluator, Result, Say, TrainedRun
from ..models.contract import ContractError, described
from . import checkpoints as checkpoint
from .objective import Objective, autocast


def result_of(evaluator: Evaluator, trained: TrainedRun, say: Say) -> Result:
    """Returns the result of `evaluator.run(trained, say)`. Raises ContractError if the result is not a `Result`, or if
    a metric is not a number."""
    result = evaluator.run(trained, say)
    name, expected = type(evaluator).__name__, "expected: a chopmix.Result(metrics={name: number}, ...)"
    if not isinstance(result, Result):
        raise ContractError(f"evaluation.also: {name}.run returned {described(result)}; {expected}")
    for key, value in result.metrics.items():
        if not isinstance(value, int | float):
            raise ContractError(f"evaluation.also: {name}.run returned {described(value)} as {key!r}; {expected}")
    return result


def with_lines(result: Result) -> Result:
    """Returns the result with its metrics as a line, if it displays nothing else."""
    if result.tables or result.lines or not result.metrics:
        return result
    return replace(result, lines=["  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())])


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """Evaluates the model with its current weights. `Trainer` sets the averaged weights first, if there are any."""

    objective: Objective
    splits: Mapping[str, Split]
    processes: Processes
    evaluators: Sequence[Evaluator]
    """The evaluators, in the order in which they run."""
    trained: Callable[[int], TrainedRun]
    """Maps the current step to a `TrainedRun`: the model with its tasks, choppers and settings."""
    say: Say = field(default=print)

    def run(self, step: int, when: str = "evaluations") -> Result:
        """Runs the evaluators whose attribute `when` equals `when`, and returns their joined results. Raises
        NotFiniteError if a weight or buffer of the model is not finite."""
        with self.evaluating(step) as trained:
            checkpoint.check_finite({"model": self.objective.model.state_dict()})
            chosen = [each for each in self.evaluators if each.when == when]
            results = (result_of(evaluator, trained, self.say) for evaluator in chosen)
            return Result.joined(map(with_lines, results) if when == "end" else results)

    @contextmanager
    def evaluating(self, step: int) -> Iterator[TrainedRun]:
        """Returns a context in which the model does not train, and which yields it with its tasks and settings."""
        model = self.objective.model
        training = model.training
        with self.objective.evaluating(), autocast(self.processes.device, self.objective.precision):
            model.eval()
            try:
                yield self.trained(step)
            finally:
                model.train(training)

    def skipped(self) -> dict[str, float]:
        """Returns the counts of skipped data so far, over all processes, by name: samples that could not be read
        (`data/train_bad`), items that do not fit into the context (`data/train_without_room`), and samples that a task
        skipped (`data/TASK_left_out`)."""
        return dict(skipped_counts(self.splits, self.objective.tasks, self.processes))

    def larger_is_better(self, metric: str) -> bool:
        """Returns whether larger values of this metric are better. `metric` is a metric of the validation split, such
        as `val/loss`. Raises ValueError if no metric has this name."""
        return larger_is_better(metric, directions(self.objective.tasks, "val", self.evaluators))


def evaluation_interval(steps: int) -> int:
    """Returns the number of steps between two evaluations of a run of `steps` steps: 250, but in a run of less than
    2,000 steps a sixth to a tenth of the steps, at least 10. Of these numbers it is the one that leaves the most steps
    between the last two evaluations."""
    if steps >= 2000:
        return 250
    return max((max(10, math.ceil(steps / count)) for count in range(6, 11)), key=lambda every: (steps - 1) % every)
