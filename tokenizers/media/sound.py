"""What all tokenizers of sound share: decoding, resampling, trimming, and augmentation of the waveform."""

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
    """How a clip is changed at random while training: moved by up to `shift` seconds (silence comes in), played faster
    or slower by up to `speed` (0.1: 0.9 to 1.1 times), louder or softer by up to `gain` dB, with white noise at a
    signal-to-noise ratio drawn from `noise` [lowest, highest] dB, and through a random smooth filter that raises or
    lowers each part of the spectrum by up to `colour` dB, as another microphone does."""

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
            places = round(random.uniform(-self.shift, self.shift) * rate)
            places = max(-len(clip), min(places, len(clip)))
            clip = F.pad(clip, (places, -places))  # negative: cut off there
        if self.gain:
            clip = clip * 10 ** (random.uniform(-self.gain, self.gain) / 20)
        if self.noise:
            level = float(clip.square().mean().sqrt()) * 10 ** (-random.uniform(*self.noise) / 20)
            clip = clip + torch.from_numpy(random.standard_normal(len(clip), dtype=np.float32)) * level
        return coloured(clip, random.uniform(-self.colour, self.colour, KNOTS)) if self.colour else clip


KNOTS = 8
"""Points of a random filter's curve, nearly evenly spaced in mels, interpolated linearly."""


def coloured(clip: Clip, decibels: np.ndarray) -> Clip:
    """The clip through a zero-phase filter; `decibels` are its gains from the lowest frequency to the highest."""
    spectrum = torch.fft.rfft(clip)
    # low frequencies take more of the curve, as in mels
    place = np.log1p(np.linspace(0, 8, len(spectrum))) / math.log(9)
    gain = 10 ** (np.interp(place, np.linspace(0, 1, len(decibels)), decibels) / 20)
    return torch.fft.irfft(spectrum * torch.from_numpy(gain.astype(np.float32)), n=len(clip))


FILLED = 2**25
"""The most samples to which clips are filled up."""
MOST = {"rate": 1_000_000, "mels": 4096, "hop": 10**6, "window": 10**6, "longest": 10**12}
"""The largest values of a sound's options (hertz, channels, seconds): more than anybody needs, and no arithmetic
overflows."""


@dataclass(frozen=True, kw_only=True)
class SoundChopper(Chopper):
    """Base of the choppers of sound, which decodes to mono clips of `rate` hertz. In seconds: `hop` from one frame of
    the spectrogram to the next, `window` of each frame, `longest` (the rest of a clip is cut off). `mels`: channels of
    the spectrogram. `trim`: both ends of a clip are cut off as far as they are more than this many dB below its loudest
    window; seconds count from the cut. `fill`: shorter clips are filled up to `longest` with silence. `normalize`:
    log-mel energies less mean, over std, both of the training `data`, or of each `clip` (which removes its loudness and
    its microphone's colour). A clip that is trimmed or normalised by
    itself must be known to its end."""

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
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most:,}, not {getattr(self, name)}")
        if self.fill and self.longest * self.rate > FILLED:
            told = f"{FILLED:,} samples ({FILLED / self.rate:g} seconds)"
            raise ValueError(f"longest must be at most {told} where clips are filled up, not {self.longest:g}")
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
        """Samples from one frame to the next."""
        return round(self.rate * self.hop)

    @property
    def window_samples(self) -> int:
        """Samples of one frame."""
        return round(self.rate * self.window)

    def summary(self, raws: Sequence[Any]) -> str:
        return f"{sound_lengths(raws)}, resampled to {self.rate:,} Hz, {super().summary(raws)}"

    def decode(self, raw: Any) -> Clip:
        """The clip, mono and from -1 to 1, of a path, a file's bytes (wav, flac, ogg, opus, mp3; mp4, webm, aac and wma
        where ffmpeg is installed), or (samples, rate) with samples (t,) or (t, channels), see `as_shares`. Raises
        ValueError where it cannot be read, has no samples, or some that are not finite."""
        if isinstance(raw, Tensor):
            return self.cut(raw)
        if not isinstance(raw, tuple | bytes | str | os.PathLike):
            why = f"it is no path, no bytes and no (samples, rate), but {type(raw).__name__}"
            raise DataError(f"the sound cannot be read: {why}")
        samples, rate = samples_and_rate(raw) if isinstance(raw, tuple) else read_sound(raw)
        clip = torch.from_numpy(samples)
        if not len(clip):
            raise ValueError("the sound has no samples")
        if wrong := sum(int((~torch.isfinite(part)).sum()) for part in clip.split(BLOCK)):
            raise ValueError(f"the sound has {wrong} samples that are no numbers")
        clip = resampled(clip, rate, self.rate, late=not self.needs_whole)
        if self.trim is not None:
            clip = trimmed(clip, self.window_samples, self.trim)
        return self.cut(clip)

    def content(self, item: Clip, ending: str) -> bytes:
        return sound_bytes(item.numpy(), ending, self.rate)

    def cut(self, clip: Clip) -> Clip:
        """The clip, at most as long as `longest`, and with `fill` exactly so long."""
        most = round(self.longest * self.rate)
        if self.fill:
            return F.pad(clip[:most], (0, max(0, most - len(clip))))
        return clip[:most].clone() if len(clip) > most else clip  # the memory of the rest is freed

    def augment(self, item: Clip, random: np.random.Generator) -> Clip:
        return item if self.augment_wave is None else self.cut(self.augment_wave(item, self.rate, random))


