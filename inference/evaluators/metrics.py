"""The metrics of all tasks on the validation split. Every run computes them at every evaluation. They are defined in
their task (`tasks/`), those of texts in `tasks/measuring/texts.py`."""

from __future__ import annotations

from ..evaluation import measured
from ..evaluator import Evaluator, Result


class Metrics(Evaluator):
    """Computes the metrics of all tasks on the validation split. `generated` is the number of items that each task
    generates for the metrics of generated items. The samples of these items are spread evenly over the split. 0: these
    metrics are not computed."""

    def __init__(self, *, generated: int = 256):
        self.generated = generated

    def run(self, trained, say):
        result = measured(trained, trained.open("val"), generated=self.generated)
        result.check()
        return Result(metrics=result.metrics)
