"""Simple models of classes and numbers, with which a run is compared (`chopmix baselines`): the majority or the mean,
logistic or ridge regression, gradient boosting, support vector machines. They are those of scikit-learn.

They read the simple features of the inputs (`Chopper.simple_features`): arrays, which are concatenated, and texts,
whose sequences of one to four characters are counted. A missing value becomes the mean of the training data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

N_GRAMS, HASHED, REDUCED = (1, 4), 2**18, 64
"""The lengths of the sequences of characters, the number of columns into which they are hashed, and the number of
columns to which these are reduced for trees."""
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""The penalties that cross-validation compares; for a logistic regression these are their inverses."""
FOLDS, LARGE = 5, 2_000_000
"""The number of folds. Above LARGE numbers in the training data, a fifth of the data replaces the folds."""
SHIFTED = 20_000
"""The largest number of shifted copies of pictures that a support vector machine reads."""
FLOOR = 1e-6
"""The smallest probability of a class."""


@dataclass(frozen=True)
class Examples:
    """What simple models read of some samples."""

    numbers: Float[np.ndarray, "n f"]
    """The arrays of all inputs, flattened and concatenated; NaN is missing."""
    shapes: Sequence[tuple[int, ...]]
    """The shapes of these arrays, in order."""
    texts: Sequence[Sequence[str]]
    """For each input of texts, the n texts; empty if missing."""
    targets: Any = None
    """The n targets (see `Task.baseline_target`), an array or a list; None: they are predicted."""


Predict = Callable[[Examples, Sequence[Examples]], Sequence[Any]]
"""Fits a model to the first examples and returns its predictions for each of the others: an array with one row per
example, or a list. Its results become outputs of the task's head by `Task.baseline_output`."""


@dataclass(frozen=True)
class Baseline:
    """A simple model with which a run is compared."""

    title: str
    predict: Predict
    """A function of a module, so that it can be sent to another process."""
    is_likelihood: bool = False
    """Whether the model returns the likelihoods of the targets, like a language model. Only such a model receives the
    targets of the samples that it predicts."""


def class_baselines(classes: int) -> list[Baseline]:
    """Returns the baselines of a classification. Targets are class numbers (n); predictions (n, v) are logarithms of
    probabilities, or scores of the classes."""
    return [
        Baseline("majority class", partial(majority, classes)),
        Baseline("logistic regression", partial(probabilities, logistic, classes)),
        Baseline("gradient boosting", partial(probabilities, boosted_classes, classes)),
        Baseline("support vector machine", partial(support_vectors, classes, False)),
        Baseline("support vector machine, shifted copies", partial(support_vectors, classes, True)),
    ]


def label_baselines() -> list[Baseline]:
    """Returns the baselines of a classification with several labels. Targets are zeros and ones (n, v); predictions
    (n, v) are logits."""
    return [
        Baseline("shares of the labels", label_shares),
        Baseline("logistic regression", partial(each_label, logistic)),
        Baseline("gradient boosting", partial(each_label, boosted_classes)),
    ]


def number_baselines() -> list[Baseline]:
    """Returns the baselines of a regression. Targets and predictions are numbers (n, v); a missing target is NaN."""
    return [
        Baseline("mean", means),
        Baseline("ridge regression", partial(each_number, ridge)),
        Baseline("gradient boosting", partial(each_number, boosted_numbers)),
    ]


def majority(classes: int, train: Examples, others: Sequence[Examples]) -> list[np.ndarray]:
    """Predicts the shares of the classes in the training data."""
    counts = np.bincount(train.targets, minlength=classes)
    row = np.log(np.maximum(counts / counts.sum(), FLOOR))
    return [np.tile(row, (len(examples.numbers), 1)) for examples in others]


def probabilities(
    fit: Callable[..., Any], classes: int, train: Examples, others: Sequence[Examples]
) -> list[np.ndarray]:  # fmt: skip
    """Predicts by the probabilities of a classifier; a class without training samples gets FLOOR."""
    model, (_, *matrices) = fitted(fit, train, others, train.targets)
    results = []
    for matrix in matrices:
        result = np.full((matrix.shape[0], classes), FLOOR)
        result[:, model.classes_] = model.predict_proba(matrix)
        results.append(np.log(np.maximum(result, FLOOR)))
    return results


