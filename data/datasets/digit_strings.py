"""Strings of spoken digits: recordings of the Free Spoken Digit Dataset, joined with gaps of random length, in
noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...files.reading import DataError
from ...tokenizers.media.files import read_sound
from ..samples import Made, MadeDataset
from .fsdd import Fsdd, digit, speaker

RATE = 8000


class Strings(Made):
    """Samples of several digits said by one speaker, one after another."""

    def __init__(self, split: str, dataset: DigitStrings, count: int):
        self.dataset = dataset
        self.source = Fsdd(held_out=dataset.held_out, equalize=dataset.equalize).open(split)
        super().__init__(split, count, "string", self.source)
        self.of_speaker: dict[str, list[int]] = {}
        for number, key in enumerate(self.source.keys):
            self.of_speaker.setdefault(speaker(key), []).append(number)
        self.speakers = sorted(self.of_speaker)
        self._read: dict[int, np.ndarray] = {}

    def recording(self, number: int) -> np.ndarray:
        """One recording as float samples (s) at RATE. Raises DataError for one of another rate."""
        if number not in self._read:
            sound = self.source.row(number, ("sound",))["sound"]
            samples, rate = sound if isinstance(sound, tuple) else read_sound(sound)
            if rate != RATE:
                raise DataError(f"{self.source.keys[number]} has {rate} Hz instead of {RATE}")
            self._read[number] = samples
        return self._read[number]

    def spoken(self, number: int) -> tuple[np.random.Generator, str, list[int]]:
        """The plan of a string: its random generator, from which the sound is drawn next, its speaker, and the numbers
        of its recordings (none where nobody speaks)."""
        random = self.random(number, 11)
        who = self.speakers[random.integers(len(self.speakers))]
        silent = random.random() < self.dataset.silence
        count = 0 if silent else random.integers(self.dataset.shortest, self.dataset.longest + 1)
        return random, who, random.choice(self.of_speaker[who], count).tolist()

    def text(self, recordings: list[int]) -> str:
        """What is said in these recordings."""
        return " ".join(digit(self.source.keys[number]) for number in recordings)

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random, who, recordings = self.spoken(number)
        return {
            "sound": lambda: (self.sound(recordings, random), RATE), "text": lambda: self.text(recordings),
            "speaker": lambda: who,
        }  # fmt: skip

    def sound(self, recordings: list[int], random: np.random.Generator) -> np.ndarray:
        """These recordings one after another with gaps, in noise; silence or noise alone where there is none."""
        parts = [silence(random, 0.05, 0.3)]
        for recording in recordings:
            parts += [self.recording(recording) * 10 ** (random.uniform(-3, 3) / 20), silence(random, 0.02, 0.25)]
        if not recordings:
            parts.append(silence(random, 0.5, 2.0))
        clip = np.concatenate(parts)
        level = np.sqrt(np.mean(clip**2)) if recordings else 10 ** random.uniform(-3, -1)
        ratio = random.uniform(*self.dataset.noise) if recordings else 0.0
        noise = level * 10 ** (-ratio / 20) * random.standard_normal(len(clip))
        quiet = not recordings and random.random() < 0.2  # not even noise
        return (clip + noise * (not quiet)).astype(np.float32)


def silence(random: np.random.Generator, least: float, most: float) -> np.ndarray:
    """Zeros at RATE, for a random time of `least` to `most` seconds."""
    return np.zeros(int(random.uniform(least, most) * RATE), dtype=np.float32)


class DigitStrings(MadeDataset):
    """Columns: `sound` (8 kHz), `text` ("7 0 3", empty where nobody speaks), `speaker`. A string has `shortest` to
    `longest` digits of one speaker, in white noise at a signal-to-noise ratio drawn from `noise` [lowest, highest] dB;
    a share `silence` of them is noise or silence alone. `samples` is how many one epoch of training has. Splits share
    no recording. `held_out`: one speaker or several, who are in test alone, and test has no other. `equalize`: see
    `fsdd`. Raises ValueError for a wrong `shortest` or `longest`."""

    held_back = 500
    columns = ("sound", "text", "speaker")

    def __init__(
        self, *, samples: int = 20_000, shortest: int = 3, longest: int = 7, noise: tuple[float, float] = (15.0, 40.0),
        silence: float = 0.05, held_out: str | list[str] | None = None, equalize: bool = False,
    ):  # fmt: skip
        if not 1 <= shortest <= longest:
            raise ValueError(f"shortest ({shortest}) must be at least 1 and at most longest ({longest})")
        self.samples, self.shortest, self.longest, self.noise = samples, shortest, longest, noise
        self.silence, self.held_out, self.equalize = silence, held_out, equalize

    def make(self, split: str, count: int) -> Strings:
        return Strings(split, self, count)
