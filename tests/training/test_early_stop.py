"""Early stopping and epochs: when a run ends, and how it continues."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.data.fingerprint import VERSION
from chopmix.training.checkpoints import read_part, read_step
from chopmix.training.early_stop import EarlyStop, Patience
from chopmix.training.loop import Learner, Trainer
from hypothesis import given
from hypothesis import strategies as st
from ranks import train_together
from tiers import only


@given(scores=st.lists(st.floats(allow_nan=True), max_size=20), improvement=st.sampled_from([0.0, 0.5]))
def test_patience_counts_the_evaluations_since_the_last_improvement(scores, improvement):
    patience, best, waited = Patience().by("val/loss", improvement), math.inf, 0
    for score in scores:
        if math.isfinite(score) and (best == math.inf or score < best - improvement):
            best, waited = score, 0
        else:
            waited += 1
        patience = patience.after(score)
        assert patience.waited == waited and (patience.best if patience.best is not None else math.inf) == best
        assert Patience.model_validate_json(patience.model_dump_json()) == patience


def test_numbers_out_of_range_are_refused():
    for options in ({"patience": 0}, {"improvement": -1}, {"improvement": math.nan}):
        with pytest.raises(ValueError, match="patience must be from 1"):
            EarlyStop(**options)


def test_a_run_stops_early_and_is_finished(tiny, capsys):
    """It ends when the patience is used up, and the same command does not train again; a run that was killed in between
    ends at the same step."""
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
    assert state["stopped_early"] and state["patience"]["waited"] == 2 and state["patience"]["metric"] == "val/loss"
    capsys.readouterr()
    assert main(["train", str(again), "training.stop.metric=val/speed", "out=" + str(folder.parent / "x")]) == 2
    assert "training.stop.metric is 'val/speed'; possible: val/loss" in capsys.readouterr().err


STOPS = {"patience": 2, "improvement": 100.0}


def same_weights(first, second) -> bool:
    """Whether two runs have the same last weights and averages."""
    for part in ("model", "ema"):
        one, other = (read_part(folder, read_step(folder, "last"), part) for folder in (first, second))
        if one.keys() != other.keys() or not all(torch.equal(value, other[name]) for name, value in one.items()):
            return False
    return True


def evaluations(folder) -> list[dict]:
    """The metrics of all evaluations of a run."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    plain = ({name: value for name, value in line.items() if name.startswith(("step", "val"))} for line in lines)
    return [line for line in plain if len(line) > 1]


@pytest.mark.parametrize(
    "more",
    only(2, [["training.stop.patience=4"], ["--change", "stop.patience=4"], ["training.stop=null"],
             ["training.stop={metric: val/perplexity, patience: 50}"], ["training.stop={patience: 9}"],
             ["training.stop.patience=4", "training.ema=0.9"]]),
)  # fmt: skip
def test_a_run_that_stopped_early_continues_if_its_settings_no_longer_stop_it(tiny, capsys, more):
    file = tiny("more", training={"steps": 24, "stop": STOPS}, evaluation={"every": 4, "report": False})
    folder, constant = file.parent / "runs" / "more", [each for each in more if "ema" in each]
    assert main(["train", str(file), *constant]) == 0
    for longer in ([], ["training.steps=40"], ["training.stop.patience=1"]):
        capsys.readouterr()
        assert main(["train", str(file), *constant, *longer]) == 0
        output = capsys.readouterr().err
        assert "is finished: 12 steps" in output and "stopped early; to continue it, use training.stop=null" in output
    assert main(["train", str(file), "training.steps=24", *more]) == 0
    assert "resumed" in capsys.readouterr().err and json.loads((folder / "summary.json").read_text())["step"] > 12
    whole = [each.removeprefix("stop.") if each == "--change" else each for each in more if each != "--change"]
    whole = [f"training.{each}" if each.startswith("stop.") else each for each in whole]
    assert main(["train", str(file), *whole, f"out={folder.parent / 'whole'}"]) == 0
    assert same_weights(folder, folder.parent / "whole")
    assert evaluations(folder) == evaluations(folder.parent / "whole")


@pytest.mark.system
@pytest.mark.parametrize("at", ["average_last", "evaluate_at_end", "result_of"])
def test_averages_of_a_run_that_stopped_early_survive_a_kill_and_a_continuation(tiny, monkeypatch, at):
    options = {"training": {"steps": 24, "stop": STOPS}, "evaluation": {"every": 4, "report": at == "result_of"},
               "checkpoints": {"every": 4, "average": 2}}  # fmt: skip
    file = tiny("averages", **options)
    folder, states = file.parent / "runs" / "averages", []
    assert main(["train", str(file), f"out={folder.parent / 'whole'}"]) == 0

    def kill(*_):
        raise RuntimeError("killed")

    def watch(experiment):
        with experiment.trainer.learner.averaged():
            states.append({name: value.clone() for name, value in experiment.model.state_dict().items()})
        return {}

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(f"chopmix.experiment.end.{at}", kill)
        main(["train", str(file)])
    with monkeypatch.context() as patched:
        patched.setattr("chopmix.experiment.end.evaluate_at_end", watch)
        assert main(["train", str(file)]) == 0
    assert same_weights(folder, folder.parent / "whole")
    averaged = read_part(folder, 12, "ema")
    assert len(states) == (at != "result_of")  # the evaluators of the end had run
    assert all(torch.equal(averaged.get(name, value), value) for each in states for name, value in each.items())
    for out in (folder, folder.parent / "whole2"):  # after the averaging
        assert main(["train", str(file), "training.stop.patience=4", f"out={out}"]) == 0
    assert same_weights(folder, folder.parent / "whole2") and read_step(folder, "last") == 20


