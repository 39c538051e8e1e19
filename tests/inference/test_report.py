"""Training and `evaluate --report` write the page, the tables and the pictures of a report."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.files.errors import RunError
from chopmix.inference.pages import media_cell
from PIL import Image
from test_answers import TREE, pictures


@pytest.fixture
def trained(tmp_path, monkeypatch, reports):
    """A run with a report, in the current folder."""
    monkeypatch.chdir(tmp_path)
    pictures(Path("photos"), 40)
    pictures(Path("others"), 16)
    data = {"use": "image_folder", "train": "photos", "val": "photos", "test": "others"}
    Path("x.yaml").write_text(yaml.safe_dump(TREE | {"data": {"dataset": data}, "out": "run"}))
    train(load_config("x.yaml"))
    return Path("run")


def table(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_training_ends_with_a_report(trained, capsys):
    train(load_config("x.yaml", ["out=again", "training.steps=29"]))
    output = capsys.readouterr().err
    assert "report: again/report/val.html" in output and "calibration error" in output
    files = {file.name for file in (trained / "report").iterdir()}
    tables = ("classes", "confusions", "confusion", "calibration", "thresholds")
    assert files == {"val.html", "val-sums.safetensors", *(f"val-shade-{name}.csv" for name in tables),
                     "val-shade-confusion.png", "val-shade-calibration.png"}  # fmt: skip
    rows = table(trained / "report" / "val-shade-classes.csv")
    metrics = load_run(trained).evaluate("val")
    assert sum(int(row["correct"]) for row in rows) / 120 == pytest.approx(metrics["val/accuracy"])
    assert np.mean([float(row["recall"]) for row in rows]) == pytest.approx(metrics["val/balanced_accuracy"])
    assert np.mean([float(row["f1"]) for row in rows]) == pytest.approx(metrics["val/macro_f1"])
    page = (trained / "report" / "val.html").read_text()
    assert "120 samples" in page and "color-scheme: light dark" in page and "http:" not in page
    assert page.count("class=sample>") == 15 == page.count("white/0") + page.count("grey/0") + page.count("black/0")
    with Image.open(trained / "report" / "val-shade-confusion.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.system
def test_the_temperature_is_fitted_on_val_and_measured_elsewhere(trained, capsys):
    stored = (trained / "calibration.json").read_bytes()
    temperature = json.loads(stored)["tasks"]["shade"]["temperature"]
    assert main(["evaluate", "run", "--split", "test", "--report"]) == 0
    assert f"with temperature {temperature:.3f}" in capsys.readouterr().err
    before, after = table(trained / "report" / "test-shade-calibration.csv")
    assert float(after["temperature"]) == temperature and float(before["temperature"]) == 1
    assert "48 samples" in (trained / "report" / "test.html").read_text()
    assert (trained / "calibration.json").read_bytes() == stored
    assert main(["evaluate", "run", "--data", "photos", "--report", "elsewhere"]) == 0
    assert (trained / "calibration.json").read_bytes() == stored and Path("elsewhere", "val.html").is_file()
    capsys.readouterr()
    assert main(["evaluate", "run", "--report", "--inputs", "image"]) == 2
    assert "--inputs cannot be combined with --report and --output" in capsys.readouterr().err


def test_a_report_is_not_written_through_a_link(trained, tmp_path_factory, capsys):
    outside = tmp_path_factory.mktemp("outside")
    shutil.rmtree(trained / "report")
    (trained / "report").symlink_to(outside)
    assert main(["evaluate", "run", "--report"]) == 2
    assert "run/report is a link; name another folder: --report DIR" in capsys.readouterr().err
    with pytest.raises(RunError, match="run/report is a link"):
        train(load_config("run/config.yaml", ["training.steps=31"]))
    assert not [*outside.iterdir()]


def test_no_report_is_written_if_it_is_switched_off(trained, capsys):
    train(load_config("x.yaml", ["out=other", "evaluation.report=false", "training.steps=2"]))
    assert not Path("other/report").exists() and "report" not in capsys.readouterr().err.replace("run/report", "")


TASKS = {
    "shade": {"use": "classification", "target": "label"},
    "sides": {"use": "classification", "target": "labels", "several": True},
    "size": {"use": "regression", "target": "size"},
    "words": {"use": "language_modeling", "target": "words", "metrics": ["exact_match", "cer"]},
}


def test_one_report_contains_every_kind_of_task(tmp_path, monkeypatch, reports, capsys):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    rows = []
    for number in range(60):
        kind = number % 3
        pixels = np.clip(draw.normal(60 + 60 * kind, 30, (8, 8)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(f"{number}.png")
        rows.append({"image": f"{number}.png", "label": "abc"[kind], "labels": ["ab"[kind % 2]][: number % 4],
                     "size": kind + 0.5, "words": ["low", "mid", "high"][kind]})  # fmt: skip
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ["image", "label", "labels", "size", "words"]
    tree = TREE | {
        "inputs": TREE["inputs"] | {"words": {"use": "text", "encoding": "characters"}},
        "model": TREE["model"] | {"attention": "causal"}, "tasks": TASKS, "out": "run",
        "data": {"dataset": {"use": "manifest", "train": "a.jsonl", "val": "a.jsonl", "columns": columns,
                             "files": ["image"]}},
        "training": TREE["training"] | {"steps": 3}, "evaluation": {"every": 3}, "checkpoints": {"best": "val/loss"},
    }  # fmt: skip
    Path("x.yaml").write_text(yaml.safe_dump(tree))
    train(load_config("x.yaml"))
    files = {file.name for file in Path("run/report").iterdir()}
    assert {"val-shade-classes.csv", "val-sides-classes.csv", "val-size-residuals.csv", "val-size-residuals-0.png",
            "val-words-error-rates.csv"} <= files  # fmt: skip
    assert main(["evaluate", "run", "--output", "a.csv", "--report", "--strict"]) == 0
    predictions = table(Path("a.csv"))
    assert len(predictions) == 60 and {"size.values.0", "words.text", "sides.classes", "targets.size"} <= {
        *predictions[0]
    }
    errors = [float(row["size.values.0"]) - float(row["targets.size"]) for row in predictions]
    residuals = table(Path("run/report/val-size-residuals.csv"))[-1]
    assert float(residuals["mae"]) == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert [row["targets.words"] for row in predictions[:3]] == ["low", "mid", "high"]
    page = Path("run/report/val.html").read_text()
    assert [name for name in TASKS if f"<h2>{name}</h2>" not in page] == []
    assert re.search(r"60 samples with \d+ labels", page)


@pytest.mark.parametrize(
    "value, ending",
    [
        (np.zeros((4, 5), np.uint8), ".png"),
        (np.zeros((3, 4, 5), np.uint8), ".png"),
        (np.zeros((4, 5, 3), np.uint8), ".png"),
        ((np.zeros(80, np.float32), 8000), ".wav"),
        ("a text", ""),
        (b"RIFF....", ".wav"),
    ],
)
def test_samples_become_pictures_sounds_or_texts(value, ending):
    cell = media_cell("x", value)
    assert cell.ending == ending and bool(cell.content) == bool(ending)


@pytest.mark.parametrize("value", [None, 3, 2.5, [1], {"a": 1}, b"", b"\x89PNG broken", Path("none.png"), np.zeros(3)])
def test_other_values_are_not_shown(value):
    assert media_cell("x", value) is None
