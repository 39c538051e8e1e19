"""Sweeps: the order of the settings, by the metric that chooses the best checkpoint."""

import pytest
from checkout import CONFIGS
from chopmix.experiment import sweep
from chopmix.experiment.settings.config import load_config

FAST, SLOW = ("training.learning_rate=0.02",), ("training.learning_rate=0.00001",)


@pytest.fixture
def played(monkeypatch):
    """The configuration of a run that plays, whose tasks need no data."""
    monkeypatch.setattr(sweep, "choppers_and_tasks", lambda *parts, **named: ({}, {}))
    file = CONFIGS / "decision/cartpole.yaml"
    return load_config(file, ["checkpoints.best=val/return_at_500", "evaluation.play={targets: [500]}"])


def test_by_a_return_the_largest_is_the_best(played, capsys):
    found = {SLOW: [{"step": 1, "val/return_at_500": 16.5}], FAST: [{"step": 1, "val/return_at_500": 499.4}]}
    sweep.print_results(played, found, [0], swept=True)
    shown = capsys.readouterr().out
    assert "sorted by val/return_at_500, best first" in shown and shown.index("499.4") < shown.index("16.5")


def test_a_metric_that_nobody_knows_orders_nothing(played):
    """No unknown metric is taken for one of which less is better."""
    unknown = load_config(CONFIGS / "decision/cartpole.yaml", ["checkpoints.best=val/nothing"])
    with pytest.raises(
        ValueError, match="'val/nothing' is unknown, or does not define whether larger values are better; possible: "
    ):
        sweep.print_results(unknown, {FAST: [{"step": 1, "val/nothing": 1.0}]}, [0], swept=True)


def test_a_setting_without_a_number_is_the_last(played, capsys):
    lost = {"step": 1, "val/return_at_500": float("nan")}
    found = {FAST: [lost], SLOW: [{"step": 1, "val/return_at_500": 16.5}]}
    sweep.print_results(played, found, [0], swept=True)
    shown = capsys.readouterr().out
    assert 0 < shown.index("16.5") < shown.index("nan")


@pytest.mark.parametrize("swept", [True, False])
def test_counts_are_shown_as_counts(played, capsys, swept):
    runs = [{"step": 1, "val/return_at_500": 16.5 + seed, "val/judged": 1256} for seed in range(2)]
    sweep.print_results(played, {(): runs}, [0, 1], swept=swept)
    shown = capsys.readouterr().out
    assert "1,256" in shown and "1256.0" not in shown and "17.0000" in shown


def test_commas_inside_of_brackets_do_not_divide_values():
    assert sweep.split_at_commas("1,2") == ["1", "2"] and sweep.split_at_commas("[1,2],[3,4]") == ["[1,2]", "[3,4]"]
    assert sweep.split_at_commas("[[1,2],[3]],{a: 1, b: 2}") == ["[[1,2],[3]]", "{a: 1, b: 2}"]
    assert sweep.settings_of(["model.attention=causal & from(a, b),same_sample"]) == [
        ("model.attention=causal & from(a, b)",),
        ("model.attention=same_sample",),
    ]


def test_every_setting_has_a_folder_of_its_own(tmp_path):
    """Values that differ only in characters that names of files do not have shared one."""
    values = ["same_sample & causal", "same_sample | causal", "same_sample", "[1,2]", "(1,2)", "1e-3"]
    folders = {sweep.folder_of(tmp_path, (f"model.attention={value}",), None) for value in values}
    assert len(folders) == len(values)
    assert sweep.folder_of(tmp_path, ("training.learning_rate=1e-3", "model.depth=6"), 0) == (
        tmp_path / "learning_rate=1e-3,depth=6" / "seed-0"
    )
