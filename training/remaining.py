"""The time that a training still takes, and the number of steps between two evaluations if the user gives none."""

from __future__ import annotations

import math

LINES = 10
"""About the number of lines of the log over which the time of a step is averaged."""


def evaluation_interval(steps: int) -> int:
    """Returns the number of steps between two evaluations of a run of `steps` steps: 250, but in a run of less than
    2,000 steps a sixth to a tenth of the steps, at least 10. Of these numbers it is the one that leaves the most steps
    between the last two evaluations."""
    if steps >= 2000:
        return 250
    return max((max(10, math.ceil(steps / count)) for count in range(6, 11)), key=lambda every: (steps - 1) % every)


class RemainingTime:
    """Estimates the seconds until the end of a run of `steps` steps, which evaluates the model every `every` steps.

    The time of a step is a moving average: its weights decrease from line to line of the log, and each line counts as
    much as it has steps. The time of an evaluation is the mean of the evaluations so far. The report at the end counts
    as one more evaluation. Before the first evaluation only the steps are counted.
    """

    def __init__(self, steps: int, every: int):
        self.steps, self.every = steps, every
        self.trained, self.seconds = 0.0, 0.0
        """The numbers of steps and of their seconds, both with weights."""
        self.evaluations, self.evaluating = 0, 0.0
        """The number of evaluations, and their seconds."""

    def add_steps(self, count: int, seconds: float) -> None:
        """Adds the steps since the last line of the log."""
        kept = 1 - 1 / LINES
        self.trained, self.seconds = kept * self.trained + count, kept * self.seconds + seconds

    def add_evaluation(self, seconds: float) -> None:
        """Adds an evaluation."""
        self.evaluations, self.evaluating = self.evaluations + 1, self.evaluating + seconds

    def after(self, step: int) -> float:
        """Returns the seconds that remain after `step` steps, before the evaluation of this step."""
        evaluations = math.ceil(self.steps / self.every) - math.ceil(step / self.every) + 2  # with the report
        of_steps = (self.steps - step) * self.seconds / max(self.trained, 1e-9)
        return of_steps + evaluations * self.evaluating / max(self.evaluations, 1)
