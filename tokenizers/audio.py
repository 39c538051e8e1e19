"""Sound: the log-mel spectrogram, cut along time into slices (or into overlapping 2-D patches, as AST does), becomes tokens."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import Pieces
from ..models.positions import AbsolutePosition, Learned
from .augmentation import SpectrogramAugmentation
from .chopper import Chopper, Piece

Clip = Float[Tensor, "_samples"]
RANGE = 7.0
"""Natural logarithms of energy (7: 30 dB) that a clip's spectrogram spans where clips are normalised by themselves."""
FLOOR = 1e-6
"""Added to mel energies before the logarithm."""


@dataclass(frozen=True, kw_only=True)
class WaveAugmentation:
    """How a clip is changed at random while training: moved by up to `shift` seconds (silence comes in), played faster or
    slower by up to `speed` (0.1: 0.9 to 1.1 times), louder or softer by up to `gain` dB, with white noise at a
    signal-to-noise ratio drawn from `noise` [lowest, highest] dB."""

    shift: float = 0.0
    speed: float = 0.0
    gain: float = 0.0
    noise: tuple[float, float] | None = None

    def __call__(self, clip: Clip, rate: int, random: np.random.Generator) -> Clip:
        if self.speed:
            factor = 1 + random.uniform(-self.speed, self.speed)
            length = max(1, round(len(clip) / factor))
            clip = F.interpolate(clip[None, None], size=length, mode="linear", align_corners=False)[0, 0]
        if self.shift:
            places = round(random.uniform(-self.shift, self.shift) * rate)
            clip = (
                torch.roll(F.pad(clip, (0, abs(places))), places)[: len(clip)]
                if places > 0
                else F.pad(clip[-places:], (0, -places))[: len(clip)]
            )
        if self.gain:
            clip = clip * 10 ** (random.uniform(-self.gain, self.gain) / 20)
        if self.noise:
            level = float(clip.square().mean().sqrt()) * 10 ** (-random.uniform(*self.noise) / 20)
            clip = clip + torch.from_numpy(random.standard_normal(len(clip), dtype=np.float32)) * level
        return clip


