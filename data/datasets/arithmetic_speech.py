"""Cross-modal arithmetic with real recordings: the inputs are an MNIST digit (image), plus or minus (text) and a spoken
digit (FSDD). The answer is a text that repeats the problem before the result. The images and recordings of val and test
are not in train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..generated import ByLabel, MadeDataset
from ..sample_dataset import Outcome
from .arithmetic import Problems, outcomes
from .fsdd import Fsdd
from .mnist import Mnist


class ArithmeticSpeech(MadeDataset):
    """Each sample is a problem with two digits, an operator, and the answer. Columns: `image` (28 x 28) of the first
    digit, `operator` (+ or -), `sound` of the second digit (8 kHz), `answer` ("7+5=12"). `samples` is the number of
    training samples per epoch."""

    columns = ("image", "operator", "sound", "answer")
    truth_column = "answer"

    def __init__(self, *, samples: int = 20_000):
        self.samples = samples

    def truth(self, split: str) -> list[Outcome]:
        return outcomes()

    def make(self, split: str, count: int) -> Problems:
        images, sounds = Mnist().open(split), Fsdd().open(split)
        return Problems(split, count, images, Spoken(sounds), sources=[images, sounds])


@dataclass(frozen=True)
class Spoken(ByLabel):
    """Returns a random recording of a digit."""

    def __call__(self, digit: int, random: np.random.Generator) -> Any:
        return self.value(self.drawn(digit, random), "sound")
