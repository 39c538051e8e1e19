"""How long a run trains: epochs, and early stopping."""

from __future__ import annotations

import json
import math

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.training.early_stop import EarlyStop, Patience
from chopmix.training.loop import Learner, Trainer
from hypothesis import given
from hypothesis import strategies as st
from ranks import train_together


@given(scores=st.lists(st.floats(allow_nan=True), max_size=20), improvement=st.sampled_from([0.0, 0.5]))
def test_patience_counts_the_evaluations_since_the_last_improvement(scores, improvement):
    patience, best, waited = Patience(), math.inf, 0
    for score in scores:
        if math.isfinite(score) and (best == math.inf or score < best - improvement):
            best, waited = score, 0
        else:
            waited += 1
        patience = patience.after(score, improvement)
        assert patience.waited == waited and (patience.best if patience.best is not None else math.inf) == best
        assert Patience.model_validate_json(patience.model_dump_json()) == patience


def test_numbers_out_of_range_are_refused():
    for options in ({"patience": 0}, {"improvement": -1}, {"improvement": math.nan}):
        with pytest.raises(ValueError, match="patience must be from 1"):
            EarlyStop(**options)


def test_a_run_stops_early_and_is_finished(tiny, capsys):
    """It ends with the evaluation that was one too many, and the same command does not train again; a run that was
    killed in between ends at the same step."""
    changes = {"training": {"steps": 60, "stop": {"patience": 2, "improvement": 100.0}}, "evaluation": {"every": 4}}
    file = tiny("early", **changes)
    assert main(["train", str(file)]) == 0
    output = capsys.readouterr().err
    assert "step 12: val/loss has not improved for 2 evaluations: stop" in output and "at step" in output
    folder = file.parent / "runs" / "early"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["step"] == 12 and summary["best_step"] in (4, 8, 12)
    assert main(["train", str(file)]) == 0
    assert "is finished" in capsys.readouterr().err
    (folder / "summary.json").unlink()
    assert main(["train", str(file)]) == 0  # killed after the last checkpoint, before the summary
    assert {**json.loads((folder / "summary.json").read_text()), "seconds": 0} == summary | {"seconds": 0}
    again = tiny("again", **changes)
    assert main(["train", str(again), "checkpoints.every=6"]) == 0
    state = json.loads((file.parent / "runs/again/checkpoints/step-00000012/state.json").read_text())
    assert state["stopped_early"] and state["patience"] == {"best": state["patience"]["best"], "waited": 2}
    capsys.readouterr()
    assert main(["train", str(again), "training.stop.metric=val/speed", "out=" + str(folder.parent / "x")]) == 2
    assert "training.stop.metric is 'val/speed'; possible: val/loss" in capsys.readouterr().err


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


@pytest.mark.system
def test_two_processes_stop_early_at_the_same_step(tiny, tmp_path):
    changes = {"training": {"steps": 60, "stop": {"patience": 2, "improvement": 100.0}}, "evaluation": {"every": 4},
               "checkpoints": {"average": 2, "every": 4}}  # fmt: skip
    file = tiny("early", **changes)
    assert main(["train", str(file), f"out={tmp_path}/one"]) == 0
    done = train_together(tmp_path, 2, str(file), f"out={tmp_path}/two")
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two"))
    assert one["step"] == two["step"] == 12
    assert two["val/loss"] == pytest.approx(one["val/loss"], rel=1e-4)


@pytest.mark.system
def test_a_run_that_returns_to_a_checkpoint_counts_its_evaluations_once(tiny, monkeypatch, capsys):
    """The loss of step 10 is not finite; the evaluation of step 8 was the first without an improvement."""
    changes = {"training": {"steps": 60, "stop": {"patience": 2, "improvement": 100.0}}, "evaluation": {"every": 4},
               "checkpoints": {"every": 4}}  # fmt: skip
    update, failed = Learner.update, []

    def once_not_finite(learner, step, share):
        if step == 10 and not failed:
            failed.append(step)
            with torch.no_grad():
                next(learner.model.parameters()).fill_(math.nan)
        return update(learner, step, share)

    monkeypatch.setattr(Learner, "update", once_not_finite)
    file = tiny("back", **changes)
    assert main(["train", str(file)]) == 0
    output = capsys.readouterr().err
    assert "back to the checkpoint of step 8" in output and failed == [10]
    assert json.loads((file.parent / "runs/back/summary.json").read_text())["step"] == 12


def test_an_evaluation_that_is_the_best_counts_before_it_is_saved(tiny, monkeypatch):
    """A run that is killed after the checkpoint of a best step has counted its evaluation."""
    monkeypatch.setattr(Trainer, "score", lambda trainer, name, metrics: next(scores))
    changes = {"training": {"steps": 60, "stop": {"patience": 2, "metric": "val/loss"}}, "evaluation": {"every": 4},
               "checkpoints": {"every": 1000}}  # fmt: skip
    saved, save = {}, Trainer.save

    def noted(trainer):
        saved[trainer.step] = trainer.patience
        save(trainer)

    scores = iter(score for score in [1.0, 2.0, 0.5, 1.5, 1.6] for _ in range(2))  # for the best, and for the stop
    monkeypatch.setattr(Trainer, "save", noted)
    file = tiny("saved", **changes)
    assert main(["train", str(file)]) == 0
    assert (saved[4].best, saved[4].waited) == (1.0, 0) and (saved[12].best, saved[12].waited) == (0.5, 0)
    assert max(saved) == 20
