"""Options that are changed when a finished run is loaded."""

from __future__ import annotations

import json

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError

YAML = """
inputs:
  digit: {use: category, size: 10}
  image: {use: image, size: 8, patch_size: 4, channels: 1}
model: {width: 16, depth: 1, heads: 2, context: 8, attention: same_sample}
tasks: {draw: {use: flow, target: image, refining: {steps: 3}}}
data: {dataset: digits, columns: {digit: label}}
training: {steps: 2, samples_per_step: 8}
evaluation: {every: 2, rows: 32}
logging: {tensorboard: false}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("after")
    (folder / "a.yaml").write_text(YAML)
    assert main(["train", str(folder / "a.yaml"), f"out={folder / 'run'}"]) == 0
    return folder / "run"


def test_a_declared_option_is_changed_and_the_weights_are_not(run):
    plain, changed = load_run(run), load_run(run, options=["tasks.draw.solver=heun", "tasks.draw.refining.steps=2"])
    assert (plain.tasks["draw"].solver, plain.tasks["draw"].refining.steps) == ("euler", 3)
    assert (changed.tasks["draw"].solver, changed.tasks["draw"].refining.steps) == ("heun", 2)
    weights = changed.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in plain.model.state_dict().items())
    assert (changed.folder, changed.config.tree["out"]) == (plain.folder, plain.config.tree["out"])
    assert "solver: heun" not in (run / "config.yaml").read_text()


def test_commands_accept_options_before_and_after_others(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--split", "val", "tasks.draw.guidance=2"]) == 0
    last = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert last["options"] == ["tasks.draw.guidance=2"]
    picture = str(tmp_path / "a.png")
    words = ["tasks.draw.solver=heun", "--input", "digit=1", "--output", picture, "--seed", "1"]
    assert main(["generate", str(run), *words]) == 0


@pytest.mark.parametrize(
    "option",
    ["tasks.draw.std=2", "tasks.draw.target=digit", "tasks.draw.use=reconstruction", "tasks.draw",
     "tasks.a.solver=heun", "model.depth=2", "inputs.image.patch_size=2", "data.dataset=mnist", "training.steps=9",
     "out=elsewhere", "tasks.new={use: os:system}", "=3", ""],
)  # fmt: skip
def test_other_options_are_refused(run, option, capsys):
    possible = "possible: tasks.draw.guidance, tasks.draw.refining, tasks.draw.sampling, tasks.draw.solver"
    with pytest.raises(RunError, match=f"cannot be changed after training; {possible}"):
        load_run(run, options=[option])
    assert main(["evaluate", str(run), option]) == 2
    assert "cannot be changed after training" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, message",
    [
        ("tasks.draw.solver=midpoint", "solver"),
        ("tasks.draw.refining.steps=0", "steps must be at least 1, not 0"),
        ("tasks.draw.refining={use: os:system}", "refining"),
        ("tasks.draw.solver", "an override has the form key.sub=value"),
    ],
)
def test_wrong_values_are_named(run, option, message, capsys):
    assert main(["evaluate", str(run), option]) == 2
    assert message in capsys.readouterr().err
