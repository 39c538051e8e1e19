"""Sound as tokens: the log-mel spectrogram of a sound is cut along time into slices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import Chunks
from ..models.layers.positions import AbsolutePosition, Learned
from ..models.seeding import seed_torch
from .base import Chunk, Example
from .media.augmentation import SpectrogramAugmentation
from .media.sound import Clip
from .media.spectrogram import SpectrogramChopper, SpectrogramEmbedder, draw_spectrogram, griffin_lim, mel_banks

FLOOR = 1e-6
"""This value is added to mel energies before the logarithm."""


@dataclass(frozen=True, kw_only=True)
class AudioChopper(SpectrogramChopper):
    """Cuts a sound into slices of `frames` log-mel frames. Each slice becomes one token. Sounds with another sampling
    rate than `rate` are resampled, and the channels of a sound are averaged.

    The coordinate of a token is the time of the last sample that the token depends on. One second with default options:

        values       (104, 400)                                 frames, samples per window
        count        26                                         tokens of 4 frames
        coordinates  0.0424  0.0824  0.1224  ...  1.0424        seconds
    """

    axes: ClassVar[tuple[str, ...]] = ("seconds",)
    frames: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, not {self.frames}")

    def spectrum(self) -> LogMel:
        return LogMel(self)

    def count(self, item: Clip) -> int:
        return math.ceil((len(item) // self.hop_samples + 1) / self.frames)

    def chop(self, item: Clip) -> Chunk:
        """Returns one window of samples per frame (f, samples), centred on a multiple of the hop. The sound is padded
        with zeros at both ends. f is a multiple of `frames`."""
        count, hop, window = self.count(item), self.hop_samples, self.window_samples
        length = (count * self.frames - 1) * hop + window
        half = window // 2
        padded = F.pad(item, (half, max(0, length - half - len(item))))[:length]
        last = (torch.arange(1, count + 1, dtype=torch.float32)[:, None] * self.frames - 1) * hop - half + window - 1
        return Chunk(padded.unfold(0, window, hop), count, last / self.rate)

    @property
    def slice_shape(self) -> tuple[int, int]:
        if not self.fill:
            raise ValueError("reconstruction of sounds needs 'fill: true', which pads them to the length 'longest'")
        return self.count(torch.zeros(round(self.longest * self.rate))), self.mels * self.frames

    def slices(self, chunks: Chunks) -> Float[Tensor, "t p"]:
        """Returns the log-mel frames of each token, normalised by the mean and std of the training data and divided by
        2. Most values are therefore between -1 and 1."""
        mean, std = self.statistics or (0.0, 1.0)
        frames = (self.spectrum()(chunks.values) - mean) / std / 2
        return rearrange(frames, "(t k) m -> t (k m)", k=self.frames)

    def joined(self, slices: Float[Tensor, "t p"]) -> Clip:
        """Returns a clip with approximately these log-mel frames. The phases of the clip are estimated (Griffin & Lim
        1984)."""
        mean, std = self.statistics or (0.0, 1.0)
        frames = rearrange(slices.float(), "t (k m) -> (t k) m", k=self.frames) * 2 * std + mean
        return self.spectrum().inverse(frames, self.hop_samples, round(self.longest * self.rate))

    def draw(self, canvas: Any, item: Clip) -> None:
        """Draws the log-mel spectrogram over time, and the cuts between slices."""
        chunk = self.chop(item)
        step = self.frames * self.hop
        draw_spectrogram(canvas, self.spectrum()(chunk.values), chunk.count * step)
        for cut in range(chunk.count + 1):
            canvas.axvline(cut * step, color="white", linewidth=0.7)


class LogMel(nn.Module):
    """Maps windows of samples to natural logarithms of mel energies (HTK scale, power 2, periodic Hann window)."""

    def __init__(self, chopper: AudioChopper):
        super().__init__()
        window = chopper.window_samples
        self.size = 2 ** math.ceil(math.log2(window))
        self.register_buffer("banks", mel_banks(self.size // 2 + 1, chopper.mels, chopper.rate), persistent=False)
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def inverse(self, frames: Float[Tensor, "f mels"], hop: int, length: int) -> Clip:
        """Returns a clip of `length` samples that has approximately these log-mel frames, one frame every `hop`
        samples. The largest absolute value of the clip is 0.9."""
        with torch.autocast(frames.device.type, enabled=False):
            energies = (frames.float().exp() - FLOOR).clamp(min=0) @ torch.linalg.pinv(self.banks)
        magnitudes = energies.clamp(min=0).sqrt()[: length // hop + 1].T
        with torch.random.fork_rng(devices=[]):
            seed_torch(0, frames.device)  # the initial phases are random
            clip = griffin_lim(magnitudes, self.window, hop, length)
        return clip / clip.abs().max().clamp(min=1e-6) * 0.9

    def forward(self, windows: Float[Tensor, "f samples"]) -> Float[Tensor, "f mels"]:
        with torch.autocast(windows.device.type, enabled=False):
            spectrum = torch.fft.rfft(windows.float() * self.window, n=self.size)
            return ((spectrum.real.square() + spectrum.imag.square()) @ self.banks + FLOOR).log()


class AudioTokenizer(SpectrogramEmbedder):
    """Maps mel slices to vectors: one linear layer, plus an absolute position. `position`: the absolute position that
    is added to the vector of each token; null: none.

    During training `augment` masks stripes of the spectrogram at random (SpecAugment), on the device.
    """

    Chopper = AudioChopper

    def __init__(
        self, chopper: AudioChopper, width: int, context: int, *,
        position: Callable[..., AbsolutePosition] | None = Learned,
        augment: Callable[[], SpectrogramAugmentation] | None = None,
    ):  # fmt: skip
        super().__init__(chopper, augment)
        self.frames = chopper.frames
        self.embedding = nn.Linear(chopper.mels * chopper.frames, width)
        self.position = position(width, context) if position else None

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        spectrogram = self.spectrogram(chunks, chunks.counts * self.frames)
        tokens = self.embedding(rearrange(spectrogram, "(t k) m -> t (k m)", k=self.frames))
        return tokens if self.position is None else tokens + self.position.of(chunks)


EXAMPLE = Example(
    options={"rate": 8000, "mels": 8, "frames": 4, "statistics": [-5, 3]},
    items=lambda: [(np.sin(np.arange(800) ** power).astype(np.float32) / 9, 8000) for power in (1.3, 1.2)],
)
