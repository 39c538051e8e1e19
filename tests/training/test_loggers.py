"""Loggers: a class with one method, Weights & Biases without a network, and Python's `logging`."""

import json
import logging
import sys
from pathlib import Path

import pytest
from chopmix.commands.cli import main
from chopmix.inference.pages import Cell, Samples

LOGGERS = """
import json


class Mine:
    def __init__(self, *, file: str):
        self.file = file

    def on_metrics(self, step, metrics):
        with open(self.file, "a") as lines:
            lines.write(json.dumps({"step": step, **metrics}) + "\\n")


class NoLogger:
    pass
"""


@pytest.fixture
def my_loggers(tmp_path, monkeypatch):
    (tmp_path / "my_loggers.py").write_text(LOGGERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_loggers", None)


def test_a_class_with_one_method_is_a_logger(tiny, tmp_path, my_loggers, capsys):
    file, log = tiny(), tmp_path / "log.jsonl"
    also = f"logging.also={{mine: {{use: 'my_loggers:Mine', file: {log}}}}}"
    assert main(["train", str(file), also]) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    written = [json.loads(line) for line in (tmp_path / "runs/tiny/metrics.jsonl").read_text().splitlines()]
    assert lines == [{name: value for name, value in line.items() if name != "seconds"} for line in written]
    assert main(["train", str(file), "out=other", "logging.also={x: {use: 'my_loggers:NoLogger'}}"]) == 2
    assert "'my_loggers:NoLogger' is not a subclass of Logger" in capsys.readouterr().err


def test_messages_reach_the_logger_of_python(tiny, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="chopmix"):
        assert main(["train", str(tiny())]) == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("  | ")]
    logged = [line for record in caplog.records for line in record.getMessage().splitlines()]
    assert [line for line in printed if line not in logged] == [] and any("val/loss" in line for line in logged)
    assert {record.levelname for record in caplog.records} == {"INFO"}
    from chopmix.files.printing import log

    with caplog.at_level(logging.INFO, logger="chopmix"):
        log("warning: the loss is large")
    assert caplog.records[-1].levelname == "WARNING"


@pytest.mark.system
def test_weights_and_biases_without_a_network(tiny, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    also = "logging.also={board: {use: wandb, mode: offline, project: tests}}"
    assert main(["train", str(tiny(training={"steps": 4})), also]) == 0
    (folder,) = (tmp_path / "runs/tiny/wandb").glob("offline-run-*")
    content = next(folder.glob("run-*.wandb")).read_bytes()
    assert b"val/loss" in content and b"train/loss" in content and b"tests" in content


@pytest.mark.system
def test_pictures_and_sounds_are_logged(tmp_path, monkeypatch):
    import io

    import numpy as np
    import soundfile
    from PIL import Image

    pytest.importorskip("wandb")
    from chopmix.training.loggers.wandb import Wandb

    picture, sound = io.BytesIO(), io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG")
    soundfile.write(sound, np.zeros(800), 8000, format="WAV")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    board = Wandb(mode="offline")
    board.open(tmp_path, 0, {"training": {"steps": 3}})
    rows = [[Cell("true", ".png", picture.getvalue()), Cell("generated", ".wav", sound.getvalue()), Cell("text")]]
    board.on_samples(1, Samples(text="<b>", rows=rows))
    board.on_metrics(1, {"val/loss": 1.0})
    board.close()
    (folder,) = Path(tmp_path, "wandb").glob("offline-run-*")
    media = {path.suffix for path in (folder / "files" / "media").rglob("*.*")}
    assert media == {".png", ".wav", ".html"}


def test_a_run_of_someone_else_connects_only_to_hosts_that_are_allowed(tiny, tmp_path, monkeypatch, capsys):
    from chopmix.training.loggers.wandb import Wandb

    opened = []
    monkeypatch.setattr(Wandb, "open", lambda self, *arguments: opened.append(self))
    monkeypatch.setattr(Wandb, "on_metrics", lambda *arguments: None)
    monkeypatch.setattr(Wandb, "close", lambda self: None)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert (
        main(["train", str(tiny()), "logging.also={board: {use: wandb}}", "training.steps=4"]) == 0
    )  # the user's YAML
    capsys.readouterr()
    words = ["train", str(tmp_path / "runs/tiny"), "training.steps=6"]
    assert main(words) == 2 and "--remote api.wandb.ai" in capsys.readouterr().err and len(opened) == 1
    assert main([*words, "--remote", "api.wandb.ai"]) == 0 and len(opened) == 2
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["train", str(tmp_path / "runs/tiny"), "training.steps=8"]) == 0 and len(opened) == 3