@dataclass(frozen=True, kw_only=True)
class AudioChopper(Chopper):
    """A sound to slices of `frames` log-mel frames. `rate` in hertz, `hop` and `window` in seconds.

    Sounds of another rate are resampled, several channels averaged. `longest` (seconds) cuts what is longer. `normalize`:
    log-mel energies less their mean, over their deviation, both learned from the training `data`, or each `clip`'s own
    (which forgets how loud a clip is and how its microphone colours it; a clip must then be known to its end).
    """

    axes: ClassVar[tuple[str, ...]] = ("seconds",)
    rate: int = 16_000
    mels: int = 40
    frames: int = 4
    hop: float = 0.010
    window: float = 0.025
    longest: float = 30.0
    normalize: Literal["data", "clip"] = "data"
    augment_wave: WaveAugmentation | None = None
    fitted: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        for name in ("rate", "mels", "frames", "hop", "window", "longest"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return round(self.rate * self.hop)

    @property
    def window_samples(self) -> int:
        """Samples of one frame."""
        return round(self.rate * self.window)

    def decode(self, raw: Any) -> Clip:
        """A path, a file's bytes (wav, flac, ogg, mp3), or (samples, rate) with samples (t,) or (t, channels)."""
        if isinstance(raw, Tensor):
            return raw
        samples, rate = raw if isinstance(raw, tuple) else self._read(raw)
        clip = torch.from_numpy(np.asarray(samples, dtype=np.float32))
        clip = clip if clip.dim() == 1 else clip.mean(dim=1)
        if not len(clip):
            raise ValueError("the sound has no samples")
        if not torch.isfinite(clip).all():
            raise ValueError(f"the sound has {int((~torch.isfinite(clip)).sum())} samples that are no numbers")
        return resampled(clip, rate, self.rate)[: round(self.longest * self.rate)]

    def _read(self, raw: bytes | str | os.PathLike) -> tuple[np.ndarray, int]:
        import soundfile

        try:
            return soundfile.read(io.BytesIO(raw) if isinstance(raw, bytes) else raw, dtype="float32")
        except (soundfile.SoundFileError, OSError, TypeError) as error:
            raise ValueError(f"the sound cannot be read: {error}") from error

    def augment(self, item: Clip, random: np.random.Generator) -> Clip:
        return item if self.augment_wave is None else self.augment_wave(item, self.rate, random)

    def fit(self, items: Callable[[], Iterable]) -> AudioChopper:
        """Mean and deviation of the log-mel energies over (at most 500 of) the training sounds."""
        mel, total = LogMel(self), torch.zeros(3, dtype=torch.float64)
        for number, raw in enumerate(items()):
            if number == 500:
                break
            values = mel(self.chop(self.decode(raw)).values).double()
            total += torch.stack([values.sum(), values.square().sum(), torch.tensor(float(values.numel()))])
        if not total[2]:
            raise ValueError("there is no sound to learn the mean of the spectrogram from")
        mean = total[0] / total[2]
        return replace(self, fitted=(float(mean), float((total[1] / total[2] - mean**2).clamp(min=1e-12).sqrt())))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spectrogram.json").write_text(json.dumps({"mean": self.fitted[0], "deviation": self.fitted[1]}))

    def load(self, folder: Path) -> AudioChopper:
        known = json.loads((folder / "spectrogram.json").read_text())
        return replace(self, fitted=(known["mean"], known["deviation"]))

    def count(self, item: Clip) -> int:
        return math.ceil((len(item) // self.hop_samples + 1) / self.frames)

    def chop(self, item: Clip) -> Piece:
        """Windows (f, samples) that become frames: centred on every hop, silence beyond the ends, whole slices."""
        count, hop, window = self.count(item), self.hop_samples, self.window_samples
        whole = (count * self.frames - 1) * hop + window
        before = window // 2
        padded = F.pad(item, (before, max(0, whole - before - len(item))))[:whole]
        seconds = torch.arange(count, dtype=torch.float32)[:, None] * self.frames * self.hop
        return Piece(padded.unfold(0, window, hop), count, seconds)

    def draw(self, canvas: Any, item: Clip) -> None:
        """The log-mel spectrogram over the seconds, cut into slices."""
        piece = self.chop(item)
        step = self.frames * self.hop
        canvas.imshow(LogMel(self)(piece.values).T.numpy(), origin="lower", aspect="auto", cmap="magma",
                      extent=(0, piece.count * step, 0, self.mels))  # fmt: skip
        for slice in range(piece.count + 1):
            canvas.axvline(slice * step, color="white", linewidth=0.7)
        canvas.set(xlabel="seconds", ylabel="mel channel")


def resampled(clip: Clip, rate: int, wanted: int) -> Clip:
    """The clip at another rate, in hertz, by torchaudio's windowed sinc."""
    return clip if rate == wanted else functional().resample(clip, int(rate), wanted)


def functional():
    """torchaudio.functional. Raises ValueError where torchaudio does not load beside this torch."""
    try:
        import torchaudio.functional
    except (ImportError, OSError) as error:
        raise ValueError(
            f"sound needs torchaudio, which does not load beside torch {torch.__version__}: {error}"
        ) from error
    return torchaudio.functional


class LogMel(nn.Module):
    """Windows of samples to natural logarithms of mel energies (HTK scale, power 2, periodic Hann window)."""

    def __init__(self, chopper: AudioChopper):
        super().__init__()
        window = chopper.window_samples
        self.size = 2 ** math.ceil(math.log2(window))
        banks = functional().melscale_fbanks(self.size // 2 + 1, 0.0, chopper.rate / 2, chopper.mels, chopper.rate)
        self.register_buffer("banks", banks, persistent=False)
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def forward(self, windows: Float[Tensor, "f samples"]) -> Float[Tensor, "f mels"]:
        with torch.autocast(windows.device.type, enabled=False):
            spectrum = torch.fft.rfft(windows.float() * self.window, n=self.size)
            return ((spectrum.real.square() + spectrum.imag.square()) @ self.banks + FLOOR).log()


def normalized(spectrogram: Float[Tensor, "f mels"], lengths: list[int]) -> Float[Tensor, "f mels"]:
    """Every clip's channels less their own mean over time, over the deviation of the whole clip.

    First, what is more than `RANGE` below the clip's loudest value is lifted to there: the noise between the words of one
    microphone tells nothing of another.
    """
    device = spectrogram.device
    length = torch.tensor(lengths, device=device)
    clip = torch.repeat_interleave(torch.arange(len(lengths), device=device), length, output_size=len(spectrogram))
    silence = spectrogram.new_full((len(lengths),), -torch.inf)
    loudest = silence.scatter_reduce(0, clip, spectrogram.amax(1), "amax")
    spectrogram = torch.maximum(spectrogram, (loudest - RANGE)[clip, None])
    zeros = spectrogram.new_zeros(len(lengths), spectrogram.shape[1])
    spectrogram = spectrogram - (zeros.index_add(0, clip, spectrogram) / length[:, None])[clip]
    power = zeros.index_add(0, clip, spectrogram.square()).mean(1) / length
    return spectrogram / (power + 1e-3).sqrt()[clip, None]


class AudioTokenizer(nn.Module):
    """Mel slices to vectors: one linear map, plus an absolute position where `position` is not null.

    `augment` hides stripes of the spectrogram while training (SpecAugment), on the device.
    """

    Chopper = AudioChopper

    def __init__(
        self, chopper: AudioChopper, width: int, context: int, *,
        position: Callable[..., AbsolutePosition] | None = Learned,
        augment: Callable[[], SpectrogramAugmentation] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.frames, (self.mean, self.deviation) = chopper.frames, chopper.fitted
        self.per_clip = chopper.normalize == "clip"
        self.mel = LogMel(chopper)
        self.augment = augment() if augment else None
        self.embedding = nn.Linear(chopper.mels * chopper.frames, width)
        self.position = position(width, context) if position else None

    def forward(self, pieces: Pieces) -> Float[Tensor, "t d"]:
        spectrogram, lengths = self.mel(pieces.values), [count * self.frames for count in pieces.counts]
        spectrogram = normalized(spectrogram, lengths) if self.per_clip else (spectrogram - self.mean) / self.deviation
        if self.augment is not None and self.training:
            spectrogram = self.augment(spectrogram, lengths)
        tokens = self.embedding(rearrange(spectrogram, "(t k) m -> t (k m)", k=self.frames))
        return tokens if self.position is None else tokens + self.position(pieces.index)
