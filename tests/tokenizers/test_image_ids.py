"""Pictures as ids: every id is the pattern of a patch, and decoding restores the picture."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.image import ImageChopper
from chopmix.tokenizers.image_ids import ImageIdsPreprocessor, PatchVocabulary
from chopmix.tokenizers.media.augmentation import ImageAugmentation
from hypothesis import given
from hypothesis import strategies as st


def vocabulary_of(rows: int, columns: int, patch_size: int = 2, channels: int = 1, **options) -> PatchVocabulary:
    """Return the vocabulary of pictures with this number of rows and columns of patches."""
    size = (rows * patch_size, columns * patch_size)
    return PatchVocabulary(pictures=ImageChopper(patch_size=patch_size, channels=channels, size=size), **options)


SHAPES = st.builds(
    vocabulary_of,
    rows=st.integers(1, 4), columns=st.integers(1, 4), patch_size=st.integers(1, 2),
    channels=st.sampled_from([1, 3]), levels=st.integers(2, 4), own=st.sampled_from([(), ("mask",)]),
)  # fmt: skip


@given(vocabulary=SHAPES, data=st.data())
def test_every_sequence_of_ids_is_restored_from_its_picture(vocabulary, data):
    count, side = vocabulary.length, vocabulary.patch_size
    ids = data.draw(st.lists(st.integers(0, vocabulary.patterns - 1), min_size=count, max_size=count))
    picture = vocabulary.restore(ids)
    rows, columns = vocabulary.grid
    assert picture.shape == (vocabulary.pictures.channels, rows * side, columns * side)
    assert vocabulary.encode(picture) == ids and vocabulary.units(picture) == picture.numel()
    assert vocabulary.restore([*ids, vocabulary.end]).equal(picture)  # the end token adds no patch


@pytest.mark.parametrize("levels", range(2, 17))
def test_every_level_of_brightness_is_restored(levels):
    vocabulary = vocabulary_of(rows=1, columns=levels, patch_size=1, levels=levels)
    assert vocabulary.encode(vocabulary.restore(range(levels))) == list(range(levels))


def test_the_example_of_the_docstring_is_correct():
    vocabulary = vocabulary_of(rows=1, columns=2)
    picture = torch.tensor([[[0, 255, 0, 0], [0, 0, 255, 255]]], dtype=torch.uint8)
    assert vocabulary.encode(picture) == [2, 12] and vocabulary.start == vocabulary.end == 16
    assert vocabulary.size == 17 and vocabulary.shown(16) == "<|image|>" and vocabulary.shown(12) == "12"


def test_ids_that_form_no_picture_are_refused():
    vocabulary = vocabulary_of(rows=2, columns=2)
    with pytest.raises(ValueError, match="an image has 4 patches, not 3"):
        vocabulary.restore([1, 2, 3])
    with pytest.raises(
        ValueError, match="id 17 is outside the vocabulary of patches of 2 x 2 pixels, which has 17 ids"
    ):
        vocabulary.restore([1, 2, 3, 17])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 1}, "levels must be from 2 to 16, not 1"),
        ({"levels": 16, "patch_size": 4}, "more than 65,536; use smaller patches or fewer levels"),
        ({"size": 7}, "must be a multiple of patch_size"),
    ],
)
def test_options_that_allow_no_picture_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ImageIdsPreprocessor(**{"size": 8} | options)


@pytest.mark.parametrize("generated", [True, False])
def test_start_and_end_tokens_depend_on_the_use_of_the_picture(generated):
    chopper = ImageIdsPreprocessor(size=(2, 4)).fit(tuple, Role(generated=generated))
    item = chopper.decode(torch.full((1, 2, 4), 255, dtype=torch.uint8))
    chunk = chopper.chop(item)
    assert chunk.values.tolist() == ([16, 15, 15] if generated else [15, 15])
    assert chunk.next_ids.tolist() == ([15, 15, 16] if generated else [15, 16])
    assert chopper.chop((3,)).values.tolist() == ([16, 3] if generated else [3])  # ids stay as they are


def test_image_files_contain_the_picture():
    vocabulary = vocabulary_of(rows=1, columns=2, channels=3, patch_size=1)
    picture = vocabulary.restore([5, 2])
    again = ImageIdsPreprocessor(size=(1, 2), patch_size=1, channels=3).fit(tuple, Role()).decode
    assert again(vocabulary.content(picture, ".png")).equal(picture)
    assert again(vocabulary.content(picture, ".gif")).equal(picture)


def test_pictures_are_augmented_before_they_are_reduced():
    """A rotated line in 28 pixels remains a line in 14 pixels. If it is reduced first, it has gaps."""
    augment = partial(ImageAugmentation, rotate=20)
    chopper = ImageIdsPreprocessor(size=14, augment=augment).fit(tuple, Role())
    line = torch.zeros(1, 28, 28, dtype=torch.uint8)
    line[:, 4:24, 13:15] = 255
    for seed in range(20):
        changed = chopper.augment(chopper.decode(line), np.random.default_rng(seed))
        assert changed.shape == (1, 28, 28)
        drawn = chopper.vocabulary.restore(chopper.encoded(changed))
        assert drawn.shape == (1, 14, 14) and drawn[0, 3:11].amax(1).all()


def test_the_fingerprint_of_a_vocabulary_never_changes():
    """Runs store it. A field that was added to all choppers later, such as `offset`, does not change it."""
    pictures = ImageChopper(size=14, patch_size=2, channels=1)
    known = "3b9840a512361163c45780fb011743cf5bfb9eee04d82c85b61320d92234c3ac"
    assert PatchVocabulary(pictures=pictures).fingerprint == known
    assert PatchVocabulary(pictures=replace(pictures, offset=1.0)).fingerprint == known
    assert PatchVocabulary(pictures=pictures, levels=4).fingerprint != known
