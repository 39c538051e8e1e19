"""Cross-modal arithmetic: a written digit (image), plus or minus (text), a dialled digit (sound), and the answer
(text).

The answer first reads out what was seen and heard, then says the result: "7+5=12", a scratchpad (Nye et al. 2021,
arXiv:2112.00114). Images are scikit-learn's digits; those of val and test are not in train, but all pairs of digits may
be. Nothing needs to be downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from ..samples import ByLabel, Made, MadeDataset, Outcome, Samples
from .digits import Digits
from .dtmf import RATE, tone

Sound = Callable[[int, np.random.Generator], Any]
"""Draws the sound of a digit."""


def dialled(digit: int, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """The tone of a digit on a telephone, and its rate in hertz."""
    return tone(digit, random), RATE


def answer(left: int, operator: str, right: int, scratchpad: bool = True) -> str:
    """The answer: "7+5=12", or "12" without the scratchpad."""
    result = left + right if operator == "+" else left - right
    return f"{left}{operator}{right}={result}" if scratchpad else str(result)


def outcomes(scratchpad: bool = True) -> list[Outcome]:
    """The joint table of inputs and answers: all 10 x 2 x 10 problems with equal probability."""
    names, problems = ("image", "operator", "sound"), product(range(10), "+-", range(10))
    return [Outcome(dict(zip(names, each)), answer(*each, scratchpad), 1 / 200) for each in problems]


class Problems(Made):
    """Samples of an image, an operator, a sound, and their answer. `images` have the columns `image` and `label`;
    `sound` draws that of a digit. `sources` are the samples on disk that these are made of."""

    def __init__(
        self, split: str, count: int, images: Samples, sound: Sound, scratchpad: bool = True,
        sources: Sequence[Samples] = (),
    ):  # fmt: skip
        super().__init__(split, count, "problem", *sources)
        self.images, self.sound, self.scratchpad = ByLabel(images), sound, scratchpad

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random = self.random(number)
        left, operator, right = int(random.integers(10)), "+-"[random.integers(2)], int(random.integers(10))
        image = self.images.drawn(left, random)
        return {
            "image": lambda: self.images.value(image, "image"), "operator": lambda: operator,
            "sound": lambda: self.sound(right, random),
            "answer": lambda: answer(left, operator, right, self.scratchpad),
        }  # fmt: skip


class Arithmetic(MadeDataset):
    """Columns: `image` (8, 8), `operator` (+ or -), `sound` (0.4 s at 8 kHz), `answer`. `samples` is how many one epoch
    of training has. `scratchpad: false` makes the answer the result alone: "12" instead of "7+5=12"."""

    columns = ("image", "operator", "sound", "answer")
    truth_column = "answer"

    def __init__(self, *, samples: int = 20_000, scratchpad: bool = True):
        self.samples, self.scratchpad = samples, scratchpad

    @cached_property
    def digits(self) -> Digits:
        """The dataset of the images."""
        return Digits()

    def truth(self, split: str) -> list[Outcome]:
        return outcomes(self.scratchpad)

    def make(self, split: str, count: int) -> Problems:
        return Problems(split, count, self.digits.open(split), dialled, self.scratchpad)
