"""A report on the predictions for the validation split, after training: classes, confusions, calibration, errors, and
the worst answers."""

from __future__ import annotations

from ...data.split import spread
from ..answers import Answers
from ..evaluator import Evaluator, Result
from ..report import Report


class ReportPage(Evaluator):
    """Writes `RUN/report/val.html`, its tables as CSV files and its pictures, with the weights of the best checkpoint.
    `generated` is the number of samples if a task generates texts, spread evenly over the split."""

    when = "saved"

    def __init__(self, *, generated: int = 256):
        self.generated = generated

    def run(self, trained, say):
        split = trained.open("val")
        if not split.answerable:
            return Result()
        report = Report(trained, f"{trained.folder} (val)")
        if not report.reporters:
            return Result()
        numbers = [index.number for index in split.all()]
        if any(trained.tasks[name].needs.generates for name in report.reporters):
            numbers = [index.number for index in spread(split.all(), self.generated)]
        answers = Answers(trained=trained, split=split, samples=split.samples)
        for _ in report.collected(answers.rows(sorted(numbers)), sorted(numbers)):
            pass
        folder = trained.folder / "report"
        lines = report.write(folder, "val", split, store=True, within=trained.folder)
        return Result(lines=lines)
