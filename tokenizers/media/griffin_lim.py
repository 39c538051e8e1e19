"""Spectrograms back to sounds: the phases that a spectrogram lacks are estimated.

Source: Griffin and Lim 1984, "Signal estimation from modified short-time Fourier transform"; with the momentum of
Perraudin, Balazs and Søndergaard 2013, "A fast Griffin-Lim algorithm".
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .resampling import Clip

ROUNDS = 60
"""Rounds in which phases are estimated."""
MOMENTUM = 0.99
"""How far each round moves on in the direction of the last one, as a share of it."""


def griffin_lim(magnitudes: Float[Tensor, "bins frames"], window: Float[Tensor, "w"], hop: int, length: int) -> Clip:
    """A clip of `length` samples whose windows, one every `hop` samples, have about these magnitudes.

    The first phases are drawn from torch's generator. Each round computes the sound of the present phases, and takes
    the phases of that sound's spectrogram, minus a share of the last round's spectrogram. Equal to
    `torchaudio.functional.griffinlim` with `rand_init`.
    """
    size = 2 * (len(magnitudes) - 1)
    sizes = {"n_fft": size, "hop_length": hop, "win_length": len(window), "window": window}
    phases = torch.rand(magnitudes.shape, dtype=magnitudes.dtype.to_complex(), device=magnitudes.device)
    last = torch.zeros_like(phases)
    for _ in range(ROUNDS):
        sound = torch.istft(magnitudes * phases, **sizes, length=length)
        spectrum = torch.stft(sound, **sizes, return_complex=True)
        moved = spectrum - last * (MOMENTUM / (1 + MOMENTUM))
        phases, last = moved / (moved.abs() + 1e-16), spectrum
    return torch.istft(magnitudes * phases, **sizes, length=length)
