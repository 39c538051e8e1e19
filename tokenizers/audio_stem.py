"""Sound as tokens like in Whisper: two convolutions over a log-mel spectrogram give one token for every two frames.

Source: Radford et al. 2022 (arXiv:2212.04356) and OpenAI's code (github.com/openai/whisper).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import Chunks
from ..models.layers.positions import AbsolutePosition, SinesThenCosines
from .base import Chunk, Example
from .media.simple_features import small_spectrogram
from .media.sound import Clip, SoundChopper
from .media.spectrogram import draw_spectrogram, mel_banks

FLOOR = 1e-10
"""The minimum mel energy. Smaller values are replaced by this value before the logarithm."""
RANGE = 8.0
"""The dynamic range of a spectrogram, as a power of ten. Values more than 8 (10 ** -8 in energy) below the maximum are
raised."""


@dataclass(frozen=True, kw_only=True)
class AudioStemChopper(SoundChopper):
    """Converts a sound to a log-mel spectrogram (mels, frames). Every two frames become one token.

    `fill` is the length in seconds to which clips are padded with silence. It must be at least `longest`; the default
    30 is the length in the training of Whisper; null: no padding. The spectrogram is computed like in Whisper, with
    Slaney's mel scale and logarithms to base 10. Values more than `RANGE` below the maximum are raised to that limit.
    With default options every clip has values (1, 80, 3000), count 1500, and the coordinates 0.02, 0.04, ..., 30.0
    seconds.
    """

    axes: ClassVar[tuple[str, ...]] = ("seconds",)
    mels: int = 80
    fill: float | None = 30.0

    def __post_init__(self):
        super().__post_init__()
        if self.fill is not None and self.fill < self.longest:
            raise ValueError(f"fill ({self.fill}) must be at least longest ({self.longest}), or null")

    @property
    def needs_whole(self) -> bool:
        return True

    def frames_of(self, samples: int) -> int:
        """Returns the number of frames, after padding, of a clip of `samples` samples, at least 1."""
        padded = samples if self.fill is None else max(samples, round(self.fill * self.rate))
        return max(padded // self.hop_samples, 1)

    def count(self, item: Clip) -> int:
        return (self.frames_of(len(item)) + 1) // 2

    def chop(self, item: Clip) -> Chunk:
        """Returns the spectrogram (1, mels, frames)."""
        frames, count = self.frames_of(len(item)), self.count(item)
        padded = F.pad(item, (0, max(0, frames * self.hop_samples - len(item))))
        return Chunk(self.spectrogram(padded)[None, :, :frames], count, self.seconds(count))

    def simple_features(self, item: Clip) -> np.ndarray:
        return small_spectrogram(self.spectrogram(item).T)

    def seconds(self, count: int) -> Float[Tensor, "t 1"]:
        """Returns the time in seconds at which the second frame of each token ends."""
        return torch.arange(1, count + 1, dtype=torch.float32)[:, None] * 2 * self.hop

    def spectrogram(self, clip: Clip) -> Float[Tensor, "mels frames"]:
        """Returns the log-mel spectrogram of a complete clip, normalised like in Whisper: (logarithm + 4) / 4."""
        window = self.window_samples
        if len(clip) <= window // 2:  # stft mirrors window // 2 samples at each end, so it needs more samples than that
            clip = F.pad(clip, (0, window // 2 + 1 - len(clip)))
        spectrum = torch.stft(clip, window, self.hop_samples, window=torch.hann_window(window), return_complex=True)
        power = spectrum[:, :-1].abs().square() if spectrum.shape[1] > 1 else spectrum.abs().square()
        logs = (self.banks.T @ power).clamp(min=FLOOR).log10()
        return (torch.maximum(logs, logs.max() - RANGE) + 4.0) / 4.0

    @cached_property
    def banks(self) -> Float[Tensor, "bins mels"]:
        """Slaney's mel filters; every filter has area 1."""
        return mel_banks(self.window_samples // 2 + 1, self.mels, self.rate, "slaney", equal_area=True)

    def collate(self, chunks: Sequence[Chunk]) -> Tensor:
        """Returns the spectrograms as one tensor (s, mels, frames). Spectrograms with fewer frames than the longest one
        are padded with NaN. The embedder treats NaN as a missing frame."""
        longest = max(chunk.values.shape[-1] for chunk in chunks)
        parts = [F.pad(chunk.values, (0, longest - chunk.values.shape[-1]), value=torch.nan) for chunk in chunks]
        return torch.cat(parts)

    def draw(self, canvas: Any, item: Clip) -> None:
        """Draws the log-mel spectrogram over time."""
        values = self.chop(item).values[0]
        draw_spectrogram(canvas, values.T, values.shape[1] * self.hop)


class AudioStemTokenizer(nn.Module):
    """Maps spectrograms to vectors with two convolutions of kernel size 3. The second convolution has stride 2. A GELU
    follows each convolution. An absolute position is added. `position`: the absolute position that is added to the
    vector of each token; null: none. The vectors of a clip depend neither on other clips nor on the padding in
    `collate`."""

    Chopper = AudioStemChopper

    def __init__(
        self, chopper: AudioStemChopper, width: int, context: int, *,
        position: Callable[..., AbsolutePosition] | None = SinesThenCosines,
    ):  # fmt: skip
        super().__init__()
        self.first = nn.Conv1d(chopper.mels, width, kernel_size=3, padding=1)
        self.second = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.position = position(width, context) if position else None

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        missing = chunks.values[:, :1].isnan()
        x = F.gelu(self.first(chunks.values.masked_fill(missing, 0)))
        x = F.gelu(self.second(x.masked_fill(missing, 0)))  # zeros after the end, as for a clip that is alone
        clips, index = torch.arange(len(x), device=x.device), chunks.index
        clip = torch.repeat_interleave(clips, chunks.counts, output_size=len(index))
        tokens = rearrange(x, "s d t -> s t d")[clip, index]
        return tokens if self.position is None else tokens + self.position(index)


EXAMPLE = Example(
    options={"rate": 8000, "mels": 8, "longest": 0.1, "fill": 0.1},
    items=lambda: [(np.sin(np.arange(800) ** power).astype(np.float32) / 9, 8000) for power in (1.3, 1.2)],
)
