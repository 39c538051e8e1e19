"""Cross-modal arithmetic: a written digit (image), plus or minus (text), a dialled digit (sound), and the answer (text).

The answer first reads out what was seen and heard, then says the result: "7+5=12", the lecture's scratchpad. Images are
scikit-learn's digits, held out by image; all pairs of digits may be seen. Nothing needs to be downloaded.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..samples import Columns, Outcome, SampleDataset, Samples
from .digits import Digits
from .dtmf import RATE, tone

SPLITS = ("train", "val", "test")


def answer(left: int, operator: str, right: int, scratchpad: bool = True) -> str:
    """What shall be said: "7+5=12", or "12" without the scratchpad."""
    result = left + right if operator == "+" else left - right
    return f"{left}{operator}{right}={result}" if scratchpad else str(result)


def outcomes(scratchpad: bool = True) -> list[Outcome]:
    """The joint table: all digits, operators and digits, equally often."""
    return [
        Outcome(
            {"image": left, "operator": operator, "sound": right}, answer(left, operator, right, scratchpad), 1 / 200
        )
        for left in range(10)
        for operator in "+-"
        for right in range(10)
    ]


JUDGED = 1000
"""Samples of val, and of test."""


class Problems(Samples):
    """As many problems as asked for; each is a pure function of the split and its number."""

    def __init__(self, digits: Digits, split: str, count: int, scratchpad: bool):
        self.images, self.split, self.scratchpad = digits.images[0], split, scratchpad
        labels = digits.images[1]
        self.of_digit = [[n for n in digits.numbers(split) if labels[n] == digit] for digit in range(10)]
        self.keys = [f"{split} problem {n}" for n in range(count)]

    def __getitem__(self, number: int) -> Columns:
        random = np.random.default_rng([SPLITS.index(self.split), number])
        left, operator, right = int(random.integers(10)), "+-"[random.integers(2)], int(random.integers(10))
        chosen = random.choice(self.of_digit[left])
        return {
            "image": self.images[chosen], "operator": operator, "sound": (tone(right, random), RATE),
            "answer": answer(left, operator, right, self.scratchpad),
        }  # fmt: skip


class Arithmetic(SampleDataset):
    """Columns: `image`, `operator`, `sound`, `answer`. `samples` is how many one epoch of training has."""

    splits = SPLITS
    columns = ("image", "operator", "sound", "answer")

    def __init__(self, *, samples: int = 20_000, scratchpad: bool = True):
        self.samples, self.scratchpad = samples, scratchpad

    @cached_property
    def digits(self) -> Digits:
        return Digits()

    def truth(self, split: str) -> list[Outcome]:
        return outcomes(self.scratchpad)

    def open(self, split: str) -> Samples:
        self.check_split(split)
        return Problems(self.digits, split, self.samples if split == "train" else JUDGED, self.scratchpad)
