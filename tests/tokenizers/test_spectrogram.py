"""The spectrograms of the three sound tokenizers equal those of torchaudio, for any rate, window, hop and length."""

import torch
import torchaudio
from chopmix.tokenizers.audio import FLOOR, AudioChopper
from chopmix.tokenizers.audio_patches import AudioPatchesChopper
from chopmix.tokenizers.audio_stem import AudioStemChopper
from hypothesis import given
from hypothesis import strategies as st
from test_mel import KINDS, computing_in
from torchaudio.compliance.kaldi import fbank

RATES, SAMPLES = st.sampled_from([8000, 11_025, 16_000, 44_100]), st.integers(1, 4000)
WINDOWS, HOPS = st.integers(4, 300).map(lambda half: 2 * half), st.integers(20, 500)


def noise(samples: int) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) / 10


def assert_equal(result: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare energies, with a tolerance relative to the largest energy: 1e-6 in float32 and 1e-10 in float64."""
    tolerance = 1e-10 if result.dtype == torch.float64 else 1e-6
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance * float(expected.max()))


@given(RATES, WINDOWS, HOPS, st.integers(1, 60), SAMPLES)
def test_slices_have_the_mel_spectrogram_of_torchaudio(rate, window, hop, mels, samples):
    chopper = AudioChopper(rate=rate, window=window / rate, hop=hop / rate, mels=mels, frames=1)
    with computing_in(torch.float32):
        size, sound = chopper.spectrum().size, noise(samples)
        reference = torchaudio.transforms.MelSpectrogram(
            rate, n_fft=size, win_length=window, hop_length=hop, n_mels=mels, f_max=rate / 2, pad_mode="constant"
        )
        expected, spectrogram = reference(sound).T, chopper.spectrum()(chopper.chop(sound).values)
    assert_equal(spectrogram.double().exp().float(), (expected.double() + FLOOR).float())


@given(RATES, WINDOWS, HOPS, st.integers(1, 60), SAMPLES, KINDS)
def test_the_stem_has_the_mel_spectrogram_of_torchaudio(rate, window, hop, mels, samples, kind):
    """With the scale of Slaney and triangles of equal area. As in Whisper, the frame after the last hop is removed."""
    chopper = AudioStemChopper(rate=rate, window=window / rate, hop=hop / rate, mels=mels)
    samples = max(samples, window)
    with computing_in(kind):
        sound = noise(samples).to(kind)
        reference = torchaudio.transforms.MelSpectrogram(
            rate, window, hop_length=hop, n_mels=mels, f_max=rate / 2, norm="slaney", mel_scale="slaney"
        )
        expected = reference(sound)[:, : max(samples // hop, 1)].clamp(min=1e-10).log10()
        expected = (expected.clamp(min=expected.max() - 8) + 4) / 4
        spectrogram = chopper.spectrogram(sound)
    assert spectrogram.dtype == kind
    assert_equal(10 ** (4 * spectrogram - 4), 10 ** (4 * expected - 4))


@given(RATES, st.integers(5, 600), HOPS, st.integers(4, 60), SAMPLES, KINDS)
def test_patches_have_the_kaldi_spectrogram_of_torchaudio(rate, window, hop, mels, samples, kind):
    chopper = AudioPatchesChopper(
        rate=rate, window=window / rate, hop=hop / rate, mels=mels, patch_size=4, stride=1, statistics=(0.0, 1.0)
    )
    samples = max(samples, window)
    with computing_in(kind):
        sound = noise(samples).to(kind)
        expected = fbank(
            sound[None], sample_frequency=rate, frame_length=(window + 0.5) / rate * 1000, num_mel_bins=mels,
            frame_shift=(hop + 0.5) / rate * 1000, window_type="hanning", energy_floor=0.0,
        )  # fmt: skip
        spectrogram = chopper.spectrum()(sound.unfold(0, window, hop))
    assert spectrogram.dtype == kind
    assert_equal(spectrogram.exp(), expected.exp())
