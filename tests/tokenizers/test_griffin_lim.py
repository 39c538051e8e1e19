"""The Griffin-Lim algorithm, which estimates phases, equals that of torchaudio to the bit."""

import torch
import torchaudio
from chopmix.tokenizers.media.spectrogram import MOMENTUM, ROUNDS, griffin_lim
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.sampled_from([16, 50, 128]), st.integers(1, 4), st.integers(4, 20), st.booleans())
@settings(max_examples=15)
def test_the_estimated_clip_equals_that_of_torchaudio(size, overlap, frames, double):
    kind = torch.float64 if double else torch.float32
    width, hop = size - 2 * (size // 8), size // (2 + overlap)
    length = max(frames * hop, size)
    magnitudes = torch.rand(size // 2 + 1, length // hop + 1, generator=torch.Generator().manual_seed(frames)).to(kind)
    window = torch.hann_window(width, dtype=kind)
    torch.manual_seed(0)
    clip = griffin_lim(magnitudes, window, hop, length)
    torch.manual_seed(0)
    expected = torchaudio.functional.griffinlim(
        magnitudes, window, size, hop, width, power=1.0, n_iter=ROUNDS, momentum=MOMENTUM, length=length, rand_init=True
    )
    assert clip.dtype == kind and len(clip) == length and torch.equal(clip, expected)
