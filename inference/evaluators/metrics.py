"""The metrics of all tasks on the validation split. Every run computes them at every evaluation."""

from __future__ import annotations

from ..evaluation import evaluate_split
from ..evaluator import Evaluator, Result


class Metrics(Evaluator):
    """Computes the metrics of all tasks on the validation split. `generated` is the number of items that each task
    generates for the metrics of generated items. The samples of these items are spread evenly over the split. 0: these
    metrics are not computed."""

    def __init__(self, *, generated: int = 256):
        self.generated = generated

    def run(self, trained, say):
        split = trained.open("val")
        metrics = evaluate_split(trained.model, trained.tasks, split, rows=trained.rows, processes=trained.processes,
                                 generated=self.generated)  # fmt: skip
        return Result(metrics=metrics)
