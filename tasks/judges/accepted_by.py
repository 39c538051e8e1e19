"""Another run as the judge of what is generated: does its classifier see what was asked for?"""

from __future__ import annotations

from collections.abc import Sequence

from ..judging import Figure
from ..run_judge import RunJudge


class AcceptedBy(RunJudge):
    """The share of generated items that the classifier of a trained run puts into the class that was asked for."""

    figure, answer = Figure("share of items", larger_is_better=True), "class"

    def value(self, said: Sequence[str | None], wanted: Sequence[str]) -> float:
        return sum(a == b for a, b in zip(said, wanted, strict=True)) / max(len(wanted), 1)
