"""The remaining time of a training, and the interval of evaluations that follows from the number of steps."""

import math
from pathlib import Path

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.training.evaluation import evaluation_interval
from chopmix.training.log import read_metrics
from chopmix.training.progress import RemainingTime
from hypothesis import given
from hypothesis import strategies as st


def evaluated(steps: int, every: int) -> list[int]:
    """The steps after which a run is evaluated."""
    return [step for step in range(1, steps + 1) if step % every == 0 or step == steps]


@given(st.integers(1, 5000))
def test_short_runs_are_evaluated_several_times(steps):
    every = evaluation_interval(steps)
    places = evaluated(steps, every)
    assert 10 <= every <= 334
    assert steps < 60 or len(places) >= 6 or steps >= 2000
    assert len(places) <= 10 or steps >= 2000
    if 60 <= steps < 2000:  # no two evaluations next to each other
        assert places[-1] - places[-2] >= every / 2


@given(st.integers(1, 300), st.integers(1, 40), st.floats(0.01, 5), st.floats(0.1, 60), st.integers(1, 20))
def test_the_remaining_time_of_an_even_run_is_exact(steps, every, of_step, of_evaluation, lines):
    """With evaluations and a report, which takes the time of an evaluation."""
    remaining, last, known = RemainingTime(steps, every), 0, False
    for step in range(1, steps + 1):
        evaluates = step % every == 0 or step == steps
        if evaluates or step % lines == 0:
            remaining.add_steps(step - last, (step - last) * of_step)
            last = step
            pending = sum(place >= step for place in evaluated(steps, every)) + 1 if known else 0
            assert math.isclose(remaining.after(step), (steps - step) * of_step + pending * of_evaluation, rel_tol=1e-6)
        if evaluates:
            remaining.add_evaluation(of_evaluation)
            known = True


def test_a_slow_interval_changes_the_remaining_time_by_its_share():
    """When only the last interval was extrapolated, one run showed 4:02, 17:18 and 10:19."""
    remaining = RemainingTime(1000, 1000)
    for _ in range(20):
        remaining.add_steps(10, 1.0)
    usual = remaining.after(200)
    remaining.add_steps(10, 5.0)
    assert usual == pytest.approx(80) and 100 < remaining.after(210) < 120
    for _ in range(60):  # a machine that stays slow
        remaining.add_steps(10, 5.0)
    assert remaining.after(810) == pytest.approx(95, rel=0.01)


@pytest.mark.parametrize("every, places", [(None, [10, 20, 24]), (9, [9, 18, 24])])
def test_evaluations_of_a_short_run(every, places, tmp_path, monkeypatch, capsys):
    """With `every: 250`, a run of 210 steps had one evaluation, no curve, and no best checkpoint."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("Chop up everything and throw it into the mix. " * 100)
    tree = {"inputs": {"text": {"use": "text", "encoding": "bytes"}},
            "model": {"width": 16, "depth": 1, "heads": 2, "context": 16, "attention": "causal & same_sample"},
            "tasks": {"next": {"use": "language_modeling", "target": "text"}},
            "data": {"dataset": {"use": "text", "train": "text.txt"}}, "out": "run", "logging": {"tensorboard": False},
            "training": {"steps": 24, "tokens_per_step": 32},
            "evaluation": {"report": False} | ({"every": every} if every else {})}  # fmt: skip
    Path("a.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert main(["train", "a.yaml"]) == 0
    assert [line["step"] for line in read_metrics(Path("run/metrics.jsonl")) if "val/loss" in line] == places
    assert " left  step " in capsys.readouterr().err
