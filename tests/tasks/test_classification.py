"""Classification: labels of different types, the loss on samples without a label, and the metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chopmix.data.division import Division
from chopmix.data.samples import Listed
from chopmix.files.reading import DataError
from chopmix.files.records import as_text
from chopmix.models.batch import IGNORED, Targets
from chopmix.tasks.classification import Classes, Classification
from columns import Column
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

LABELS = (
    st.integers(-20, 20)
    | st.integers(-20, 20).map(float)
    | st.integers(0, 20).map(str)
    | st.sampled_from(["off", 0.5, "x"])
)


def fitted(values: list, **options) -> Classification:
    task = Classification(target="y", **options)
    task.learned = task.fit(Column(values))
    return task


@given(st.lists(LABELS, min_size=2, max_size=12))
def test_labels_with_the_same_text_are_one_class(values):
    texts = {as_text(value) for value in values}
    if len(texts) < 2:
        return
    task = fitted(values, class_weights="balanced")
    assert {as_text(name) for name in task.classes} == texts and len(task.classes) == len(texts)
    assert sum(task.learned.counts) == len(values)
    for value in values:
        assert as_text(task.classes[int(task.encoded(value))]) == as_text(value)
        assert task.as_answer(value) == task.classes[int(task.encoded(as_text(value)))]


@pytest.mark.parametrize(
    "classes, label, expected",
    [
        ((1, 2), "1", 1), ((1, 2), "01", 1), ((1, 2), 1.0, 1), ((7, 10), "007", 7),  # a run of an older version
        (("1", "2"), 1, "1"), (("1", "2"), 2.0, "2"), (("007", "010"), 7, "007"), (("007", "010"), "7", "007"),
        (("7", "007"), "7", "7"), (("7", "007"), "007", "007"), (("7", "007"), 7, "7"), ((0.5, 1.5), "0.50", 0.5),
        ((1, "1"), 1, 1), ((1, "1"), "1", "1"),
    ],
)  # fmt: skip
def test_labels_of_another_type_match_their_class(classes, label, expected):
    task = Classification(target="y")
    task.learned = Classes(classes)
    assert task.class_of(label) == expected and task.classes[int(task.encoded(label))] == expected


@pytest.mark.parametrize("label", ["07", 7, "x", "[1]", "[1"])
def test_an_ambiguous_label_belongs_to_no_class(label):
    task = Classification(target="y")
    task.learned = Classes(("007", "7.0"))
    with pytest.raises(DataError, match="is none of the 2 classes"):
        task.encoded(label)


def test_an_empty_column_of_labels_is_refused():
    with pytest.raises(DataError, match="column 'y' has 0 classes in the training data"):
        fitted([None, None])
    with pytest.raises(DataError, match="has no value in column 'y'"):
        Division(group="y").numbers(Listed(["a", "b"], [{"y": None}, {"y": None}]), ("train", "val"))


@pytest.mark.parametrize("labelled", range(16))
def test_the_weight_of_unlabelled_samples_does_not_depend_on_the_number_of_labels(labelled):
    torch.manual_seed(0)
    half, values = torch.randn(16, 3), torch.full((32,), IGNORED)
    values[:labelled] = torch.arange(labelled) % 3
    scores = torch.cat([torch.zeros(16, 3), half]).requires_grad_()
    unlabelled = scores[labelled:].softmax(-1)
    mean = unlabelled.mean(0)
    expected = -(mean * mean.log()).sum() + (unlabelled * unlabelled.log()).sum(-1).mean()
    for weight in (0.1, 1.0):
        task = Classification(target="y", unlabelled=weight)
        task.learned = Classes((0, 1, 2))
        terms = task.terms(scores, Targets(values=values, count=labelled))
        per_target = terms["unlabelled"] / max(labelled, 1)  # as Learner.update divides it
        torch.testing.assert_close(per_target, -weight * expected)


@given(st.integers(2, 9), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=30))
def test_accuracy_balanced_accuracy_and_f1_are_those_of_scikit_learn(count, pairs):
    true, predicted = (np.array(column) % count for column in zip(*pairs))
    task = fitted([f"c{number}" for number in range(count)])
    scores = torch.nn.functional.one_hot(torch.tensor(predicted), count) * 3.0
    values = torch.tensor(true)
    values[0] = IGNORED if len(pairs) > 1 else values[0]
    sums = task.measure(scores, Targets(values=values)) | {"count": (values != IGNORED).sum()}
    figures = {name: metric.of_sums(sums) for name, metric in task.metrics.items() if metric.of_sums}
    known = values.numpy() != IGNORED
    true, predicted = true[known], predicted[known]
    recalls = metrics.recall_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert figures["balanced_accuracy"] == pytest.approx(recalls)
    assert figures["macro_f1"] == pytest.approx(metrics.f1_score(true, predicted, average="macro", zero_division=0))
