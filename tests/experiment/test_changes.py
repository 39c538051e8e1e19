"""`chopmix train --change` changes settings of a run that has already been trained for some steps."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.data.sampler import Shuffled
from chopmix.experiment import changes
from chopmix.experiment.changes import Change, Setting, check_keys, moved_back, read_changes
from chopmix.files.errors import RunError
from chopmix.files.records import read_tensors
from chopmix.training import checkpoints as checkpoint
from test_answers import TREE, pictures


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


NEW = ("--change", "training.learning_rate=0.003", "--change", "training.schedule={use: cosine, warmup: 1}",
       "--change", "training.steps=24")  # fmt: skip


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
    assert "changed at step 12: training.learning_rate 0.01 -> 0.003" in output and "resumed run at step 12" in output
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
    assert change.step == 12
    assert change.settings["training.steps"] == Setting(old=12, new=24)
    assert change.settings["training.schedule.warmup"].new == 1 or "training.schedule" in change.settings
    capsys.readouterr()
    assert main(["inspect", "run/config.yaml"]) == 0
    assert "changed at step 12: training.learning_rate 0.01 -> 0.003" in capsys.readouterr().out
    assert "changed at step 12: training.learning_rate 0.01 -&gt; 0.003" in Path("run/inspect.html").read_text()
    assert main(["train", "run"]) == 0 and "run is finished: 24 steps in 0:" in capsys.readouterr().err
    config = Path("run/config.yaml").read_bytes()
    for key in ("training.learning_rate", "learning_rate"):  # the section may be omitted
        assert main(["train", "run", "--change", f"{key}=0.002"]) == 2
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
    assert read == [expected.plan(0, number)[0] for number in range(24 * 16)]


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--change", "model.depth=2"],
            "--change model.depth: possible in a run that is trained: training.learning_rate",
        ),
        (["--change", "training.seed=2"], "from=run out=OTHER"),
        (["--change", "training.samples_per_step=8"], "start a new run with these weights: from=run out=OTHER"),
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


def test_a_run_that_has_changed_its_batch_size_is_refused(yaml_file, capsys):
    """Earlier versions could change it in the middle of a run."""
    assert main(["train", yaml_file]) == 0
    change = {"step": 8, "batch": 8, "settings": {"training.samples_per_step": {"old": 32, "new": 16}}}
    Path("run/changes.json").write_text(json.dumps({"changes": [change]}))
    assert main(["train", yaml_file, "--change", "training.steps=24"]) == 2
    message = (
        "run changed training.samples_per_step at step 8, which this version cannot continue; start a new run with"
    )
    assert f"{message} its weights: from=run out=OTHER" in capsys.readouterr().err
    assert checkpoint.read_step(Path("run"), "last") == 12


def test_a_run_is_changed_twice(yaml_file):
    assert main(["train", yaml_file]) == 0
    for rate, steps in (("0.003", 16), ("0.001", 20)):
        words = ["--change", f"training.learning_rate={rate}", "--change", f"training.steps={steps}"]
        assert main(["train", yaml_file, *words]) == 0
    stored = [(each.step, each.settings["training.learning_rate"].new) for each in read_changes(Path("run"))]
    assert stored == [(12, 0.003), (16, 0.001)]


def test_a_change_after_a_lost_checkpoint_is_moved_to_the_last_valid_checkpoint(tmp_path, monkeypatch):
    setting = {"training.learning_rate": Setting(old=16, new=10)}
    later = {"training.learning_rate": Setting(old=10, new=5), "training.steps": Setting(old=1, new=2)}
    stored = changes.Changes(changes=(Change(step=4, settings=setting), Change(step=9, settings=later)))
    (tmp_path / "changes.json").write_text(stored.model_dump_json())
    monkeypatch.setattr(checkpoint, "newest_valid", lambda folder, say: 6)
    moved_changes = moved_back(tmp_path)
    assert [each.step for each in moved_changes] == [4, 6]
    assert read_changes(tmp_path) == moved_changes
    monkeypatch.setattr(checkpoint, "newest_valid", lambda folder, say: 3)
    (moved,) = moved_back(tmp_path)
    assert moved.step == 3 and moved.settings["training.learning_rate"] == Setting(old=16, new=5)


def test_a_further_change_after_a_lost_checkpoint_keeps_the_first_value(tmp_path, monkeypatch):
    first = Change(step=12, settings={"training.learning_rate": Setting(old=16, new=10)})
    (tmp_path / "changes.json").write_text(changes.Changes(changes=(first,)).model_dump_json())
    monkeypatch.setattr(checkpoint, "newest_valid", lambda folder, say: 8)
    key = "training.learning_rate"
    assert changes.note_change(tmp_path, [(key, 10, 5)], [], [key])
    (change,) = read_changes(tmp_path)
    assert (change.step, change.settings[key]) == (8, Setting(old=16, new=5))


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
