"""A run compared with simple models: the same samples, the metrics of the task, and sentences that follow from them."""

import json
from pathlib import Path

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.data.sample_dataset import SampleDataset
from chopmix.data.samples import Listed
from chopmix.experiment.baselines import folds_in
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.inference import baselines
from chopmix.inference.baseline_table import BaselineRow, compared, sentence
from chopmix.inference.baselines import fit_baselines, read_samples
from chopmix.inference.evaluation import measured
from chopmix.inference.limited import Outcome
from tiers import only
from untrained import untrained

WAVE = {"use": "sensor", "channels": 2, "window": 2, "period": 3}
IMAGE = {"use": "image", "patch_size": 4, "channels": 1, "size": 8}
TASKS = {
    "classification": ({"wave": WAVE, "image": IMAGE}, {"use": "classification", "target": "label"}),
    "regression": ({"wave": WAVE}, {"use": "regression", "target": "value"}),
    "forecast": ({"wave": WAVE}, {"use": "forecast", "target": "future", "input": "wave"}),
    "language_modeling": (
        {"text": {"use": "text", "encoding": "bytes"}},
        {"use": "language_modeling", "target": "text"},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch, tmp_path):
    """Simple models are fitted in this process, which is faster (`test_limited.py` starts others)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "in_process", lambda function, limit: Outcome(function(), 1.0))


def run_of(kind, **changes):
    inputs, task = TASKS[kind]
    model = {"attention": "same_sample & causal"} if kind == "language_modeling" else {}
    return untrained({**inputs, **changes.pop("inputs", {})}, {"it": {**task, **changes}}, model)


def test_rules_of_forecasts_have_the_metrics_that_the_task_measures():
    """The last value and the last period have the errors that `forecast` measures beside its own."""
    run = run_of("forecast")
    metrics = measured(run, run.open("val")).metrics
    fitted = {each.title: each.sums["val"].total() for each in fit_baselines(run, "it", ["val"]).fitted}
    for title, name in (("last value", "last_value"), ("last period", "last_period")):
        for number, channel in enumerate(("0", "1")):
            error = fitted[title]["median"][number] / fitted[title]["known"][number]
            assert float(error) == pytest.approx(metrics[f"val/mae_{name}_{channel}"], rel=1e-5)


def test_the_majority_has_the_accuracy_of_its_class():
    run = run_of("classification")
    (comparison,) = compared(run)
    majority = comparison.rows[0]
    assert (majority.title, majority.value, comparison.samples) == ("majority class", 0.5, 8)
    own = measured(run, run.open("val")).metrics["val/accuracy"]
    assert comparison.value == own and majority.better == own - 0.5 and comparison.metric == "accuracy"
    assert {row.title for row in comparison.rows} >= {"logistic regression", "support vector machine, shifted copies"}


def test_the_mean_has_the_error_of_the_mean():
    (comparison,) = compared(run_of("regression"))
    assert comparison.rows[0].value == pytest.approx(np.abs(np.arange(8) - 3.5).mean(), rel=1e-5)
    assert comparison.metric == "mae" and comparison.rows[0].better == pytest.approx(
        comparison.rows[0].value - comparison.value
    )


def test_the_bits_of_a_text_are_those_of_its_bytes():
    run = run_of("language_modeling")
    fitted = fit_baselines(run, "it", ["val"]).fitted[0].sums["val"]
    (comparison,) = compared(run)
    texts = [run.open("val").item(number)[0]["text"] for number in range(8)]
    nats = float(fitted.sums["loss"].sum())
    assert comparison.metric == "bits_per_byte" and fitted.sums["units"].sum() == sum(map(len, texts))
    assert comparison.rows[0].value == pytest.approx(nats / np.log(2) / sum(map(len, texts)))
    assert comparison.rows[0].value < 1 < comparison.value  # the same texts, learned by heart


def test_no_true_value_reaches_a_model_before_its_score(monkeypatch):
    """A prediction is the same if the true values of the split are others."""
    run, outputs, real = run_of("classification"), [], read_samples
    with_other_targets = lambda *which: (sample._replace(target=sample.target * 0) for sample in real(*which))
    with_zeros = lambda *which: with_other_targets(*which) if which[2].name == "val" else real(*which)
    monkeypatch.setattr(baselines, "sums_of", lambda task, samples, predictions: outputs.append(predictions))
    fit_baselines(run, "it", ["val"])
    monkeypatch.setattr(baselines, "read_samples", with_zeros)
    fit_baselines(run, "it", ["val"])
    assert len(outputs) == 2 * 5
    for one, two in zip(outputs[:5], outputs[5:], strict=True):
        np.testing.assert_array_equal(one, two)


def test_inputs_that_simple_models_do_not_read_are_named():
    run = run_of(
        "classification", inputs={"clip": {"use": "video", "size": 8, "patch_size": 4, "frames": 1, "channels": 1}}
    )
    fitted = fit_baselines(run, "it", ["val"])
    assert fitted.remarks == ["Simple models do not read clip."]
    assert all(sample.features.keys() == {"wave", "image"} for sample in read_samples(
        run, "it", run.open("val"), run.open("val").all()))  # fmt: skip


class Gaps(SampleDataset):
    """Samples of which some lack an input, all inputs, or the class."""

    splits, columns = ("train", "val"), ("text", "wave", "label")

    def open(self, split):
        rows = [{"text": "ab" * (n % 3 + 1), "wave": [[float(n)]] * 4, "label": "xyx"[n % 3]} for n in range(12)]
        rows[0] |= {"text": None}
        rows[1] |= {"text": None, "wave": [[np.nan]] * 4}
        rows[2] |= {"label": None}
        rows[3] |= {"wave": None}
        return Listed([f"{split} {n}" for n in range(12)], rows)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_missing_inputs_and_targets():
    Path("gaps.yaml").write_text("""
inputs: {text: {use: text, encoding: bytes}, wave: {use: sensor, channels: 1}}
model: {width: 8, depth: 1, heads: 1, context: 24}
tasks: {it: {use: classification, target: label}}
data: {dataset: {use: "test_baselines:Gaps"}}
training: {steps: 1, samples_per_step: 4}
logging: {tensorboard: false}
""")
    assert main(["train", "gaps.yaml", "--trust", "test_baselines"]) == 0
    run = load_run(Path("runs/gaps"), trust=["test_baselines"])
    samples = {
        sample.number: sample.features for sample in read_samples(run, "it", run.open("val"), run.open("val").all())
    }
    assert samples[0].keys() == {"wave"} and samples[3].keys() == {"text"} and samples[4]["text"] == "abab"
    assert np.isnan(samples[1]["wave"]).all() and 2 not in samples and len(samples) == 11
    (comparison,) = compared(run)
    assert comparison.samples == 11 and all(row.value is not None for row in comparison.rows)


def test_a_target_that_no_simple_model_predicts_is_refused():
    run = untrained(
        {"sound": {"use": "audio", "rate": 8000, "mels": 8}, "text": {"use": "text", "encoding": "bytes"}},
        {"lm": {"use": "language_modeling", "target": "text"}},
    )
    with pytest.raises(DataError, match="no simple model predicts.*Sequences are not supported"):
        compared(run)
    with pytest.raises(DataError, match=r"there is no task 'x'; possible: lm"):
        compared(run, names=["x"])


def test_metrics_that_cannot_be_compared_are_refused():
    run = run_of("classification")
    with pytest.raises(DataError, match=r"cannot be compared by 'mae'; possible: loss, accuracy"):
        compared(run, metric="mae")
    with pytest.raises(DataError, match=r"cannot be compared by 'auroc'; possible: loss, accuracy"):
        compared(run, metric="auroc")
    assert compared(run, metric="balanced_accuracy")[0].metric == "balanced_accuracy"


def row(better, interval, title="ridge regression"):
    return BaselineRow(title=title, seconds=1.0, value=0.5, better=better, interval=interval)


class NoUnits:
    problem = "there are only 9 blocks"


@pytest.mark.parametrize(("better", "interval", "text"), only(9, [
    (0.03, (0.01, 0.05),
     "The run is better than the best simple model (ridge regression) by 0.0300 (0.0100 to 0.0500)."),
    (-0.03, (-0.05, -0.01), "Ridge regression is better than this run by 0.0300 (0.0100 to 0.0500)."),
    (0.01, (-0.01, 0.03), "Ridge regression is as good as this run (difference +0.0100, -0.0100 to +0.0300)."),
    (-0.00001, (-0.00004, 0.00002),
     "Ridge regression is as good as this run (difference -0.000010, -0.000040 to +0.000020)."),
    (0.0, (0.0, 0.0), "Ridge regression is as good as this run (difference +0.0000, +0.0000 to +0.0000)."),
    (-0.01, None, "The run is worse than the best simple model (ridge regression) by 0.0100; there are only 9 blocks."),
]))  # fmt: skip
def test_sentences(better, interval, text):
    others = [row(0.9, (0.8, 1.0), "mean"), BaselineRow(title="x", seconds=60, problem="stopped after 60 s")]
    assert sentence([*others, row(better, interval)], "ridge regression", NoUnits) == text
    assert sentence(others[1:], "", NoUnits) == "No simple model could be fitted."


def test_folders_of_several_runs_are_refused(tmp_path):
    for name in ("seed-0", "seed-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("")
        (tmp_path / name / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match=r"has several runs; name one run.*seed-0"):
        folds_in(tmp_path)
    assert folds_in(tmp_path / "seed-0") == []


CONFIG = """
inputs: {image: {use: image, size: 8, patch_size: 4, channels: 1}}
model: {width: 8, depth: 1, heads: 1, context: 8}
tasks: {digit: {use: classification, target: label}}
data: {dataset: {use: "test_baselines:Few"}}
training: {steps: 1, samples_per_step: 8}
logging: {tensorboard: false}
"""


class Few(SampleDataset):
    """Small pictures of two classes."""

    splits, columns = ("train", "val", "test"), ("image", "label")

    def open(self, split):
        random = np.random.default_rng(0)
        rows = [{"image": (random.integers(128, size=(8, 8, 1)) + 127 * (n % 2)).astype(np.uint8), "label": n % 2}
                for n in range(24)]  # fmt: skip
        return Listed([f"{split} {n}" for n in range(24)], rows)


def test_the_comparison_of_a_training_is_printed_and_stored(tmp_path, capsys, reports, comparisons):
    (tmp_path / "few.yaml").write_text(CONFIG)
    assert main(["train", "few.yaml", "evaluation.baselines=true", "--trust", "test_baselines"]) == 0
    text = "".join(capsys.readouterr())
    assert "majority class" in text and "the run is better by" in text
    stored = json.loads((tmp_path / "runs/few/report/baselines.json").read_text())["comparisons"][0]
    page = (tmp_path / "runs/few/index.html").read_text()
    assert "Compared with simple models" in page and stored["sentence"] in page
    assert stored["task"] == "digit" and stored["sentence"] in text.replace("\n", " ")
    assert main(["baselines", "runs/few", "--split", "test", "--json", "x.json", "--trust", "test_baselines"]) == 0
    assert "logistic regression" in capsys.readouterr().out and json.loads((tmp_path / "x.json").read_text())
    for wrong, message in ((["--limit", "0"], "--limit must be"), (["--json", "no/x.json"], "does not exist")):
        assert main(["baselines", "runs/few", *wrong, "--trust", "test_baselines"]) == 2
        assert message in capsys.readouterr().err


def test_a_cross_validation_is_compared_on_all_samples(tmp_path, capsys):
    (tmp_path / "few.yaml").write_text(CONFIG)
    assert main(["train", "few.yaml", "--folds", "3", "--trust", "test_baselines"]) == 0
    capsys.readouterr()
    assert main(["baselines", "runs/few", "--trust", "test_baselines", "--json", "x.json"]) == 0
    comparison = json.loads((tmp_path / "x.json").read_text())["comparisons"][0]
    assert comparison["samples"] == 48 and comparison["rows"][0]["value"] == pytest.approx(0.5, abs=0.1)
    assert main(["baselines", "runs/few", "--split", "test", "--trust", "test_baselines"]) == 2
    assert "no other test split" in capsys.readouterr().err


def test_a_run_without_simple_models_is_refused_before_it_trains(tmp_path, capsys):
    (tmp_path / "few.yaml").write_text(
        CONFIG.replace("use: classification, target: label", "use: reconstruction, target: image")
    )
    assert main(["train", "few.yaml", "evaluation.baselines=true", "--trust", "test_baselines"]) == 2
    assert "no simple model predicts the target of Reconstruction" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/few/checkpoints/*"))
