"""What the tokenizers of log-mel spectrograms share: normalising by the mean and the std of the training data, or by
each clip's own, augmentation, and drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from ...files.records import Record, read_record
from ...files.writing import write_json
from ...models.batch import Chunks
from ..base import Role, readable
from .augmentation import SpectrogramAugmentation
from .sound import SoundChopper

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
