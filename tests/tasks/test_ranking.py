"""AUROC and average precision: equal to scikit-learn's, in a training, a report, `compare` and as the best metric."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.models.batch import IGNORED
from chopmix.tasks.classification import Classes, Classification
from chopmix.tasks.measuring.ranking import auroc, average_precision
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

VALUES = st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.9, 1.0]) | st.floats(-5, 5, width=32)
SCORES = st.lists(st.tuples(VALUES, st.booleans()), min_size=1, max_size=40)


@given(SCORES)
def test_auroc_and_average_precision_equal_scikit_learn_with_ties(pairs):
    scores, positive = np.array([s for s, _ in pairs]), np.array([p for _, p in pairs])
    if positive.all() or not positive.any():
        assert np.isnan(auroc(scores, positive))
    else:
        assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    if positive.any():
        assert average_precision(scores, positive) == pytest.approx(
            average_precision_score(positive, scores), abs=1e-12
        )
    else:
        assert np.isnan(average_precision(scores, positive))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_macro_averages_equal_scikit_learn(classes, several):
    random = torch.Generator().manual_seed(classes)
    output = torch.randn(200, classes, generator=random)
    labels = torch.randint(classes, (200,), generator=random)
    task = Classification(target="y", several=several, per_class=True)
    task.learned = Classes(tuple(f"c {n}" for n in range(classes)))
    one_hot = torch.nn.functional.one_hot(labels, classes)
    one_hot = one_hot | (torch.rand(200, classes, generator=random) < 0.2).long() if several else one_hot
    scores = output if several else output.softmax(-1)
    values = one_hot.float() if several else labels.clone()
    missing = torch.full((20, classes), float(IGNORED)) if several else torch.full((20,), IGNORED)
    values, padded = torch.cat([values, missing]), torch.cat([output, torch.randn(20, classes)])
    for name, measure in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        average = task.metrics[name].of_outputs(padded, values)
        assert average == pytest.approx(measure(one_hot, scores, average="macro"), abs=1e-6)
        by_class = [task.metrics[f"{name}_c_{n}"].of_outputs(padded, values) for n in range(classes)]
        assert by_class == pytest.approx(measure(one_hot, scores, average=None), abs=1e-6)
    if not several and classes == 2:
        assert task.metrics["auroc"].of_outputs(padded, values) == pytest.approx(roc_auc_score(labels, scores[:, 1]))


def test_classes_without_samples_are_left_out_and_many_classes_are_not_ranked():
    task = Classification(target="y")
    task.learned = Classes(("a", "b", "c"))
    output = torch.tensor([[2.0, 1, 0], [1, 2, 0], [2, 1, 0.5]])
    values = torch.tensor([0, 1, 0])
    expected = np.mean([roc_auc_score(values == n, output.softmax(-1)[:, n]) for n in range(2)])
    assert task.metrics["auroc"].of_outputs(output, values) == pytest.approx(expected)
    assert np.isnan(task.metrics["auroc"].of_outputs(output, torch.full((3,), IGNORED)))
    assert np.isnan(task.metrics["average_precision"].of_outputs(output[:0], values[:0]))
    assert task.metrics["average_precision"].of_outputs(output, torch.tensor([0, 0, 0])) == 1.0
    task.learned = Classes(tuple(range(101)))
    assert "auroc" not in task.metrics


@pytest.mark.system
def test_the_best_checkpoint_is_chosen_by_auroc_and_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = [{"x": [[float(random.normal() + n % 3)]], "y": "abc"[n % 3]} for n in range(120)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tree = {
        "inputs": {"x": {"use": "sensor", "channels": 1}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 4, "attention": "same_sample"},
        "tasks": {"y": {"use": "classification", "target": "y", "per_class": True}},
        "data": {"dataset": {"use": "manifest", "train": "rows.jsonl", "columns": ["x", "y"]}, "split": {"val": 0.4}},
        "training": {"steps": 6, "samples_per_step": 16}, "evaluation": {"every": 3, "report": False},
        "checkpoints": {"best": "val/auroc"}, "logging": {"tensorboard": False},
    }  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", "a.yaml", "--seeds", "0,1"]) == 0
    assert "best val/auroc" in capsys.readouterr().err
    run = load_run("runs/a/seed-0")
    samples = run.samples("val")
    labels = [samples[n]["y"] for n in range(len(samples))]
    scores = np.array([[*answer["y"]["probabilities"].values()] for answer in run.predict(samples)])
    metrics = run.evaluate("val")
    expected = roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert metrics["val/auroc"] == pytest.approx(expected, abs=1e-6)
    best = json.loads((tmp_path / "runs/a/seed-0/best.json").read_text())
    assert best["val/auroc"] == pytest.approx(metrics["val/auroc"]) and "val/average_precision_b" in best
    assert main(["evaluate", "runs/a/seed-0", "--report"]) == 0
    with open("runs/a/seed-0/report/val-y-classes.csv", newline="") as file:
        table = {row["class"]: row for row in csv.DictReader(file)}
    for number, name in enumerate("abc"):
        positive = np.array(labels) == name
        assert float(table[name]["auroc"]) == pytest.approx(roc_auc_score(positive, scores[:, number]), abs=1e-6)
        precision = average_precision_score(positive, scores[:, number])
        assert float(table[name]["average_precision"]) == pytest.approx(precision, abs=1e-6)
        assert metrics[f"val/average_precision_{name}"] == pytest.approx(precision, abs=1e-6)
    assert main(["compare", "runs/a/seed-0", "runs/a/seed-1", "--output", "compared.csv"]) == 0
    assert "val/auroc" in (tmp_path / "compared.csv").read_text()
