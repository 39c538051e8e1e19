"""Cross-modal arithmetic: the inputs are a handwritten digit (image), plus or minus (text) and a dialled digit (sound);
the answer is a text.

The answer repeats the problem before the result, as a scratchpad (Nye et al. 2021, arXiv:2112.00114): "7+5=12". The
images are scikit-learn's digits. The images of val and test are not in train, but every pair of digits can occur in
train. No download is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from ..generated import ByLabel, Made, MadeDataset
from ..sample_dataset import Outcome
from ..samples import Samples
from .digits import Digits
from .dtmf import RATE, tone

Sound = Callable[[int, np.random.Generator], Any]
"""A function (digit, random generator) that returns a random sound of the digit."""


def dialled(digit: int, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """Returns (float32 samples of the telephone tone of a digit, sample rate in hertz)."""
    return tone(digit, random), RATE


def answer(left: int, operator: str, right: int, scratchpad: bool = True) -> str:
    """Returns the text of the answer: "7+5=12", or "12" without the scratchpad."""
    result = left + right if operator == "+" else left - right
    return f"{left}{operator}{right}={result}" if scratchpad else str(result)


def outcomes(scratchpad: bool = True) -> list[Outcome]:
    """Returns all 10 x 2 x 10 problems with their answers, each with the probability 1/200."""
    names, problems = ("image", "operator", "sound"), product(range(10), "+-", range(10))
    return [Outcome(dict(zip(names, problem)), answer(*problem, scratchpad), 1 / 200) for problem in problems]


class Problems(Made):
    """Samples of an image, an operator, a sound, and the answer. `images` needs the columns `image` and `label`.
    `sound` is a function (digit, random generator) that returns a sound. `sources` contains all samples on disk that
    are combined, for the fingerprint."""

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
    """Each sample is a problem with two digits, an operator, and the answer. Columns: `image` (8, 8) of the first
    digit, `operator` (+ or -), `sound` of the second digit (0.4 s at 8 kHz), `answer`. `samples` is the number of
    training samples per epoch. With `scratchpad: false`, the answer is only the result: "12" instead of "7+5=12"."""

    columns = ("image", "operator", "sound", "answer")
    truth_column = "answer"

    def __init__(self, *, samples: int = 20_000, scratchpad: bool = True):
        self.samples, self.scratchpad = samples, scratchpad

    @cached_property
    def digits(self) -> Digits:
        """The data set of the images."""
        return Digits()

    def truth(self, split: str) -> list[Outcome]:
        return outcomes(self.scratchpad)

    def make(self, split: str, count: int) -> Problems:
        return Problems(split, count, self.digits.open(split), dialled, self.scratchpad)
