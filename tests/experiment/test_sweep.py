"""Sweeps sort the settings by the metric that chooses the best checkpoint, keep their results, and train several runs
at the same time."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import CONFIGS
from chopmix.commands.cli import main
from chopmix.experiment import sweep
from chopmix.experiment.dry_run import fact_text
from chopmix.experiment.jobs import IS_JOB, Job, noted_signals, run_jobs
from chopmix.experiment.settings.config import load_config
from chopmix.files.writing import is_alive

FAST, SLOW = ("training.learning_rate=0.02",), ("training.learning_rate=0.00001",)


@pytest.fixture
def play_config(monkeypatch):
    """The configuration of a run that is evaluated by playing; its tasks need no data."""
    monkeypatch.setattr(sweep, "choppers_and_tasks", lambda *parts, **named: ({}, {}))
    file = CONFIGS / "decision/cartpole.yaml"
    return load_config(file, ["checkpoints.best=val/return_at_500", "evaluation.play={targets: [500]}"])


def test_the_setting_with_the_largest_return_is_first(play_config):
    values = {SLOW: [16.5], FAST: [499.4]}
    assert sweep.sorted_settings(values, "val/return_at_500", play_config) == [FAST, SLOW]


def test_an_unknown_metric_is_refused(play_config):
    """An unknown metric is not treated as one whose smaller values are better."""
    with pytest.raises(
        ValueError, match="'val/nothing' is unknown, or does not define whether larger values are better; possible: "
    ):
        sweep.sorted_settings({FAST: [1.0]}, "val/nothing", play_config)


def test_a_setting_without_a_number_is_the_last(play_config):
    for lost in ([float("nan")], [1.0, float("nan")], []):
        assert sweep.sorted_settings({FAST: lost, SLOW: [16.5]}, "val/return_at_500", play_config) == [SLOW, FAST]


def test_commas_in_brackets_do_not_divide_values():
    assert sweep.split_at_commas("1,2") == ["1", "2"] and sweep.split_at_commas("[1,2],[3,4]") == ["[1,2]", "[3,4]"]
    assert sweep.split_at_commas("[[1,2],[3]],{a: 1, b: 2}") == ["[[1,2],[3]]", "{a: 1, b: 2}"]
    assert sweep.settings_of(["model.attention=causal & from(a, b),same_sample"]) == [
        ("model.attention=causal & from(a, b)",),
        ("model.attention=same_sample",),
    ]


def test_every_setting_has_a_separate_folder(tmp_path):
    """In an earlier version, values that differ only in characters that file names cannot have shared a folder."""
    values = ["same_sample & causal", "same_sample | causal", "same_sample", "[1,2]", "(1,2)", "1e-3"]
    folders = {sweep.folder_of(tmp_path, (f"model.attention={value}",), None) for value in values}
    assert len(folders) == len(values)
    assert sweep.folder_of(tmp_path, ("training.learning_rate=1e-3", "model.depth=6"), 0) == (
        tmp_path / "learning_rate=1e-3,depth=6" / "seed-0"
    )


def sweep_table(folder) -> dict[str, dict[str, str]]:
    with open(Path(folder, "sweep.csv"), newline="") as lines:
        return {row["folder"]: row for row in csv.DictReader(lines)}


@pytest.mark.system
def test_runs_at_the_same_time_have_the_results_of_runs_one_after_another(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    words = ["train", str(tiny()), "--sweep", "training.learning_rate=0.01,0.02", "--seeds", "0,1"]
    words = [*words, "training.steps=4"]
    assert main([*words, f"out={tmp_path / 'a'}"]) == 0
    assert main([*words, f"out={tmp_path / 'b'}", "--jobs", "3"]) == 0
    captured = capsys.readouterr()
    assert "4 of 4 runs finished" in captured.err and "sorted by val/loss, best first" in captured.out
    one, three = (sweep_table(tmp_path / name) for name in "ab")
    assert [*one] == [*three] and len(one) == 4
    for folder, row in one.items():
        assert float(row["val/loss"]) == float(three[folder]["val/loss"])
        assert row["training.learning_rate"] in folder and row["seed"] == folder[-1]
    assert (tmp_path / "b" / "learning_rate=0.01" / "seed-0.log").read_text().startswith(str(tmp_path / "b"))


def test_results_are_kept(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    words = ["train", str(tiny()), "--sweep", "training.learning_rate=0.01,0.02", "--seeds", "0,1", "training.steps=2"]
    assert main([*words, f"out={tmp_path / 'a'}"]) == 0
    rows = sweep_table(tmp_path / "a")
    assert len(rows) == 4 and all(row["training.learning_rate"] in folder for folder, row in rows.items())
    for folder, row in rows.items():
        summary = json.loads((tmp_path / "a" / folder / "summary.json").read_text())
        assert float(row["val/loss"]) == summary["val/loss"] and row["seed"] == folder[-1] and row["step"] == "2"
    assert f"results: {tmp_path / 'a' / 'sweep.csv'}" in capsys.readouterr().out


@pytest.mark.system
def test_a_failed_job_stops_the_others_and_is_reported(tiny, tmp_path, monkeypatch, messages):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    jobs = [
        Job("good", [str(tiny()), "training.steps=100000", f"out={tmp_path / 'good'}"], tmp_path / "good.log"),
        Job("bad", [str(tmp_path / "none.yaml")], tmp_path / "bad.log"),
        Job("later", [str(tiny()), f"out={tmp_path / 'later'}"], tmp_path / "later.log"),
    ]
    started, popen = [], subprocess.Popen

    def opened(*args, **named):
        started.append(popen(*args, **named))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", opened)
    assert run_jobs(jobs, 2, lambda number: None) == 2
    assert len(started) == 2 and all(
        process.stdin.closed for process in started
    )  # otherwise the garbage collector warns
    error = messages()
    assert "bad ended with status 2" in error and "none.yaml" in error and not (tmp_path / "later.log").exists()


@pytest.mark.system
def test_jobs_that_are_stopped_are_continued(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    file = tiny(training={"steps": 400}, checkpoints={"every": 20})
    words = [sys.executable, "-m", "chopmix.commands.cli", "train", str(file), "--seeds", "0,1", "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(sweep.__file__).parents[1])}
    process = subprocess.Popen([*words, f"out={tmp_path / 'a'}"], env=environment, start_new_session=True)
    while not all((tmp_path / "a" / f"seed-{seed}" / "metrics.jsonl").exists() for seed in (0, 1)):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    assert "goes on from there" in (tmp_path / "a" / "seed-0.log").read_text()
    assert subprocess.run([*words, f"out={tmp_path / 'a'}"], env=environment).returncode == 0
    assert subprocess.run([*words, f"out={tmp_path / 'b'}"], env=environment).returncode == 0
    for seed in (0, 1):
        summaries = [json.loads((tmp_path / name / f"seed-{seed}" / "summary.json").read_text()) for name in "ab"]
        assert summaries[0]["val/loss"] == summaries[1]["val/loss"] and summaries[0]["step"] == 400


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_jobs_end_with_their_parent(tiny, tmp_path, monkeypatch, number):
    """After the terminal is closed or the parent is killed, no process continues the training."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    file = tiny(training={"steps": 100_000}, checkpoints={"every": 20})
    words = [sys.executable, "-m", "chopmix.commands.cli", "train", str(file), "--seeds", "0,1", "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(sweep.__file__).parents[1])}
    process = subprocess.Popen([*words, f"out={tmp_path / 'a'}"], env=environment, start_new_session=True)
    folders = [tmp_path / "a" / f"seed-{seed}" for seed in (0, 1)]
    while not all((folder / "last.json").exists() for folder in folders):
        time.sleep(0.1)
    holders = [json.loads((folder / ".lock").read_text())["pid"] for folder in folders]
    process.send_signal(number)
    assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    limit = time.monotonic() + 60
    while any(map(is_alive, holders)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(map(is_alive, holders))
    assert all("goes on from there" in Path(f"{folder}.log").read_text() for folder in folders)


@pytest.mark.system
def test_a_job_ends_when_its_parent_has_ended():
    """The system closes the pipe of a parent that was killed. Other processes are not ended in this way."""
    code = "from chopmix.experiment.jobs import end_with_parent as f; f(); import sys, time; print(flush=True); "
    for name, last, expected in (("1", "time.sleep(60)", -signal.SIGTERM), ("", "sys.exit(7)", 7)):
        environment = os.environ | {IS_JOB: name, "PYTHONPATH": str(Path(sweep.__file__).parents[1])}
        command = [sys.executable, "-c", code + last]
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            process.stdin.close()
            assert process.wait(30) == expected


def test_an_ignored_hangup_remains_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with noted_signals() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped() == signal.SIGTERM
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with noted_signals() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stopped() == signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--jobs", "2"], "--jobs trains several runs at the same time; name them with --seeds, --sweep or --folds"),
        (["--jobs", "0", "--seeds", "0,1"], "--jobs must be at least 1, not 0"),
    ],
)
def test_wrong_numbers_of_jobs_are_refused(tiny, capsys, words, message):
    assert main(["train", str(tiny()), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_prints_the_number_of_runs(tiny, capsys):
    swept = ["--sweep", "training.learning_rate=0.01,0.02,0.03"]
    for options, expected in (
        ([*swept, "--seeds", "0,1"], "6 runs: 3 settings, 2 seeds"), (["--seeds", "0"], "1 run"),
        (swept, "3 runs: 3 settings"),
    ):  # fmt: skip
        assert main(["train", str(tiny("several")), "--dry-run", *options]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == expected


@pytest.mark.parametrize("value, text", [
    (5417395, "5,417,395"), ("3.11", "3.11"), ({"train": 208, "val": 208}, "208"), ({}, "none"),
    ({"mean": 500.0, "best": 500.0}, "500.0 (mean), 500.0 (best)"),
    ({"train": 5000, "val": 24}, "5,000 (train), 24 (val)"),
])  # fmt: skip
def test_facts_about_a_data_set_are_short_texts(value, text):
    assert fact_text(value) == text
