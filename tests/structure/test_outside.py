"""Parts of a user's own, one file each outside of the package: they train, resume after a kill, evaluate, predict, and
export or refuse by name."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.processes import Processes
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import assemble
from chopmix.training.log import Progress

FILES = ROOT / "tests" / "structure" / "outside"
PARTS = {
    "low_rank": {"model": {"block": {"use": "low_rank:LowRankBlock", "rank": 2}}},
    "lion": {"training": {"optimizer": {"use": "lion:Lion"}}},
    "dilated": {"model": {"attention": ["causal & dilated:Dilated(2)", "causal"]}},
    "lidar": {},
    "clip": {"model": {"attention": "same_item"}, "tasks": {"match": {"use": "clip:Clip", "left": "scan",
                                                                     "right": "word"}}},
}  # fmt: skip
"""Each part with the keys that name it, in a run that writes the word for a scan."""


def configured(folder, part):
    """The YAML of a run that uses a part."""
    shutil.copy(FILES / "lidar.py", folder)
    shutil.copy(FILES / f"{part}.py", folder)
    tree = {
        "inputs": {"scan": {"use": "lidar:LidarTokenizer"}, "word": {"use": "text", "encoding": "characters"}},
        "model": {"width": 16, "depth": 2, "heads": 2, "context": 64, "attention": "causal"},
        "tasks": {"word": {"use": "language_modeling", "target": "word"}},
        "data": {"dataset": "lidar:Scans"},
        "training": {"steps": 12, "samples_per_step": 16, "learning_rate": 0.003},
        "evaluation": {"every": 6, "rows": 32, "generated": 8, "sample_tokens": 4},
        "checkpoints": {"every": 4},
        "logging": {"tensorboard": False},
        "out": str(folder / "run"),
    }
    for section, keys in PARTS[part].items():
        tree[section] = keys if section == "tasks" else tree[section] | keys
    file = folder / "a.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    for part in PARTS:
        sys.modules.pop(part, None)


def weights(run):
    return {name: value.clone() for name, value in load_run(run, "last", trust=[*PARTS]).model.state_dict().items()}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_trains_resumes_evaluates_predicts_and_exports(folder, part, capsys):
    file = configured(folder, part)
    assert main(["train", str(file)]) == 0
    metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["val/loss"] for line in metrics if "val/loss" in line]
    assert losses[-1] < losses[0]
    expected = weights(folder / "run")
    command = [sys.executable, ROOT / "train.py", file, f"out={folder / 'killed'}"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as killed:
        for line in killed.stderr:
            if line.startswith("step 6 "):
                killed.send_signal(signal.SIGKILL)
                break
    assert main(["train", str(file), f"out={folder / 'killed'}"]) == 0
    assert all(torch.equal(value, expected[name]) for name, value in weights(folder / "killed").items())
    capsys.readouterr()
    trusted = [word for name in sorted({"lidar", part}) for word in ("--trust", name)]
    assert main(["evaluate", str(folder / "run"), *trusted]) == 0
    assert "val/loss" in capsys.readouterr().out
    run = load_run(folder / "run", trust=[*PARTS])
    rows = [run.dataset().open("val")[number] for number in range(3)]
    wanted = {"clip": ("scan", "word")}.get(part, ("scan",))
    answers = run.predict([{name: row[name] for name in wanted} for row in rows])
    assert len(answers) == 3 and all("error" not in answer for answer in answers)
    assert main(["export", str(folder / "run"), str(folder / "published"), *trusted]) in (0, 2)
    said = capsys.readouterr()
    assert (folder / "published").exists() or "run cannot be exported: " in said.err


def assembled(file, *options):
    return assemble(load_config(file, [f"out={file.parent / 'other'}", *options]), Processes(0, 1, torch.device("cpu")),
                    Progress(1))  # fmt: skip


def test_low_rank_adapters_change_nothing_at_step_0_and_are_trained_alone(folder):
    file = configured(folder, "low_rank")
    adapted = assembled(file, "training.train_only=[adapter]")
    plain = assembled(file, "model.block={}")
    batch = plain.model.plan(adapted.trainer.loader.load(0).micro_batches[0])
    assert torch.equal(adapted.model.eval()(batch)["word"], plain.model.eval()(batch)["word"])
    trained = {name for name, value in adapted.model.named_parameters() if value.requires_grad}
    assert len(trained) == 2 * 2 * 2 and all(".adapter." in name for name in trained)
