"""Cross-modal arithmetic with real recordings: an MNIST digit (image), plus or minus (text), a spoken digit (FSDD), and
the answer (text) that first reads out what was seen and heard. Images and recordings of val and test are not in
train."""

from __future__ import annotations

from functools import cached_property

from ..samples.dataset import Columns, Made, MadeDataset, Outcome, Samples
from .arithmetic import answer, outcomes
from .fsdd import Fsdd
from .mnist import Mnist


class Problems(Made):
    """Samples of an image, an operator, a recording, and their answer."""

    def __init__(self, split: str, images: Samples, sounds: Samples, count: int):
        super().__init__(split, count, "problem")
        self.sources = images, sounds

    @cached_property
    def of_digit(self) -> tuple[list[list[int]], list[list[int]]]:
        """The numbers of the images, and of the recordings, of every digit: two lists of ten lists."""
        found = []
        for source in self.sources:
            labels = list(source.column("label"))
            found.append([[n for n, label in enumerate(labels) if label == digit] for digit in range(10)])
        return found[0], found[1]

    def __getitem__(self, number: int) -> Columns:
        random = self.random(number)
        left, operator, right = int(random.integers(10)), "+-"[random.integers(2)], int(random.integers(10))
        image, sound = (random.choice(self.of_digit[which][digit]) for which, digit in ((0, left), (1, right)))
        return {
            "image": self.sources[0][image]["image"], "operator": operator,
            "sound": self.sources[1][sound]["sound"], "answer": answer(left, operator, right),
        }  # fmt: skip


class ArithmeticSpeech(MadeDataset):
    """Columns: `image` (28 x 28), `operator` (+ or -), `sound` (8 kHz), `answer` ("7+5=12"). `samples` is how many one
    epoch of training has."""

    columns = ("image", "operator", "sound", "answer")

    def __init__(self, *, samples: int = 20_000):
        self.samples = samples

    def truth(self, split: str) -> list[Outcome]:
        return outcomes()

    def make(self, split: str, count: int) -> Problems:
        return Problems(split, Mnist().open(split), Fsdd().open(split), count)
