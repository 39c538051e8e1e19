"""Generated DTMF tones: the tone of a telephone digit consists of two sines. It has a random start and length, in noise
of random level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..generated import Made, MadeDataset

LOW = {"1": 697, "2": 697, "3": 697, "4": 770, "5": 770, "6": 770, "7": 852, "8": 852, "9": 852, "0": 941}
"""The lower frequency of the tone of each digit, in hertz."""
HIGH = {"1": 1209, "4": 1209, "7": 1209, "2": 1336, "5": 1336, "8": 1336, "0": 1336, "3": 1477, "6": 1477, "9": 1477}
"""The higher frequency of the tone of each digit, in hertz."""
RATE = 8000
KEY_SECONDS = 0.4


def tone(digit: int, random: np.random.Generator) -> np.ndarray:
    """Returns the tone of a digit as float32 samples (3200) at RATE. The tone lasts 0.1 to 0.25 s, at a random position
    in KEY_SECONDS. Noise covers all samples and is 0 to 20 dB weaker than the tone."""
    count = round(RATE * KEY_SECONDS)
    time = np.arange(count) / RATE
    length = random.uniform(0.10, 0.25)
    start = random.uniform(0, KEY_SECONDS - length)
    sounding = (time >= start) & (time < start + length)
    phases = random.uniform(0, 2 * np.pi, 2)
    low, high = (np.sin(2 * np.pi * hertz[str(digit)] * time + phase) for hertz, phase in zip((LOW, HIGH), phases))
    noise = random.standard_normal(count) * 10 ** (-random.uniform(0, 20) / 20)
    return (0.2 * ((low + high) * sounding + noise)).astype(np.float32)


class Tones(Made):
    """Samples of a tone and its digit."""

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random = self.random(number)
        digit = int(random.integers(10))
        return {"sound": lambda: (tone(digit, random), RATE), "label": lambda: digit}


class Dtmf(MadeDataset):
    """Columns: `sound` (0.4 s at 8 kHz) and `label` 0 to 9. `samples` is the number of training samples per epoch."""

    columns = ("sound", "label")

    def __init__(self, *, samples: int = 4000):
        self.samples = samples

    def make(self, split: str, count: int) -> Tones:
        return Tones(split, count, "tone")
