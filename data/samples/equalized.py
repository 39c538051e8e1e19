"""Spectral equalisation of recordings: each speaker's (and thereby microphone's) are filtered so that all speakers have
the same mean spectrum.

A normalisation by speaker: it needs to know who speaks, and some recordings of each, but not what is said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...tokenizers.media.files import read_sound
from ..fingerprint import Fingerprint
from .dataset import Changed, Columns, Samples

WINDOW = 256
"""Samples of one frame of the spectrum; frames begin half of that apart."""
SPEECH = 20.0
"""A frame counts as speech where its energy is within so many dB of the loudest frame's."""
SMOOTH = 6
"""Bins on each side over which a mean spectrum is smoothed."""


@dataclass(frozen=True)
class Equalized(Changed):
    """The same samples, with the sound of the column `name` (a file's bytes) filtered and given as (float32 samples,
    rate in hertz). `group` gives the speaker of a sample's key, `every` are the recordings that the speakers' mean
    spectra are taken from."""

    every: Samples
    name: str
    group: Callable[[str], str]

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        own = [self.every.fingerprint(), self.name]
        return Fingerprint("Equalized", self.samples.fingerprint(labels), own).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        row = self.samples.row(number, names)
        if row.get(self.name) is None:
            return row
        clip, rate = read_sound(row[self.name])
        curve = self.curves[self.group(self.keys[number])]
        spectrum = np.fft.rfft(clip)
        gain = np.exp(-np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, len(curve)), curve))
        return {**row, self.name: (np.fft.irfft(spectrum * gain, n=len(clip)).astype(np.float32), rate)}

    @cached_property
    def curves(self) -> dict[str, np.ndarray]:
        """Each speaker's mean log amplitude minus that of all speakers, in nats, (bins): WINDOW // 2 + 1 bins from 0 Hz
        to half the rate."""
        found: dict[str, list[np.ndarray]] = {}
        for number, sound in self.every.numbered(self.name):
            with suppress(ValueError):  # it counts as bad when it is read as a sample
                found.setdefault(self.group(self.every.keys[number]), []).append(mean_spectrum(read_sound(sound)[0]))
        means = {speaker: smoothed(np.mean(each, axis=0)) for speaker, each in found.items()}
        middle = np.mean(list(means.values()), axis=0)
        return {speaker: mean - middle for speaker, mean in means.items()}


def mean_spectrum(clip: np.ndarray) -> np.ndarray:
    """The mean natural logarithm of the amplitude, (bins), over the frames of a clip (samples) that hold speech."""
    padded = np.pad(clip, (0, max(0, WINDOW - len(clip))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:: WINDOW // 2] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    energy = power.sum(axis=1)
    speech = energy > energy.max() * 10 ** (-SPEECH / 10)
    return 0.5 * np.log(np.maximum(power[speech], 1e-10)).mean(axis=0)


def smoothed(curve: np.ndarray) -> np.ndarray:
    """The curve (bins), averaged over SMOOTH bins on each side with a raised cosine as weights."""
    weights = np.hanning(2 * SMOOTH + 3)[1:-1]
    return np.convolve(np.pad(curve, SMOOTH, mode="edge"), weights / weights.sum(), mode="valid")
