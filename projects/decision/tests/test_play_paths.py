"""The path from a loaded run to its first action passes through few files."""

import pytest
from checkout import ROOT
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.projects.decision.agent import Playing, episodes_of
from paths import entered

FEW = [
    "training.steps=1", "training.samples_per_step=4", "data.dataset.of.episodes=12", "evaluation.play=null",
    "evaluation.rows=4", "model.width=16", "model.depth=1", "model.heads=1",
]  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    train(
        load_config(ROOT / "configs" / "decision" / "cartpole.yaml", [*FEW, "checkpoints.best=val/loss", f"out={out}"])
    )
    return load_run(out)


def test_the_path_to_the_first_action_is_short(run):
    """Also, the data set, which names the environment, is constructed only once."""
    pytest.importorskip("gymnasium")
    paths = entered(lambda: next(episodes_of(run, Playing(), 10.0, [0])), until="Player._actions")
    assert len(paths.functions) <= 36
    assert paths.calls["Episodes.__init__"] == 1
