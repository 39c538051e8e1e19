"""The digits of scikit-learn are read without importing scikit-learn."""

import numpy as np
import pytest
from chopmix.data.datasets import digits
from chopmix.data.datasets.digits import Digits
from chopmix.files.reading import DataError


def test_digits_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.datasets")
    images, labels = Digits().images
    known = sklearn.load_digits()
    assert np.array_equal(images, np.round(known.images * (255 / 16))) and images.dtype == np.uint8
    assert np.array_equal(labels, known.target) and len(labels) == 1797


def test_without_scikit_learn_they_are_refused(monkeypatch):
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="the images are in the package scikit-learn: pip install scikit-learn"):
        Digits().open("train")
