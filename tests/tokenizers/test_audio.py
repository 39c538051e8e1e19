"""Sounds: a clip becomes whole slices, clips of a batch are independent, and unreadable input is refused."""

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from chopmix.tokenizers.audio import AudioChopper, AudioTokenizer, LogMel
from chopmix.tokenizers.audio_patches import AudioPatchesChopper, AudioPatchesTokenizer
from chopmix.tokenizers.audio_stem import AudioStemChopper, AudioStemTokenizer
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.chopping.packing import pack
from chopmix.tokenizers.media.augmentation import SpectrogramAugmentation, stretched
from chopmix.tokenizers.media.sound import WaveAugmentation, coloured
from hypothesis import given, settings
from hypothesis import strategies as st

CHOPPER = AudioChopper(rate=8000, mels=20, frames=4, window=0.032)


def clip(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def sound_file(samples: np.ndarray, rate: int = 8000, kind: str = "FLAC") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind)
    return buffer.getvalue()


@given(st.integers(1, 9000))
@settings(max_examples=40, deadline=None)
def test_every_clip_is_cut_into_whole_slices(samples):
    chunk = CHOPPER.chop(clip(samples))
    assert chunk.count == CHOPPER.count(clip(samples)) == len(chunk.coordinates)
    assert chunk.values.shape == (chunk.count * 4, 256)
    assert chunk.count * 4 * 80 > samples - 80
    assert chunk.coordinates[-1, 0].item() == pytest.approx((chunk.count * 4 - 1) * 0.01 + 127 / 8000, abs=1e-5)


def test_clips_of_a_batch_are_independent():
    torch.manual_seed(0)
    model = AudioTokenizer(CHOPPER, 16, 64)
    sounds = [clip(3000), clip(500, 1), clip(1700, 2)]
    together = model(
        pack([[("sound", s)] for s in sounds], {"sound": CHOPPER}, 64, ("order", "seconds")).chunks["sound"]
    )
    alone = [
        model(pack([[("sound", s)]], {"sound": CHOPPER}, 64, ("order", "seconds")).chunks["sound"]) for s in sounds
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_files_and_arrays_of_any_rate_and_channels_are_decoded():
    wave = np.sin(np.arange(4000) * 2 * np.pi * 440 / 8000).astype(np.float32) * 0.5
    torch.testing.assert_close(CHOPPER.decode(sound_file(wave)), torch.from_numpy(wave), atol=1e-4, rtol=0)
    torch.testing.assert_close(CHOPPER.decode((np.stack([wave] * 8, axis=1), 8000)), torch.from_numpy(wave))
    doubled = np.sin(np.arange(11025) * 2 * np.pi * 440 / 22050).astype(np.float32) * 0.5
    again = CHOPPER.decode((doubled, 22050))
    assert abs(len(again) - 4000) <= 1
    torch.testing.assert_close(again[208:3808], torch.from_numpy(wave)[200:3800], atol=0.02, rtol=0)  # 1 ms later
    assert len(AudioChopper(rate=8000, longest=0.1).decode((wave, 8000))) == 800


def test_integer_samples_are_scaled_to_plus_or_minus_one():
    wave = (np.sin(np.arange(800) / 9) * 20_000).astype(np.int16)
    torch.testing.assert_close(CHOPPER.decode((wave, 8000)), torch.from_numpy(wave / np.float32(32_768)))


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32, np.float32, np.float64])
def test_samples_of_every_type_give_the_same_sound(kind):
    """Values are from -1 to 1. Unsigned samples are centred, as in wav files of 8 bits."""
    wave = np.sin(np.arange(800) / 9) * 0.9
    info = np.iinfo(kind) if np.issubdtype(kind, np.integer) else None
    half, middle = (
        (1.0, 0.0) if info is None else ((info.max - int(info.min) + 1) / 2, 0.0 if info.min else (info.max + 1) / 2)
    )
    samples = np.round(wave * half + middle).astype(kind) if info else wave.astype(kind)
    sound = CHOPPER.decode((samples, 8000))
    assert sound.dtype == torch.float32
    torch.testing.assert_close(
        sound, torch.from_numpy(wave.astype(np.float32)), atol=max(1.0 / half, 1e-7) if info else 1e-6, rtol=0
    )


def test_a_rate_that_is_too_high_for_resampling_is_refused():
    with pytest.raises(
        ValueError, match="a sound of 10,000,000 Hz cannot be resampled to 8,000 Hz; possible: up to 512 times"
    ):
        AudioChopper(rate=8000).decode((np.zeros(2000, np.float32), 10_000_000))


