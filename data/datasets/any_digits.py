"""Digits in three modalities, without noise: an MNIST image, a recording (FSDD) and a word of the same digit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..generated import ByLabel, Made, MadeDataset
from .fsdd import Fsdd
from .mnist import WORDS, Mnist


class Triples(Made):
    """Samples of an image, a recording and a word of the same random digit."""

    def __init__(self, split: str, count: int):
        images, sounds = Mnist().open(split), Fsdd().open(split)
        super().__init__(split, count, "triple", images, sounds)
        self.images, self.sounds = ByLabel(images), ByLabel(sounds)

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random = self.random(number, 5)
        digit = int(random.integers(10))
        image, sound = self.images.drawn(digit, random), self.sounds.drawn(digit, random)
        return {
            "image": lambda: self.images.value(image, "image"), "sound": lambda: self.sounds.value(sound, "sound"),
            "word": lambda: WORDS[digit], "label": lambda: digit,
        }  # fmt: skip


class AnyDigits(MadeDataset):
    """Each sample consists of an image, a recording and a word of the same random digit. Columns: `image` (28, 28),
    `sound` (8 kHz), `word` (`zero` to `nine`), `label` 0 to 9. `samples` is the number of training samples per epoch;
    validation and test have 1,000 samples each."""

    columns = ("image", "sound", "word", "label")

    def __init__(self, *, samples: int = 20_000):
        self.samples = samples

    def make(self, split: str, count: int) -> Triples:
        return Triples(split, count)
