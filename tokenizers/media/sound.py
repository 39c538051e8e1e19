"""Decoding, resampling, trimming and waveform augmentation, shared by all tokenizers of sound."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...files.reading import DataError, shown
from ..base import Chopper
from .files import BLOCK, RATE, SAMPLES, read_sound
from .summaries import sound_lengths
from .synthesizer import sound_bytes


@dataclass(frozen=True, kw_only=True)
class WaveAugmentation:
    """Random changes of a clip during training. `shift`: up to this many seconds earlier or later, filled with silence.
    `speed`: up to this share faster or slower (0.1: 0.9 to 1.1 times). `gain`: up to this many dB louder or softer.
    `noise`: white noise with a random signal-to-noise ratio between two numbers, [lowest, highest] dB; null: no noise.
    `colour`: a random smooth filter changes each part of the spectrum by up to this many dB, like another
    microphone."""

    shift: float = 0.0
    speed: float = 0.0
    gain: float = 0.0
    noise: tuple[float, float] | None = None
    colour: float = 0.0

    def __post_init__(self):
        if min(self.shift, self.gain, self.colour) < 0 or not 0 <= self.speed < 1:
            raise ValueError("augment_wave: shift, gain and colour must be 0 or more, speed at least 0 and below 1")
        if self.noise and self.noise[0] > self.noise[1]:
            raise ValueError(f"augment_wave: noise must be [lowest, highest] dB, not {list(self.noise)}")

    def __call__(self, clip: Clip, rate: int, random: np.random.Generator) -> Clip:
        if self.speed:
            factor = 1 + random.uniform(-self.speed, self.speed)
            length = max(1, round(len(clip) / factor))
            clip = F.interpolate(clip[None, None], size=length, mode="linear", align_corners=False)[0, 0]
        if self.shift:
            samples = round(random.uniform(-self.shift, self.shift) * rate)
            samples = max(-len(clip), min(samples, len(clip)))
            clip = F.pad(clip, (samples, -samples))  # a negative padding removes samples
        if self.gain:
            clip = clip * 10 ** (random.uniform(-self.gain, self.gain) / 20)
        if self.noise:
            level = float(clip.square().mean().sqrt()) * 10 ** (-random.uniform(*self.noise) / 20)
            clip = clip + torch.from_numpy(random.standard_normal(len(clip), dtype=np.float32)) * level
        return coloured(clip, random.uniform(-self.colour, self.colour, KNOTS)) if self.colour else clip


KNOTS = 8
"""The number of points of a random filter's curve, nearly equally spaced in mels and interpolated linearly."""


def coloured(clip: Clip, decibels: np.ndarray) -> Clip:
    """Applies a zero-phase filter to the clip. `decibels` are the gains of the filter from the lowest to the highest
    frequency."""
    spectrum = torch.fft.rfft(clip)
    # logarithmic: low frequencies take a larger part of the curve, as in mels
    points = np.log1p(np.linspace(0, 8, len(spectrum))) / math.log(9)
    gain = 10 ** (np.interp(points, np.linspace(0, 1, len(decibels)), decibels) / 20)
    return torch.fft.irfft(spectrum * torch.from_numpy(gain.astype(np.float32)), n=len(clip))


FILLED = 2**25
"""The largest number of samples to which clips are padded (`fill`)."""
LARGEST_OPTIONS = {"rate": 1_000_000, "mels": 4096, "hop": 10**6, "window": 10**6, "longest": 10**12}
"""The largest values of the options of a sound (hertz, channels, seconds). Larger values could overflow."""