@given(st.sampled_from([6000, 11_025, 16_000, 22_050, 44_100, 48_000]), st.integers(600, 4000), st.data())
@settings(max_examples=30)
def test_no_slice_depends_on_later_samples_even_after_resampling(rate, length, data):
    """If the end of a recording changes, the slices whose `seconds` are before it stay equal to the bit."""
    cut = data.draw(st.integers(300, length - 100))
    first = np.random.default_rng(length).normal(size=length).astype(np.float32)
    second = np.concatenate([first[:cut], -first[cut:]])
    chopper = AudioChopper(rate=8000, frames=1)
    chunks = [chopper.chop(chopper.decode((wave, rate))) for wave in (first, second)]
    known = chunks[0].coordinates[:, 0] < cut / rate
    assert torch.equal(chunks[0].values[known], chunks[1].values[known])
    assert not torch.equal(chunks[0].values, chunks[1].values)


def test_silence_at_both_ends_is_cut():
    chopper = AudioChopper(rate=8000, mels=20, trim=20.0)
    quiet, tone = np.full(2000, 1e-3, np.float32), np.sin(np.arange(1200, dtype=np.float32))
    clip = np.concatenate([quiet, tone, quiet, tone, quiet])
    kept = chopper.decode((clip, 8000))
    assert torch.equal(
        kept, torch.from_numpy(clip[2000:6400])
    )  # whole windows of 25 ms; silence between the tones stays
    assert len(chopper.decode((np.zeros(700, np.float32), 8000))) == 700
    assert len(AudioChopper(rate=8000, mels=20, trim=80.0).decode((clip, 8000))) == len(clip)
    assert len(AudioChopper(rate=8000, mels=20, trim=20.0, longest=0.1).decode((clip, 8000))) == 800
    assert chopper.needs_whole and not AudioChopper().needs_whole


def test_files_that_libsndfile_cannot_read_are_decoded_by_ffmpeg(tmp_path, monkeypatch):
    recording = tmp_path / "a.m4a"
    recording.write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    for raw in (recording, recording.read_bytes()):
        with pytest.raises(ValueError, match=r"\(mp4, m4a, webm, aac, wma\) needs ffmpeg, which is not installed"):
            CHOPPER.decode(raw)
    wave = (
        np.sin(np.arange(800) / 9).astype(np.float32) / 2
    )  # a substitute for ffmpeg, which writes this sound and stores its arguments
    (tmp_path / "output.wav").write_bytes(sound_file(wave))
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n/bin/cat {tmp_path}/output.wav\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    torch.testing.assert_close(CHOPPER.decode(recording), torch.from_numpy(wave), atol=1e-4, rtol=0)
    assert f"-i file:{recording} " in (tmp_path / "arguments").read_text()
    torch.testing.assert_close(CHOPPER.decode(recording.read_bytes()), torch.from_numpy(wave), atol=1e-4, rtol=0)
    assert "-i pipe:0 " in (tmp_path / "arguments").read_text()
    program.write_text("#!/bin/sh\necho 'moov atom not found' >&2\nexit 1\n")
    with pytest.raises(ValueError, match="a.m4a: ffmpeg failed: moov atom not found"):
        CHOPPER.decode(recording)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the sound has no bytes"),
        (sound_file(np.zeros(8000, dtype=np.float32))[:60], "cannot be read|no samples"),
        ("missing.wav", "the sound cannot be read"),
        ((np.zeros(0), 8000), "the sound has no samples"),
        ((np.array([0.0, np.nan, np.inf]), 8000), "2 samples that are not finite"),
    ],
)
def test_unreadable_sounds_are_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        CHOPPER.decode(raw)


def test_silence_and_single_samples_are_finite():
    model = AudioTokenizer(CHOPPER, 16, 64)
    for sound in (torch.zeros(800), torch.zeros(1)):
        assert torch.isfinite(
            model(pack([[("sound", sound)]], {"sound": CHOPPER}, 64, ("order", "seconds")).chunks["sound"])
        ).all()


def test_statistics_are_learned_and_saved(tmp_path):
    sounds = [(clip(2000, seed).numpy(), 8000) for seed in range(4)]
    fitted = CHOPPER.fit(lambda: iter(sounds), Role())
    values = torch.cat([LogMel(fitted)(fitted.chop(fitted.decode(s)).values) for s in sounds])
    assert fitted.statistics == (
        pytest.approx(float(values.mean()), rel=1e-4),
        pytest.approx(float(values.std()), rel=1e-2),
    )
    fitted.save(tmp_path / "sound")
    assert CHOPPER.load(tmp_path / "sound", Role()) == fitted


