"""Every task, from samples that lack one of its inputs, two of them, or all: in predictions, in training, and in
batches of which some samples have the input and others do not."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from chopmix.data.sampler import SampleIndex
from chopmix.experiment.build import open_split
from chopmix.experiment.run import Run
from chopmix.experiment.settings.registry import folder_of
from chopmix.models.batch import Targets
from chopmix.tasks.base import Task
from untrained import Everything, untrained

TEXT, OTHER = {"use": "text", "encoding": "characters"}, {"use": "text", "encoding": "bytes"}
IMAGE = {"use": "image", "patch_size": 4, "channels": 1, "size": 8}
WAVE = {"use": "sensor", "channels": {"a": "m", "b": "m"}, "rate": 2, "window": 1}
MOVES = {"use": "category", "size": 3, "offset": 0.25}
SEES = {"image": IMAGE, "text": TEXT}
ENCODER = {"encoder": {"depth": 1, "context": 64}, "attention": "causal & same_sample"}
TREES = {
    "classification": (SEES, {"target": "label"}, {}),
    "regression": (SEES, {"target": "value"}, {}),
    "ctc": ({"wave": WAVE, "image": IMAGE}, {"target": "other", "source": "wave"}, {}),
    "language_modeling": ({**SEES, "other": OTHER}, {"target": "other"}, {"attention": "causal & same_sample"}),
    "sequence_to_sequence": ({**SEES, "other": OTHER}, {"target": "other"}, ENCODER),
    "span_corruption": ({"text": OTHER, "spans": {"same_as": "text"}}, {"source": "text", "target": "spans"}, ENCODER),
    "masked_modeling": (SEES, {"target": "text"}, {}),
    "masked_diffusion": ({**SEES, "other": OTHER}, {"target": "text"}, {}),
    "next_item": (
        {"wave": WAVE, "moves": MOVES, "image": IMAGE},
        {"target": "moves", "at": "wave"},
        {"attention": "causal & same_sample"},
    ),
    "reconstruction": (SEES, {"target": "image", "levels": [4, 3], "depth": 1, "heads": 2}, {}),
}
"""By task: inputs, options of the task, and of the model."""


def run_of(use: str) -> Run:
    """A run of random weights with one task, in the working folder."""
    inputs, options, model = TREES[use]
    tasks = {"task": {"use": use, **options}}
    if use != "span_corruption":
        return untrained(inputs, tasks, model)
    Path("corpus.txt").write_text("chop mix set token " * 20)
    return untrained(inputs, tasks, model, {"use": "text", "train": "corpus.txt", "val": "corpus.txt"})


RUNS: dict[str, Run] = {}


@pytest.fixture
def run(request, tmp_path_factory, monkeypatch) -> Run:
    if request.param not in RUNS:
        monkeypatch.chdir(tmp_path_factory.mktemp(request.param))
        RUNS[request.param] = run_of(request.param)
    return RUNS[request.param]


def test_every_task_is_here():
    assert TREES.keys() == {*folder_of("tasks", Task).names()}


def lacking(run: Run):
    """Every subset of a run's inputs, but those of none and of all."""
    made = {name for task in run.tasks.values() for name in task.needs.makes}
    names = [name for name in run.choppers if name not in made]
    return [subset for size in range(1, len(names)) for subset in combinations(names, size)]


@pytest.mark.parametrize("run", TREES, indirect=True)
def test_predictions_of_samples_that_lack_inputs(run, capsys):
    """One answer for each, in order, alone and with others: an answer, or why there is none."""
    raw = Everything().open("val")
    task = run.tasks["task"]
    made = {task.target} if task.needs.generates else set()
    whole = [{name: raw[n][name] for name in run.choppers if name in raw[n] and name not in made} for n in range(2)]
    for subset in [(), *lacking(run)]:
        sample = {name: value for name, value in whole[0].items() if name in subset}
        capsys.readouterr()
        alone = run.predict(sample, max_tokens=3)
        assert alone.keys() <= {"task", "error"} and len(alone) == 1
        told = capsys.readouterr().err
        if task.needs.inputs and task.needs.hides != "shifted" and not {*task.needs.inputs} & {*subset}:
            assert "error" in alone or alone["task"].keys() == {"error"}, "nothing is made up"
        gone = [name for name in whole[0] if name not in subset]
        if "error" in alone:
            assert not sample or "the encoder has no input" in alone["error"]
        elif missing := [name for name in gone if name != task.target]:
            how = "written" if task.needs.generates or task.needs.refines else "predicted"
            assert told == f"{task.target!r} is {how} without {', '.join(missing)} (--input NAME=VALUE)\n"
        together = run.predict([whole[1], sample, whole[0]], max_tokens=3)
        assert len(together) == 3
        if run.tasks["task"].needs.generates or "error" in alone:  # else close, but not equal
            assert together[1] == alone
        else:
            assert together[1]["task"].keys() == alone["task"].keys()
        assert together[2]["task"].keys() == run.predict(whole[0], max_tokens=3)["task"].keys()
        if "codes" in together[2]["task"]:
            assert together[0::2] == [run.predict(each) for each in reversed(whole)], "each has its own"


@pytest.mark.parametrize("run", TREES, indirect=True)
def test_targets_of_batches_that_lack_inputs(run):
    """In training: no error, and no target where there is nothing to predict."""
    if not run.config.on_samples:
        batch = run.given([{"text": "chop mix set"}]).read([SampleIndex(0, 0, 0)])
        found = run.tasks["task"].targets(replace(batch, encoder=replace(batch.encoder, chunks={})))[1]
        assert len(found.values) == found.count == 0
        return
    split = open_split(run.config, Everything(), "train", run.choppers, run.tasks)
    places = split.all()[:3]
    task, like = run.tasks["task"], next(run.model.parameters())
    for subset in lacking(run):
        read = split.read(places, inputs=run.choppers, replaced={n: None for n in run.choppers if n not in subset})
        batch, found = task.targets(read)
        assert isinstance(found, Targets)
        with torch.no_grad():
            output = run.model(run.model.plan(replace(batch, targets={"task": found}), dtype=like.dtype))["task"]
            assert all(term.isfinite() for term in task.terms(output, found).values())
        own = {task.target, *task.needs.inputs} & run.choppers.keys()
        if own and not own <= {*subset}:
            assert not task.needs.hides or found.count == 0
