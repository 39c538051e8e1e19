"""Sound as in Whisper: two convolutions over a log-mel spectrogram, one token for every two frames.

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
from .media.sound import Clip, SoundChopper
from .media.spectrogram import draw_spectrogram, mel_banks

FLOOR = 1e-10
"""The minimum mel energy: smaller values are clamped to it before the logarithm."""
RANGE = 8.0
"""The dynamic range of a spectrogram, in powers of ten below its maximum: smaller values are clamped."""


@dataclass(frozen=True, kw_only=True)
class AudioStemChopper(SoundChopper):
    """Converts a sound to a log-mel spectrogram (mels, frames); every two frames become one token.

    `fill`: clips are padded with silence to this many seconds (30, as in the training of Whisper; at least `longest`);
    null: no padding. The spectrogram is Whisper's: Slaney's mel scale, logarithms to base 10, clamped to `RANGE` below
    the maximum. With the default options every clip has values (1, 80, 3000), count 1500, and the coordinates 0.02,
    0.04, ..., 30.0 seconds.
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
        """The number of frames, after padding, of a clip of `samples` samples; at least 1."""
        padded = samples if self.fill is None else max(samples, round(self.fill * self.rate))
        return max(padded // self.hop_samples, 1)

    def count(self, item: Clip) -> int:
        return (self.frames_of(len(item)) + 1) // 2

    def chop(self, item: Clip) -> Chunk:
        """Returns the spectrogram (1, mels, frames)."""
        frames, count = self.frames_of(len(item)), self.count(item)
        padded = F.pad(item, (0, max(0, frames * self.hop_samples - len(item))))
        return Chunk(self.spectrogram(padded)[None, :, :frames], count, self.seconds(count))

    def seconds(self, count: int) -> Float[Tensor, "t 1"]:
        """The time at which each token's second frame ends."""
        return torch.arange(1, count + 1, dtype=torch.float32)[:, None] * 2 * self.hop

    def spectrogram(self, clip: Clip) -> Float[Tensor, "mels frames"]:
        """The log-mel spectrogram of a complete clip, normalised as in Whisper: (logarithm + 4) / 4."""
        window = self.window_samples
        if len(clip) <= window // 2:  # stft mirrors window // 2 samples at each end, so it needs more samples than that
            clip = F.pad(clip, (0, window // 2 + 1 - len(clip)))
        spectrum = torch.stft(clip, window, self.hop_samples, window=torch.hann_window(window), return_complex=True)
        power = spectrum[:, :-1].abs().square() if spectrum.shape[1] > 1 else spectrum.abs().square()
        logs = (self.banks.T @ power).clamp(min=FLOOR).log10()
        return (torch.maximum(logs, logs.max() - RANGE) + 4.0) / 4.0

    @cached_property
    def banks(self) -> Float[Tensor, "bins mels"]:
        """Slaney's mel filters with unit area."""
        return mel_banks(self.window_samples // 2 + 1, self.mels, self.rate, "slaney", equal_area=True)

    def collate(self, chunks: Sequence[Chunk]) -> Tensor:
        """Returns the spectrograms as one tensor (s, mels, frames). Shorter ones are padded with NaN, which marks
        missing frames for the embedder."""
        longest = max(chunk.values.shape[-1] for chunk in chunks)
        parts = [F.pad(chunk.values, (0, longest - chunk.values.shape[-1]), value=torch.nan) for chunk in chunks]
        return torch.cat(parts)

    def draw(self, canvas: Any, item: Clip) -> None:
        """Draw the log-mel spectrogram over time."""
        values = self.chop(item).values[0]
        draw_spectrogram(canvas, values.T, values.shape[1] * self.hop)


class AudioStemTokenizer(nn.Module):
    """Maps spectrograms to vectors: two convolutions with kernel size 3, the second with stride 2, a GELU after each,
    and an absolute position if `position` is not null. The vectors of a clip depend neither on other clips nor on the
    padding in `collate`."""

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
