"""The evaluator `in_context`, which measures once at the end of training what the model learns from the examples in its
context: `evaluation: {in_context: 1000}`. The command `chopmix in_context` measures the same."""

from __future__ import annotations

from ....inference.evaluator import Evaluator, Result
from ..curves import PICTURE, TABLE, check_learns, curve_lines, measure_and_write, probe_lines


class LearnedInContext(Evaluator):
    """Measures what the model learns from the examples in its context. `samples` is the number of samples, from 4 to
    1,000,000. A table (CSV) and a picture (PNG) are written into the folder of the run."""

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
