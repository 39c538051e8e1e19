"""`from: RUN` copies learned positions also to another length, and uses the settings of the new YAML."""

from __future__ import annotations

import json
import math

import pytest
import torch
import yaml
from chopmix.commands.cli import main
from chopmix.data.processes import Processes
from chopmix.experiment.assemble import assemble
from chopmix.experiment.run import load_run
from chopmix.experiment.run_folder import prepare_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import resume
from chopmix.training.progress import Progress

TABLE = "tokenizers.text.position.table.weight"


def started(file, *overrides):
    """Returns a run before its first step."""
    config = load_config(file, overrides)
    prepare_run(config, config.out)
    experiment = assemble(config, Processes.start("cpu"), Progress(1))
    resume(experiment)
    return experiment


@pytest.mark.parametrize("context", [8, 16, 24])
def test_the_rows_of_learned_positions_that_exist_are_copied(tiny, tiny_run, capsys, context):
    old = load_run(tiny_run, "best").model.state_dict()
    new = tiny("longer", model={"context": context}, training={"tokens_per_step": 4 * context})
    weights = started(new, f"from={tiny_run}").model.state_dict()
    rows = min(context, 16)
    assert torch.equal(weights[TABLE][:rows], old[TABLE][:rows]) and len(weights[TABLE]) == context
    fresh = started(new, f"out={new.parent / 'fresh'}").model.state_dict()
    assert torch.equal(weights[TABLE][rows:], fresh[TABLE][rows:])
    assert all(torch.equal(weights[name], value) for name, value in old.items() if name != TABLE)
    output = capsys.readouterr().err
    assert "differ in shape" not in output
    assert (f"1 copied in part: {TABLE} {rows} of {context} rows" in output) == (context != 16)


def test_the_mean_of_a_sensor_in_the_new_configuration_is_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"x": [math.sin(n) + 5], "y": math.cos(n)} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tree = {
        "inputs": {"x": {"use": "sensor", "channels": {"volt": "V"}}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 4, "attention": "same_sample"},
        "tasks": {"y": {"use": "regression", "target": "y"}},
        "data": {"dataset": {"use": "manifest", "train": "rows.jsonl", "columns": ["x", "y"]}},
        "training": {"steps": 2, "samples_per_step": 4}, "logging": {"tensorboard": False}, "out": "first",
    }  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", "a.yaml"]) == 0
    for mean, expected in (("null", load_run("first").choppers["x"].mean["volt"]), ("{volt: 3}", 3)):
        capsys.readouterr()
        assert main(["train", "a.yaml", "from=first", f"out=second-{expected}", f"inputs.x.mean={mean}"]) == 0
        chopper = load_run(f"second-{expected}").choppers["x"]
        assert chopper.mean["volt"] == expected and chopper.scale == load_run("first").choppers["x"].scale
        assert ("inputs.x.mean is None in the source run, {'volt': 3.0} in this one" in capsys.readouterr().err) == (
            expected == 3
        )


def test_a_masked_task_hides_the_same_tokens_in_a_split_of_one_sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(json.dumps({"text": f"{n:016b}" * 2}) for n in range(30))
    (tmp_path / "rows.jsonl").write_text(rows)
    tree = {
        "inputs": {"text": {"use": "text", "encoding": "characters"}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 40, "attention": "same_sample"},
        "tasks": {"mlm": {"use": "masked_modeling", "target": "text"}},
        "data": {"dataset": {"use": "manifest", "train": "rows.jsonl", "val": "rows.jsonl", "columns": ["text"]}},
        "training": {"steps": 1, "samples_per_step": 4}, "logging": {"tensorboard": False}, "out": "run",
    }  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", "a.yaml"]) == 0
    run = load_run("run")
    split = run.open("val")
    for index in split.all()[1:4]:
        alone = split.only(index.number)
        assert alone.all() == [index] and len(alone) == 1
        (batch,), (expected,) = (each.batches([index], run.tasks) for each in (alone, split))
        assert torch.equal(batch.targets["mlm"].values, expected.targets["mlm"].values)
        assert torch.equal(batch.main.chunks["text"].values, expected.main.chunks["text"].values)
