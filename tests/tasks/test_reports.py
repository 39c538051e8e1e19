"""Reports about answers: classes, calibration, numbers and texts, compared with scikit-learn, torch and jiwer."""

import math
import random

import jiwer
import numpy as np
import pytest
import torch
from chopmix.tasks.classification import Classes, Classification
from chopmix.tasks.measuring.calibration import (
    Calibration,
    calibration_error,
    fit_temperature,
    nats,
    threshold_rows,
    with_temperature,
)
from chopmix.tasks.measuring.class_report import ClassReporter, LabelReporter
from chopmix.tasks.measuring.number_report import NumberReporter, range_rows
from chopmix.tasks.measuring.report import WORST, Mistake
from chopmix.tasks.measuring.text_report import TextReporter
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

NAMES = ["cat", "cow", "dog", "eel"]


def classification(count: int) -> Classification:
    task = Classification(target="label")
    task.learned = Classes([f"c{number}" for number in range(count)])
    return task


def answered(reporter, true, predicted, seed=0):
    draw = np.random.default_rng(seed)
    for number, (expected, answer) in enumerate(zip(true, predicted)):
        weights = draw.random(len(reporter.classes)) * 0.2
        weights[reporter.classes.index(answer)] += 1
        probabilities = dict(zip(map(str, reporter.classes), (weights / weights.sum()).tolist()))
        reporter.add(number, f"s{number}", expected, {"class": answer, "probabilities": probabilities})
    return reporter.section({}, store=False)


def table_of(section, name):
    (table,) = [table for table in section.tables if table.name == name]
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_every_class_has_a_row_and_the_worst_is_first():
    draw = random.Random(0)
    true = [draw.choice(NAMES[:3]) for _ in range(200)]
    predicted = [name if draw.random() < 0.6 else draw.choice(NAMES[:2]) for name in true]
    section = answered(ClassReporter(NAMES), true, predicted)
    rows = table_of(section, "classes")
    columns = metrics.precision_recall_fscore_support(true, predicted, labels=NAMES, zero_division=np.nan)
    for row in rows:
        for name, values in zip(("precision", "recall", "f1", "samples"), columns, strict=True):
            expected = values[NAMES.index(row["class"])]
            if row[name] is None:
                assert row["class"] == "eel"  # neither true nor predicted
            else:
                assert row[name] == pytest.approx(expected)
    assert [row["f1"] for row in rows[:3]] == sorted(row["f1"] for row in rows[:3]) and rows[3]["f1"] is None
    confusion = table_of(section, "confusion")
    matrix = metrics.confusion_matrix(true, predicted, labels=NAMES)
    assert [[row[f"predicted {name}"] for name in NAMES] for row in confusion] == matrix.tolist()
    assert section.samples == 200 and all("200 samples" in table.note for table in section.tables)
    assert all(f"{true.count('cow')} cow" in table.note for table in section.tables)  # also by class
    assert f"{true.count('cat')} cat" in section.tables[0].note


def test_classes_that_are_never_predicted_and_unknown_labels_are_reported():
    reporter = ClassReporter(NAMES)
    section = answered(reporter, ["cat", "cow", "cow"], ["cat", "cat", "cat"])
    assert section.lines[0] == "never predicted although there are samples: cow"
    (row,) = [row for row in table_of(section, "classes") if row["class"] == "cow"]
    assert row["precision"] is None and row["recall"] == 0
    reporter.add(3, "s3", "fox", {"class": "cat", "probabilities": dict.fromkeys(NAMES, 0.25)})
    section = reporter.section({}, store=False)
    assert section.lines[1] == "1 samples have labels that training did not contain: fox (1)" and section.samples == 3
    assert ClassReporter(NAMES).section({}, store=True).samples == 0


def test_the_most_certain_mistakes_are_the_worst():
    reporter = ClassReporter(["a", "b"])
    for number in range(100):
        share = 0.5 + number / 200
        reporter.add(number, f"s{number}", "a", {"class": "b", "probabilities": {"a": 1 - share, "b": share}})
    worst = reporter.section({}, store=False).worst
    assert [mistake.number for mistake in worst] == list(range(99, 99 - WORST, -1))
    assert worst[0] == Mistake(99, "s99", "b (0.995), true: a (0.005)")