@pytest.mark.parametrize("number, status", only(1, [(signal.SIGTERM, 143), (signal.SIGINT, 130)]))
@pytest.mark.parametrize("at", ["last step", "end.evaluate_at_end", "run_page.RunPage.run"])
def test_a_signal_after_the_last_step_is_not_ignored(tiny, monkeypatch, capsys, number, status, at):
    file = tiny("stopped", training={"steps": 6}, evaluation={"every": 4})
    reached = []

    def kill(*arguments):
        reached.append(1)
        os.kill(os.getpid(), number)
        time.sleep(0.01)  # the handler runs
        return {}

    with monkeypatch.context() as patched:
        if at == "last step":
            update = Trainer.update
            patched.setattr(Trainer, "update", lambda trainer: (update(trainer), trainer.step == 5 and kill())[0])
        else:
            patched.setattr(f"chopmix.experiment.{at}", kill)
        try:
            ended = main(["train", str(file), "--seeds", "0,1"])
        except SystemExit as error:
            ended = error.code
    assert ended == status and reached == [1]  # the second seed does not start
    assert "after its last step; the same command finishes it" in capsys.readouterr().err
    assert not (file.parent / "runs/stopped/seed-1").exists()
    assert main(["train", str(file), "--seeds", "0,1"]) == 0
    assert json.loads((file.parent / "runs/stopped/seed-0/summary.json").read_text())["step"] == 6


def test_data_of_an_older_version_are_accepted_only_with_accept_data(tiny, capsys):
    file = tiny("older", training={"steps": 4})
    assert main(["train", str(file)]) == 0
    state = file.parent / "runs/older/checkpoints/step-00000004/state.json"
    stored = json.loads(state.read_text())
    assert stored["fingerprint_version"] == VERSION
    old = {key: value for key, value in stored.items() if key != "fingerprint_version"}
    state.write_text(json.dumps(old))
    for changed, accepted, message in (
        ({}, False, ""),  # the same fingerprints: nothing to accept
        ({"train": "0" * 64}, False, "an older version of chopmix computed their fingerprints by other rules"),
        ({"train": "0" * 64}, True, "the data (train) are accepted as those of step 4"),
    ):
        copy = shutil.copytree(file.parent / "runs/older", file.parent / f"runs/{accepted}{len(changed)}")
        (copy / "checkpoints/step-00000004/state.json").write_text(json.dumps(old | {"data": stored["data"] | changed}))
        capsys.readouterr()
        command = ["train", str(file), "training.steps=5", f"out={copy}", *["--accept-data"] * accepted]
        assert main(command) == (2 if changed and not accepted else 0)
        assert message in capsys.readouterr().err
    state.write_text(json.dumps(stored | {"data": stored["data"] | {"train": "0" * 64}}))
    assert main(["train", str(file), "training.steps=5", "--accept-data"]) == 2
    assert "the data (train) changed since step 4; to train its weights on the new data" in capsys.readouterr().err


def test_averages_contain_only_the_weights_that_are_trained(tiny):
    options = {"training": {"steps": 9, "freeze": ["tokenizers", "blocks.0"]}, "evaluation": {"every": 9}}
    file = tiny("frozen", **options, checkpoints={"every": 3, "average": 3, "keep": 3})
    assert main(["train", str(file)]) == 0
    folder = file.parent / "runs/frozen"
    first, last, averaged = read_part(folder, 3, "model"), read_part(folder, 9, "model"), read_part(folder, 9, "ema")
    frozen = {name for name in first if name.startswith(("tokenizers", "cores.main.blocks.0."))}
    assert frozen and averaged.keys() == first.keys() - frozen
    assert all(torch.equal(first[name], last[name]) == (name in frozen) for name in first)


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

    def record_patience(trainer):
        saved[trainer.step] = trainer.patience
        save(trainer)

    scores = iter(score for score in [1.0, 2.0, 0.5, 1.5, 1.6] for _ in range(2))  # for the best, and for the stop
    monkeypatch.setattr(Trainer, "save", record_patience)
    file = tiny("saved", **changes)
    assert main(["train", str(file)]) == 0
    assert (saved[4].best, saved[4].waited) == (1.0, 0) and (saved[12].best, saved[12].waited) == (0.5, 0)
    assert max(saved) == 20
