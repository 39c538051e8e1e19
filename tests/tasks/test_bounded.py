"""`next_item` with `bounded`: predicted numbers lie within the range of the training data, in real units."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from batching import fitted
from chopmix.commands.cli import main
from chopmix.experiment.interchange.export import export_directory
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.models.heads import SlotLinear
from chopmix.tasks.next_item import NextItem
from chopmix.tokenizers.sensor import SensorChopper
from hypothesis import given
from hypothesis import strategies as st

CONFIGS = Path(__file__).parents[2] / "configs"
NUMBERS = st.floats(-1e4, 1e4, width=32)


def extremes(task: NextItem) -> tuple[list[float], list[float]]:
    """The smallest and the largest numbers that the task can predict, in real units."""
    head = task.head({}, 4)
    with torch.no_grad():
        head.linear.weight.zero_()
        predictions = []
        for sign in (-1e3, 1e3):
            head.linear.bias.fill_(sign)
            predictions.append(task.chopper.measured(head(torch.zeros(1, 4)))[0].tolist())
    return predictions[0], predictions[1]


STREAMS = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=5), min_size=1, max_size=4)


@given(STREAMS, NUMBERS, st.floats(0.01, 100), st.integers(1, 2))
def test_the_range_is_that_of_the_data_whatever_the_normalisation(streams, mean, scale, window):
    chopper = SensorChopper(channels=2, mean=mean, scale=scale, window=window, offset=0.5)
    task = NextItem(target="y", at="x", bounded=True)
    task.choppers = {"y": chopper, "x": SensorChopper(channels=1)}
    fitted(task, [{"y": np.array(each, np.float32)} for each in streams])
    places = [np.concatenate([np.array(each)[place::window] for each in streams]) for place in range(window)]
    size = 1e-5 * (1 + abs(mean) + scale + max(np.abs(each).max() for each in places))
    for predicted, name in zip(extremes(task), ("min", "max")):
        expected = np.concatenate([getattr(each, name)(0) for each in places])
        assert np.allclose(predicted, expected, rtol=0, atol=size)


def test_missing_and_damaged_values_are_ignored():
    task = NextItem(target="y", at="x", bounded=True)
    task.choppers = {"y": SensorChopper(channels=1, mean=3.0, scale=2.0), "x": SensorChopper(channels=1)}
    fitted(task, [{"y": [[1.0], [np.nan]]}, {"y": "no such file"}, {}, {"y": [[-4.0]]}])
    assert task.learned.low == [-4.0] and task.learned.high == [1.0]
    for rows, message in (([{}], "there is no item in the training data"), ([{"y": [[np.nan]]}], "'0' has no value")):
        with pytest.raises(ValueError, match=message):
            fitted(task, rows)


def test_without_a_range_normalised_numbers_lie_between_minus_1_and_1():
    """Imported decision transformers have no training data, and therefore no range."""
    x = torch.randn(5, 4)
    head = SlotLinear(4, 2, (torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0])))
    assert torch.equal(head(x), head.linear(x).tanh())
    assert list(SlotLinear(4, 2).state_dict()) == list(head.state_dict()), "the range is saved with the task"
    task = NextItem(target="y", at="x", bounded=True)
    task.choppers = {"y": SensorChopper(channels=1, mean=0, scale=1), "x": SensorChopper(channels=1)}
    assert extremes(task) == ([-1.0], [1.0])


def test_a_task_without_bounds_learns_nothing():
    assert NextItem(target="y", at="x").Learned is None


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    """configs/decision/pendulum.yaml with `bounded`, reduced to a small model and trained for two steps."""
    pytest.importorskip("gymnasium")
    folder = tmp_path_factory.mktemp("bounded")
    small = ["model.width=16", "model.depth=1", "data.dataset.of.episodes=12", "training.steps=2",
             "evaluation.play=null",
             "training.samples_per_step=4", "tasks.act.bounded=true", "checkpoints.best=val/loss",
             f"out={folder / 'run'}"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        train(load_config(CONFIGS / "decision" / "pendulum.yaml", small))
        yield folder / "run", small


@pytest.mark.system
def test_the_pendulum_can_be_pushed_as_hard_as_in_the_data(pendulum, tmp_path, capsys):
    run = pendulum[0]
    learned = json.loads((run / "assets" / "task-act" / "bounds.json").read_text())
    assert learned == {"low": [pytest.approx(-2, abs=1e-5)], "high": [pytest.approx(2, abs=1e-5)]}
    loaded = load_run(run)
    low, high = extremes(loaded.tasks["act"])
    assert low == pytest.approx([-2], abs=1e-5) and high == pytest.approx([2], abs=1e-5)
    assert not main(["play", str(run), "--target=-500", "--episodes", "1"])


@pytest.mark.system
def test_a_run_without_its_range_is_refused(pendulum, tmp_path, capsys):
    """Its files are incomplete, or of an earlier version with another `bounded`. It cannot be resumed either."""
    run, small = pendulum
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "assets" / "task-act")
    message = "tasks.act: .*task-act is missing.* A run of an earlier version with `bounded` must be trained again"
    with pytest.raises(DataError, match=message):
        load_run(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    overrides = [each for each in small if "steps" not in each and "out" not in each]
    with pytest.raises(DataError, match=message):
        train(
            load_config(
                CONFIGS / "decision" / "pendulum.yaml", [*overrides, "training.steps=3", f"out={tmp_path / 'run'}"]
            )
        )
    assert not (tmp_path / "run" / "assets" / "task-act").exists(), "nothing is fitted again"


@pytest.mark.system
def test_a_learned_range_cannot_be_exported(pendulum, tmp_path):
    pytest.importorskip("transformers")
    from transformers import DecisionTransformerConfig, DecisionTransformerModel

    small = {
        "state_dim": 3,
        "act_dim": 1,
        "hidden_size": 16,
        "max_ep_len": 8,
        "n_layer": 1,
        "n_head": 1,
        "n_positions": 24,
    }
    DecisionTransformerModel(DecisionTransformerConfig(**small)).save_pretrained(tmp_path / "published")
    assert not main(["import", str(tmp_path / "published"), str(tmp_path / "run")])
    run = load_run(tmp_path / "run")
    export_directory(run, tmp_path / "back")
    run.tasks["act"].learned = load_run(pendulum[0]).tasks["act"].learned
    with pytest.raises(RunError, match="cannot be exported: a Decision cannot store what task 'act' learned"):
        export_directory(run, tmp_path / "other")