def fitted(fit: Callable[..., Any], train: Examples, others: Sequence[Examples], targets: Any) -> tuple[Any, list[Any]]:
    """Returns (a fitted model, the matrices of the training data and of the others)."""
    matrices = dense_columns(train, others) if fit in TREES else linear_columns(train, others)
    return fit(matrices[0], targets), matrices


def logistic(x: Any, y: Int[np.ndarray, "n"]) -> Any:
    """Returns a logistic regression whose penalty is chosen by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, StratifiedShuffleSplit

    least = int(np.bincount(y)[np.unique(y)].min())
    model = LogisticRegression(max_iter=300)
    if least < 2:
        return model.fit(x, y)
    is_large = math.prod(x.shape) > LARGE and not sparse.issparse(x)
    folds = StratifiedShuffleSplit(1, test_size=0.2, random_state=0) if is_large else StratifiedKFold(min(FOLDS, least))
    return GridSearchCV(model, {"C": PENALTIES}, cv=folds, scoring="neg_log_loss").fit(x, y)


def boosted_classes(x: np.ndarray, y: Int[np.ndarray, "n"]) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0).fit(x, y)


def support_vectors(
    classes: int, is_shifted: bool, train: Examples, others: Sequence[Examples]
) -> list[np.ndarray] | None:  # fmt: skip
    """Predicts by the scores of a support vector machine: with radial basis functions, or a linear one for texts. With
    `is_shifted`, the training data have nine copies of each sample, whose pictures are shifted by up to a pixel; None
    without pictures, and for too many samples."""
    from sklearn.svm import SVC, LinearSVC

    if is_shifted:
        if not any(len(shape) == 3 for shape in train.shapes) or 9 * len(train.numbers) > SHIFTED:
            return None
        train = shifted(train)
    x, *matrices = linear_columns(train, others)
    model = (LinearSVC(random_state=0) if train.texts else SVC(C=10)).fit(x, train.targets)
    return [class_scores(model.decision_function(matrix), model.classes_, classes) for matrix in matrices]


def class_scores(scores: np.ndarray, present: Int[np.ndarray, "k"], classes: int) -> Float[np.ndarray, "n v"]:
    """Returns the scores of all classes. `scores` are those of the classes `present` in the training data; of two
    classes only that of the second one."""
    scores = np.stack([-scores, scores], 1) if scores.ndim == 1 else scores
    result = np.full((len(scores), classes), scores.min(initial=0.0) - 1)
    result[:, present] = scores
    return result


def shifted(train: Examples) -> Examples:
    """Returns nine copies of examples with pictures. A picture is shifted by -1, 0 or 1 pixels in both directions; what
    leaves it on one side enters on the other."""
    copies = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            parts = []
            for (first, last), shape in zip(column_ranges(train.shapes), train.shapes):
                block = train.numbers[:, first:last].reshape(-1, *shape)
                moved = np.roll(block, (down, right), (-2, -1)) if len(shape) == 3 else block
                parts.append(moved.reshape(len(block), -1))
            copies.append(np.concatenate(parts, 1))
    texts = [[*texts] * 9 for texts in train.texts]
    return Examples(np.concatenate(copies), train.shapes, texts, np.tile(train.targets, 9))


def column_ranges(shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """Returns the first column of each array, and the first one after it."""
    ends = np.cumsum([0, *map(math.prod, shapes)]).tolist()
    return [*zip(ends[:-1], ends[1:])]


def label_shares(train: Examples, others: Sequence[Examples]) -> list[np.ndarray]:
    """Predicts the share of each label in the training data."""
    row = logits((train.targets.sum(0) + 0.5) / (len(train.targets) + 1))
    return [np.tile(row, (len(examples.numbers), 1)) for examples in others]


def each_label(fit: Callable[..., Any], train: Examples, others: Sequence[Examples]) -> list[np.ndarray]:
    """Predicts each label by a classifier of its own; a label that all training samples have, or none, by its share."""
    results = label_shares(train, others)
    for number, column in enumerate(train.targets.T.astype(np.int64)):
        if column.min() != column.max():
            model, (_, *matrices) = fitted(fit, train, others, column)
            for result, matrix in zip(results, matrices):
                result[:, number] = logits(model.predict_proba(matrix)[:, 1])
    return results


def logits(shares: np.ndarray) -> np.ndarray:
    """Returns the logits of probabilities, which are at least FLOOR and at most 1 - FLOOR."""
    clipped = np.clip(shares, FLOOR, 1 - FLOOR)
    return np.log(clipped / (1 - clipped))


def means(train: Examples, others: Sequence[Examples]) -> list[np.ndarray]:
    """Predicts the mean of the training data."""
    row = np.nanmean(train.targets, axis=0)
    return [np.tile(row, (len(examples.numbers), 1)) for examples in others]


def each_number(fit: Callable[..., Any], train: Examples, others: Sequence[Examples]) -> list[np.ndarray]:
    """Predicts each number by a model of its own, from the samples whose target is known."""
    results = means(train, others)
    x, *matrices = dense_columns(train, others) if fit in TREES else linear_columns(train, others)
    for number, column in enumerate(train.targets.T):
        known = np.flatnonzero(~np.isnan(column))
        model = fit(x[known], column[known])
        for result, matrix in zip(results, matrices):
            result[:, number] = model.predict(matrix)
    return results


def ridge(x: Any, y: Float[np.ndarray, "n ..."]) -> Any:
    """Returns a ridge regression whose penalty is chosen by cross-validation."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, KFold

    folds = min(FOLDS, x.shape[0])
    if folds < 2:
        return Ridge().fit(x, y)
    scale = {"alpha": np.array(PENALTIES) * x.shape[0] / 10}
    return GridSearchCV(Ridge(), scale, cv=KFold(folds), scoring="neg_mean_squared_error").fit(x, y)


