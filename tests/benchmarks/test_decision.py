"""The commands in the headers of configs/decision and configs/in_context are valid and open the measured checkpoint."""

import re
import shlex
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import decision
import pytest
from checkout import CONFIGS
from chopmix.commands.cli import parse
from chopmix.experiment.settings.config import load_config
from chopmix.projects.decision.agent import configured

FILES = [file for folder in ("decision", "in_context") for file in sorted((CONFIGS / folder).glob("*.yaml"))]
CHOSEN = {"key_to_door": "val/return_at_1", "pendulum": "val/return_at_-200", "planning": "val/return"}


def commands(file: Path) -> list[str]:
    """The commands of a configuration's header, those that go on in the next line joined."""
    head = "".join(line[1:] + "\n" for line in file.read_text().splitlines() if line.startswith("#"))
    lines = head.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if re.match(r"   (python|chopmix) ", line)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_command_of_a_header_is_valid(file):
    """Its options, files and keys exist."""
    lines = commands(file)
    assert len(lines) >= 2, "how it is trained, and how it is measured"
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        words = words if program == "chopmix" else ["train", *words[1:]] if words[0] == "train.py" else words
        if words[0] == "train":
            assert load_config(CONFIGS.parent / words[1], words[2:])
        if words[0].endswith(".py"):
            assert (CONFIGS.parent / words[0]).exists() and (CONFIGS.parent / words[1]).exists()
        else:
            options = parse(words)
            assert options.command_module


@pytest.mark.parametrize("name", CHOSEN)
def test_the_best_checkpoint_is_chosen_by_the_return_that_is_measured(name):
    config = load_config(CONFIGS / "decision" / f"{name}.yaml", [])
    assert config.checkpoints.best == CHOSEN[name]
    assert config.checkpoints.best in [f"val/{each}" for each in configured(config).metric_targets]
    assert name != "planning" or configured(config).plan, "without planning it acts at random"


@pytest.mark.parametrize("kind", ["conditioned", "clone", "best"])
@pytest.mark.parametrize("name", ["cartpole", "key_to_door", "pendulum"])
def test_the_benchmark_opens_the_checkpoint_that_play_opens(monkeypatch, name, kind):
    calls = []
    monkeypatch.setattr(decision, "trained", lambda config, folder, changes: calls.append(changes) or folder)
    monkeypatch.setattr(decision, "load_run", lambda *arguments: SimpleNamespace(arguments=arguments))
    config = str(CONFIGS / "decision" / f"{name}.yaml")
    run = decision.agent(config, kind, 3, Namespace(set=[], best=0.04))
    assert run.arguments == (Path("runs/decision") / name / kind / "seed-3",)
    loaded = load_config(config, calls[0])
    assert ("return" in loaded.inputs) == (kind == "conditioned") and loaded.training.seed == 3
    possible = ["val/loss", *(f"val/{each}" for each in configured(loaded).metric_targets)]
    assert loaded.checkpoints.best in possible and ("return" in loaded.checkpoints.best) == (name in CHOSEN)
