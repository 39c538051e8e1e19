"""What a training shows on a terminal of 80 columns."""

import io
import os
import re

import pytest
import torch
from chopmix.commands.cli import main
from chopmix.experiment.next_steps import next_commands
from chopmix.experiment.settings.config import load_config
from chopmix.training.progress import Progress, broken, fitting
from hypothesis import given
from hypothesis import strategies as st
from test_mixing import mixed  # noqa: F401

METRICS = {
    "train/loss": 1.23456, "train/flops_per_second": 3.4e9, "train/seconds_per_step": 0.5, "train/padding": 0.0,
    "train/tokens_per_second": 2540.0, "train/peak_memory_bytes": 1.34e9, "train/learning_rate": 0.02,
    "train/learning_rate/embeddings": 0.03, "train/learning_rate/heads": 8e-3, "train/learning_rate/others": 3e-3,
}  # fmt: skip


class Terminal(io.StringIO):
    """A terminal of 80 columns: what it shows is `lines`."""

    def isatty(self):
        return True

    def fileno(self):
        return 2

    @property
    def lines(self) -> list[str]:
        """The lines as a reader sees them: a line that was cleared is replaced."""
        return [re.split("\r\033\\[K", line)[-1] for line in self.getvalue().split("\n")]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((80, 24)))
    return Terminal()


def test_the_remaining_time_comes_first_and_nothing_is_cut(terminal):
    progress = Progress(900, stream=terminal)
    progress.show(50, METRICS, torch.device("cpu"), 425.0)
    (line,) = terminal.lines
    assert line.startswith("7:05 left  step 50/900  loss 1.2346") and len(line) < 80
    assert not line.endswith(" ") and re.fullmatch(r"7:05 left  step 50/900  loss 1\.2346(  .*)?", line)


def test_the_history_stays_visible(terminal):
    progress = Progress(900, stream=terminal)
    for step in (50, 100):
        progress.show(step, METRICS, torch.device("cpu"), 1.0)
    progress.keep()
    progress.say("step 100  12.0 s  " + "  ".join(f"val/a_metric_{number} 0.1234" for number in range(9)))
    progress.show(150, METRICS, torch.device("cpu"), 1.0)
    progress.say("a note")
    lines = terminal.lines
    assert "step 100/900" in lines[0] and lines[1].startswith("step 100  12.0 s  val/a_metric_0 0.1234")
    assert all(len(line) < 80 for line in lines) and "step 150/900" not in "".join(lines)
    assert [line for line in lines if line.startswith("    val/")] and lines[-2] == "a note"
    progress.keep()
    assert terminal.lines == lines  # there is no progress line


PARTS = st.lists(st.text("abc/_0.", min_size=1, max_size=12), min_size=1, max_size=12)


@given(PARTS, st.integers(12, 60))
def test_lines_fit(parts, columns):
    line = "  ".join(parts)
    assert len(fitting(parts, columns)) <= columns and line.startswith(fitting(parts, columns))
    lines = broken(line, columns).split("\n")
    assert [part for each in lines for part in each.split()] == parts
    assert all(len(each) <= max(columns, 4 + max(map(len, parts))) for each in lines)


def test_the_next_commands_are_printed(tiny, capsys):
    file = tiny()
    assert main(["train", str(file)]) == 0
    run = load_config(file).out
    output = capsys.readouterr().err.splitlines()
    assert output[-4:] == ["next:", f"  chopmix evaluate {run}", f"  chopmix generate {run} --prompt '...'",
                         f"  chopmix inspect {run}"]  # fmt: skip


def test_the_next_commands_of_samples(mixed):  # noqa: F811
    digits = load_config(mixed("digits", inputs={"image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8}},
                               data={"dataset": "digits"}, model={"width": 16, "depth": 1, "heads": 2, "context": 32,
                               "attention": "same_sample"},
                               tasks={"digit": {"use": "classification", "target": "label"}}))  # fmt: skip
    evaluate, use, _ = next_commands(digits)
    assert evaluate.endswith("--report") and "predict" in use and use.endswith("--output answers.csv")
    assert main(evaluate.split()[1:2] + ["none"]) == 2
