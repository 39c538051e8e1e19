"""The judge of the fuzz tests: which errors it counts as ours or as foreign, and which events it detects."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import judged
import numpy as np
import pytest
from chopmix.commands import schema
from chopmix.experiment.settings.config import config_from_tree
from chopmix.files.records import read_json
from chopmix.models.generation.sampling import Sampling
from chopmix.projects.whisper.transcribing import clock
from judged import Executed, Grew, Hung, Judge, Steered, Unclear, WroteOutside, at_home, command
from pydantic import TypeAdapter


@pytest.fixture
def new_judge(tmp_path, monkeypatch):
    """A separate judge, so that these calls are not counted as inputs of the fuzz tests."""
    (tmp_path / "home").mkdir()
    judge = Judge(tmp_path / "home")
    with at_home(judge.home):
        judge.folder()
        yield judge


def check(judge: Judge, call) -> judged.Counts:
    """Judge one call. Returns the counts of the judge."""
    judge.check("runs", call, "a call")
    return judge.counts["runs"]


OURS = {
    "a class of chopmix": lambda: read_json("missing.json"), "a raise in chopmix": lambda: Sampling(temperature=-1.0),
    "a configuration": lambda: config_from_tree({}), "a command line": lambda: command("compare", "missing"),
    "an unknown option": lambda: command("compare", "--x"),
}  # fmt: skip
FOREIGN = {
    "a call of chopmix that a library refuses": lambda: clock(float("nan"), "."),
    "a library raises": lambda: TypeAdapter(int).validate_python("x"),
    "the caller raises": lambda: int("x"),
    "no error of a user": lambda: {}["x"],
    "too deep": lambda: (lambda again: again(again))(lambda again: again(again)),
    "too large": lambda: np.ones(2**45),
}


@pytest.mark.parametrize("name", OURS)
def test_an_error_of_chopmix_counts_as_refused(new_judge, name):
    counts = check(new_judge, OURS[name])
    assert (counts.tried, counts.refused) == (1, 1)


@pytest.mark.parametrize("name", FOREIGN)
def test_other_errors_count_as_foreign(new_judge, name):
    with pytest.raises((ValueError, KeyError, RecursionError, MemoryError)) as caught:
        check(new_judge, FOREIGN[name])
    assert not judged.is_ours(caught.value) and new_judge.counts["runs"].foreign == 1
    assert "runs: a call" in caught.value.__notes__


def test_an_error_of_a_library_that_the_command_line_prints_is_foreign(new_judge, monkeypatch):
    """An error of a library is foreign even if the command line prints it as a mistake of the user."""
    monkeypatch.setattr(schema, "run", lambda options: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        check(new_judge, lambda: command("schema"))


def swallow() -> None:
    """Run forever, and catch every Exception."""
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


@pytest.mark.parametrize("call", [swallow, lambda: time.sleep(5)])
def test_a_call_that_takes_too_long_is_stopped(new_judge, monkeypatch, call):
    monkeypatch.setattr(judged, "SECONDS", 0.2)
    with pytest.raises(Hung, match=r"0\.2 seconds"):
        check(new_judge, call)
    assert new_judge.counts["runs"].hangs == 1


@pytest.mark.skipif(not judged.STATUS.exists(), reason="memory is judged on Linux alone")
def test_a_call_that_takes_too_much_memory_is_detected(new_judge, monkeypatch):
    monkeypatch.setattr(judged, "GROWTH", 2**25)
    with pytest.raises(Grew, match="MiB"):
        check(new_judge, lambda: np.ones(2**24).sum())


def test_execution_of_code_is_detected(new_judge):
    for call in (
        lambda: __import__("payload"),
        lambda: subprocess.run([sys.executable, "-c", ""], check=False),
        lambda: os.system("true"),
        lambda: os._exit(0),
    ):
        with pytest.raises(Executed):
            check(new_judge, call)
    assert not (new_judge.home / "executed").exists() and new_judge.counts["runs"].others == 4


def test_writing_outside_the_home_is_detected(new_judge):
    outside = new_judge.home.parent / "outside"
    Path("link").symlink_to(outside)
    for call in (
        lambda: outside.write_text("x"),
        lambda: Path("link").write_text("x"),
        lambda: Path("../../outside").mkdir(),
        lambda: os.rename("link", outside),
    ):
        with pytest.raises(WroteOutside, match="outside"):
            check(new_judge, call)
    assert not outside.exists()
    assert check(new_judge, lambda: Path("inside").write_text("x")).accepted == 1


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [("\x1b[31mred", Steered), ("a\x9b", Steered), ("Traceback (most recent call last)", Unclear)],
)
def test_control_characters_and_tracebacks_in_outputs_are_detected(new_judge, monkeypatch, printed, complaint):
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(schema, "run", lambda options, stream=stream: print(printed, file=getattr(sys, stream)))
        with pytest.raises(complaint, match="standard"):
            check(new_judge, lambda: command("schema"))


def test_an_exit_status_without_a_message_or_meaning_is_detected(new_judge, monkeypatch):
    def silent(options):
        return 1

    def odd(options):
        return 7

    for run in (silent, odd):
        monkeypatch.setattr(schema, "run", run)
        with pytest.raises(Unclear, match="the status is"):
            check(new_judge, lambda: command("schema"))


def test_an_error_in_a_callback_is_noticed(new_judge):
    class Angry:
        def __del__(self):
            raise ValueError("angry")

    with pytest.raises(Unclear, match="angry"):
        check(new_judge, lambda: Angry() and None)
