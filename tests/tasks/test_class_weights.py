"""`class_weights: balanced`: the loss of a sample is weighted by its class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from batching import fitted
from chopmix.experiment.build import load_learned, save_learned
from chopmix.experiment.preflight import check_balance
from chopmix.models.batch import IGNORED, Targets
from chopmix.tasks.classification import Classification
from sklearn.utils.class_weight import compute_class_weight

LABELS = ["a"] * 12 + ["b"] * 3 + ["c"]
ROWS = [{"label": label} for label in LABELS]


def test_weights_are_those_of_scikit_learn():
    task = fitted(Classification(target="label", class_weights="balanced"), ROWS)
    expected = compute_class_weight("balanced", classes=np.array(list("abc")), y=LABELS)
    torch.testing.assert_close(task.weights(torch.device("cpu")), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_a_weighted_sum_over_samples(smoothing):
    """Each class contributes a third of the mean loss. Mixed labels have mixed weights; a missing label has none."""
    options = {"label_smoothing": smoothing}
    task = fitted(Classification(target="label", class_weights="balanced", **options), ROWS)
    plain, scores = fitted(Classification(target="label", **options), ROWS), torch.randn(17, 3)
    values = torch.tensor([task.numbers[label] for label in LABELS] + [IGNORED])
    weights = task.weights(scores.device)
    each = torch.stack([plain.terms(scores[n : n + 1], Targets(values=values[n : n + 1]))["loss"] for n in range(16)])
    loss = task.terms(scores, Targets(values=values))["loss"]
    torch.testing.assert_close(loss, (each * weights[values[:16]]).sum())
    means = [each[values[:16] == label].mean() for label in range(3)]
    torch.testing.assert_close(loss / 16, torch.stack(means).mean())
    one_hot = F.one_hot(values[:16], 3).float()
    mixed = task.terms(scores[:16], Targets(values=one_hot))["loss"]
    torch.testing.assert_close(mixed, loss)
    assert task.measure(scores, Targets(values=values))["nats"] == plain.measure(scores, Targets(values=values))["nats"]


def test_counts_are_saved_and_wrong_combinations_are_refused(tmp_path):
    task = fitted(Classification(target="label", class_weights="balanced"), ROWS)
    save_learned(task, tmp_path)
    loaded = load_learned(Classification(target="label", class_weights="balanced"), tmp_path)
    assert loaded.learned == task.learned and loaded.classes == ("a", "b", "c")
    with pytest.raises(ValueError, match="class_weights is for one label per sample"):
        Classification(target="label", several=True, class_weights="balanced")
    with pytest.raises(ValueError, match="both balance the classes in column 'label'; remove one"):
        check_balance("label", {"kind": task})
    assert task.imbalance(LABELS) == ""
    plain = Classification(target="label")
    assert plain.imbalance(LABELS) == "12 training samples of 'a', 1 of 'c'" and plain.imbalance(LABELS[9:]) == ""