@dataclass(frozen=True, kw_only=True)
class SoundChopper(Chopper):
    """Base of the choppers of sound. Sounds are decoded to mono clips at `rate` hertz. `hop`: seconds between two
    frames of the spectrogram. `window`: seconds of sound in each frame. `longest`: seconds after which longer clips are
    cut. `mels`: the number of channels of the spectrogram. `trim`: windows at both ends of a clip that are more than
    this many dB below the loudest window of the clip are removed (null: none); time 0 is then the start of the rest.
    `augment_wave`: in training, clips are changed at random before they are cut into frames (null: not). `fill`: clips
    shorter than `longest` are padded with silence to this length. `normalize`: the log-mel energies are
    normalised with mean and std of the training data (`data`) or of each clip (`clip`). `clip` removes the loudness and
    the colour of the microphone. With `trim` or `normalize: clip`, every token depends on the complete clip."""

    kind: ClassVar[str] = "sound"
    endings: ClassVar[tuple[str, ...]] = (".wav", ".mp3")
    rate: int = 16_000
    mels: int = 40
    hop: float = 0.010
    window: float = 0.025
    longest: float = 30.0
    trim: float | None = None
    augment_wave: WaveAugmentation | None = None
    normalize: Literal["data", "clip"] = "data"
    fill: bool = False

    def __post_init__(self):
        for name in ("rate", "mels", "hop", "window", "longest", "trim"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")
        for name, most in LARGEST_OPTIONS.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most:,}, not {getattr(self, name)}")
        if self.fill and self.longest * self.rate > FILLED:
            most = f"{FILLED:,} samples ({FILLED / self.rate:g} seconds)"
            raise ValueError(f"longest must be at most {most} with fill: true, not {self.longest:g}")
        if self.window_samples > 2**20:
            most = f"{2**20:,} samples ({2**20 / self.rate:g} seconds)"
            raise ValueError(f"window must be at most {most}, not {self.window}")
        for name, samples in (("hop", self.hop_samples), ("window", self.window_samples)):
            if samples < 1:
                least = f"one sample ({1 / self.rate:g} seconds)"
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")

    @property
    def needs_whole(self) -> bool:
        return self.normalize == "clip" or self.trim is not None

    @property
    def hop_samples(self) -> int:
        """The number of samples between two frames."""
        return round(self.rate * self.hop)

    @property
    def window_samples(self) -> int:
        """The number of samples of one frame."""
        return round(self.rate * self.window)

    def summary(self, raws: Sequence[Any]) -> str:
        return f"{sound_lengths(raws)}, resampled to {self.rate:,} Hz, {super().summary(raws)}"

    def decode(self, raw: Any) -> Clip:
        """Returns a mono clip (t,), from -1 to 1, at `rate` hertz. `raw` is a path, the bytes of a file, or (samples,
        rate) with samples (t,) or (t, channels), see `as_shares`. Files are wav, flac, ogg, opus or mp3, and also mp4,
        webm, aac or wma if ffmpeg is installed. Raises ValueError if the sound cannot be read, has no samples or has
        samples that are not finite, and like `resampled`."""
        if isinstance(raw, Tensor):
            return self.cut(raw)
        if not isinstance(raw, tuple | bytes | str | os.PathLike):
            kind = type(raw).__name__
            raise DataError(f"the sound cannot be read: it is {kind}; possible: a path, bytes or (samples, rate)")
        samples, rate = samples_and_rate(raw) if isinstance(raw, tuple) else read_sound(raw)
        clip = torch.from_numpy(samples)
        if not len(clip):
            raise ValueError("the sound has no samples")
        if invalid := sum(int((~torch.isfinite(part)).sum()) for part in clip.split(BLOCK)):
            raise ValueError(f"the sound has {invalid} samples that are not finite")
        clip = resampled(clip, rate, self.rate, late=not self.needs_whole)
        if self.trim is not None:
            clip = trimmed(clip, self.window_samples, self.trim)
        return self.cut(clip)

    def content(self, item: Clip, ending: str) -> bytes:
        return sound_bytes(item.numpy(), ending, self.rate)

    def cut(self, clip: Clip) -> Clip:
        """Returns the clip, cut to `longest` seconds. With `fill`, a shorter clip is padded with silence to this
        length."""
        most = round(self.longest * self.rate)
        if self.fill:
            return F.pad(clip[:most], (0, max(0, most - len(clip))))
        return clip[:most].clone() if len(clip) > most else clip  # a copy frees the memory of the rest

    def augment(self, item: Clip, random: np.random.Generator) -> Clip:
        return item if self.augment_wave is None else self.cut(self.augment_wave(item, self.rate, random))


