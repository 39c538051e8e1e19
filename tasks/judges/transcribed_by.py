"""Another run as the judge of what is generated: does its speech recogniser hear what was asked for?"""

from __future__ import annotations

from collections.abc import Sequence

from ..judging import Figure
from ..measuring.texts import wer
from ..run_judge import RunJudge


class TranscribedBy(RunJudge):
    """The word error rate of what a trained run (CTC) hears in generated items, beside the text that was asked for."""

    figure, answer = Figure("errors per word"), "text"

    def value(self, said: Sequence[str | None], wanted: Sequence[str]) -> float:
        return wer([text or "" for text in said], wanted)
