"""The contract of every tokenizer, with the `EXAMPLE` in its file: no sample reads another sample of its row, a
predicted token is not read, and chopping, counting, pickling, saving, drawing, training and cached generation agree."""

import importlib
import pickle
from copy import deepcopy

import matplotlib.pyplot as plt
import pytest
import torch
import yaml
from batching import make_batch
from chopmix.commands.cli import main
from chopmix.experiment.build import choppers_and_tasks
from chopmix.experiment.run import open_part
from chopmix.files.plugins import modules_of
from chopmix.files.trust import Trust
from chopmix.models.generation.session import Session
from chopmix.tokenizers.base import Example
from untrained import untrained

OTHER = {"use": "text", "encoding": "bytes"}
WRITES = {"lm": {"use": "language_modeling", "target": "x"}}
READS = {"lm": {"use": "language_modeling", "target": "other"}}
MODULES = {name: module for name, module in modules_of("tokenizers").items() if name != "base"}
EXAMPLES = {name: importlib.import_module(module).EXAMPLE for name, module in MODULES.items()}
GENERATED = [name for name, example in EXAMPLES.items() if example.generated]


def test_every_tokenizer_has_an_example():
    assert len(EXAMPLES) >= 13 and all(type(example) is Example for example in EXAMPLES.values())
    assert len(GENERATED) >= 5


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))


def options_of(name):
    """Return the options of a tokenizer in YAML. If it uses a run, this run is trained for one step."""
    example = EXAMPLES[name]
    if not example.run:
        return {"use": name, **example.options}
    tree = {**deepcopy(example.run), "data": {"dataset": "untrained:Everything"}, "out": "teacher",
            "model": {"width": 8, "depth": 1, "heads": 2, "context": 32, "attention": "same_sample"},
            "training": {"steps": 1, "samples_per_step": 4}, "logging": {"tensorboard": False}}  # fmt: skip
    with open("teacher.yaml", "w") as file:
        yaml.safe_dump(tree, file)
    with torch.enable_grad():
        assert main(["train", "teacher.yaml"]) == 0
    return {"use": name, "run": "teacher", **example.options}


def run_of(name, tasks=READS, attention="same_sample & (causal | from(x))", alone=False):
    """Return a run with random weights that reads the example as `x` and a word as `other`."""
    inputs = {"x": options_of(name)} | ({} if alone else {"other": OTHER})
    dataset = {"use": "untrained:OfExample", "tokenizer": name}
    return untrained(inputs, tasks, {"attention": attention, "context": 512}, dataset)


def samples_of(name, items):
    return [{"x": item, "other": word} for item, word in zip(items, ("chop", "mix", "set"))]


def scores(run, samples):
    """Return the logits of all targets of samples packed together, and the number of the sample of each target."""
    split = run.as_split(samples, for_prediction=False)
    batch = make_batch(split, split.all(), run.tasks)
    logits, targets = run.model(run.model.plan(batch))["lm"], batch.targets["lm"]
    numbers = batch.main.tokens.sample.flatten()[targets.slots]
    return logits, torch.tensor([int(batch.main.keys[number - 1].split()[1]) for number in numbers.tolist()])


@torch.no_grad()
@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("attention", ["same_sample & (causal | from(x))", "causal & same_sample"])
def test_a_sample_does_not_read_other_samples(name, attention):
    run = run_of(name, attention=attention)
    first, second = EXAMPLES[name].items()
    samples = samples_of(name, [first, first, first])
    before, numbers = scores(run, samples)
    for column, value in (("x", second), ("other", "chaos"[: len(samples[1]["other"])])):
        changed = deepcopy(samples)
        changed[1][column] = value
        after, same = scores(run, changed)
        assert torch.equal(numbers, same), "the samples are packed in the same way"
        assert torch.equal(before[numbers != 2], after[numbers != 2])
        if column == "x":
            assert not torch.equal(before[numbers == 2], after[numbers == 2]), "a sample reads its item"


@torch.no_grad()
@pytest.mark.parametrize("name", GENERATED)
def test_a_predicted_token_is_not_read(name):
    """The logits of the tokens up to the first one that differs between two items are equal."""
    run = run_of(name, WRITES, "causal & same_sample", alone=True)
    chopper = run.choppers["x"]
    items = EXAMPLES[name].items()
    before, after = (scores(run, [{"x": item}])[0] for item in items)
    first, second = (chopper.chop(chopper.decode(item)).values.tolist() for item in items)
    same = next(number for number, (one, two) in enumerate(zip(first, second)) if one != two)
    assert torch.equal(before[:same], after[:same]) and not torch.equal(before[same:], after[same:])


@pytest.mark.parametrize("name", EXAMPLES)
def test_counts_copies_saved_choppers_and_drawings_are_correct(name, tmp_path):
    run = run_of(name)
    chopper = run.choppers["x"]
    items = [chopper.decode(item) for item in EXAMPLES[name].items()]
    chunks = [chopper.chop(item) for item in items]
    assert [chopper.count(item) for item in items] == [chunk.count for chunk in chunks]
    assert chunks[0].count == chunks[1].count > 0 and repr(chunks[0]) != repr(chunks[1])
    copy = pickle.loads(pickle.dumps(chopper))
    again, _ = choppers_and_tasks(run.config, tmp_path / "nowhere", lambda folder: open_part(folder, trust=TRUSTED))
    for other in (copy, again["x"]):
        for item, chunk in zip(items, chunks):
            values = other.chop(item)
            assert torch.equal(values.values, chunk.values) and values.count == chunk.count
    figure, canvas = plt.subplots()
    chopper.draw(canvas, items[0])
    figure.canvas.draw()
    drawn = canvas.lines + canvas.images + canvas.texts + canvas.collections + canvas.patches
    assert drawn
    plt.close(figure)


TRUSTED = Trust.of(["untrained"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_training_step_works_with_and_without_the_input(name):
    """All samples have the input, some, or none: losses are finite, and every parameter of the tokenizer has a
    gradient."""
    run = run_of(name)
    item, _ = EXAMPLES[name].items()
    with_it, without = samples_of(name, [item])[0], {"other": "mix"}
    model = run.model.train()
    for samples in ([with_it, with_it], [with_it, without], [without, without]):
        model.zero_grad()
        split = run.as_split(samples, for_prediction=False)
        batch = make_batch(split, split.all(), run.tasks)
        targets = batch.targets["lm"]
        loss = run.tasks["lm"].terms(model(model.plan(batch))["lm"], targets)["loss"] / targets.count
        loss.backward()
        trained = [parameter for parameter in model.tokenizers["x"].parameters() if parameter.requires_grad]
        assert loss.isfinite() and all(parameter.grad is not None for parameter in trained)
        assert any(parameter.grad.any() for parameter in trained) == (with_it in samples)


@torch.no_grad()
@pytest.mark.parametrize("name", GENERATED)
def test_cached_generation_equals_a_complete_forward_pass(name):
    """The logits with a key-value cache are those of the complete sequence."""
    run = run_of(name, WRITES, "causal & same_sample", alone=True)
    chopper, head = run.choppers["x"], run.model.heads["lm"]
    ids = chopper.chop(chopper.decode(EXAMPLES[name].items()[0])).values.tolist()
    sessions = [
        Session.of_texts(run.model, [ids[:2]], input="x", task="lm", vocabulary=len(head.table), cached=cached)
        for cached in (True, False)
    ]
    for number in ids[2:6]:
        cached, complete = (session.scores() for session in sessions)
        torch.testing.assert_close(cached, complete, rtol=1e-5, atol=1e-5)
        for session in sessions:
            session.append(torch.tensor([number]))
