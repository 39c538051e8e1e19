"""Computation, normalisation (by the training data or per clip), augmentation and drawing of log-mel spectrograms, and
conversion of spectrograms to sound."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from ...files.records import Record, read_record
from ...files.writing import write_json
from ...models.batch import Chunks
from ..base import Role, readable
from .augmentation import SpectrogramAugmentation
from .simple_features import small_spectrogram
from .sound import Clip, SoundChopper

RANGE = 7.0
"""With `normalize: clip`, log-mel energies more than this below the largest one of the clip are raised (7.0: 30 dB)."""


class Statistics(Record):
    """The assets file `spectrogram.json`: mean and std of the spectrograms of the training data."""

    mean: float = Field(allow_inf_nan=False)
    std: float = Field(gt=0, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class SpectrogramChopper(SoundChopper):
    """Base of the choppers whose embedder normalises a spectrogram. `statistics`: [mean, std] of the log-mel energies;
    null: computed from the training data."""

    fits_on: ClassVar[int | None] = 500
    statistics: tuple[float, float] | None = None

    def spectrum(self) -> nn.Module:
        """Returns a module that maps windows of samples (f, samples) to a log-mel spectrogram (f, mels)."""
        raise NotImplementedError

    def fit(self, items: Callable[[], Iterable], role: Role) -> SpectrogramChopper:
        """Returns the chopper with `statistics`. If the YAML does not set `statistics`, they are computed from the
        training sounds (at most `fits_on` sounds). Sounds that cannot be read are skipped. Raises ValueError if no
        sound can be read."""
        if self.statistics:
            return self
        mel, total = self.spectrum(), torch.zeros(3, dtype=torch.float64)
        for clip in readable(items(), self.decode, "sound", "to compute the mean of the spectrogram from"):
            values = mel(self.chop(clip).values).double()
            total += torch.stack([values.sum(), values.square().sum(), torch.tensor(float(values.numel()))])
        mean = total[0] / total[2]
        std = (total[1] / total[2] - mean**2).clamp(min=1e-12).sqrt()
        return replace(self, statistics=(float(mean), float(std)))

    def simple_features(self, item: Clip) -> np.ndarray:
        return small_spectrogram(self.spectrum()(self.chop(item).values))

    def save(self, folder: Path) -> None:
        mean, std = self.statistics or (0.0, 1.0)
        write_json(folder / "spectrogram.json", {"mean": mean, "std": std})

    def load(self, folder: Path, role: Role) -> SpectrogramChopper:
        saved = read_record(folder / "spectrogram.json", Statistics)
        return replace(self, statistics=self.statistics or (saved.mean, saved.std))


class SpectrogramEmbedder(nn.Module):
    """Base of the embedders of spectrograms. Spectrograms are normalised, and also augmented during training, on the
    device."""

    def __init__(self, chopper: SpectrogramChopper, augment: Callable[[], SpectrogramAugmentation] | None):
        super().__init__()
        self.per_clip, (self.mean, self.std) = chopper.normalize == "clip", chopper.statistics or (0.0, 1.0)
        self.mel = chopper.spectrum()
        self.augment = augment() if augment else None

    def spectrogram(self, chunks: Chunks, lengths: Int[Tensor, "s"]) -> Float[Tensor, "f mels"]:
        """Returns the normalised (in training also augmented) spectrograms of the chunks, concatenated along the
        frames. `lengths` holds the number of frames of each chunk."""
        mel = self.mel(chunks.values)
        mel = normalized(mel, lengths) if self.per_clip else (mel - self.mean) / self.std
        return self.augment(mel, lengths, chunks.seeds) if self.augment is not None and self.training else mel


def draw_spectrogram(canvas: Any, values: Float[Tensor, "f mels"], seconds: float) -> None:
    """Draws the spectrogram of a clip of `seconds` seconds on matplotlib's Axes `canvas`."""
    extent = (0, seconds, 0, values.shape[1])
    canvas.imshow(values.T.numpy(), origin="lower", aspect="auto", cmap="Greys", extent=extent)
    canvas.set(xlabel="seconds", ylabel="mel channel")


def normalized(spectrogram: Float[Tensor, "f mels"], lengths: Int[Tensor, "s"]) -> Float[Tensor, "f mels"]:
    """Returns the spectrograms, normalised per clip: the mean over time is subtracted from each channel, then the
    result is divided by the std of the clip. The clips are concatenated along the frames; `lengths` holds the number of
    frames of each clip.

    First, values more than `RANGE` below the loudest value of the clip are raised to that limit, because the noise
    between words depends on the microphone.
    """
    device = spectrogram.device
    clip = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths, output_size=len(spectrogram))
    silence = spectrogram.new_full((len(lengths),), -torch.inf)
    loudest = silence.scatter_reduce(0, clip, spectrogram.amax(1), "amax")
    spectrogram = torch.maximum(spectrogram, (loudest - RANGE)[clip, None])
    zeros = spectrogram.new_zeros(len(lengths), spectrogram.shape[1])
    spectrogram = spectrogram - (zeros.index_add(0, clip, spectrogram) / lengths[:, None])[clip]
    power = zeros.index_add(0, clip, spectrogram.square()).mean(1) / lengths
    return spectrogram / (power + 1e-3).sqrt()[clip, None]


