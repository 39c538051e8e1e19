"""Sound as tokens like in AST: Kaldi's log-mel spectrogram is cut into overlapping square patches of time and
frequency.

Source: Gong et al. 2021 (arXiv:2104.01778); transformers' `ASTFeatureExtractor` and `ASTModel`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..models.batch import Chunks
from ..models.layers.positions import GridPosition, LearnedGrid
from .base import Chunk, Example, Role
from .media.augmentation import SpectrogramAugmentation
from .media.sound import Clip
from .media.spectrogram import LOWEST, SpectrogramChopper, SpectrogramEmbedder, draw_spectrogram, kaldi_banks


@dataclass(frozen=True, kw_only=True)
class AudioPatchesChopper(SpectrogramChopper):
    """Cuts a spectrogram into patches of `patch_size` frames x `patch_size` mel channels. A patch begins every `stride`
    frames and every `stride` channels.

    `length` is the number of frames of every sound: longer sounds are cut, and shorter sounds are padded with zeros
    after the logarithm, like in AST. Without `length` the number of patch columns depends on the sound. Tokens are
    ordered by row (lowest channels first), then by column. One second with default options, 98 frames:

        values       (96, 400)      frames inside patches, samples per window
        count        108            12 rows x 9 columns
        coordinates  (108, 2)       (row number, seconds of the last sample): (0, 0.1749), (0, 0.2749), ...
    """

    axes: ClassVar[tuple[str, ...]] = ("mel", "seconds")
    mels: int = 128
    patch_size: int = 16
    stride: int = 10
    length: int | None = None
    longest: float = 10.24

    def __post_init__(self):
        super().__post_init__()
        if self.rate <= 2 * LOWEST:
            reason = f"the first mel channel begins at {LOWEST:g} Hz"
            raise ValueError(f"rate must be more than {2 * LOWEST:g} Hz, not {self.rate}: {reason}")
        if not 1 <= self.stride <= self.patch_size <= self.mels:
            sizes = f"not {self.stride}, {self.patch_size} and {self.mels}"
            raise ValueError(f"stride, patch_size and mels must satisfy 1 <= stride <= patch_size <= mels, {sizes}")
        if self.length is not None and self.length < self.patch_size:
            raise ValueError(f"length ({self.length} frames) must be at least patch_size ({self.patch_size})")
        if self.length is not None and self.normalize == "clip":
            raise ValueError("normalize: clip cannot be combined with length; remove length")

    def spectrum(self) -> KaldiMel:
        return KaldiMel(self)

    def fit(self, items: Callable[[], Iterable], role: Role) -> AudioPatchesChopper:
        fitted = super(AudioPatchesChopper, replace(self, length=None)).fit(items, role)  # statistics without padding
        return replace(self, statistics=fitted.statistics)

    @property
    def rows(self) -> int:
        """The number of rows of patches, along the mel channels."""
        return (self.mels - self.patch_size) // self.stride + 1

    @property
    def grid(self) -> tuple[int, int]:
        """The numbers of rows and columns of patches for a sound of `length` frames, or without `length` of `longest`
        seconds."""
        frames = self.length or math.ceil(self.longest / self.hop)
        return self.rows, self.columns(frames)

    def columns(self, frames: int) -> int:
        """Returns the number of columns of patches in `frames` frames, at least 1."""
        return max(frames - self.patch_size, 0) // self.stride + 1

    def frames(self, item: Clip) -> int:
        """Returns the number of frames that fit completely inside a sound (Kaldi's option `snip_edges`), at least 1."""
        return max(len(item) - self.window_samples, 0) // self.hop_samples + 1

    def count(self, item: Clip) -> int:
        return self.rows * self.columns(self.length or self.frames(item))

    def chop(self, item: Clip) -> Chunk:
        """Returns the windows (f, samples) of those frames that are inside a patch. With `length`, windows after the
        end of the sound are NaN. The spectrogram of such a window is 0, which differs from the spectrogram of
        silence."""
        count, window, hop = self.count(item), self.window_samples, self.hop_samples
        columns = count // self.rows
        frames = (columns - 1) * self.stride + self.patch_size
        sounding = min(self.frames(item), frames) if self.length else frames
        samples = (sounding - 1) * hop + window
        windows = F.pad(item, (0, max(0, samples - len(item))))[:samples].unfold(0, window, hop)
        if sounding < frames:
            windows = torch.cat([windows, windows.new_full((frames - sounding, window), torch.nan)])
        row, column = torch.arange(self.rows).float(), torch.arange(columns) * self.stride
        last = (column + self.patch_size - 1) * hop + window - 1
        return Chunk(windows, count, torch.cartesian_prod(row, last / self.rate))

    def draw(self, canvas: Any, item: Clip) -> None:
        """Draws the spectrogram over time, and lines where patches begin."""
        chunk = self.chop(item)
        draw_spectrogram(canvas, self.spectrum()(chunk.values), len(chunk.values) * self.hop)
        for column in range(chunk.count // self.rows):
            canvas.axvline(column * self.stride * self.hop, color="white", linewidth=0.5)
        for row in range(self.rows):
            canvas.axhline(row * self.stride, color="white", linewidth=0.5)


class KaldiMel(nn.Module):
    """Maps windows of samples to Kaldi's log-mel energies, like `torchaudio.compliance.kaldi.fbank` with a Hann window
    and without dither. The steps are: subtract the mean of each window, pre-emphasis of 0.97, power spectrum, Kaldi's
    mel banks from 20 Hz, natural logarithm. Returns zeros for a window that begins with NaN."""

    def __init__(self, chopper: AudioPatchesChopper):
        super().__init__()
        window = chopper.window_samples
        self.size = 2 ** math.ceil(math.log2(window))
        self.register_buffer("banks", kaldi_banks(self.size, chopper.mels, chopper.rate), persistent=False)
        self.register_buffer("window", torch.hann_window(window, periodic=False), persistent=False)

    def forward(self, windows: Float[Tensor, "f samples"]) -> Float[Tensor, "f mels"]:
        with torch.autocast(windows.device.type, enabled=False):
            missing = windows[:, :1].isnan()
            windows = windows.to(self.window.dtype).masked_fill(missing, 0)
            windows = windows - windows.mean(dim=1, keepdim=True)
            windows = windows - 0.97 * torch.cat([windows[:, :1], windows[:, :-1]], dim=1)
            spectrum = torch.fft.rfft(windows * self.window, n=self.size)
            energy = (spectrum.real.square() + spectrum.imag.square()) @ self.banks
            return energy.clamp(min=torch.finfo(torch.float32).eps).log().masked_fill(missing, 0)


class AudioPatchesTokenizer(SpectrogramEmbedder):
    """Maps overlapping patches of the spectrogram to vectors: one linear layer, plus an absolute position in the grid.
    `position`: the absolute position that is added to the vector of each token; null: none. The spectrogram is
    normalised like in AST: the mean is subtracted, then the result is divided by twice the std.

    During training `augment` masks stripes of the spectrogram at random (SpecAugment), on the device.
    """

    Chopper = AudioPatchesChopper

    def __init__(
        self, chopper: AudioPatchesChopper, width: int, context: int, *,
        position: Callable[..., GridPosition] | None = LearnedGrid,
        augment: Callable[[], SpectrogramAugmentation] | None = None,
    ):  # fmt: skip
        super().__init__(chopper, augment)
        self.std *= 2
        self.patch_size, self.stride, self.rows = chopper.patch_size, chopper.stride, chopper.rows
        self.embedding = nn.Linear(chopper.patch_size**2, width)
        self.position = position(width, chopper.grid) if position else None

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        lengths = (chunks.counts // self.rows - 1) * self.stride + self.patch_size
        spectrogram = self.spectrogram(chunks, lengths)
        columns = torch.repeat_interleave(chunks.counts // self.rows, chunks.counts, output_size=len(chunks.index))
        cell = torch.stack([chunks.index // columns, chunks.index % columns], dim=-1)  # not the times: `offset`
        patches = self.patches(spectrogram, lengths, cell, chunks.counts)
        tokens = self.embedding(patches.to(self.embedding.weight.dtype))
        return tokens if self.position is None else tokens + self.position(cell.float())

    def patches(
        self, spectrogram: Float[Tensor, "f mels"], lengths: Int[Tensor, "s"], cell: Int[Tensor, "t 2"],
        counts: Int[Tensor, "s"],
    ) -> Float[Tensor, "t p"]:  # fmt: skip
        """Returns the patch of every token, cut out of the frames of its clip. `cell` holds the row and column of each
        token, `lengths` the number of frames per clip, and `counts` the number of tokens per clip. Dimension p is
        ordered by channel, then by time, like in AST."""
        first = torch.repeat_interleave(lengths.cumsum(0) - lengths, counts, output_size=len(cell))
        within = torch.arange(self.patch_size, device=cell.device)
        mels = cell[:, :1] * self.stride + within
        frames = first[:, None] + cell[:, 1:] * self.stride + within
        return rearrange(spectrogram[frames[:, None, :], mels[:, :, None]], "t mel time -> t (mel time)")


EXAMPLE = Example(
    options={"rate": 8000, "mels": 16, "patch_size": 8, "stride": 8, "statistics": [-5, 3]},
    items=lambda: [(np.sin(np.arange(800) ** power).astype(np.float32) / 9, 8000) for power in (1.3, 1.2)],
)
