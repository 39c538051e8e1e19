"""Cross-modal arithmetic: a written digit (image), plus or minus (text), a dialled digit (sound), and the answer (text).

The answer first reads out what was seen and heard, then says the result: "7+5=12", the lecture's scratchpad. Images are
scikit-learn's digits, held out by image; all pairs of digits may be seen. Nothing needs to be downloaded.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..samples import Columns, SampleCard, Samples
from .digits import Digits
from .dtmf import RATE, tone

SPLITS = ("train", "val", "test")


def answer(left: int, operator: str, right: int, scratchpad: bool = True) -> str:
    """What shall be said: "7+5=12", or "12" without the scratchpad."""
    result = left + right if operator == "+" else left - right
    return f"{left}{operator}{right}={result}" if scratchpad else str(result)


class Problems(Samples):
    """As many problems as asked for; each is a pure function of the split and its number."""

    def __init__(self, digits: Digits, split: str, count: int, scratchpad: bool):
        self.digits, self.numbers, self.split, self.scratchpad = digits, digits.numbers(split), split, scratchpad
        self.keys = [f"{split} problem {n}" for n in range(count)]

    def __getitem__(self, number: int) -> Columns:
        random = np.random.default_rng([SPLITS.index(self.split), number])
        images, labels = self.digits.images
        chosen = self.numbers[random.integers(len(self.numbers))]
        left, operator, right = int(labels[chosen]), "+-"[random.integers(2)], int(random.integers(10))
        return {
            "image": images[chosen], "operator": operator, "sound": (tone(right, random), RATE),
            "answer": answer(left, operator, right, self.scratchpad),
        }  # fmt: skip


class Arithmetic(SampleCard):
    """Columns: `image`, `operator`, `sound`, `answer`. `samples` is how many one epoch of training has."""

    splits = SPLITS
    columns = ("image", "operator", "sound", "answer")
    bits = {"image": np.log2(10), "operator": 1.0, "sound": np.log2(10)}
    """How much of an answer each input alone decides, in bits: what a perfect model's loss would rise by without it."""

    def __init__(self, *, samples: int = 20_000, scratchpad: bool = True):
        self.samples, self.scratchpad = samples, scratchpad

    @cached_property
    def digits(self) -> Digits:
        return Digits()

    def open(self, split: str) -> Samples:
        self.check_split(split)
        return Problems(self.digits, split, self.samples if split == "train" else 1000, self.scratchpad)
