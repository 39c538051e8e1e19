"""`Task.chance`, the loss of a uniform guess, and the warning about a first loss that is far above it."""

from __future__ import annotations

import math
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import fit
from chopmix.models.batch import Targets
from chopmix.tasks import base
from chopmix.tasks.base import Task
from chopmix.tasks.classification import Classes, Classification
from chopmix.tasks.ctc import Ctc
from chopmix.tasks.flow import Flow
from chopmix.tasks.forecast import Forecast
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tasks.masked_diffusion import MaskedDiffusion
from chopmix.tasks.masked_modeling import MaskedModeling
from chopmix.tasks.next_item import NextItem
from chopmix.tasks.reconstruction import Reconstruction
from chopmix.tasks.regression import Regression
from chopmix.tasks.sequence_to_sequence import SequenceToSequence
from chopmix.tasks.span_corruption import SpanCorruption
from chopmix.tokenizers.category import CategoryChopper
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.sensor import SensorChopper
from chopmix.tokenizers.text import TextChopper
from chopmix.training.objective import Objective
from hypothesis import given
from hypothesis import strategies as st
from test_training import losses, trainer

CHOPPERS = {"text": TextChopper(vocabulary=ByteEncoding()), "action": CategoryChopper(size=5, offset=0.5),
            "state": SensorChopper(channels=2)}  # fmt: skip


def ready(task: Task) -> Task:
    task.choppers, task.learned = CHOPPERS, Classes(tuple("abcdefg"))
    return task


IDS, WEIGHTS = Targets(values=torch.tensor([3, 4, 5, 6])), torch.tensor([2.0, 2.0, 0.5, 0.5])
WITH_CHANCE = [
    (LanguageModeling(target="text"), ByteEncoding().size, IDS, 4),
    (LanguageModeling(target="text", label_smoothing=0.3), ByteEncoding().size, IDS, 4),
    (SequenceToSequence(target="text"), ByteEncoding().size, IDS, 4),
    (SpanCorruption(source="state", target="text"), ByteEncoding().size, IDS, 4),
    (MaskedModeling(target="text"), ByteEncoding().size, IDS, 4),
    (MaskedDiffusion(target="text"), ByteEncoding().size, Targets(values=IDS.values, weights=WEIGHTS), 5),
    (Classification(target="kind"), 7, IDS, 4),
    (Classification(target="kind", label_smoothing=0.2), 7, IDS, 4),
    (Classification(target="kind", several=True), 7, Targets(values=torch.eye(7)[:4]), 4),
    (NextItem(target="action", at="state"), 5, Targets(values=torch.tensor([0, 1, 2, 4])), 4),
]
WITHOUT_CHANCE = [NextItem(target="state", at="action"), Regression(target="x"), Ctc(target="x", source="state"),
                  Reconstruction(target="state"), Forecast(target="x", input="state"),
                  Flow(target="image")]  # fmt: skip


@pytest.mark.parametrize("task, choices, targets, count", WITH_CHANCE, ids=lambda each: type(each).__name__)
@given(score=st.floats(-50, 50))
def test_the_loss_of_equal_scores_is_that_of_a_uniform_guess(task, choices, targets, count, score):
    """`count` is the number of targets: with weights, their sum."""
    task = ready(task)
    equal = 0.0 if getattr(task, "several", False) else score
    output = torch.full((len(targets.values), choices), equal)
    loss = float(sum(task.terms(output, targets).values())) / count
    assert loss == pytest.approx(task.chance(), rel=1e-4)


def test_every_task_is_in_one_of_the_two_lists():
    assert {ready(task).chance() for task in WITHOUT_CHANCE} == {None}
    kinds = {type(task) for task in WITHOUT_CHANCE} | {type(task) for task, *_ in WITH_CHANCE}
    assert {kind.__name__ for kind in kinds} == {kind.__name__ for kind in tasks()}


def tasks() -> list[type[Task]]:
    """The task classes in the files of `tasks/`."""
    modules = [import_module(f"chopmix.tasks.{file.stem}") for file in Path(base.__file__).parent.glob("*.py")]
    kinds = [(module, value) for module in modules for value in vars(module).values() if isinstance(value, type)]
    return [
        kind for module, kind in kinds if issubclass(kind, Task) and kind.__module__ == module.__name__ != base.__name__
    ]


TIED = {"initialization": {"use": "zero_projections", "tied": 1.0}, "width": 64}
WARNED = re.compile(r"warning: the first loss is (\S+), but a uniform guess has (\S+)\. Likely causes: a tied head")


@pytest.mark.parametrize("every", [1, 4])
def test_a_first_loss_far_above_chance_is_reported_once_with_both_numbers(tiny, capsys, every):
    """The warning is about the loss of the first step, even if it is not logged; a resumed run does not repeat it."""
    file = tiny("run", model=TIED, logging={"every": every})
    fit(trainer(file, stop=4))
    (numbers,) = WARNED.findall(" ".join(capsys.readouterr().err.split()))
    assert math.log(9) < float(numbers[1]) < math.log(14) and float(numbers[0]) > 1.5 * float(numbers[1])
    folder = load_config(file).out
    assert every > 1 or losses(folder)[1] == pytest.approx(float(numbers[0]), rel=1e-3)
    assert every == 1 or losses(folder)[4] < float(numbers[0])
    fit(trainer(file))
    assert "warning" not in capsys.readouterr().err


def test_a_first_loss_near_chance_is_not_reported(tiny, capsys):
    fit(trainer(tiny(), "training.steps=2", "evaluation.every=2"))
    assert "warning" not in capsys.readouterr().err


def test_several_tasks_have_no_chance_if_one_of_them_has_none():
    objective = SimpleNamespace(tasks={"a": ready(LanguageModeling(target="text", weight=2.0))})
    assert Objective.chance(objective) == pytest.approx(2 * math.log(ByteEncoding().size))
    objective.tasks["b"] = Regression(target="x")
    assert Objective.chance(objective) is None
