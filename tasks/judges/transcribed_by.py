"""A judge that scores generated sounds with the speech recogniser of another run."""

from __future__ import annotations

from collections.abc import Sequence

from ..judging import Figure
from ..measuring.texts import wer
from ..run_judge import RunJudge


class TranscribedBy(RunJudge):
    """The word error rate of a trained CTC run on generated sounds, compared with the requested text. An incomplete
    item counts as an empty transcript."""

    figure, answer = Figure("errors per word"), "text"

    def value(self, answers: Sequence[str | None], expected: Sequence[str]) -> float:
        return wer([text or "" for text in answers], expected)
