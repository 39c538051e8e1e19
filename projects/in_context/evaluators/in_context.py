"""What the model learns from the examples in its context, measured once at the end of training, as by `chopmix
in_context`: `evaluation: {in_context: 1000}`."""

from __future__ import annotations

from ....inference.evaluator import Evaluator, Result
from ..curves import PICTURE, TABLE, check_learns, curve_lines, probe_lines, tell


class LearnedInContext(Evaluator):
    """`samples`: on how many samples it is measured. A table (CSV) and a picture are written into the run's folder."""

    when = "saved"
    short = "samples"

    def __init__(self, *, samples: int = 1000):
        self.samples = samples

    def check(self, trained, say):
        check_learns(trained, self.samples)

    def run(self, trained, say):
        rows, probed = tell(trained, trained.folder, self.samples, say)
        files = f"{trained.folder / TABLE}, {trained.folder / PICTURE}"
        return Result(lines=[*curve_lines(rows), *probe_lines(probed), files])
