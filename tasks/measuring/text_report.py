"""The report of a task that generates or recognises texts: the texts with the highest error rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .report import Mistake, Reporter, Section, Table
from .texts import as_text, cer, wer

LETTERS = 300
"""The number of characters of a text that is shown."""


class TextReporter(Reporter):
    """Compares each text with the true text, by the rates of wrong characters and words."""

    def __init__(self):
        super().__init__()
        self.rates: list[tuple[float, float]] = []
        self.equal = 0

    def add(self, number: int, key: str, true: Any, answer: Mapping[str, Any]) -> None:
        text, expected = str(answer.get("text", "")), as_text(true)
        rates = cer([text], [expected]), wer([text], [expected])
        self.rates.append(rates)
        self.equal += text == expected
        if text != expected:
            said = f"{text[:LETTERS]!r}, true: {expected[:LETTERS]!r} (errors per character {rates[0]:.2f})"
            self.note_mistake(rates[0], Mistake(number, key, said))

    def section(self, saved: Mapping[str, Any], store: bool) -> Section:
        if not self.rates:
            return Section(0)
        characters, words = np.array(self.rates).T
        rows = [[f"{share:.0%}", *(float(np.quantile(rates, share)) for rates in (characters, words))]
                for share in (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1)]  # fmt: skip
        note = f"{len(self.rates):,} samples, {self.equal:,} texts equal to the true one"
        title = "Error rates of the texts: this share of them has at most this rate"
        table = Table("error-rates", title, ("share_of_texts", "per_character", "per_word"), rows, note)
        return Section(len(self.rates), [table], worst=self.worst())