def boosted_numbers(x: np.ndarray, y: Float[np.ndarray, "n"]) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(random_state=0).fit(x, y)


TREES = (boosted_classes, boosted_numbers)
"""The models that read dense columns without scaling, in which values may be missing."""


def linear_columns(train: Examples, others: Sequence[Examples]) -> list[Any]:
    """Returns the columns of linear models and support vector machines for the training data and the others: numbers
    with mean 0 and std 1, those of a picture or spectrogram by a common mean and std, then the sequences of characters,
    as a sparse matrix if there are texts."""
    every = (train, *others)
    mean, scale = scaling(train)
    numbers = [np.nan_to_num((examples.numbers - mean) / scale) for examples in every]
    if not train.texts:
        return numbers
    counted = [character_columns([examples.texts[number] for examples in every]) for number in range(len(train.texts))]
    return [sparse.hstack([numbers[index], *(each[index] for each in counted)], "csr") for index in range(len(every))]


def scaling(train: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the std of each column; of a constant column the std is 1."""
    mean, scale = np.zeros(train.numbers.shape[1]), np.ones(train.numbers.shape[1])
    for (first, last), shape in zip(column_ranges(train.shapes), train.shapes):
        axis = 0 if len(shape) == 1 else None
        block = train.numbers[:, first:last].astype(np.float64)
        known = (~np.isnan(block)).sum(axis)
        of_block = np.nansum(block, axis) / np.maximum(known, 1)
        mean[first:last] = of_block
        std = np.sqrt(np.nansum((block - of_block) ** 2, axis) / np.maximum(known, 1))
        scale[first:last] = np.where(std > 1e-8 * np.maximum(np.abs(of_block), 1e-8), std, 1.0)
    return mean, scale


def character_columns(texts: Sequence[Sequence[str]]) -> list[Any]:
    """Returns sparse matrices with the weights (tf-idf) of the sequences of characters in the training texts, the first
    ones, and in the others."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    counter = HashingVectorizer(
        analyzer="char", ngram_range=N_GRAMS, n_features=HASHED, alternate_sign=False, norm=None
    )
    counts = [counter.transform(part) if len(part) else sparse.csr_array((0, HASHED)) for part in texts]
    used = np.flatnonzero(counts[0].getnnz(axis=0))
    weights = TfidfTransformer(sublinear_tf=True).fit(counts[0][:, used])
    return [weights.transform(part[:, used]) for part in counts]


def dense_columns(train: Examples, others: Sequence[Examples]) -> list[np.ndarray]:
    """Returns the columns of trees: the numbers, and REDUCED columns for each input of texts."""
    from sklearn.decomposition import TruncatedSVD

    every = (train, *others)
    columns = [[examples.numbers] for examples in every]
    for number in range(len(train.texts)):
        counted = character_columns([examples.texts[number] for examples in every])
        few = counted[0].shape[1] <= REDUCED
        reduce = methodcaller("toarray") if few else TruncatedSVD(REDUCED, random_state=0).fit(counted[0]).transform
        for of_examples, matrix in zip(columns, counted):
            of_examples.append(reduce(matrix))
    return [np.concatenate(of_examples, 1) for of_examples in columns]
