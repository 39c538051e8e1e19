"""Video: tubelets are in order and have seconds, rows and columns, and unreadable clips are refused."""

import io

import numpy as np
import pytest
import torch
from chopmix.models.batch import Batch, Chunks
from chopmix.models.layers.relative import Rotary
from chopmix.models.model import Cores, Model
from chopmix.tokenizers.chopping.packing import pack
from chopmix.tokenizers.media.augmentation import ImageAugmentation
from chopmix.tokenizers.video import VideoChopper, VideoTokenizer
from cores import core_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

CHOPPER = VideoChopper(size=(8, 12), patch_size=4, frames=2, channels=1, rate=10)
AXES = ("order", "seconds", "row", "column")


def clip(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 8, 12), dtype=np.uint8)


@given(st.integers(1, 9))
@settings(max_examples=9, deadline=None)
def test_clips_of_any_length_become_whole_tubelets(frames):
    chunk = CHOPPER.chop(CHOPPER.decode(clip(frames)))
    times = -(-frames // 2)
    assert chunk.count == CHOPPER.count(CHOPPER.decode(clip(frames))) == times * 6 == len(chunk.values)
    assert chunk.coordinates[-1].tolist() == pytest.approx([times * 0.2 - 0.1, 1, 2])
    last = chunk.values[-1].view(2, 16)
    if frames % 2:
        assert torch.equal(last[0], last[1])


def test_a_tubelet_contains_a_patch_of_each_of_its_frames():
    frames = clip(4)
    chunk = CHOPPER.chop(CHOPPER.decode(frames))
    assert chunk.values[6 + 5].tolist() == frames[2:4, 4:8, 8:12].flatten().tolist()


def test_animations_and_lists_of_images_are_read():
    pictures = [Image.fromarray(frame) for frame in clip(3)]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:])
    assert CHOPPER.decode(file.getvalue()).shape == (3, 1, 8, 12)
    assert torch.equal(CHOPPER.decode(pictures), CHOPPER.decode(clip(3)))
    assert len(VideoChopper(size=8, patch_size=4, longest=2).decode(file.getvalue())) == 2


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"no video", "the video cannot be read"), ([], "the video has no frames"),
     ([np.zeros((8, 8), np.uint8), np.zeros((4, 4), np.uint8)], "must have the same size")],
)  # fmt: skip
def test_unreadable_clips_and_invalid_settings_are_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        CHOPPER.decode(raw)
    with pytest.raises(ValueError, match="must be a multiple of patch_size"):
        VideoChopper(size=10, patch_size=4)
    with pytest.raises(ValueError, match="must be at least 1"):
        VideoChopper(size=8, patch_size=4, frames=0)


def test_no_tubelet_depends_on_later_frames():
    """With `causal(seconds)`, later frames do not change the vectors of earlier tubelets, to the bit."""
    torch.manual_seed(0)
    tokenizers = {"video": VideoTokenizer(CHOPPER, 16, 64)}
    core = core_of(["video"], AXES, width=16, depth=2, heads=2, attention="same_sample & causal(seconds)",
                   position=lambda *a: Rotary(*a, per_axis={"seconds": 4, "row": 2, "column": 2}))  # fmt: skip
    model = Model(tokenizers, Cores(core), {}, context=64).eval()
    first, second = clip(6), clip(6)
    second[4:] = 255 - second[4:]
    vectors = []
    for frames in (first, second):
        planned = pack([[("video", CHOPPER.decode(frames))]], {"video": CHOPPER}, 18, AXES)
        vectors.append(model.read(model.plan(Batch(main=planned))).main)
    assert torch.equal(vectors[0][:, :12], vectors[1][:, :12]) and not torch.equal(
        vectors[0][:, 12:], vectors[1][:, 12:]
    )


def test_all_frames_of_a_clip_are_augmented_in_the_same_way():
    """A clip of six equal frames still has equal frames. Another clip is augmented differently."""
    chopper = VideoChopper(size=(8, 12), patch_size=4, frames=2, channels=3)
    augment = ImageAugmentation(
        shift=2,
        flip=True,
        rotate=20,
        zoom=0.2,
        operations=2,
        erase=0.3,
        transforms=[{"use": "ColorJitter", "hue": 0.4}],
    )
    tokenizer = VideoTokenizer(chopper, 8, 64, position=None, augment=lambda: augment).train()
    still = chopper.chop(
        chopper.decode(np.random.default_rng(1).integers(0, 256, (1, 8, 12, 3), np.uint8).repeat(6, 0))
    )
    one, two = (
        Chunks(values=still.values, index=torch.arange(18), counts=torch.tensor([18]), seeds=torch.tensor([seed]))
        for seed in (2**40, 2**41)
    )
    changed = [tokenizer.augmented(still.values, chunks) for chunks in (one, two)]
    assert changed[0].shape == still.values.shape and not torch.equal(changed[0].float(), still.values.float())
    assert not torch.equal(changed[0], changed[1])
    frames = changed[0].view(3, 6, 2, 3 * 16)  # (time, patch, frame of the tubelet, values)
    assert (frames == frames[:1, :, :1]).all()
    chunks = Chunks(
        values=torch.cat([still.values] * 2),
        index=torch.arange(18).repeat(2),
        counts=torch.tensor([18, 18]),
        seeds=torch.tensor([2**40, 2**41]),
    )
    first, second = tokenizer(chunks).split(18)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, tokenizer(one))
    torch.testing.assert_close(second, tokenizer(two))
    tokenizer.eval()
    first, second = tokenizer(chunks).split(18)
    assert torch.equal(first, second)


def test_pixels_are_normalised_by_channel():
    chopper = VideoChopper(size=(8, 12), patch_size=4, frames=2, channels=3)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    tokenizer = VideoTokenizer(chopper, 2 * 3 * 16, 64, position=None, mean=mean, std=std)
    torch.nn.init.eye_(tokenizer.embedding.weight)
    torch.nn.init.zeros_(tokenizer.embedding.bias)
    frames = chopper.decode(np.random.default_rng(1).integers(0, 256, (4, 8, 12, 3), np.uint8))
    chunk = chopper.chop(frames)
    expected = (frames / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    normalised = tokenizer(Chunks(values=chunk.values, index=torch.arange(chunk.count)))
    torch.testing.assert_close(normalised, chopper.cut(expected))