def test_waves_are_augmented_reproducibly_by_seed():
    change = WaveAugmentation(shift=0.05, speed=0.1, gain=6, noise=(10, 20))
    sound = clip(4000)
    first, again, other = (change(sound, 8000, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and first.shape != other.shape
    lengths = {len(WaveAugmentation(speed=0.1)(sound, 8000, np.random.default_rng(s))) for s in range(50)}
    assert 3600 < min(lengths) < 3750 and 4250 < max(lengths) < 4450
    assert torch.equal(WaveAugmentation()(sound, 8000, np.random.default_rng(0)), sound)
    moved = WaveAugmentation(shift=0.1)(torch.ones(4000), 8000, np.random.default_rng(0))
    assert len(moved) == 4000 and 3200 <= moved.sum() < 4000


def test_filters_keep_the_length_and_stretching_moves_the_channels():
    """A filter of +6 dB at all frequencies doubles the loudness, a random filter keeps the length, and a stretch moves
    a tone to other channels."""
    sound = clip(4001)
    torch.testing.assert_close(coloured(sound, np.full(8, 20 * np.log10(2))), 2 * sound, rtol=1e-4, atol=1e-5)
    change = WaveAugmentation(colour=12)
    first, other = (change(sound, 8000, np.random.default_rng(seed)) for seed in (1, 2))
    assert first.shape == sound.shape and not torch.allclose(first, other, atol=1e-2)
    ramp = torch.arange(20.0).expand(3, 20)
    torch.testing.assert_close(stretched(ramp, torch.tensor([1.0, 0.5, 1.2]))[:, 10], torch.tensor([10.0, 5.0, 12.0]))
    torch.testing.assert_close(stretched(ramp, torch.ones(3)), ramp)


def test_masks_of_a_spectrogram_are_drawn_for_each_clip():
    lengths, seeds = torch.tensor([20, 30, 10]), torch.tensor([5, 6, 7])
    change = SpectrogramAugmentation(mels=5, frames=6, warp=0.1)
    hidden = change(torch.ones(60, 20), lengths, seeds)
    assert set(hidden.unique().tolist()) == {0.0, 1.0}
    parts = hidden.split([20, 30, 10])
    for part in parts:
        assert (part.amax(1) == 0).sum() <= 7 and (part.amax(0) == 0).sum() <= 6
    alone = change(torch.ones(30, 20), lengths[1:2], seeds[1:2])
    assert torch.equal(alone, parts[1]) and not torch.equal(alone, change(torch.ones(30, 20), lengths[1:2], seeds[:1]))


def test_invalid_settings_are_refused():
    with pytest.raises(ValueError, match="frames must be at least 1, not 0"):
        AudioChopper(frames=0)
    with pytest.raises(ValueError, match="rate must be more than 40 Hz, not 40: the first mel channel begins at 20 Hz"):
        AudioPatchesChopper(rate=40, window=0.1, hop=0.1)
    assert AudioPatchesChopper(mels=3, patch_size=3, stride=1).spectrum()(torch.ones(2, 400)).shape == (2, 3)


def test_each_clip_is_normalised_independently():
    """The volume of a clip and its neighbours in the batch do not matter, and silence gives finite vectors."""
    torch.manual_seed(0)
    chopper = replace(CHOPPER, normalize="clip")
    model = AudioTokenizer(chopper, 16, 64)
    axes = ("order", "seconds")
    sounds = [clip(3000), clip(3000) * 5, torch.zeros(900)]
    together = model(pack([[("sound", s)] for s in sounds], {"sound": chopper}, 64, axes).chunks["sound"])
    first, louder, silent = together.split([chopper.count(s) for s in sounds])
    torch.testing.assert_close(first, louder, rtol=1e-2, atol=1e-2)
    alone = model(pack([[("sound", sounds[0])]], {"sound": chopper}, 64, axes).chunks["sound"])
    torch.testing.assert_close(first, alone, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(silent).all()


@given(st.lists(st.integers(1, 120), min_size=2, max_size=5))
@settings(max_examples=30)
def test_the_stem_embeds_clips_independently(frames):
    """With any number of frames. If it is odd, the last token could otherwise read the padding of other clips."""
    torch.manual_seed(0)
    chopper = AudioStemChopper(rate=8000, mels=8, fill=None)
    model = AudioStemTokenizer(chopper, 16, 64)
    sounds = [clip(80 * count, seed) for seed, count in enumerate(frames)]

    def embedded(*clips: torch.Tensor) -> torch.Tensor:
        samples = [[("sound", each)] for each in clips]
        return model(pack(samples, {"sound": chopper}, 64, ("order", "seconds")).chunks["sound"])

    torch.testing.assert_close(embedded(*sounds), torch.cat([embedded(each) for each in sounds]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("offset", [1.0, -0.25, 1e7])
@pytest.mark.parametrize("order", [1, -1])
def test_patches_do_not_depend_on_the_offset(offset, order):
    """Only attention reads the times of the tokens, to which the offset is added. The clips have different lengths."""
    chopper = AudioPatchesChopper(rate=8000, mels=16, patch_size=8, stride=8, statistics=(-5, 3))
    torch.manual_seed(0)
    model, axes = AudioPatchesTokenizer(chopper, 16, 64), ("order", "mel", "seconds")
    sounds = [clip(3000), clip(900), clip(2000)][::order]

    def embedded(chopper):
        return model(pack([[("sound", sound)] for sound in sounds], {"sound": chopper}, 64, axes).chunks["sound"])

    assert torch.equal(embedded(replace(chopper, offset=offset)), embedded(chopper))
