"""`chopmix train --change` changes settings of a run that has already been trained for some steps."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.data.sampler import Mixed, Shuffled, Slots, Weighted
from chopmix.experiment import changes
from chopmix.experiment.changes import Change, Setting, check_keys, moved_back, read_changes
from chopmix.files.errors import RunError
from chopmix.files.records import read_tensors
from chopmix.training import checkpoints as checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from test_answers import TREE, pictures

CHANGES = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), max_size=3, unique_by=lambda each: each[0]).map(
    sorted
)


@given(st.integers(1, 9), CHANGES, st.integers(0, 60))
def test_slots_follow_each_other_without_gaps(rows, changes_of_rows, count):
    slots, following = Slots(rows, tuple(changes_of_rows)), 0
    for batch in range(count):
        expected = next((size for number, size in reversed(changes_of_rows) if number <= batch), rows)
        assert slots.of(batch) == range(following, following + expected)
        following += expected
    if count:
        last = slots.of(count - 1)
        assert slots.batches(last.stop) == count and slots.batches(last.stop + 1) == count + 1
        assert slots.batches(last.start + 1) == count


@given(st.integers(1, 9), CHANGES, st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=40)
def test_every_sample_of_an_epoch_is_read_once_after_any_changes(rows, changes_of_rows, count, seed):
    mixed = Mixed([count, 2 * count], [1, 2], rows).changed(rows, changes_of_rows)
    sampler = Shuffled(count, 5).changed(rows, changes_of_rows)
    drawn = Weighted(np.arange(1, count + 1), 3).changed(rows, changes_of_rows)
    read = [index for batch in range(50) for index in sampler.plan(seed, batch)]
    for epoch in range(len(read) // count):
        assert Counter(index.number for index in read if index.epoch == epoch) == Counter(range(count))
    assert [index for batch in range(50) for index in mixed.plan(seed, batch)] == [
        index for batch in range(len(read)) for index in Mixed([count, 2 * count], [1, 2], 1).plan(seed, batch)
    ]
    plain = Weighted(np.arange(1, count + 1), 1)
    assert [index for batch in range(9) for index in drawn.plan(seed, batch)] == [
        plain.plan(seed, number)[0] for number in range(drawn.slots.of(8).stop)
    ]


@pytest.fixture
def yaml_file(tmp_path, monkeypatch):
    """The name of a configuration with 60 pictures and 16 of them per step, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    pictures(Path("photos"), 20)
    data = {"dataset": {"use": "image_folder", "train": "photos", "val": "photos"}}
    tree = TREE | {"data": data, "out": "run", "checkpoints": {"every": 4, "best": "val/loss"}}
    tree["training"] = {**TREE["training"], "steps": 12, "precision": "float32"}
    tree["evaluation"] = {"every": 100, "report": False}
    Path("x.yaml").write_text(yaml.safe_dump(tree))
    return "x.yaml"


NEW = ("--change", "training.samples_per_step=10", "--change", "training.learning_rate=0.003",
       "--change", "training.schedule={use: cosine, warmup: 1}", "--change", "training.steps=24")  # fmt: skip


def weights(folder) -> dict[str, bytes]:
    tensors = read_tensors(checkpoint.folder_of(Path(folder), 24) / "model.safetensors")
    return {name: value.numpy().tobytes() for name, value in tensors.items()}


def losses(folder) -> list[dict]:
    lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name in ("step", "train/loss", "val/loss")} for line in lines
    ]


def test_a_changed_run_that_is_stopped_ends_with_the_same_weights(yaml_file, monkeypatch, capsys):
    assert main(["train", yaml_file]) == 0
    shutil.copytree("run", "other")
    assert main(["train", yaml_file, *NEW]) == 0
    output = capsys.readouterr().err
    assert "changed at step 12: training.samples_per_step 16 -> 10" in output and "resumed run at step 12" in output
    others = ["out=other"]
    from chopmix.training.loop import Trainer

    update = Trainer.update

    def stopped(self):
        if self.step == 18:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", stopped)
        assert main(["train", yaml_file, *others, *NEW]) == 143
    assert checkpoint.steps(Path("other"))[-1] in (18, 19)
    assert main(["train", yaml_file, *others, *NEW]) == 0  # the same command
    assert weights("run") == weights("other") and losses("run") == losses("other")
    (change,) = read_changes(Path("run"))
    assert change.step == change.batch == 12
    assert change.settings["training.steps"] == Setting(old=12, new=24)
    assert change.settings["training.schedule.warmup"].new == 1 or "training.schedule" in change.settings
    capsys.readouterr()
    assert main(["inspect", "run/config.yaml"]) == 0
    assert "changed at step 12: training.learning_rate 0.01 -> 0.003" in capsys.readouterr().out
    assert "changed at step 12: training.samples_per_step 16 -&gt; 10" in Path("run/inspect.html").read_text()
    assert main(["train", "run"]) == 0 and "run is finished: 24 steps in 0:" in capsys.readouterr().err
    config = Path("run/config.yaml").read_bytes()
    for key in ("training.samples_per_step", "samples_per_step"):  # the section may be omitted
        assert main(["train", "run", "--change", f"{key}=8"]) == 2
        assert "run is finished at step 24, so --change has no effect" in capsys.readouterr().err
    assert len(read_changes(Path("run"))) == 1 and Path("run/config.yaml").read_bytes() == config


