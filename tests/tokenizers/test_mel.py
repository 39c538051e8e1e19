"""Mel filter banks equal those of torchaudio to the bit and have the properties that define them."""

import warnings
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
import torchaudio
from chopmix.tokenizers.media.spectrogram import KNEE, frequency_of, kaldi_banks, mel_banks, mel_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.compliance.kaldi import get_mel_banks

RATES, MELS, SCALES = st.integers(100, 200_000), st.integers(1, 140), st.sampled_from(["htk", "slaney"])
KINDS = st.sampled_from([torch.float32, torch.float64])


@contextmanager
def computing_in(kind: torch.dtype):
    """Compute with this type as the default type, without warnings of empty channels."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        torch.set_default_dtype(before)


@given(st.integers(2, 1025), MELS, RATES, SCALES, st.booleans(), KINDS)
def test_mel_banks_equal_those_of_torchaudio(bins, mels, rate, scale, equal_area, kind):
    with computing_in(kind):
        norm = "slaney" if equal_area else None
        expected = torchaudio.functional.melscale_fbanks(bins, 0.0, rate / 2, mels, rate, norm, scale)
        banks = mel_banks(bins, mels, rate, scale, equal_area)
    assert banks.dtype == kind and torch.equal(banks, expected)


@given(st.integers(1, 1024), st.integers(4, 140), RATES, KINDS)
def test_kaldi_banks_equal_those_of_torchaudio(half, mels, rate, kind):
    with computing_in(kind):
        expected, _ = get_mel_banks(mels, 2 * half, float(rate), 20.0, 0.0, 100.0, -500.0, 1.0)
        banks = kaldi_banks(2 * half, mels, rate)
    assert banks.dtype == kind and torch.equal(banks, F.pad(expected, (0, 1)).T)


@given(st.lists(st.floats(0, 100_000), min_size=1, max_size=9), SCALES)
def test_frequencies_are_restored_from_mels(frequencies, scale):
    mel = torch.tensor([mel_of(frequency, scale) for frequency in frequencies], dtype=torch.float64)
    expected = torch.tensor(frequencies, dtype=torch.float64)
    torch.testing.assert_close(frequency_of(mel, scale), expected, rtol=1e-10, atol=1e-8)


def test_the_scales_agree_with_their_publications():
    """1000 Hz are 1000 mels (HTK) or 15 mels (Slaney). 27 mels of Slaney higher, the frequency is 6.4 times as high."""
    assert mel_of(1000, "htk") == pytest.approx(1000, abs=0.02)
    assert mel_of(KNEE, "slaney") == pytest.approx(15) and mel_of(6400, "slaney") == pytest.approx(42)
    assert mel_of(500, "slaney") == pytest.approx(7.5)


@given(st.integers(8, 40), st.integers(8000, 48_000), SCALES)
@settings(max_examples=30)
def test_the_triangles_of_every_frequency_add_up_to_one(mels, rate, scale):
    """Between the peaks of the first and of the last triangle. With `equal_area`, each triangle has the area 1."""
    with computing_in(torch.float64):
        frequencies = torch.linspace(0, rate // 2, 4097)
        corners = frequency_of(torch.linspace(0, mel_of(rate / 2, scale), mels + 2), scale)
        covered = (frequencies >= corners[1]) & (frequencies <= corners[-2])
        sums = mel_banks(4097, mels, rate, scale).sum(1)[covered]
        areas = torch.trapezoid(mel_banks(4097, mels, rate, scale, equal_area=True), frequencies, dim=0)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    torch.testing.assert_close(areas, torch.ones_like(areas), rtol=0.02, atol=0)


def test_a_warning_counts_the_channels_without_a_frequency():
    """With 16 frequencies at intervals of 250 Hz, none is inside the first channels."""
    message = "14 of 40 mel channels contain no frequency of the spectrum; use fewer mels or a longer window"
    with pytest.warns(UserWarning, match=message):
        banks = mel_banks(17, 40, 8000)
    assert int((banks.sum(0) == 0).sum()) == 14
