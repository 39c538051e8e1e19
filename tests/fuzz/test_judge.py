"""The judge itself: what it calls ours, what foreign, and everything that it notices."""

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
def own(tmp_path, monkeypatch):
    """A judge of its own, so that nothing here counts as an input."""
    (tmp_path / "home").mkdir()
    found = Judge(tmp_path / "home")
    with at_home(found.home):
        found.folder()
        yield found


def judge(own: Judge, call) -> judged.Counts:
    """What one call counts as."""
    own.check("runs", call, "a call")
    return own.counts["runs"]


OURS = {
    "a class of ours": lambda: read_json("missing.json"), "a raise of ours": lambda: Sampling(temperature=-1.0),
    "a configuration": lambda: config_from_tree({}), "a command line": lambda: command("compare", "missing"),
    "an unknown option": lambda: command("compare", "--x"),
}  # fmt: skip
FOREIGN = {
    "a call of ours that a library refuses": lambda: clock(float("nan"), "."),
    "a library": lambda: TypeAdapter(int).validate_python("x"),
    "the caller's": lambda: int("x"),
    "no error of a user's": lambda: {}["x"],
    "too deep": lambda: (lambda again: again(again))(lambda again: again(again)),
    "too large": lambda: np.ones(2**45),
}


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours(own, name):
    counts = judge(own, OURS[name])
    assert (counts.tried, counts.refused) == (1, 1)


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_foreign(own, name):
    with pytest.raises((ValueError, KeyError, RecursionError, MemoryError)) as caught:
        judge(own, FOREIGN[name])
    assert not judged.is_ours(caught.value) and own.counts["runs"].foreign == 1
    assert "runs: a call" in caught.value.__notes__


def test_what_is_told_to_the_user_must_be_ours(own, monkeypatch):
    """An error of a library is foreign even where the command line prints it as a mistake of the user's."""
    monkeypatch.setattr(schema, "run", lambda options: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        judge(own, lambda: command("schema"))


def swallow() -> None:
    """What hears no error."""
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


@pytest.mark.parametrize("call", [swallow, lambda: time.sleep(5)])
def test_what_hangs(own, monkeypatch, call):
    monkeypatch.setattr(judged, "SECONDS", 0.2)
    with pytest.raises(Hung, match=r"0\.2 seconds"):
        judge(own, call)
    assert own.counts["runs"].hangs == 1


@pytest.mark.skipif(not judged.STATUS.exists(), reason="memory is judged on Linux alone")
def test_what_grows(own, monkeypatch):
    monkeypatch.setattr(judged, "GROWTH", 2**25)
    with pytest.raises(Grew, match="MiB"):
        judge(own, lambda: np.ones(2**24).sum())


def test_what_is_executed(own):
    for call in (
        lambda: __import__("payload"),
        lambda: subprocess.run([sys.executable, "-c", ""], check=False),
        lambda: os.system("true"),
        lambda: os._exit(0),
    ):
        with pytest.raises(Executed):
            judge(own, call)
    assert not (own.home / "executed").exists() and own.counts["runs"].others == 4


def test_what_is_written_outside(own):
    outside = own.home.parent / "outside"
    Path("link").symlink_to(outside)
    for call in (
        lambda: outside.write_text("x"),
        lambda: Path("link").write_text("x"),
        lambda: Path("../../outside").mkdir(),
        lambda: os.rename("link", outside),
    ):
        with pytest.raises(WroteOutside, match="outside"):
            judge(own, call)
    assert not outside.exists()
    assert judge(own, lambda: Path("inside").write_text("x")).accepted == 1


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [("\x1b[31mred", Steered), ("a\x9b", Steered), ("Traceback (most recent call last)", Unclear)],
)
def test_what_is_shown(own, monkeypatch, printed, complaint):
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(schema, "run", lambda options, stream=stream: print(printed, file=getattr(sys, stream)))
        with pytest.raises(complaint, match="standard"):
            judge(own, lambda: command("schema"))


def test_what_says_nothing(own, monkeypatch):
    def silent(options):
        return 1

    def odd(options):
        return 7

    for made in (silent, odd):
        monkeypatch.setattr(schema, "run", made)
        with pytest.raises(Unclear, match="the status is"):
            judge(own, lambda: command("schema"))


def test_an_error_in_a_callback_is_noticed(own):
    class Angry:
        def __del__(self):
            raise ValueError("angry")

    with pytest.raises(Unclear, match="angry"):
        judge(own, lambda: Angry() and None)
