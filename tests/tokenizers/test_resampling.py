"""Resampled sounds equal those of torchaudio to the bit, and a tone keeps its frequency."""

import math
from fractions import Fraction

import pytest
import torch
from chopmix.tokenizers.media.sound import resampled
from hypothesis import example, given
from hypothesis import strategies as st
from torchaudio.functional import resample


def noise(samples: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples), dtype=torch.float64).to(kind) / 10


RATES = st.one_of(
    st.sampled_from([8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]),  # the usual ones
    st.integers(4000, 200_000),
)


@given(RATES, RATES, st.integers(1, 3000), st.sampled_from([torch.float32, torch.float64]))
@example(44_100, 16_000, 110_251, torch.float32)  # torchaudio rounds the length of the result in float32
@example(16_001, 16_000, 1000, torch.float32)  # the nearest ratio is 1
def test_a_resampled_clip_equals_that_of_torchaudio(rate, new_rate, samples, kind):
    ratio, clip = Fraction(new_rate, rate).limit_denominator(512), noise(samples, kind)
    result = resampled(clip, rate, new_rate)
    assert result.dtype == kind and torch.equal(result, resample(clip, ratio.denominator, ratio.numerator))


@pytest.mark.parametrize(("rate", "new_rate"), [(44_100, 16_000), (11_027, 16_000), (8000, 22_050)])
def test_a_tone_keeps_its_frequency_at_another_rate(rate, new_rate):
    """Far from both ends it differs by at most 0.002. A tone that the new rate cannot represent is removed."""
    times = [torch.arange(each // 5, dtype=torch.float64) / each for each in (rate, new_rate)]
    for frequency, loudness in ((440, 1.0), (0.75 * new_rate, 0.0)):
        if frequency < rate / 2:
            before, after = ((2 * math.pi * frequency * time).sin() for time in times)
            tone = resampled(before, rate, new_rate)[500:-500]
            torch.testing.assert_close(tone, loudness * after[500 : 500 + len(tone)], rtol=0, atol=2e-3)
