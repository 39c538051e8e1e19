"""Several data sets as one: samples of all of them, numbered one source after another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..tokenizers.media.files import read_sound
from .base import Dataset, text_of
from .fingerprint import Fingerprint
from .samples import ByColumn, Changed, Columns, Listed, Samples, picked


@dataclass(frozen=True)
class Source:
    """One data set in a mixture."""

    name: str
    samples: Samples
    share: float
    """Its share of what is trained on, relative to those of the others."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """New names of its columns, by their old ones."""


@dataclass(frozen=True)
class MixedSamples(ByColumn):
    """The samples of several sources: of two with three and two samples 0 to 2 are the first's, 3 and 4 the second's.
    Keys begin with the source's name: `mnist: train-7`."""

    mixture: Sequence[Source]
    by_tokens: bool = False
    """Whether shares are of the tokens, else of the samples."""

    @cached_property
    def starts(self) -> list[int]:
        """The number of each source's first sample, and at the end that of all samples."""
        return [0, *itertools.accumulate(len(source.samples) for source in self.mixture)]

    @cached_property
    def keys(self) -> Sequence[str]:
        return [f"{source.name}: {key}" for source in self.mixture for key in source.samples.keys]

    def __len__(self) -> int:
        return self.starts[-1]

    def _source(self, number: int) -> tuple[Source, int]:
        """The source of a sample, and the sample's number there."""
        which = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.mixture[which], number - self.starts[which]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        source, own = self._source(number)
        row = source.samples.row(own, None if names is None else self._own(source, names))
        return picked({source.columns.get(name, name): value for name, value in row.items()}, names)

    def caches(self, number: int) -> bool:
        source, own = self._source(number)
        return source.samples.caches(own)

    def range_of(self, name: str) -> range:
        """The numbers of one source's samples."""
        which = [source.name for source in self.mixture].index(name)
        return range(self.starts[which], self.starts[which + 1])

    def damaged(self) -> Iterator[tuple[int, str]]:
        for start, source in zip(self.starts, self.mixture):
            for number, why in source.samples.damaged():
                yield start + number, why

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        parts = [
            (source.name, source.samples.fingerprint(self._own(source, labels)), dict(source.columns))
            for source in self.mixture
        ]
        return Fingerprint("Mixed", *map(list, parts)).hex

    def _own(self, source: Source, labels: Collection[str]) -> list[str]:
        """The columns of a source under its own names."""
        old = {new: name for name, new in source.columns.items()}
        return [old.get(label, label) for label in labels]


def pieces_of(dataset: Dataset, split: str, characters: int) -> Samples:
    """A text corpus as samples with the column `text`: its documents cut into pieces of at most so many characters, at
    the last line's end in a piece where there is one."""
    keys, rows = [], []
    for document in dataset.documents(split):
        text, start = text_of(document), 0
        while start < len(text):
            end = start + characters
            line = text.rfind("\n", start, end) + 1
            end = line if start < line < len(text) and end < len(text) else end
            keys.append(f"{document.key} from {start}")
            rows.append({"text": text[start:end]})
            start = end
    return Listed(keys, rows)


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