def trimmed(clip: Clip, window: int, decibels: float) -> Clip:
    """The clip from the first window of `window` samples to the last whose energy is within `decibels` of the loudest
    one's; silence stays whole."""
    mean, missing = clip.mean(), -len(clip) % window
    parts = (F.pad(part - mean, (0, -len(part) % window)) for part in clip.split(max(BLOCK // window, 1) * window))
    energy = torch.cat([part.view(-1, window).square().sum(1) for part in parts])
    energy[-1] *= window / (window - missing)
    loud = (energy > energy.max() * 10 ** (-decibels / 10)).nonzero()
    return clip[loud[0] * window : (loud[-1] + 1) * window] if len(loud) else clip


def samples_and_rate(raw: tuple) -> tuple[Float[np.ndarray, "t"], int | float]:
    """The samples of (samples, rate) by `as_shares`, channels averaged, and the rate. Raises DataError for anything
    else."""
    expected = "the sound cannot be read: (samples, rate) must be numbers (t,) or (t, channels) and a rate in hertz"
    if len(raw) != 2 or isinstance(raw[1], bool) or not isinstance(raw[1], int | float | np.number):
        raise DataError(f"{expected}, not {shown(raw)}")
    samples, rate = np.asarray(raw[0]), raw[1]
    if samples.dtype.kind not in "iuf" or samples.ndim not in (1, 2) or not 1 <= rate <= RATE:
        raise DataError(f"{expected}, not {samples.dtype} of shape {samples.shape} at {shown(rate)} Hz")
    clip = torch.from_numpy(as_shares(samples))
    return (clip if clip.dim() == 1 else clip.mean(dim=1)).numpy(), rate


def as_shares(samples: np.ndarray) -> np.ndarray:
    """Samples as float32: integers from -1 to 1, as shares of the range of their type around its middle (uint8:
    (value - 128) / 128); floating-point numbers as they are."""
    if not np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = half if np.issubdtype(samples.dtype, np.unsignedinteger) else 0.0
    return ((samples.astype(np.float64) - middle) / half).astype(np.float32)


Clip = Float[Tensor, "_samples"]

ZEROS, ROLLOFF, LONG = 6, 0.99, 2**22
"""Zero crossings of the sinc on each side, and its cutoff as a share of half the lower rate, as in torchaudio; and how
many samples are filtered at once."""


def resampled(clip: Clip, rate: int, new_rate: int, late: bool = False) -> Clip:
    """The clip at another rate, in hertz.

    The filter has rate * new_rate / gcd^2 numbers, gigabytes for 11,027 Hz. The ratio of the rates is therefore
    rounded to a denominator of at most 512: it is exact from the usual rates to 16,000 Hz, 2.5 millionths off from
    11,027 Hz, and at most 0.1 % off, next to a simple ratio, as from 16,016 Hz. The filter looks as far ahead as back,
    0.4 ms at 16 kHz: with `late` the clip is delayed by that, so that no sample depends on later ones. Raises
    ValueError for a rate more than 512 times the new one.

    Equal to `torchaudio.functional.resample` at the rounded ratio.
    """
    if rate == new_rate:
        return clip
    if rate > 512 * new_rate:
        raise ValueError(f"a sound of {rate:,} Hz cannot be read at {new_rate:,} Hz: at most 512 times as fast")
    ratio = Fraction(new_rate, int(rate)).limit_denominator(512)
    delay = math.ceil(ZEROS / (ROLLOFF * min(rate, new_rate)) * new_rate) + 1 if late else 0
    return in_blocks(clip, ratio.denominator, ratio.numerator, delay)


def in_blocks(clip: Clip, old: int, new: int, delay: int) -> Clip:
    """The clip as `filtered` gives it, delayed by `delay` new samples. A long clip is filtered in blocks, which takes
    less memory. Raises DataError for a clip of more than `SAMPLES` new samples."""
    if len(clip) * new // old > SAMPLES:
        what = f"at its new rate, {new} samples for every {old},"
        raise DataError(f"the sound cannot be read: {what} it has more than {SAMPLES:,} samples; cut it into parts")
    size = max(1, LONG // max(old, new)) * old
    if len(clip) <= size:
        return F.pad(found := filtered(clip, old, new), (delay, 0))[: len(found)]
    reach = (math.ceil(2 * ZEROS / min(old, new)) + 1) * old  # a multiple of `old`, more than the filter's
    found = clip.new_zeros(math.ceil(len(clip) * new / old))
    for start in range(0, len(clip), size):
        first, begin = max(start - reach, 0), start // old * new + delay
        part = filtered(clip[first : start + size + reach], old, new)
        part = part[(start - first) // old * new :][: size // old * new]
        room = found[begin : begin + len(part)]
        room.copy_(part[: len(room)])
    return found


def filtered(clip: Clip, old: int, new: int) -> Clip:
    """The clip with `new` samples for every `old` ones; the two have no common divisor."""
    if old == new:
        return clip
    filters, reach = polyphase(old, new, clip.dtype)
    padded = F.pad(clip, (reach, reach + old))
    samples = F.conv1d(padded[None, None], filters, stride=old).transpose(1, 2).flatten()
    # torchaudio rounds the length to float32 first: clips stay as long as those that runs were trained on
    return samples[: math.ceil(np.float32(new * len(clip) / old))]


@lru_cache(maxsize=4)
def polyphase(old: int, new: int, dtype: torch.dtype) -> tuple[Float[Tensor, "new 1 taps"], int]:
    """A filter for each of the `new` samples that lie between `old` ones, and how many samples it reads before them.

    Sample j of the new ones is at the time j / new of the old ones' samples k, at k / old, where these times are
    multiplied by the cutoff: the zero crossings of the sinc are then at 1, 2, ..., `ZEROS`.
    """
    cutoff = ROLLOFF * min(old, new)
    reach = math.ceil(ZEROS * old / cutoff)
    times = torch.arange(0, -new, -1, dtype=dtype)[:, None, None] / new
    times = ((times + torch.arange(-reach, old + reach, dtype=dtype) / old) * cutoff).clamp(-ZEROS, ZEROS)
    window = (times * math.pi / ZEROS / 2).cos().square()
    angles = times * math.pi
    sinc = torch.where(angles == 0, 1.0, angles.sin() / angles)
    return sinc * (window * (cutoff / old)), reach