def samples_of(temperature: float, count: int, classes: int = 4, seed: int = 0):
    """Probabilities of a model that is too certain by this factor, and classes drawn from the correct probabilities."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1.5, (count, classes))
    right = with_temperature(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1.0)
    targets = np.array([draw.choice(classes, p=row) for row in right])
    return with_temperature(right, 1 / temperature), targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_a_model_that_is_too_certain_is_fitted(temperature):
    probabilities, targets = samples_of(temperature, 20_000)
    assert fit_temperature(probabilities, targets) == pytest.approx(temperature, rel=0.05)
    raw, after = probabilities, with_temperature(probabilities, temperature)
    assert calibration_error(after, targets) < 0.02 and nats(after, targets) <= nats(raw, targets) + 1e-9
    if temperature != 1:
        assert calibration_error(raw, targets) > 0.05


def test_the_temperature_is_that_of_a_general_optimizer():
    probabilities, targets = samples_of(1.7, 500)
    logits, log_temperature = (
        torch.tensor(probabilities).log(),
        torch.zeros((), dtype=torch.float64, requires_grad=True),
    )
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, tolerance_change=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / log_temperature.exp(), torch.tensor(targets))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(probabilities, targets) == pytest.approx(math.exp(log_temperature.item()), rel=1e-3)


def test_the_error_is_measured_on_other_samples_than_those_of_the_fit():
    probabilities, targets = samples_of(2.0, 400)
    calibration = Calibration.of(probabilities, targets, {}, store=True)
    assert calibration.fitted_on == len(calibration.targets) == 200
    half = {tuple(row) for row in calibration.probabilities.tolist()}
    order = np.random.default_rng(0).permutation(400)
    fitted = fit_temperature(probabilities[order[:200]], targets[order[:200]])
    assert calibration.temperature == fitted and not half & {tuple(row) for row in probabilities[order[:200]].tolist()}
    elsewhere = Calibration.of(probabilities, targets, {"temperature": 1.5}, store=False)
    assert elsewhere.temperature == 1.5 and len(elsewhere.targets) == 400
    for few, none in ((probabilities[:30], targets[:30]), (probabilities, probabilities.argmax(1))):
        assert Calibration.of(few, none, {"temperature": 1.5}, store=True).temperature is None
        assert Calibration.of(few, none, {}, store=True).lines() == []


def test_a_temperature_that_helps_only_one_half_is_not_stored():
    """In the half that fits, wrong answers are confident; in the other half all answers are right."""
    order = np.random.default_rng(0).permutation(80)
    probabilities, targets = np.tile([0.99, 0.01], (80, 1)), np.zeros(80, int)
    targets[order[:20]] = 1
    calibration = Calibration.of(probabilities, targets, {}, store=True)
    assert calibration.temperature is None and calibration.rejected > 2 and len(calibration.targets) == 80
    assert calibration.lines()[0].startswith(f"no temperature is stored: {calibration.rejected:.3f}")


def test_a_temperature_at_the_limit_is_not_stored():
    """The probabilities do not depend on the targets, so that equal probabilities would be best."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([0.02] * 3, 400)
    calibration = Calibration.of(probabilities, random.integers(3, size=400), {}, store=True)
    assert calibration.temperature is None and calibration.rejected > 19.8


def test_calibration_of_an_answer_is_that_of_the_logits():
    task, logits = classification(5), torch.randn(3, 5)
    answers = [{"class": "c0", "probabilities": dict(zip(task.classes, row.softmax(-1).tolist()))} for row in logits]
    for answer, row in zip(answers, logits):
        probabilities = task.calibrated(answer, {"temperature": 2.5})["probabilities"]
        torch.testing.assert_close(torch.tensor([*probabilities.values()]), (row / 2.5).softmax(-1))
        assert [*probabilities] == [*task.classes] and task.calibrated(answer, {}) == answer


