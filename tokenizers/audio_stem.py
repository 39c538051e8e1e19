"""Sound as Whisper reads it: a log-mel spectrogram through two convolutions, one token for every two frames.

Source: Radford et al. 2022 (arXiv:2212.04356) and OpenAI's code (github.com/openai/whisper).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import Chunks
from ..models.layers.positions import AbsolutePosition, SinesThenCosines
from .base import Chunk
from .media.sound import Clip, SoundChopper
from .media.spectrogram import draw_spectrogram, mel_banks

FLOOR = 1e-10
"""The least mel energy: smaller ones are raised to it before the logarithm."""
RANGE = 8.0
"""Powers of ten below a spectrogram's loudest value to which smaller values are raised."""


@dataclass(frozen=True, kw_only=True)
class AudioStemChopper(SoundChopper):
    """A sound to a log-mel spectrogram, (mels, frames), of which every two frames become a token.

    `fill`: silence is added up to this many seconds (30, as Whisper was trained; at least `longest`); null: a clip
    keeps its length. The spectrogram is Whisper's: Slaney's mel scale, logarithms to base 10, none more than `RANGE`
    below the loudest. With the default options every clip gives values (1, 80, 3000), count 1500, and the coordinates
    0.02, 0.04, ..., 30.0 seconds.
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
        """The frames of a clip of `samples` samples, once it is filled up; one at least."""
        filled = samples if self.fill is None else max(samples, round(self.fill * self.rate))
        return max(filled // self.hop_samples, 1)

    def count(self, item: Clip) -> int:
        return (self.frames_of(len(item)) + 1) // 2

    def chop(self, item: Clip) -> Chunk:
        """The spectrogram (1, mels, frames)."""
        frames, count = self.frames_of(len(item)), self.count(item)
        filled = F.pad(item, (0, max(0, frames * self.hop_samples - len(item))))
        return Chunk(self.spectrogram(filled)[None, :, :frames], count, self.seconds(count))

    def seconds(self, count: int) -> Float[Tensor, "t 1"]:
        """The time at which each token's second frame ends."""
        return torch.arange(1, count + 1, dtype=torch.float32)[:, None] * 2 * self.hop

    def spectrogram(self, clip: Clip) -> Float[Tensor, "mels frames"]:
        """The log-mel spectrogram of a whole clip, normalised as Whisper's: (logarithm + 4) / 4."""
        window = self.window_samples
        if len(clip) <= window // 2:  # the edges are mirrored, which takes that many samples
            clip = F.pad(clip, (0, window // 2 + 1 - len(clip)))
        spectrum = torch.stft(clip, window, self.hop_samples, window=torch.hann_window(window), return_complex=True)
        power = spectrum[:, :-1].abs().square() if spectrum.shape[1] > 1 else spectrum.abs().square()
        logs = (self.banks.T @ power).clamp(min=FLOOR).log10()
        return (torch.maximum(logs, logs.max() - RANGE) + 4.0) / 4.0

    @cached_property
    def banks(self) -> Float[Tensor, "bins mels"]:
        """Slaney's mel filters, each of unit area."""
        return mel_banks(self.window_samples // 2 + 1, self.mels, self.rate, "slaney", equal_area=True)

    def collate(self, chunks: Sequence[Chunk]) -> Tensor:
        """Spectrograms as a stack (s, mels, frames); shorter ones are filled up with NaN, by which the embedder tells
        missing frames from sound."""
        longest = max(chunk.values.shape[-1] for chunk in chunks)
        parts = [F.pad(chunk.values, (0, longest - chunk.values.shape[-1]), value=torch.nan) for chunk in chunks]
        return torch.cat(parts)

    def draw(self, canvas: Any, item: Clip) -> None:
        """The log-mel spectrogram over the seconds."""
        values = self.chop(item).values[0]
        draw_spectrogram(canvas, values.T, values.shape[1] * self.hop)


class AudioStemTokenizer(nn.Module):
    """Spectrograms to vectors: two convolutions over three frames each, the second with stride 2, a GELU after each,
    and an absolute position where `position` is not null. A clip's vectors depend neither on other clips nor on the
    filling behind its end."""

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
        x = F.gelu(self.second(x.masked_fill(missing, 0)))  # behind its end a clip sees zeros, as it does alone
        clips, index = torch.arange(len(x), device=x.device), chunks.index
        clip = torch.repeat_interleave(clips, chunks.counts, output_size=len(index))
        tokens = rearrange(x, "s d t -> s t d")[clip, index]
        return tokens if self.position is None else tokens + self.position(index)
