"""The metrics of a run belong to the checkpoint that `predict` and `evaluate` load: in the summary, in tables, pages
and the evaluators at the end, also with several features at the same time."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.figures import figures_of
from chopmix.experiment.groups import read_groups
from chopmix.experiment.run import load_run
from chopmix.inference.evaluator import Evaluator, Result
from chopmix.training import checkpoints as checkpoint


class Weights(Evaluator):
    """Measures the step and the sum of all weights of the model that an evaluator at the end receives."""

    when = "end"

    def run(self, trained, say):
        total = float(sum(value.double().sum() for value in trained.model.state_dict().values()))
        return Result(metrics={"val/weights": total, "val/step": float(trained.step)})


def sums_of_weights(folder: Path, step: int) -> float:
    tensors = checkpoint.read_part(folder, step, "model") | checkpoint.read_part(folder, step, "ema")
    return float(sum(value.double().sum() for value in tensors.values()))


def write_series(file: Path, hours: int = 500, seed: int = 0) -> Path:
    """Writes a table with hourly temperatures at irregular minutes, a second sensor four times an hour, a class and a
    session; some cells are empty."""
    random = np.random.default_rng(seed)
    cells: dict[float, dict] = {}
    for k in range(hours):
        if random.random() > 0.02:
            value = 10 + 5 * np.sin(2 * np.pi * k / 24) + random.normal(0, 0.3)
            cells[3600 * (k + random.uniform(-0.3, 0.3)) + 1800] = {"temp": f"{value:.3f}"}
    for k in range(4 * hours):
        values = {} if random.random() < 0.05 else {"wind": f"{random.normal():.3f}"}
        cells[900 * (k + random.uniform(-0.3, 0.3)) + 77] = {"gust": f"{random.normal():.3f}", **values}
    with open(file, "w", newline="") as lines:
        writer = csv.DictWriter(lines, ["time", "temp", "wind", "gust", "state", "session"])
        writer.writeheader()
        for time in sorted(cells):
            state = "day" if 6 <= time / 3600 % 24 < 18 else "night"
            writer.writerow(
                {"time": f"{time:.3f}", "state": state, "session": f"s{int(time // 86400 // 2)}"} | cells[time]
            )
    return file


def config(folder: Path, **changes) -> str:
    dataset = {
        "use": "table", "train": str(write_series(folder / "log.csv")), "time": "time", "window": "24 h",
        "stride": "3 h",
        "streams": {"air": {"columns": ["temp"], "every": "1 h", "horizon": "6 h"},
                    "wind": {"columns": ["wind", "gust"], "rate": 1 / 900}},
        "label": {"column": "state"},
    }  # fmt: skip
    tree = {
        "inputs": {"air": {"use": "sensor", "channels": {"temp": "°C"}, "window": 6, "period": 24, "relative": True},
                   "wind": {"use": "sensor", "channels": 2, "window": 12}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 32, "attention": "same_sample"},
        "tasks": {"next": {"use": "forecast", "target": "air_future", "input": "air"},
                  "state": {"use": "classification", "target": "state", "weight": 0.5}},
        "data": {"dataset": dataset, "split": {"val": 0.2, "test": 0.2}},
        "training": {"steps": 40, "samples_per_step": 16, "learning_rate": 0.03},
        "evaluation": {"every": 4, "report": False}, "checkpoints": {"every": 4},
        "logging": {"tensorboard": False}, "out": str(folder / "run"),
    }  # fmt: skip
    for key, value in changes.items():
        tree[key] = tree.get(key, {}) | value
    (folder / "x.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(folder / "x.yaml")


@pytest.mark.system
def test_a_forecast_with_many_features_has_the_metrics_of_the_best_checkpoint(tmp_path, capsys):
    """The features are input dropout, averaged weights, early stopping, a second task and an evaluator at the end."""
    file = config(
        tmp_path, training={"steps": 60, "samples_per_step": 16, "learning_rate": 0.05, "ema": 0.8,
                            "input_dropout": {"wind": 0.4}, "stop": {"patience": 2, "metric": "val/next/mae"}},
        checkpoints={"best": "val/next/mae", "every": 4},
        evaluation={"every": 4, "report": False, "also": {"weights": {"use": "test_figures:Weights"}}},
    )  # fmt: skip
    assert main(["train", file]) == 0
    capsys.readouterr()
    run, summary = tmp_path / "run", json.loads((tmp_path / "run/summary.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    maes = {line["step"]: line["val/next/mae"] for line in lines if "val/next/mae" in line}
    best, last = min(maes, key=maes.get), max(maes)
    assert best < last < 60 and (summary["best_step"], summary["step"]) == (best, last)
    assert summary["val/next/mae"] == maes[best] and summary["last"]["val/next/mae"] == maes[last]
    assert "val/weights" not in summary["last"] and summary["val/step"] == best
    assert summary["val/weights"] == pytest.approx(sums_of_weights(run, best), rel=1e-6)
    figures = figures_of(run)
    assert (figures.step, figures.metrics["val/next/mae"], figures.last["val/next/mae"]) == (
        best,
        maes[best],
        maes[last],
    )
    loaded = load_run(run, trust=["test_figures"])
    assert loaded.step == best
    assert loaded.evaluate("val")["val/next/mae"] == pytest.approx(maes[best], rel=1e-5)
    again = load_run(run, checkpoint="last", trust=["test_figures"]).evaluate("val")["val/next/mae"]
    assert again == pytest.approx(maes[last], rel=1e-5)  # the weights of the last step are restored and saved
    assert main(["evaluate", str(run), "--trust", "test_figures"]) == 0
    output = capsys.readouterr().out
    assert "The checkpoint was chosen by val/next/mae on these samples." in output
    assert re.search(r"there (is|are) only \d blocks? of 30 h", output)
    assert main(["evaluate", str(run), "--split", "test", "--trust", "test_figures"]) == 0
    assert "The checkpoint was chosen by val/next/mae on val." in capsys.readouterr().out
    (group,) = read_groups([run])
    assert group.values("val/next/mae") == {"run": maes[best]}


@pytest.mark.system
def test_the_metrics_are_those_of_averaged_checkpoints(tmp_path):
    """The mean of the last checkpoints is the result of the run."""
    file = config(tmp_path, training={"steps": 12, "samples_per_step": 16, "learning_rate": 0.05},
                  checkpoints={"every": 4, "average": 2, "best": "val/next/mae"},
                  evaluation={"every": 4, "report": False,
                               "also": {"weights": {"use": "test_figures:Weights"}}})  # fmt: skip
    assert main(["train", file]) == 0
    run, summary = tmp_path / "run", json.loads((tmp_path / "run/summary.json").read_text())
    mean = torch.stack([
        sum(value.double().sum() for value in checkpoint.read_part(run, step, "model").values()) for step in (8, 12)
    ]).mean()  # fmt: skip
    assert summary["val/weights"] == pytest.approx(float(mean), rel=1e-5) and summary["best_step"] == 12
    loaded = load_run(run, trust=["test_figures"])
    assert loaded.evaluate("val")["val/next/mae"] == pytest.approx(summary["val/next/mae"], rel=1e-5)


@pytest.mark.system
def test_folds_of_a_table_with_many_features_have_the_metrics_of_their_predictions(tmp_path, capsys):
    """The features are folds by group, balanced classes, workers, irregular times, two rates and empty cells. Every
    window is in one fold, and workers do not change the weights."""
    file = config(tmp_path, data={
        "dataset": yaml.safe_load(Path(config(tmp_path)).read_text())["data"]["dataset"], "split": None,
        "balance": "state",
    }, training={"steps": 6, "samples_per_step": 16, "learning_rate": 0.03})  # fmt: skip
    words = ["train", file, "--folds", "3", "--group", "session"]
    assert main([*words, "data.workers=0"]) == 0
    printed = capsys.readouterr()
    assert (
        "groups (column 'session')" in printed.out
        and "windows with several values in column 'session' are not used" in printed.err
    )
    division = "data.split={folds: 3, fold: 1, group: session}"
    assert main(["train", file, division, "data.workers=1", "checkpoints.best=null", f"out={tmp_path / 'b'}"]) == 0
    alone, fold = (load_run(tmp_path / name) for name in ("b", "run/fold-1"))
    assert all(
        torch.equal(one, other) for one, other in zip(alone.model.parameters(), fold.model.parameters(), strict=True)
    )
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows) and len({row["fold"] for row in rows}) == 3
    by_session: dict[str, set[int]] = {}
    for row in rows:
        by_session.setdefault(row["group"], set()).add(row["fold"])
    assert all(len(folds) == 1 for folds in by_session.values()) and len(by_session) > 5
    (group,) = read_groups([tmp_path / "run"])
    right = [row["state"]["class"] == row["targets"]["state"] for row in rows]
    assert group.values("val/state/accuracy") == {"run": pytest.approx(np.mean(right))}
    errors = [
        abs(a - b)
        for row in rows
        if "air_future" in row["targets"]
        for a, b in zip(row["next"]["values"]["temp"], row["targets"]["air_future"]["temp"])
        if b is not None
    ]
    assert group.values("val/next/mae") == {"run": pytest.approx(np.mean(errors), rel=1e-4)}


@pytest.mark.system
def test_a_sweep_with_folds_and_seeds_is_compared(tmp_path, capsys):
    """Settings are compared on the samples of all folds; differences are paired by sample and by seed."""
    file = config(tmp_path, data={"dataset": yaml.safe_load(Path(config(tmp_path)).read_text())["data"]["dataset"],
                                 "split": None},
                  training={"steps": 4, "samples_per_step": 16, "learning_rate": 0.03})  # fmt: skip
    words = ["train", file, "--folds", "2", "--group", "session", "--seeds", "0,1"]
    assert main([*words, "--sweep", "training.learning_rate=1e-4,5e-2"]) == 0
    output = capsys.readouterr().out
    assert "sorted by val/loss, best first" in output and output.index("5e-2") < output.index("1e-4")
    assert "The best setting was chosen on these samples" in output and "± " in output
    slow, fast = read_groups([tmp_path / "run"])
    assert [*slow.members] == ["seed-0", "seed-1"] and slow.keys == fast.keys and len(slow.keys) > 30
    difference = fast.minus(slow)["val/next/mae"]
    means = [np.mean([*group.values("val/next/mae").values()]) for group in (fast, slow)]
    assert difference.low < means[0] - means[1] < difference.high
    width = sum(end.high - end.low for end in (group.intervals.values["val/next/mae"] for group in (fast, slow)))
    assert difference.high - difference.low < width
    assert main(["compare", str(tmp_path / "run"), "--output", str(tmp_path / "t.csv")]) == 0
    with open(tmp_path / "t.csv", newline="") as lines:
        rows = {(row["metric"], row["runs"]): row for row in csv.DictReader(lines)}
    row = rows["val/next/mae", "learning_rate=5e-2 - learning_rate=1e-4"]
    assert float(row["mean"]) == pytest.approx(means[0] - means[1]) and float(row["low"]) == pytest.approx(
        difference.low
    )


def test_a_run_of_an_older_version_has_the_metrics_of_its_best_checkpoint(tmp_path):
    """Its summary contains the metrics of the last step."""
    file = config(tmp_path, training={"steps": 12, "samples_per_step": 16, "learning_rate": 0.3})
    assert main(["train", file]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    new = figures_of(tmp_path / "run")
    old = {name: value for name, value in (summary | summary["last"]).items() if name != "last"}
    (tmp_path / "run/summary.json").write_text(json.dumps(old))
    assert figures_of(tmp_path / "run") == new and new.metrics["val/loss"] == summary["val/loss"]
    (tmp_path / "run/summary.json").unlink()  # a run that is not finished
    assert figures_of(tmp_path / "run") == new
