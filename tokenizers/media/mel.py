"""Mel filter banks: matrices that turn the energies of frequencies into those of mel channels.

A mel is a unit of perceived pitch. Two scales are in use, for a frequency f in hertz:

    htk      2595 log10(1 + f / 700)               O'Shaughnessy 1987; Young et al., "The HTK Book", section 5.4
    slaney   3 f / 200 below 1000 Hz, then         Slaney 1998, "Auditory Toolbox", Interval Research report 1998-010
             15 + 27 ln(f / 1000) / ln(6.4)

The corners of the channels are equally spaced in mels. Each channel is a triangle over three corners: it is 0 at the
first, 1 at the second, and 0 again at the third.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Scale = Literal["htk", "slaney"]
KNEE = 1000.0
"""The frequency, in hertz, up to which Slaney's scale is linear."""
SLOPE = 200 / 3
"""Hertz per mel of Slaney's scale below the knee."""
STEP = math.log(6.4) / 27
"""The natural logarithm of the ratio of two frequencies that are one mel apart on Slaney's scale above the knee."""
LOWEST = 20.0
"""The frequency, in hertz, at which Kaldi's first channel begins."""


def mel_banks(
    bins: int, mels: int, rate: int, scale: Scale = "htk", equal_area: bool = False
) -> Float[Tensor, "bins mels"]:
    """Triangles over frequencies, from 0 Hz to half the rate. `bins`: the frequencies of a spectrum, equally spaced
    from 0 Hz to `rate // 2` hertz. `equal_area`: every triangle has the area 1 (over hertz) instead of the height 1.

    Equal to `torchaudio.functional.melscale_fbanks`. Warns if a channel is narrower than the distance of two
    frequencies, so that it contains none.
    """
    mel = torch.linspace(mel_of(0.0, scale), mel_of(rate / 2, scale), mels + 2)
    corners = frequency_of(mel, scale)
    banks = triangles(torch.linspace(0, rate // 2, bins), corners)
    if empty := int((banks.amax(0) == 0).sum()):
        solution = "use fewer mels or a longer window"
        warnings.warn(f"{empty} of {mels} mel channels contain no frequency of the spectrum; {solution}", stacklevel=2)
    return banks * (2 / (corners[2:] - corners[:-2])) if equal_area else banks


def mel_of(frequency: float, scale: Scale) -> float:
    """A frequency, in hertz, in mels."""
    if scale == "htk":
        return 2595 * math.log10(1 + frequency / 700)
    return frequency / SLOPE if frequency < KNEE else KNEE / SLOPE + math.log(frequency / KNEE) / STEP


def frequency_of(mel: Float[Tensor, "n"], scale: Scale) -> Float[Tensor, "n"]:
    """The inverse of `mel_of`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = mel - KNEE / SLOPE
    return torch.where(above < 0, mel * SLOPE, KNEE * (above * STEP).exp())


def triangles(points: Float[Tensor, "p"], corners: Float[Tensor, "c"]) -> Float[Tensor, "p c-2"]:
    """The heights at `points` of the triangles over every three neighbours of `corners`."""
    rising = (points[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - points[:, None]) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def kaldi_banks(size: int, mels: int, rate: int) -> Float[Tensor, "bins mels"]:
    """The filters of Kaldi (Povey et al. 2011; `MelBanks` in its feat/mel-computations.cc) for the `size // 2 + 1`
    frequencies of a window of `size` samples. The scale is HTK's, from `LOWEST` to half the rate. The triangles are
    straight over mels, not over hertz, and the last frequency belongs to none.

    Equal to `torchaudio.compliance.kaldi.get_mel_banks`, transposed and with a row for the last frequency.
    """
    low, high = (1127 * math.log(1 + frequency / 700) for frequency in (LOWEST, rate / 2))
    corners = low + torch.arange(mels + 2) * ((high - low) / (mels + 1))
    points = 1127 * (1 + torch.arange(size // 2) * (rate / size) / 700).log()
    return F.pad(triangles(points, corners), (0, 0, 0, 1))
