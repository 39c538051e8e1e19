"""The metrics of all tasks on the validation split: at every evaluation of every run."""

from __future__ import annotations

from ..evaluation import evaluate_split
from ..evaluator import Evaluator, Result


class Metrics(Evaluator):
    """`generated`: the number of samples for which items
    are generated, spread over those that have an item of a task; 0: none."""

    def __init__(self, *, generated: int = 256):
        self.generated = generated

    def run(self, trained, say):
        split = trained.open("val")
        found = evaluate_split(trained.model, trained.tasks, split, rows=trained.rows, processes=trained.processes,
                               generated=self.generated)  # fmt: skip
        return Result(metrics=found)
