"""The samples of several data sets (sources) as one sequence, one source after another; and a filter that equalizes the
spectra of speakers."""

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
    """The share of the source in the training data, relative to the shares of the other sources."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The new names of the source's columns, by their original names; columns that are absent here keep their names."""


@dataclass(frozen=True)
class MixedSamples(ByColumn):
    """The samples of several sources, concatenated. With three and two samples, the numbers 0 to 2 belong to the first
    source, 3 and 4 to the second. A key begins with the name of the source: `mnist: train-7`."""

    mixture: Sequence[Source]
    by_tokens: bool = False
    """Whether the shares are shares of the tokens (true) or of the samples (false)."""

    @cached_property
    def starts(self) -> list[int]:
        """The number of the first sample of each source, followed by the number of all samples."""
        return [0, *itertools.accumulate(len(source.samples) for source in self.mixture)]

    @cached_property
    def keys(self) -> Sequence[str]:
        return [f"{source.name}: {key}" for source in self.mixture for key in source.samples.keys]

    def __len__(self) -> int:
        return self.starts[-1]

    def _source(self, number: int) -> tuple[Source, int]:
        """Returns (source of a sample, number of the sample in this source)."""
        index = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.mixture[index], number - self.starts[index]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        source, index = self._source(number)
        row = source.samples.row(index, None if names is None else self._original_names(source, names))
        return picked({source.columns.get(name, name): value for name, value in row.items()}, names)

    def caches(self, number: int) -> bool:
        source, index = self._source(number)
        return source.samples.caches(index)

    def range_of(self, name: str) -> range:
        """Returns the numbers of all samples of the source with this name."""
        index = [source.name for source in self.mixture].index(name)
        return range(self.starts[index], self.starts[index + 1])

    def damaged(self) -> Iterator[tuple[int, str]]:
        for start, source in zip(self.starts, self.mixture):
            for number, reason in source.samples.damaged():
                yield start + number, reason

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        parts = [
            (source.name, source.samples.fingerprint(self._original_names(source, labels)), dict(source.columns))
            for source in self.mixture
        ]
        return Fingerprint("Mixed", *map(list, parts)).hex

    def _original_names(self, source: Source, names: Collection[str]) -> list[str]:
        """Returns the original names, in the source, of the columns with these new names."""
        originals = {new: name for name, new in source.columns.items()}
        return [originals.get(name, name) for name in names]


def pieces_of(dataset: Dataset, split: str, characters: int) -> Samples:
    """Returns a split of a text corpus as samples with the column `text`. Each document is cut into pieces of at most
    `characters` characters; a piece ends at the last line end in this range, if there is one."""
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
"""The number of audio samples in one frame of the spectrum. A new frame starts every WINDOW / 2 samples."""
SPEECH = 20.0
"""A frame counts as speech if its energy is at most this number of dB below the energy of the loudest frame."""
SMOOTH = 6
"""The number of bins on each side over which a mean spectrum is smoothed."""


@dataclass(frozen=True)
class Equalized(Changed):
    """The same samples, but the sounds in column `name` (bytes of a file) are filtered, so that all speakers have the
    same mean spectrum. A filtered sound is a tuple (float32 samples, rate in hertz). `group` is a function that returns
    the speaker for the key of a sample. The mean spectrum of each speaker is computed from all `recordings`."""

    recordings: Samples
    name: str
    group: Callable[[str], str]

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        options = [self.recordings.fingerprint(), self.name]
        return Fingerprint("Equalized", self.samples.fingerprint(labels), options).hex

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
        """By speaker, the mean log amplitude of the speaker minus the mean over all speakers, in nats, (bins). There
        are WINDOW // 2 + 1 bins from 0 Hz to half the sample rate."""
        spectra: dict[str, list[np.ndarray]] = {}
        for number, sound in self.recordings.numbered(self.name):
            with suppress(ValueError):  # the recording counts as bad when it is read as a sample
                spectra.setdefault(self.group(self.recordings.keys[number]), []).append(
                    mean_spectrum(read_sound(sound)[0])
                )
        means = {speaker: smoothed(np.mean(curves, axis=0)) for speaker, curves in spectra.items()}
        middle = np.mean(list(means.values()), axis=0)
        return {speaker: mean - middle for speaker, mean in means.items()}


def mean_spectrum(clip: np.ndarray) -> np.ndarray:
    """Returns the mean natural logarithm of the amplitude, (bins), over the frames with speech of a clip (n audio
    samples)."""
    padded = np.pad(clip, (0, max(0, WINDOW - len(clip))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:: WINDOW // 2] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    energy = power.sum(axis=1)
    speech = energy > energy.max() * 10 ** (-SPEECH / 10)
    return 0.5 * np.log(np.maximum(power[speech], 1e-10)).mean(axis=0)


def smoothed(curve: np.ndarray) -> np.ndarray:
    """Returns the curve (bins) as a weighted average over SMOOTH bins on each side; the weights are a raised cosine."""
    weights = np.hanning(2 * SMOOTH + 3)[1:-1]
    return np.convolve(np.pad(curve, SMOOTH, mode="edge"), weights / weights.sum(), mode="valid")