def trimmed(clip: Clip, window: int, decibels: float) -> Clip:
    """Returns the clip without quiet windows at its start and end. The windows have `window` samples. A window is quiet
    if its energy is at least `decibels` dB below the energy of the loudest window. A constant clip is returned
    unchanged."""
    mean, missing = clip.mean(), -len(clip) % window
    parts = (F.pad(part - mean, (0, -len(part) % window)) for part in clip.split(max(BLOCK // window, 1) * window))
    energy = torch.cat([part.view(-1, window).square().sum(1) for part in parts])
    energy[-1] *= window / (window - missing)
    loud = (energy > energy.max() * 10 ** (-decibels / 10)).nonzero()
    return clip[loud[0] * window : (loud[-1] + 1) * window] if len(loud) else clip


def samples_and_rate(raw: tuple) -> tuple[Float[np.ndarray, "t"], int | float]:
    """Returns (samples, rate): the samples (t,) as float32, with integers scaled to -1 to 1 (see `as_shares`) and
    channels averaged; and the rate in hertz. Raises DataError unless `raw` is a pair of an array of real numbers, (t,)
    or (t, channels), and a rate from 1 to `RATE`."""
    expected = "the sound cannot be read: (samples, rate) must be numbers (t,) or (t, channels) and a rate in hertz"
    if len(raw) != 2 or isinstance(raw[1], bool) or not isinstance(raw[1], int | float | np.number):
        raise DataError(f"{expected}, not {shown(raw)}")
    samples, rate = np.asarray(raw[0]), raw[1]
    if samples.dtype.kind not in "iuf" or samples.ndim not in (1, 2) or not 1 <= rate <= RATE:
        raise DataError(f"{expected}, not {samples.dtype} of shape {samples.shape} at {shown(rate)} Hz")
    clip = torch.from_numpy(as_shares(samples))
    return (clip if clip.dim() == 1 else clip.mean(dim=1)).numpy(), rate


def as_shares(samples: np.ndarray) -> np.ndarray:
    """Returns samples as float32. Integers are scaled to -1 to 1 by the range of their type (uint8: (value - 128) /
    128). Floating-point numbers are not scaled."""
    if not np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = half if np.issubdtype(samples.dtype, np.unsignedinteger) else 0.0
    return ((samples.astype(np.float64) - middle) / half).astype(np.float32)


Clip = Float[Tensor, "_samples"]

ZEROS, ROLLOFF, LONG = 6, 0.99, 2**22
"""The number of zero crossings of the sinc on each side, the cutoff frequency as a share of half the lower rate (both
equal to torchaudio's), and the number of samples that are filtered at once."""


def resampled(clip: Clip, rate: int | float, new_rate: int, late: bool = False) -> Clip:
    """Returns the clip, resampled from `rate` to `new_rate`, both in hertz.

    An exact filter has rate * new_rate / gcd^2 numbers, which is gigabytes for 11,027 Hz. The ratio of the rates is
    therefore rounded to a fraction with a denominator of at most 512. For a new rate of 16,000 Hz the ratio is exact
    for the usual rates, has an error of 2.5 millionths for 11,027 Hz, and an error of at most 0.1 % if the ratio is
    near a simple fraction (16,016 Hz). The filter is symmetric and reads 0.4 ms of later samples at 16 kHz. With `late`
    the clip is delayed by this time, so no sample depends on later samples. Raises ValueError if `rate` is more than
    512 times `new_rate`, and like `in_blocks`.

    Equal to `torchaudio.functional.resample` at the rounded ratio.
    """
    if rate == new_rate:
        return clip
    if rate > 512 * new_rate:
        raise ValueError(f"a sound of {rate:,} Hz cannot be resampled to {new_rate:,} Hz; possible: up to 512 times it")
    ratio = Fraction(new_rate, int(rate)).limit_denominator(512)
    delay = math.ceil(ZEROS / (ROLLOFF * min(rate, new_rate)) * new_rate) + 1 if late else 0
    return in_blocks(clip, ratio.denominator, ratio.numerator, delay)


def in_blocks(clip: Clip, old: int, new: int, delay: int) -> Clip:
    """Returns `filtered(clip, old, new)`, delayed by `delay` samples at the new rate. A long clip is filtered in
    blocks, which needs less memory. Raises DataError if the result has more than `SAMPLES` samples."""
    if len(clip) * new // old > SAMPLES:
        ratio = f"at its new rate, {new} samples for every {old},"
        raise DataError(f"the sound cannot be read: {ratio} it has more than {SAMPLES:,} samples; cut it into parts")
    size = max(1, LONG // max(old, new)) * old
    if len(clip) <= size:
        return F.pad(resampled_clip := filtered(clip, old, new), (delay, 0))[: len(resampled_clip)]
    reach = (math.ceil(2 * ZEROS / min(old, new)) + 1) * old  # a multiple of `old`, larger than the filter's reach
    resampled_clip = clip.new_zeros(math.ceil(len(clip) * new / old))
    for start in range(0, len(clip), size):
        first, begin = max(start - reach, 0), start // old * new + delay
        part = filtered(clip[first : start + size + reach], old, new)
        part = part[(start - first) // old * new :][: size // old * new]
        destination = resampled_clip[begin : begin + len(part)]
        destination.copy_(part[: len(destination)])
    return resampled_clip


def filtered(clip: Clip, old: int, new: int) -> Clip:
    """Returns the clip with `new` samples for every `old` samples; the two numbers have no common divisor."""
    if old == new:
        return clip
    filters, reach = polyphase(old, new, clip.dtype)
    padded = F.pad(clip, (reach, reach + old))
    samples = F.conv1d(padded[None, None], filters, stride=old).transpose(1, 2).flatten()
    # float32 like in torchaudio: clips keep the lengths with which earlier runs were trained
    return samples[: math.ceil(np.float32(new * len(clip) / old))]


@lru_cache(maxsize=4)
def polyphase(old: int, new: int, dtype: torch.dtype) -> tuple[Float[Tensor, "new 1 taps"], int]:
    """Returns (filters, reach). `filters` are the filters of the `new` output samples per `old` input samples. Before
    these input samples the filters read `reach` more samples.

    Output sample j is at the time j / new, input sample k is at the time k / old. The times are multiplied by the
    cutoff frequency; then the zero crossings of the sinc are at 1, 2, ..., `ZEROS`.
    """
    cutoff = ROLLOFF * min(old, new)
    reach = math.ceil(ZEROS * old / cutoff)
    times = torch.arange(0, -new, -1, dtype=dtype)[:, None, None] / new
    times = ((times + torch.arange(-reach, old + reach, dtype=dtype) / old) * cutoff).clamp(-ZEROS, ZEROS)
    window = (times * math.pi / ZEROS / 2).cos().square()
    angles = times * math.pi
    sinc = torch.where(angles == 0, 1.0, angles.sin() / angles)
    return sinc * (window * (cutoff / old)), reach
