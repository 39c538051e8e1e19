"""Measures what the model learns from the examples in its context, once at the end of training, as `chopmix in_context`
does: `evaluation: {in_context: 1000}`."""

from __future__ import annotations

from ....inference.evaluator import Evaluator, Result
from ..curves import PICTURE, TABLE, check_learns, curve_lines, measure_and_write, probe_lines


class LearnedInContext(Evaluator):
    """`samples` is the number of samples. A table (CSV) and a picture are written into the folder of the run."""

    when = "saved"
    short = "samples"

    def __init__(self, *, samples: int = 1000):
        self.samples = samples

    def check(self, trained, say):
        check_learns(trained, self.samples)

    def run(self, trained, say):
        rows, probed = measure_and_write(trained, trained.folder, self.samples, say)
        files = f"{trained.folder / TABLE}, {trained.folder / PICTURE}"
        return Result(lines=[*curve_lines(rows), *probe_lines(probed), files])
