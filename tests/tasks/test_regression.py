"""Regression: targets of any unit and offset, constant targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chopmix.models.batch import Batch, Targets
from chopmix.tasks.regression import Regression
from chopmix.tokenizers.chopping.packing import pack
from chopmix.tokenizers.sensor import SensorChopper
from columns import Column


def fitted(values: list) -> tuple[Regression, list[str]]:
    """Returns a task that has learned the scale of these targets, and what it has printed."""
    task, data = Regression(target="y"), Column(values)
    task.learned = task.fit(data)
    return task, data.lines


@pytest.mark.parametrize("value", [0.1, 0.3, 1.7e9 + 0.123, -1e-12, 0.0])
def test_a_constant_target_has_std_1(value):
    task, lines = fitted([value] * 1000)
    assert task.learned.std == [1.0] and task.learned.mean == [value]
    assert f"'y' is {value:g} in all training samples" in lines


@pytest.mark.parametrize("unit, offset", [(1e-30, 0.0), (1e-9, 0.0), (1.0, 0.0), (29.0, 1.7e9), (1e30, 0.0)])
def test_targets_of_any_unit_are_learned_and_answered_in_their_unit(unit, offset):
    values = np.random.default_rng(0).standard_normal(200) * unit + offset
    task, _ = fitted(values.tolist())
    assert task.learned.std == pytest.approx([values.std()], rel=1e-6)
    output = torch.tensor((values[:5, None] - values.mean()) / values.std()).float()
    batch = Batch(main=pack([[("x", torch.zeros(1, 1))]], {"x": SensorChopper(channels=1)}, 4, ("order", "seconds")))
    answers = [answer["values"][0] for answer in task.answers(output, Targets(values=output), batch)]
    assert np.abs(np.array(answers) - values[:5]).max() < 1e-5 * unit
