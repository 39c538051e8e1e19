"""Sounds become slices of a spectrogram, and slices become sounds again."""

import numpy as np
import pytest
import torch
from chopmix.models.batch import Chunks
from chopmix.tokenizers.audio import AudioChopper
from chopmix.tokenizers.media.files import read_sound

CHOPPER = AudioChopper(rate=8000, mels=40, frames=4, longest=0.5, fill=True, statistics=(-6.0, 3.0))


def slices(clip):
    chunk = CHOPPER.chop(clip)
    return CHOPPER.slices(Chunks(values=chunk.values, index=torch.arange(chunk.count)))


@pytest.mark.parametrize("length", [100, 4000, 9000])
def test_every_clip_is_padded_or_cut_to_one_length(length):
    time = np.arange(length) / 8000
    clip = CHOPPER.decode((np.sin(2 * np.pi * 440 * time).astype(np.float32), 8000))
    assert len(clip) == 4000 and slices(clip).shape == CHOPPER.slice_shape == (13, 160)


@pytest.mark.parametrize("frequency", [300, 800, 1500])
def test_a_tone_is_reconstructed_from_its_slices(frequency):
    time = np.arange(4000) / 8000
    clip = CHOPPER.decode((np.sin(2 * np.pi * frequency * time).astype(np.float32), 8000))
    back = CHOPPER.joined(slices(clip))
    strength = np.abs(np.fft.rfft(back.numpy()))
    assert abs(strength.argmax() * 2 - frequency) <= 60 and len(back) == 4000 and back.abs().max() <= 0.91
    assert np.corrcoef(slices(clip).flatten(), slices(back).flatten())[0, 1] > 0.8
    assert CHOPPER.joined(slices(clip)).equal(back)  # reproducible
    with torch.autocast("cpu", torch.bfloat16):  # as in an evaluation of a run
        assert CHOPPER.joined(slices(clip)).equal(back)
    samples, rate = read_sound(CHOPPER.content(back, ".wav"))
    assert rate == 8000 and np.abs(samples - back.numpy()).max() < 1e-3


def test_sounds_without_a_fixed_length_cannot_be_reconstructed():
    with pytest.raises(ValueError, match="needs 'fill: true'"):
        _ = AudioChopper(rate=8000).slice_shape
