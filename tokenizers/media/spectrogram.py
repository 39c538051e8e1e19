"""Log-mel spectrograms: how they are computed, normalised (by the training data, or by each clip),
augmented and drawn; and sound from a spectrogram."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

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
from .sound import Clip, SoundChopper

RANGE = 7.0
"""How far below a clip's loudest log-mel energy others may be with `normalize: clip` (natural logarithm; 7: 30 dB)."""


class Statistics(Record):
    """The assets file `spectrogram.json`: mean and std of the training data's spectrograms."""

    mean: float = Field(allow_inf_nan=False)
    std: float = Field(gt=0, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class SpectrogramChopper(SoundChopper):
    """Base of the choppers whose embedder normalises a spectrogram. `statistics`: mean and std of the log-mel energies;
    null: those of the training data."""

    fits_on: ClassVar[int | None] = 500
    statistics: tuple[float, float] | None = None

    def spectrum(self) -> nn.Module:
        """A module from windows of samples (f, samples) to a log-mel spectrogram (f, mels)."""
        raise NotImplementedError

    def fit(self, items: Callable[[], Iterable], role: Role) -> SpectrogramChopper:
        """The chopper with the given statistics, or those of at most `fits_on` training sounds, without those that
        cannot be read. Raises ValueError when none can."""
        if self.statistics:
            return self
        mel, total = self.spectrum(), torch.zeros(3, dtype=torch.float64)
        for clip in readable(items(), self.decode, "sound", "to learn the mean of the spectrogram from"):
            values = mel(self.chop(clip).values).double()
            total += torch.stack([values.sum(), values.square().sum(), torch.tensor(float(values.numel()))])
        mean = total[0] / total[2]
        std = (total[1] / total[2] - mean**2).clamp(min=1e-12).sqrt()
        return replace(self, statistics=(float(mean), float(std)))

    def save(self, folder: Path) -> None:
        mean, std = self.statistics or (0.0, 1.0)
        write_json(folder / "spectrogram.json", {"mean": mean, "std": std})

    def load(self, folder: Path, role: Role) -> SpectrogramChopper:
        known = read_record(folder / "spectrogram.json", Statistics)
        return replace(self, statistics=(known.mean, known.std))


class SpectrogramEmbedder(nn.Module):
    """Base of the embedders of spectrograms, which are normalised, and augmented while training, on the device."""

    def __init__(self, chopper: SpectrogramChopper, augment: Callable[[], SpectrogramAugmentation] | None):
        super().__init__()
        self.per_clip, (self.mean, self.std) = chopper.normalize == "clip", chopper.statistics or (0.0, 1.0)
        self.mel = chopper.spectrum()
        self.augment = augment() if augment else None

    def spectrogram(self, chunks: Chunks, lengths: Int[Tensor, "s"]) -> Float[Tensor, "f mels"]:
        """The spectrograms of the chunks' clips, one after another, normalised; `lengths`: the frames of each."""
        found = self.mel(chunks.values)
        found = normalized(found, lengths) if self.per_clip else (found - self.mean) / self.std
        return self.augment(found, lengths, chunks.seeds) if self.augment is not None and self.training else found


def draw_spectrogram(canvas: Any, values: Float[Tensor, "f mels"], seconds: float) -> None:
    """Draw a spectrogram over its seconds on matplotlib's Axes."""
    extent = (0, seconds, 0, values.shape[1])
    canvas.imshow(values.T.numpy(), origin="lower", aspect="auto", cmap="magma", extent=extent)
    canvas.set(xlabel="seconds", ylabel="mel channel")


def normalized(spectrogram: Float[Tensor, "f mels"], lengths: Int[Tensor, "s"]) -> Float[Tensor, "f mels"]:
    """Every clip's channels less their own mean over time, over the std of the whole clip. `lengths`: frames of each
    clip.

    Before that, values more than `RANGE` below the clip's loudest are raised to there: the noise between words depends
    on the microphone.
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
"""Hertz per mel of Slaney's scale below the knee."""
STEP = math.log(6.4) / 27
"""The natural logarithm of the ratio of two frequencies that are one mel apart on Slaney's scale above the knee."""
LOWEST = 20.0
"""The frequency, in hertz, at which Kaldi's first channel begins."""


def mel_banks(
    bins: int, mels: int, rate: int, scale: Scale = "htk", equal_area: bool = False
) -> Float[Tensor, "bins mels"]:
    """Triangles over frequencies, from 0 Hz to half the rate. `bins`: the frequencies of a spectrum, equally spaced
    from 0 Hz to `rate // 2` hertz. `equal_area`: every triangle has the area 1 (over hertz) instead of the height 1.

    Equal to `torchaudio.functional.melscale_fbanks`. Warns if a channel is narrower than the distance of two
    frequencies, so that it contains none.
    """
    mel = torch.linspace(mel_of(0.0, scale), mel_of(rate / 2, scale), mels + 2)
    corners = frequency_of(mel, scale)
    banks = triangles(torch.linspace(0, rate // 2, bins), corners)
    if empty := int((banks.amax(0) == 0).sum()):
        solution = "use fewer mels or a longer window"
        warnings.warn(f"{empty} of {mels} mel channels contain no frequency of the spectrum; {solution}", stacklevel=2)
    return banks * (2 / (corners[2:] - corners[:-2])) if equal_area else banks


def mel_of(frequency: float, scale: Scale) -> float:
    """A frequency, in hertz, in mels."""
    if scale == "htk":
        return 2595 * math.log10(1 + frequency / 700)
    return frequency / SLOPE if frequency < KNEE else KNEE / SLOPE + math.log(frequency / KNEE) / STEP


def frequency_of(mel: Float[Tensor, "n"], scale: Scale) -> Float[Tensor, "n"]:
    """The inverse of `mel_of`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = mel - KNEE / SLOPE
    return torch.where(above < 0, mel * SLOPE, KNEE * (above * STEP).exp())


def triangles(points: Float[Tensor, "p"], corners: Float[Tensor, "c"]) -> Float[Tensor, "p c-2"]:
    """The heights at `points` of the triangles over every three neighbours of `corners`."""
    rising = (points[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - points[:, None]) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def kaldi_banks(size: int, mels: int, rate: int) -> Float[Tensor, "bins mels"]:
    """The filters of Kaldi (Povey et al. 2011; `MelBanks` in its feat/mel-computations.cc) for the `size // 2 + 1`
    frequencies of a window of `size` samples. The scale is HTK's, from `LOWEST` to half the rate. The triangles are
    straight over mels, not over hertz, and the last frequency belongs to none.

    Equal to `torchaudio.compliance.kaldi.get_mel_banks`, transposed and with a row for the last frequency.
    """
    low, high = (1127 * math.log(1 + frequency / 700) for frequency in (LOWEST, rate / 2))
    corners = low + torch.arange(mels + 2) * ((high - low) / (mels + 1))
    points = 1127 * (1 + torch.arange(size // 2) * (rate / size) / 700).log()
    return F.pad(triangles(points, corners), (0, 0, 0, 1))


ROUNDS = 60
"""Rounds in which phases are estimated."""
MOMENTUM = 0.99
"""How far each round moves on in the direction of the last one, as a share of it."""


def griffin_lim(magnitudes: Float[Tensor, "bins frames"], window: Float[Tensor, "w"], hop: int, length: int) -> Clip:
    """A clip of `length` samples whose windows, one every `hop` samples, have about these magnitudes.

    The first phases are drawn from torch's generator. Each round computes the sound of the present phases, and takes
    the phases of that sound's spectrogram, minus a share of the last round's spectrogram. Equal to
    `torchaudio.functional.griffinlim` with `rand_init`.
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
