"""The contract of every task, tested with the `EXAMPLE` in its file: predictions and training without some inputs, no
leaks between samples, pickling, and the gradients of one step."""

import importlib
import pickle
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from chopmix.data.sampler import SampleIndex
from chopmix.experiment.build import open_split
from chopmix.experiment.run import Run
from chopmix.experiment.settings.registry import folder_of
from chopmix.files.plugins import modules_of
from chopmix.inference.evaluation import measured
from chopmix.models.batch import Targets
from chopmix.tasks.base import Task
from chopmix.tokenizers.base import Example
from untrained import Everything, untrained

TASKS = {name: module for name, module in modules_of("tasks").items() if name in folder_of("tasks", Task).names()}
EXAMPLES = {name: importlib.import_module(module).EXAMPLE for name, module in TASKS.items()}


def run_of(use: str) -> Run:
    """A run of random weights with one task, in the working folder."""
    example = EXAMPLES[use]
    tasks = {"task": {"use": use, **example.options}}
    if use != "span_corruption":
        return untrained(example.inputs, tasks, example.model)
    for split, words in (("train", "chop mix set token "), ("val", "token set mix chop ")):
        Path(f"{split}.txt").write_text(words * 20)
    return untrained(
        example.inputs,
        tasks,
        example.model,
        {"use": "text", **{split: str(Path(f"{split}.txt").absolute()) for split in ("train", "val")}},
    )


RUNS: dict[str, Run] = {}


@pytest.fixture
def run(request, tmp_path_factory, monkeypatch) -> Run:
    if request.param not in RUNS:
        monkeypatch.chdir(tmp_path_factory.mktemp(request.param))
        RUNS[request.param] = run_of(request.param)
    return RUNS[request.param]


def test_every_task_has_an_example():
    assert len(EXAMPLES) >= 10 and all(type(example) is Example for example in EXAMPLES.values())


def subsets_of_inputs(run: Run):
    """Every subset of a run's inputs, except none and all of them."""
    generated = {name for task in run.tasks.values() for name in task.needs.makes}
    names = [name for name in run.choppers if name not in generated]
    return [subset for size in range(1, len(names)) for subset in combinations(names, size)]


@pytest.mark.parametrize("run", EXAMPLES, indirect=True)
def test_predictions_of_samples_that_lack_inputs(run, messages, capsys):
    """Each sample has an answer or an error, in order, alone and together with other samples."""
    raw = Everything().open("val")
    task = run.tasks["task"]
    generated = {task.target} if task.needs.generates else set()
    whole = [
        {name: raw[n][name] for name in run.choppers if name in raw[n] and name not in generated} for n in range(2)
    ]
    for subset in [(), *subsets_of_inputs(run)]:
        sample = {name: value for name, value in whole[0].items() if name in subset}
        messages()
        alone = run.predict(sample, max_tokens=3)
        assert alone.keys() in ({"task"}, {"task", "without"}, {"error"})
        message = messages()
        assert capsys.readouterr().err == ""  # in Python nothing is printed
        if task.needs.inputs and task.needs.hides != "shifted" and not {*task.needs.inputs} & {*subset}:
            assert "error" in alone or alone["task"].keys() == {"error"}, "no answer is invented"
        removed = [name for name in whole[0] if name not in subset]
        if "error" in alone:
            assert not sample or "the encoder has no input" in alone["error"]
        elif missing := [name for name in removed if name != task.target]:
            how = "generated" if task.needs.makes_items else "predicted"
            assert message == f"{task.target!r} is {how} without {', '.join(missing)} (--input NAME=VALUE)\n"
            assert alone["without"] == missing
        else:
            assert "without" not in alone
        together = run.predict([whole[1], sample, whole[0]], max_tokens=3)
        assert len(together) == 3
        if run.tasks["task"].needs.generates or "error" in alone:  # else close, but not equal
            assert together[1] == alone
        else:
            assert together[1]["task"].keys() == alone["task"].keys()
        assert together[2]["task"].keys() == run.predict(whole[0], max_tokens=3)["task"].keys()
        if "codes" in together[2]["task"]:
            assert together[0::2] == [run.predict(each) for each in reversed(whole)], "each sample has its codes"


