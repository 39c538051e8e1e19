"""Simple models of classes, labels and numbers, on data with missing values, rare classes and texts."""

import numpy as np
import pytest
from chopmix.tasks.baselines.simple_models import (
    Examples,
    character_columns,
    class_baselines,
    label_baselines,
    number_baselines,
    scaling,
    shifted,
)

RANDOM = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def examples(count, targets, seed=0, texts=True):
    """Two numbers and a picture of 4 x 4, of which some are missing, and a text; the class decides all of them."""
    random = np.random.default_rng(seed)
    level = np.nan_to_num(np.asarray(targets)).reshape(count, -1)[:, 0]
    numbers = random.normal(size=(count, 2)) * 0.1 + level[:, None]
    pictures = random.normal(size=(count, 16)) * 0.1 + level[:, None]
    pictures[::7] = np.nan
    words = [["aaa", "bbb", "ccc"][int(abs(value)) % 3] + " x" for value in level]
    return Examples(np.concatenate([numbers, pictures], 1), ((2,), (1, 4, 4)), [words] if texts else [], targets)


KINDS = {
    "classes": (class_baselines(4), np.array([0] * 20 + [1] * 20 + [2])),  # one sample of a class, none of another
    "labels": (label_baselines(), np.array([[0, 1, 0]] * 20 + [[1, 1, 0]] * 21)),
    "numbers": (
        number_baselines(), np.where(np.arange(41)[:, None] % 9, [[0.0, 2.0]] * 20 + [[1.0, 3.0]] * 21, np.nan),
    ),
}  # fmt: skip


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_finite_and_do_not_depend_on_the_other_samples(kind, texts):
    """No baseline reads what it predicts: the predictions for a split do not depend on the others, nor on targets."""
    baselines, targets = KINDS[kind]
    train, one = examples(41, np.nan_to_num(targets), texts=texts), examples(9, targets[15:24] * 0, 1, texts)
    train = Examples(train.numbers, train.shapes, train.texts, targets)
    for baseline in baselines:
        both = baseline.predict(train, [one, train])
        if both is None:
            continue
        outputs = targets.shape[1] if targets.ndim == 2 else 4
        assert both[0].shape == (9, outputs) and np.isfinite(both[0]).all(), baseline.title
        alone = baseline.predict(train, [one])[0]
        np.testing.assert_array_equal(both[0], alone, err_msg=baseline.title)


@pytest.mark.parametrize("title", ["logistic regression", "gradient boosting", "support vector machine"])
def test_classes_that_can_be_separated_are_separated(title):
    targets = np.arange(90) % 3
    (baseline,) = [each for each in class_baselines(3) if each.title == title]
    train, other = examples(90, targets), examples(30, targets[:30], 1)
    assert (baseline.predict(train, [other])[0].argmax(1) == targets[:30]).mean() > 0.95


def test_the_majority_predicts_the_shares_of_the_classes():
    baseline = class_baselines(3)[0]
    result = baseline.predict(examples(4, np.array([0, 0, 0, 2])), [examples(2, np.array([0, 0]))])[0]
    np.testing.assert_allclose(np.exp(result), [[0.75, 1e-6, 0.25]] * 2)


def test_a_ridge_regression_finds_a_linear_function():
    x = RANDOM.normal(size=(200, 3))
    train = Examples(x, ((3,),), (), x @ [[1.0], [2.0], [-1.0]] + 5)
    result = number_baselines()[1].predict(train, [train])[0]
    np.testing.assert_allclose(result, train.targets, atol=0.05)


def test_nine_shifted_copies_of_pictures():
    train = examples(3, np.array([0, 1, 2]))
    copies = shifted(train)
    assert len(copies.numbers) == 27 and copies.targets.tolist() == [0, 1, 2] * 9 and len(copies.texts[0]) == 27
    np.testing.assert_array_equal(copies.numbers[12:15], train.numbers)  # the copy in the middle is not shifted
    np.testing.assert_array_equal(copies.numbers[:3, :2], train.numbers[:, :2])  # other numbers are not moved
    picture = copies.numbers[2, 2:].reshape(4, 4)
    np.testing.assert_array_equal(picture, np.roll(train.numbers[2, 2:].reshape(4, 4), (-1, -1), (0, 1)))


def test_a_picture_has_one_scale_and_numbers_have_one_each():
    train = Examples(np.array([[1.0, 10, 0, 2], [3.0, 10, 4, 6]]), ((2,), (1, 1, 2)), (), np.zeros(2))
    mean, scale = scaling(train)
    assert mean.tolist() == [2, 10, 3, 3] and scale[:2].tolist() == [1, 1] and scale[2] == scale[3]


def test_characters_are_weighted_by_the_training_texts():
    train, other = character_columns([["ab", "abc"], ["b"]])
    again = character_columns([["ab", "abc"], ["b", "zzz"]])[1]
    np.testing.assert_array_equal(other.toarray()[0], again.toarray()[0])
    assert train.shape == (2, 6)  # a, b, c, ab, bc, abc
