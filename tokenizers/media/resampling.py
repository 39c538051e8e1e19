"""Sounds at another rate, by a windowed sinc (Smith, "Digital Audio Resampling Home Page",
https://ccrma.stanford.edu/~jos/resample/).

Samples x[k] at rate r are those of a continuous signal without frequencies above r / 2. Between them it is the sum of
x[k] sinc(r t - k), which ends after a few zero crossings here, under a Hann window. A sinc of a lower cutoff removes
the frequencies that the new rate cannot represent.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...files.reading import DataError
from .files import SAMPLES

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