@pytest.mark.parametrize("run", EXAMPLES, indirect=True)
def test_targets_of_batches_that_lack_inputs(run):
    """In training: no error, and no target where there is nothing to predict."""
    if not run.config.on_samples:
        batch = run.as_split([{"text": "chop mix set"}]).read([SampleIndex(0, 0, 0)])
        targets = run.tasks["task"].targets(replace(batch, encoder=replace(batch.encoder, chunks={})))[1]
        assert len(targets.values) == targets.count == 0
        return
    split = open_split(run.config, Everything(), "train", run.choppers, run.tasks)
    places = split.all()[:3]
    task, like = run.tasks["task"], next(run.model.parameters())
    for subset in subsets_of_inputs(run):
        read = split.read(places, inputs=run.choppers, replaced={n: None for n in run.choppers if n not in subset})
        batch, targets = task.targets(read)
        assert isinstance(targets, Targets)
        with torch.no_grad():
            output = run.model(run.model.plan(replace(batch, targets={"task": targets}), dtype=like.dtype))["task"]
            assert all(term.isfinite() for term in task.terms(output, targets).values())
        needed = {task.target, *task.needs.inputs} & run.choppers.keys()
        if needed and not needed <= {*subset}:
            assert not task.needs.hides or targets.count == 0


def batch_of(run: Run, count: int = 3):
    """A batch of the training split, with targets."""
    if not run.config.on_samples:
        split = run.as_split([{"text": "chop mix set"}] * count, for_prediction=False)
        return replace(split, tasks=run.tasks).batch(split.all())
    split = open_split(run.config, run.config.data.dataset(), "train", run.choppers, run.tasks)
    return split.batch(split.all()[:count], training=True)


@pytest.mark.parametrize("run", EXAMPLES, indirect=True)
def test_the_gradients_of_one_step_and_pickling(run):
    """The sum of the loss terms has a finite gradient for each parameter of the head; a copy computes the same."""
    task, batch = run.tasks["task"], batch_of(run)
    copy = pickle.loads(pickle.dumps(task))
    model = run.model.train()
    model.zero_grad()
    targets = batch.targets["task"]
    output = model(model.plan(batch))["task"]
    terms = task.terms(output, targets)
    assert targets.count > 0 and next(iter(terms)) == "loss"
    assert all(torch.equal(term, terms[name]) for name, term in copy.terms(output, targets).items())
    (sum(terms.values()) / targets.count).backward()
    gradients = [parameter.grad for parameter in model.heads["task"].parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    model.eval()


@pytest.mark.parametrize("run", EXAMPLES, indirect=True)
def test_the_loss_of_a_sample_does_not_depend_on_the_others(run):
    """The summed loss of a batch is the sum of those of its samples."""
    if not run.config.on_samples:
        return
    split = open_split(run.config, Everything(), "train", run.choppers, run.tasks)
    task, places = run.tasks["task"], split.all()[:3]

    @torch.no_grad()
    def loss(some):
        batch = split.batch(some)
        output = run.model(run.model.plan(batch))["task"]
        return sum(task.terms(output, batch.targets["task"]).values()), batch.targets["task"].count

    together, count = loss(places)
    parts = [loss([place]) for place in places]
    assert count == sum(number for _, number in parts) > 0
    torch.testing.assert_close(together, sum(part for part, _ in parts), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("run", EXAMPLES, indirect=True)
def test_the_sums_by_sample_are_those_of_each_sample_alone(run, monkeypatch):
    """In packed rows; in a corpus, a sample is a window."""
    split = run.open("val")
    whole = measured(run, split, rows=5, generated=0, detail="samples")
    ((sums, figures),) = zip(whole.by_sample.values(), whole.whole.values(), strict=True)
    assert sums.numbers.tolist() == sorted(index.number for index in split.all())
    every = sorted(split.all(), key=lambda index: index.number)
    for row, index in enumerate(every):
        monkeypatch.setattr(type(split), "all", lambda self, index=index: [index])
        alone = measured(run, split, generated=0).whole["task"].sums
        for name, rows in sums.sums.items():
            actual = rows[[row]].sum(0).reshape(alone[name].shape)
            np.testing.assert_allclose(actual, alone[name].numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    for name, value in sums.total().items():
        np.testing.assert_allclose(value, figures.sums[name], rtol=1e-4, atol=1e-5)