def test_coverage_falls_with_the_threshold():
    confidences, correct = np.array([0.55, 0.65, 0.95, 0.999]), np.array([False, True, True, True])
    rows = {row[0]: row[1:] for row in threshold_rows(confidences, correct)}
    assert rows[0.0] == [4, 1.0, 0.75] and rows[0.6] == [3, 0.75, 1.0] and rows[0.99] == [1, 0.25, 1.0]
    assert threshold_rows(confidences[:1], correct[:1])[-1] == [0.999, 0, 0.0, None]


def test_several_labels_of_one_sample():
    reporter = LabelReporter(["a", "b", "c"])
    pairs = [(["a", "b"], ["a"]), (["a"], ["a", "c"]), ([], []), (["b"], ["b"])]
    for number, (true, predicted) in enumerate(pairs):
        reporter.add(number, f"s{number}", true, {"classes": predicted, "probabilities": {}})
    section = reporter.section({}, store=False)
    rows = {row["class"]: row for row in table_of(section, "classes")}
    assert rows["a"]["f1"] == 1 and rows["b"]["recall"] == 0.5 and rows["c"]["precision"] == 0
    assert [mistake.number for mistake in section.worst] == [0, 1] and section.samples == 4


def test_errors_by_range_and_the_worst_in_units_of_the_spread():
    draw = np.random.default_rng(0)
    true = draw.uniform(0, 100, (500, 2))
    predicted = true + draw.normal(0, [1, 10], (500, 2))
    predicted[7] += [50, 0]
    reporter = NumberReporter(["speed", "angle"], [30.0, 30.0])
    for number, (row, answer) in enumerate(zip(true.tolist(), predicted.tolist())):
        values = dict(zip(("speed", "angle"), answer))
        reporter.add(number, f"s{number}", [row[0], None] if number == 3 else row, {"values": values})
    section = reporter.section({}, store=False)
    rows = table_of(section, "residuals")
    speed, angle = ([row for row in rows if row["number"] == name] for name in ("speed", "angle"))
    assert len(speed) == len(angle) == 11 and speed[-1]["samples"] == 500 and angle[-1]["samples"] == 499
    assert sum(row["samples"] for row in speed[:-1]) == 500 and section.worst[0].number == 7
    errors = predicted[:, 0] - true[:, 0]
    assert speed[-1]["mae"] == pytest.approx(np.abs(errors).mean())
    assert speed[-1]["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert angle[-1]["mean_error"] == pytest.approx(np.delete(predicted[:, 1] - true[:, 1], 3).mean())


@given(st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.5]), min_size=1, max_size=30))
def test_every_sample_is_in_one_range(values):
    true = np.array(values)
    rows = range_rows(true, true + 1)
    assert sum(row[2] for row in rows[:-1]) == len(values) == rows[-1][2]
    assert all(row[4] == row[5] == row[6] == pytest.approx(1) for row in rows)


def test_the_texts_with_the_most_errors():
    reporter, pairs = (
        TextReporter(),
        [("the cat", "the cat"), ("the cot", "the cat"), ("x", "a dog"), ("", ""), ("a", "")],
    )
    for number, (text, true) in enumerate(pairs):
        reporter.add(number, f"s{number}", true, {"text": text})
    section = reporter.section({}, store=False)
    assert section.samples == 5 and "2 texts equal" in section.tables[0].note
    numbers = [mistake.number for mistake in section.worst]
    assert set(numbers) == {1, 2, 4} and numbers[-1] == 1
    rows = {row["share_of_texts"]: row for row in table_of(section, "error-rates")}
    assert rows["0%"]["per_character"] == 0 and rows["50%"]["per_character"] == pytest.approx(
        jiwer.cer("the cat", "the cot")
    )


def test_classes_with_the_same_text_have_no_calibration():
    reporter = ClassReporter([1, "1", "a"])
    for number in range(50):
        reporter.add(number, f"s{number}", "a", {"class": "a", "probabilities": {"1": 0.5, "a": 0.5}})
    section = reporter.section({}, store=True)
    assert "calibration" not in {table.name for table in section.tables} and section.samples == 50
