"""`training.minutes` and `training.epochs` become a number of steps when a run starts; the resumed run keeps it."""

import json
import subprocess
import sys
import time

import pytest
import torch
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.experiment.settings.config import ConfigError, load_config
from chopmix.experiment.steps import Budget
from chopmix.experiment.train import train
from chopmix.training.checkpoints import CheckpointError, read_part, read_step

TREE = """
inputs: {text: {use: text, encoding: bytes}}
model: {width: 8, depth: 1, heads: 1, context: 8, attention: causal, dropout: 0.1}
tasks: {lm: {use: language_modeling, target: text}}
data: {dataset: {use: text, train: DIR/text.txt, val: DIR/other.txt}}
training: {minutes: 0.005, tokens_per_step: 64, learning_rate: 1e-2}
evaluation: {every: 10000, sample_tokens: 0}
checkpoints: {every: 10000}
logging: {tensorboard: false}
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 200)
    (tmp_path / "other.txt").write_text("that is the question\n" * 20)
    (tmp_path / "x.yaml").write_text(TREE.replace("DIR", str(tmp_path)))
    return tmp_path / "x.yaml"


def weights(folder, step):
    return read_part(folder, step, "model")


def test_minutes_become_steps_once(file, monkeypatch, capsys):
    config = load_config(file, [f"out={file.parent / 'a'}"])
    summary, status = train(config)
    stored = json.loads((file.parent / "a/budget.json").read_text())
    steps = int(0.005 * 60 / stored["seconds_per_step"])
    assert status == 0 and summary["step"] == steps > 3 and stored["minutes"] == 0.005
    assert f"0.005 minutes at {stored['seconds_per_step']:.3g} s a step: {steps:,} steps" in capsys.readouterr().err
    train(load_config(file, [f"out={file.parent / 'b'}", "training.minutes=null", f"training.steps={steps}"]))
    ours, others = (weights(file.parent / name, steps) for name in "ab")
    assert all(torch.equal(ours[name], others[name]) for name in others)  # the timed steps do not change the weights
    monkeypatch.setattr("chopmix.experiment.steps.seconds_per_step", lambda *_: pytest.fail("timed again"))
    assert train(config) == (summary, 0)


def test_a_run_is_resumed_with_a_larger_budget(file):
    (file.parent / "a").mkdir()
    first = load_config(file, [f"out={file.parent / 'a'}", "training.schedule=constant"])
    summary, _ = train(first)
    more = load_config(file, [f"out={file.parent / 'a'}", "training.schedule=constant", "training.minutes=0.01"])
    again, _ = train(more)
    assert again["step"] in (2 * summary["step"], 2 * summary["step"] + 1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.minutes=null"], "training: needs one of 'steps', 'epochs' and 'minutes'"),
        (["training.steps=3"], "training: needs one of 'steps', 'epochs' and 'minutes'"),
        (["training.minutes=-1"], "training.minutes: must be more than 0, not -1"),
    ],
)
def test_steps_together_with_minutes_or_no_budget_is_refused(file, overrides, message):
    with pytest.raises(ConfigError) as error:
        load_config(file, overrides)
    assert message in str(error.value)


def test_a_damaged_budget_is_named(file):
    config = load_config(file, [f"out={file.parent / 'a'}"])
    (file.parent / "a").mkdir()
    train(config)
    (file.parent / "a/budget.json").write_text('{"minutes": 1, "seconds_per_step": 0}')
    with pytest.raises(
        CheckpointError, match=r"budget\.json: seconds_per_step.*; delete it and run the same command again to write"
    ):
        train(config)


def test_a_dry_run_prints_the_minutes_of_the_run(file, capsys):
    assert main(["train", str(file), "--dry-run"]) == 0
    assert "the run: 0.005 minutes of" in capsys.readouterr().out


@pytest.mark.parametrize("when", ["while its steps are timed", "in the middle"])
@pytest.mark.system
def test_a_killed_run_with_a_budget_of_minutes_ends_with_the_weights_of_a_whole_run(file, when):
    """The number of steps that was computed before the run was killed is used after it is resumed."""
    settings = ["training.minutes=0.02", "checkpoints.every=10"]
    out = file.parent / "killed"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), str(file), *settings, f"out={out}"], stderr=subprocess.DEVNULL
    )
    while not (out / "config.yaml").exists() if when.startswith("while") else not (read_step(out, "last") or 0) >= 10:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    summary, status = train(load_config(file, [*settings, f"out={out}"]))
    steps = Budget(**json.loads((out / "budget.json").read_text())).steps
    assert (status, summary["step"]) == (0, steps)
    whole = ["training.minutes=null", f"training.steps={steps}", f"out={file.parent / 'whole'}"]
    train(load_config(file, [*settings, *whole]))
    ours, others = (weights(file.parent / name, steps) for name in ("killed", "whole"))
    assert all(torch.equal(ours[name], others[name]) for name in others)


def test_epochs_become_steps(tiny, capsys):
    file = tiny("epochs", training={"steps": None, "epochs": 1.5})
    assert main(["train", str(file)]) == 0
    folder = file.parent / "runs" / "epochs"
    stored, summary = (json.loads((folder / name).read_text()) for name in ("epochs.json", "summary.json"))
    assert stored["steps"] == summary["step"]
    assert "1.5 epochs of" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["train", str(file), "--dry-run"]) == 0
    assert f"the run: {stored['steps']:,} steps, 1.50 epochs" in capsys.readouterr().out
    assert main(["train", str(file), "training.epochs=2"]) == 0  # more epochs continue the run
    assert json.loads((folder / "summary.json").read_text())["step"] > summary["step"]
    assert main(["train", str(file), "training.steps=3"]) == 2
    assert (
        "needs one of 'steps', 'epochs' and 'minutes' (a budget of time), not steps and epochs; set the others to null"
        in capsys.readouterr().err
    )
