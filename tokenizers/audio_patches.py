"""Sound as AST reads it: Kaldi's log-mel spectrogram, cut into overlapping square patches of time and frequency.

Source: Gong et al. 2021 (arXiv:2104.01778); transformers' `ASTFeatureExtractor` and `ASTModel`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..models.batch import Chunks
from ..models.layers.positions import GridPosition, LearnedGrid
from .base import Chunk, Role
from .media.augmentation import SpectrogramAugmentation
from .media.sound import Clip
from .media.spectrogram import LOWEST, SpectrogramChopper, SpectrogramEmbedder, draw_spectrogram, kaldi_banks


@dataclass(frozen=True, kw_only=True)
class AudioPatchesChopper(SpectrogramChopper):
    """A sound to patches of `patch_size` frames by as many mel channels, every `stride` frames and channels.

    `length` (frames) brings every sound to one length: longer ones are cut, shorter ones filled up with zeros after the
    logarithm, as AST does. Without it a sound has as many columns of patches as fit. Tokens come by row (from the
    lowest channels), then by column. One second with the default options, 98 frames:

        values       (96, 400)      frames that patches cover, samples of a window
        count        108            12 rows x 9 columns
        coordinates  (108, 2)       number of the row, seconds of the last sample: (0, 0.1749), (0, 0.2749), ...
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
            why = f"the first mel channel begins at {LOWEST:g} Hz"
            raise ValueError(f"rate must be more than {2 * LOWEST:g} Hz, not {self.rate}: {why}")
        if not 1 <= self.stride <= self.patch_size <= self.mels:
            most = f"patch_size ({self.patch_size}), and that at most mels ({self.mels})"
            raise ValueError(f"stride ({self.stride}) must be 1 to {most}")
        if self.length is not None and self.length < self.patch_size:
            raise ValueError(f"length ({self.length} frames) must hold one patch ({self.patch_size})")
        if self.length is not None and self.normalize == "clip":
            raise ValueError("normalize: clip needs clips of their own length; leave length out")

    def spectrum(self) -> KaldiMel:
        return KaldiMel(self)

    def fit(self, items: Callable[[], Iterable], role: Role) -> AudioPatchesChopper:
        fitted = super(AudioPatchesChopper, replace(self, length=None)).fit(items, role)  # of clips as long as they are
        return replace(self, statistics=fitted.statistics)

    @property
    def rows(self) -> int:
        """Patches over the mel channels."""
        return (self.mels - self.patch_size) // self.stride + 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows, and columns of patches of the longest sound."""
        frames = self.length or math.ceil(self.longest / self.hop)
        return self.rows, self.columns(frames)

    def columns(self, frames: int) -> int:
        """Columns of patches over `frames` frames; one at least."""
        return max(frames - self.patch_size, 0) // self.stride + 1

    def frames(self, item: Clip) -> int:
        """Whole frames of a sound, as Kaldi counts them (`snip_edges`)."""
        return max(len(item) - self.window_samples, 0) // self.hop_samples + 1

    def count(self, item: Clip) -> int:
        return self.rows * self.columns(self.length or self.frames(item))

    def chop(self, item: Clip) -> Chunk:
        """Windows (f, samples) of exactly the frames that patches cover. Windows behind the sound's end, up to
        `length`, are NaN: the spectrogram is 0 there, unlike that of silence."""
        count, window, hop = self.count(item), self.window_samples, self.hop_samples
        columns = count // self.rows
        frames = (columns - 1) * self.stride + self.patch_size
        heard = min(self.frames(item), frames) if self.length else frames
        samples = (heard - 1) * hop + window
        windows = F.pad(item, (0, max(0, samples - len(item))))[:samples].unfold(0, window, hop)
        if heard < frames:
            windows = torch.cat([windows, windows.new_full((frames - heard, window), torch.nan)])
        row, column = torch.arange(self.rows).float(), torch.arange(columns) * self.stride
        last = (column + self.patch_size - 1) * hop + window - 1
        return Chunk(windows, count, torch.cartesian_prod(row, last / self.rate))

    def draw(self, canvas: Any, item: Clip) -> None:
        """The spectrogram over the seconds, and where patches begin."""
        chunk = self.chop(item)
        draw_spectrogram(canvas, self.spectrum()(chunk.values), len(chunk.values) * self.hop)
        for column in range(chunk.count // self.rows):
            canvas.axvline(column * self.stride * self.hop, color="white", linewidth=0.5)
        for row in range(self.rows):
            canvas.axhline(row * self.stride, color="white", linewidth=0.5)


class KaldiMel(nn.Module):
    """Windows of samples to Kaldi's log-mel energies, as `torchaudio.compliance.kaldi.fbank` gives them with a Hann
    window and no dither: each window less its mean, pre-emphasis 0.97, power spectrum, Kaldi's mel banks from 20 Hz,
    natural logarithm. A window that begins with NaN gives zeros."""

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
    """Overlapping patches of the spectrogram to vectors: one linear map, plus a position in the grid where `position`
    is not null. The spectrogram is normalised as in AST: less its mean, over twice its std.

    `augment` hides stripes of the spectrogram while training (SpecAugment), on the device.
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
        self.rate, self.hop = chopper.rate, chopper.hop_samples
        self.end = (chopper.patch_size - 1) * chopper.hop_samples + chopper.window_samples - 1
        self.embedding = nn.Linear(chopper.patch_size**2, width)
        self.position = position(width, chopper.grid) if position else None

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        lengths = (chunks.counts // self.rows - 1) * self.stride + self.patch_size
        spectrogram = self.spectrogram(chunks, lengths)
        row, seconds = chunks.coordinates.unbind(-1)
        place = torch.stack([row, ((seconds * self.rate - self.end) / (self.stride * self.hop)).round()], dim=-1)
        patches = self.patches(spectrogram, lengths, place.long(), chunks.counts)
        tokens = self.embedding(patches.to(self.embedding.weight.dtype))
        return tokens if self.position is None else tokens + self.position(place)

    def patches(
        self, spectrogram: Float[Tensor, "f mels"], lengths: Int[Tensor, "s"], place: Int[Tensor, "t 2"],
        counts: Int[Tensor, "s"],
    ) -> Float[Tensor, "t p"]:  # fmt: skip
        """The patch of every token, cut out of its clip's frames by `place`, its row and column; p runs over channels,
        then time, as in AST. `lengths`: frames of each clip; `counts`: its tokens."""
        before = torch.repeat_interleave(lengths.cumsum(0) - lengths, counts, output_size=len(place))
        within = torch.arange(self.patch_size, device=place.device)
        mels = place[:, :1] * self.stride + within
        frames = before[:, None] + place[:, 1:] * self.stride + within
        return rearrange(spectrogram[frames[:, None, :], mels[:, :, None]], "t mel time -> t (mel time)")
