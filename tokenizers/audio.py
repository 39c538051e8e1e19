"""Sound: the log-mel spectrogram, cut along time into slices, becomes tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import Pieces
from .chopper import Chopper, Piece


@dataclass(frozen=True, kw_only=True)
class AudioChopper(Chopper):
    """A mono clip (samples,) to slices of `frames` log-mel frames. `rate` in hertz, `hop` and `window` in seconds."""

    axes: ClassVar[tuple[str, ...]] = ("seconds",)
    rate: int = 16_000
    mels: int = 40
    frames: int = 4
    hop: float = 0.010
    window: float = 0.025

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return round(self.rate * self.hop)

    def count(self, item: Float[Tensor, "samples"]) -> int:
        return -(-(len(item) // self.hop_samples + 1) // self.frames)

    def chop(self, item: Float[Tensor, "samples"]) -> Piece:
        slices = F.pad(self.spectrogram(item), (0, -(len(item) // self.hop_samples + 1) % self.frames))
        values = rearrange(slices, "f (t k) -> t (f k)", k=self.frames)
        return Piece(values, torch.arange(len(values), dtype=torch.float32)[:, None] * self.frames * self.hop)

    def spectrogram(self, item: Float[Tensor, "samples"]) -> Float[Tensor, "f t"]:
        """Natural logarithm of the mel energies, one column per `hop`."""
        try:
            from torchaudio.transforms import MelSpectrogram
        except (ImportError, OSError) as error:
            raise ValueError(
                f"sound needs torchaudio, which does not load beside torch {torch.__version__}: {error}"
            ) from error
        window = round(self.rate * self.window)
        mel = MelSpectrogram(self.rate, n_fft=window, win_length=window, hop_length=self.hop_samples, n_mels=self.mels)
        return (mel(item) + 1e-6).log()


class AudioTokenizer(nn.Module):
    """Mel slices to vectors: one linear map, plus a learned embedding of the slice's number in its clip."""

    Chopper = AudioChopper

    def __init__(self, chopper: AudioChopper, width: int, context: int):
        super().__init__()
        self.embedding = nn.Linear(chopper.mels * chopper.frames, width)
        self.position = nn.Embedding(context, width)

    def forward(self, pieces: Pieces) -> Float[Tensor, "t d"]:
        return self.embedding(pieces.values) + self.position(pieces.index)
