"""Strings of spoken digits: recordings of the Free Spoken Digit Dataset (FSDD) that are joined with random gaps and
have added noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...files.reading import DataError
from ...tokenizers.media.files import read_sound
from ..generated import Made, MadeDataset
from .fsdd import Fsdd, digit, speaker

RATE = 8000


class Strings(Made):
    """Samples of several digits that one speaker says."""

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
        """Returns the FSDD recording with this number as float samples (n) at RATE. Raises DataError if its sample rate
        is not RATE."""
        if number not in self._read:
            sound = self.source.row(number, ("sound",))["sound"]
            samples, rate = sound if isinstance(sound, tuple) else read_sound(sound)
            if rate != RATE:
                raise DataError(f"{self.source.keys[number]} has {rate} Hz instead of {RATE}")
            self._read[number] = samples
        return self._read[number]

    def spoken(self, number: int) -> tuple[np.random.Generator, str, list[int]]:
        """Returns (random generator, speaker, numbers of the recordings) of a string. The next values of the generator
        must be used for the sound of the string. A string without speech has no recordings."""
        random = self.random(number, 11)
        speaker_name = self.speakers[random.integers(len(self.speakers))]
        silent = random.random() < self.dataset.silence
        count = 0 if silent else random.integers(self.dataset.shortest, self.dataset.longest + 1)
        return random, speaker_name, random.choice(self.of_speaker[speaker_name], count).tolist()

    def text(self, recordings: list[int]) -> str:
        """Returns the digits of these recordings, separated by spaces."""
        return " ".join(digit(self.source.keys[number]) for number in recordings)

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random, speaker_name, recordings = self.spoken(number)
        return {
            "sound": lambda: (self.sound(recordings, random), RATE), "text": lambda: self.text(recordings),
            "speaker": lambda: speaker_name,
        }  # fmt: skip

    def sound(self, recordings: list[int], random: np.random.Generator) -> np.ndarray:
        """Returns the recordings, joined with gaps, with added noise, as float32 samples (n) at RATE. Without
        recordings, returns only noise or only zeros."""
        parts = [silence(random, 0.05, 0.3)]
        for recording in recordings:
            parts += [self.recording(recording) * 10 ** (random.uniform(-3, 3) / 20), silence(random, 0.02, 0.25)]
        if not recordings:
            parts.append(silence(random, 0.5, 2.0))
        clip = np.concatenate(parts)
        level = np.sqrt(np.mean(clip**2)) if recordings else 10 ** random.uniform(-3, -1)
        ratio = random.uniform(*self.dataset.noise) if recordings else 0.0
        noise = level * 10 ** (-ratio / 20) * random.standard_normal(len(clip))
        quiet = not recordings and random.random() < 0.2  # without noise
        return (clip + noise * (not quiet)).astype(np.float32)


def silence(random: np.random.Generator, least: float, most: float) -> np.ndarray:
    """Returns zeros at RATE; their duration is random, from `least` to `most` seconds."""
    return np.zeros(int(random.uniform(least, most) * RATE), dtype=np.float32)


class DigitStrings(MadeDataset):
    """Columns: `sound` (8 kHz), `text` ("7 0 3", empty without speech), `speaker`. A string has `shortest` to `longest`
    digits of one speaker, in white noise. The signal-to-noise ratio in dB is random, from the range `noise` [lowest,
    highest]. The share `silence` of the strings has no speech, only noise or silence. `samples` is the number of
    training samples per epoch. Splits have no recordings in common. `held_out`: one or several speakers that are only
    in test; train and val then contain only other speakers. `equalize`: see `fsdd`. Raises ValueError unless 1 <=
    `shortest` <= `longest`."""

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