Scale = Literal["htk", "slaney"]
KNEE = 1000.0
"""The frequency, in hertz, up to which Slaney's scale is linear."""
SLOPE = 200 / 3
"""Hertz per mel on Slaney's scale below `KNEE`."""
STEP = math.log(6.4) / 27
"""The natural logarithm of the ratio of two frequencies that are one mel apart on Slaney's scale above `KNEE`."""
LOWEST = 20.0
"""The frequency, in hertz, at which Kaldi's first channel begins."""


def mel_banks(
    bins: int, mels: int, rate: int, scale: Scale = "htk", equal_area: bool = False
) -> Float[Tensor, "bins mels"]:
    """Returns `mels` triangular filters from 0 Hz to half the rate. `bins` is the number of frequencies of the
    spectrum, which are equally spaced from 0 Hz to `rate // 2`. With `equal_area` every triangle has area 1 (over
    hertz) instead of height 1.

    Equal to `torchaudio.functional.melscale_fbanks`. Warns if a channel is so narrow that it contains no frequency.
    """
    mel = torch.linspace(mel_of(0.0, scale), mel_of(rate / 2, scale), mels + 2)
    corners = frequency_of(mel, scale)
    banks = triangles(torch.linspace(0, rate // 2, bins), corners)
    if empty := int((banks.amax(0) == 0).sum()):
        remedy = "use fewer mels or a longer window"
        warnings.warn(f"{empty} of {mels} mel channels contain no frequency of the spectrum; {remedy}", stacklevel=2)
    return banks * (2 / (corners[2:] - corners[:-2])) if equal_area else banks


def mel_of(frequency: float, scale: Scale) -> float:
    """Converts a frequency from hertz to mels."""
    if scale == "htk":
        return 2595 * math.log10(1 + frequency / 700)
    return frequency / SLOPE if frequency < KNEE else KNEE / SLOPE + math.log(frequency / KNEE) / STEP


def frequency_of(mel: Float[Tensor, "n"], scale: Scale) -> Float[Tensor, "n"]:
    """Converts mels to hertz: the inverse of `mel_of`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = mel - KNEE / SLOPE
    return torch.where(above < 0, mel * SLOPE, KNEE * (above * STEP).exp())


def triangles(points: Float[Tensor, "p"], corners: Float[Tensor, "c"]) -> Float[Tensor, "p c-2"]:
    """Returns the height of every triangle at every one of `points`. Triangle i rises from corner i to corner i + 1 and
    falls to corner i + 2."""
    rising = (points[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - points[:, None]) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def kaldi_banks(size: int, mels: int, rate: int) -> Float[Tensor, "bins mels"]:
    """Returns the mel filters of Kaldi (Povey et al. 2011; `MelBanks` in its feat/mel-computations.cc) for the
    `size // 2 + 1` frequencies of a window of `size` samples. The scale is HTK's, from `LOWEST` to half the rate. The
    triangles are linear in mels, not in hertz, and no triangle contains the last frequency.

    Equal to `torchaudio.compliance.kaldi.get_mel_banks`, transposed and with a row for the last frequency.
    """
    low, high = (1127 * math.log(1 + frequency / 700) for frequency in (LOWEST, rate / 2))
    corners = low + torch.arange(mels + 2) * ((high - low) / (mels + 1))
    points = 1127 * (1 + torch.arange(size // 2) * (rate / size) / 700).log()
    return F.pad(triangles(points, corners), (0, 0, 0, 1))


ROUNDS = 60
"""The number of rounds in which phases are estimated."""
MOMENTUM = 0.99
"""The momentum of the fast Griffin-Lim algorithm."""


def griffin_lim(magnitudes: Float[Tensor, "bins frames"], window: Float[Tensor, "w"], hop: int, length: int) -> Clip:
    """Returns a clip of `length` samples whose windows, one every `hop` samples, have approximately these magnitudes.

    The initial phases are drawn from torch's generator. Each round computes the sound with the current phases, then
    subtracts a share of the preceding round's spectrogram from the spectrogram of this sound. The phases of the
    difference are the new phases. Equal to `torchaudio.functional.griffinlim` with `rand_init`.
    """
    size = 2 * (len(magnitudes) - 1)
    sizes = {"n_fft": size, "hop_length": hop, "win_length": len(window), "window": window}
    phases = torch.rand(magnitudes.shape, dtype=magnitudes.dtype.to_complex(), device=magnitudes.device)
    last = torch.zeros_like(phases)
    for _ in range(ROUNDS):
        sound = torch.istft(magnitudes * phases, **sizes, length=length)
        spectrum = torch.stft(sound, **sizes, return_complex=True)
        moved = spectrum - last * (MOMENTUM / (1 + MOMENTUM))
        phases, last = moved / (moved.abs() + 1e-16), spectrum
    return torch.istft(magnitudes * phases, **sizes, length=length)
