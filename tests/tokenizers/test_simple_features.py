"""What simple models read of each tokenizer's items."""

import importlib

import numpy as np
import pytest
import torch
from chopmix.files.plugins import modules_of
from chopmix.tokenizers.base import Chopper, Role
from chopmix.tokenizers.media.simple_features import series_features, shares, small_picture, small_spectrogram
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

MODULES = {name: module for name, module in modules_of("tokenizers").items() if name != "base"}
WITHOUT = {"codes", "encoded", "score", "video"}
"""The tokenizers whose items simple models do not read."""


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"codes", "encoded"}))  # these two need a trained run
def test_items_have_arrays_of_one_shape_or_texts(name):
    example = importlib.import_module(MODULES[name]).EXAMPLE
    options = example.options | ({"statistics": (-5.0, 3.0)} if "statistics" in example.options else {})
    classes = [each for each in vars(importlib.import_module(MODULES[name])).values() if isinstance(each, type)]
    tokenizer = next(each for each in classes if each.__module__ == MODULES[name] and hasattr(each, "Chopper"))
    chopper = tokenizer.Chopper(**options).fit(example.items, Role())
    features = [chopper.simple_features(chopper.decode(item)) for item in example.items()]
    assert (name in WITHOUT) == (features[0] is None)
    if isinstance(features[0], np.ndarray):
        one, two = features
        assert one.shape == two.shape and one.dtype == np.float32 and np.isfinite(one).all() and (one != two).any()
    assert isinstance(chopper, Chopper)


@given(values=arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 3)),
                     elements=st.floats(-100, 100, width=32) | st.just(np.nan)))  # fmt: skip
def test_series_have_a_fixed_number_of_features(values):
    features = series_features(values).reshape(values.shape[1], 37)
    for column, (mean, std, low, high, *rest) in zip(values.T, features):
        known = column[~np.isnan(column)]
        if not len(known):
            assert np.isnan([mean, std, low, high, *rest]).all()
            continue
        assert (low, high) == (known.min(), known.max()) and mean == pytest.approx(known.mean(), abs=1e-3)
        assert std >= 0 and all(low - 1e-3 <= value <= high + 1e-3 for value in rest[1:])


def test_a_line_is_resampled_to_a_line():
    values = np.arange(63, dtype=np.float32)[:, None]
    values[5] = np.nan
    np.testing.assert_allclose(series_features(values)[5:], np.linspace(0, 62, 32), rtol=1e-6)


def test_shares_of_categories():
    values = np.array([[0, 2.0], [0, np.nan], [1, 2], [0, np.nan]])
    np.testing.assert_allclose(shares(values, 3), [0.75, 0.25, 0, 0, 0, 1])
    assert np.isnan(shares(np.full((2, 1), np.nan), 2)).all()


def test_small_pictures_are_means_and_spectrograms_are_normalised():
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, :2, :2] = 255
    assert small_picture(image).shape == (3, 16, 16) and small_picture(image).sum() == pytest.approx(3)
    values = small_spectrogram(torch.randn(7, 40))
    assert values.shape == (24, 24) and values.mean() == pytest.approx(0, abs=1e-5)
    assert values.std() == pytest.approx(1, abs=0.01)