def test_the_samples_after_a_change_follow_those_before(yaml_file, monkeypatch):
    from chopmix.data.loader import Loader

    read, load = [], Loader.load

    def recording_load(self, step, stops=False):
        read.extend(self.split.plan(self.seed, self.batch_number(step)))
        return load(self, step, stops)

    monkeypatch.setattr(Loader, "load", recording_load)
    assert main(["train", yaml_file]) == 0
    assert main(["train", yaml_file, *NEW]) == 0
    expected = Shuffled(60, 1)
    assert read == [expected.plan(0, number)[0] for number in range(12 * 16 + 12 * 10)]


def test_a_run_is_changed_twice(yaml_file):
    assert main(["train", yaml_file]) == 0
    first = ["--change", "training.samples_per_step=10", "--change", "training.steps=16"]
    assert main(["train", yaml_file, *first]) == 0
    second = [
        "training.samples_per_step=10",
        "--change",
        "training.samples_per_step=7",
        "--change",
        "training.steps=20",
    ]
    assert main(["train", yaml_file, *second]) == 0
    stored = [(each.step, each.settings["training.samples_per_step"].new) for each in read_changes(Path("run"))]
    assert stored == [(12, 10), (16, 7)]


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--change", "model.depth=2"],
            "--change model.depth: possible in a run that is trained: training.samples_per",
        ),
        (["--change", "training.seed=2"], "from=run out=OTHER"),
        (["training.learning_rate=0.1"], "or change a run with --change KEY=VALUE"),
        (["--change", "training.learning_rate=0.1", "model.depth=2"], "model.depth: 1 in the run, 2 now"),
        (["--change", "training.steps=3"], "is already at step 12, which is more than training.steps=3"),
    ],
)
def test_changes_of_other_settings_are_refused(yaml_file, capsys, words, message):
    assert main(["train", yaml_file]) == 0
    before = Path("run/config.yaml").read_bytes()
    assert main(["train", yaml_file, *words]) == 2
    assert message in capsys.readouterr().err
    assert Path("run/config.yaml").read_bytes() == before and not Path("run/changes.json").exists()


def test_a_change_of_the_tokens_per_step_is_refused(tmp_path):
    with pytest.raises(RunError, match="--change training.tokens_per_step: possible"):
        check_keys(["training.tokens_per_step"], tmp_path)


def test_epochs_count_the_samples_of_all_steps(yaml_file, capsys):
    words = ["training.steps=null", "training.epochs=4"]
    assert main(["train", yaml_file, *words]) == 0  # 240 samples, 16 per step
    more = ["training.steps=null", "--change", "training.epochs=6", "--change", "training.samples_per_step=10"]
    assert main(["train", yaml_file, *more]) == 0  # and 120 more, 10 per step
    assert checkpoint.read_step(Path("run"), "last") == 15 + 12


def test_a_change_after_a_lost_checkpoint_is_moved_to_the_last_valid_checkpoint(tmp_path, monkeypatch):
    setting = {"training.samples_per_step": Setting(old=16, new=10)}
    later = {"training.samples_per_step": Setting(old=10, new=5), "training.steps": Setting(old=1, new=2)}
    stored = changes.Changes(
        changes=(Change(step=4, batch=4, settings=setting), Change(step=9, batch=9, settings=later))
    )
    (tmp_path / "changes.json").write_text(stored.model_dump_json())
    monkeypatch.setattr(checkpoint, "newest_valid", lambda folder, say: 6)
    monkeypatch.setattr(checkpoint, "read_state", lambda folder, step: type("State", (), {"skipped": [(2, 3)]}))
    moved_changes = moved_back(tmp_path)
    assert [(each.step, each.batch) for each in moved_changes] == [(4, 4), (6, 9)]
    assert read_changes(tmp_path) == moved_changes
    monkeypatch.setattr(checkpoint, "newest_valid", lambda folder, say: 3)
    (moved,) = moved_back(tmp_path)
    assert moved.step == 3 and moved.settings["training.samples_per_step"] == Setting(old=16, new=5)


def test_a_further_change_after_a_lost_checkpoint_keeps_the_first_number_of_samples(tmp_path, monkeypatch):
    """Otherwise the position in the epoch would be computed as if the run had begun with the second number."""
    first = Change(step=12, batch=12, settings={"training.samples_per_step": Setting(old=16, new=10)})
    (tmp_path / "changes.json").write_text(changes.Changes(changes=(first,)).model_dump_json())
    monkeypatch.setattr(checkpoint, "newest_valid", lambda folder, say: 8)
    monkeypatch.setattr(checkpoint, "read_state", lambda folder, step: type("State", (), {"skipped": []}))
    key = "training.samples_per_step"
    assert changes.note_change(tmp_path, [(key, 10, 5)], [], [key])
    (change,) = read_changes(tmp_path)
    assert (change.step, change.batch, change.settings[key]) == (8, 8, Setting(old=16, new=5))


@pytest.mark.system
def test_a_changed_run_that_is_killed_at_any_moment_ends_with_the_same_weights(yaml_file):
    """They equal those of a run that is not killed, bit for bit."""
    assert main(["train", yaml_file]) == 0
    words = [sys.executable, "-m", "chopmix.commands.cli", "train", yaml_file, *NEW]
    environment = os.environ | {"PYTHONPATH": str(Path(changes.__file__).parents[1])}
    for name in ("whole", "killed"):
        shutil.copytree("run", name)
    assert subprocess.run([*words, "out=whole"], env=environment).returncode == 0
    seconds = 2.0
    while not (Path("killed") / "summary.json").exists() or checkpoint.read_step(Path("killed"), "last") != 24:
        process = subprocess.Popen([*words, "out=killed"], env=environment)
        time.sleep(seconds)
        process.kill()
        process.wait()
        seconds += 0.5
        assert seconds < 60
    assert weights("whole") == weights("killed") and losses("whole") == losses("killed")
