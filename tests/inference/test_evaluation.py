"""Evaluation and attribution of mixtures with missing inputs and targets equal a computation sample by sample."""

import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pkgutil import resolve_name

import pytest
import torch
from chopmix.data.datasets.mixture import Mixture
from chopmix.data.processes import ElsewhereError, Processes
from chopmix.data.sample_dataset import SampleDataset
from chopmix.data.samples import Listed
from chopmix.experiment.build import TrainingData, open_split
from chopmix.experiment.run_folder import prepare_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import assemble
from chopmix.files.reading import DataError
from chopmix.inference import items as generated
from chopmix.inference.evaluation import measured, with_columns
from chopmix.inference.evaluators.attribution import measure_attribution
from chopmix.inference.items import chain_of
from chopmix.inference.pages import samples_with
from chopmix.inference.trained import TrainedModel
from chopmix.tasks.base import with_targets
from chopmix.tasks.classification import Classification
from chopmix.tasks.regression import Regression
from chopmix.tokenizers.base import chopped
from chopmix.training.progress import Progress
from hypothesis import given, settings
from hypothesis import strategies as st

COLUMNS = ("a", "b", "c", "label", "y")
TREE = """
inputs:
  a: {use: text, encoding: characters}
  b: {use: text, encoding: characters}
  c: {use: text, encoding: characters}
model: {width: 8, depth: 1, heads: 1, context: 24, attention: "same_sample & (causal | from(a, b))"}
tasks:
  first: {use: masked_diffusion, target: a, metrics: [exact_match], refining: {tokens: 2, steps: 2}}
  second: {use: masked_diffusion, target: b}
  write: {use: language_modeling, target: c, metrics: [exact_match]}
  kind: {use: classification, target: label, weight: 0.5}
  number: {use: regression, target: y}
data: {dataset: {use: "test_evaluation:Rows"}}
training: {steps: 1, samples_per_step: 4}
logging: {tensorboard: false}
"""


class Rows(SampleDataset):
    """Samples in memory, the same in every split."""

    splits, columns = ("train", "val"), COLUMNS

    def __init__(self, *, rows: list[dict] | None = None):
        whole = [dict(zip(COLUMNS, ("abc", "cab", "bca", kind, number))) for kind, number in (("u", 0.0), ("v", 2.0))]
        self.rows = whole if rows is None else rows

    def open(self, split):
        return Listed([f"{split} {number}" for number in range(len(self.rows))], self.rows)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment with an untrained model of five tasks, whose weights are large."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "x.yaml").write_text(TREE)
    config = load_config(folder / "x.yaml", [f"out={folder / 'run'}"])
    prepare_run(config, config.out)
    untrained = assemble(config, Processes.start("cpu"), Progress(1))
    with torch.no_grad():
        for parameter in untrained.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) / 2)
    return untrained


TEXTS = st.text("abc", min_size=1, max_size=3)
ROWS = st.fixed_dictionaries(
    {}, optional={"a": TEXTS, "b": TEXTS, "c": TEXTS, "label": st.sampled_from("uv"), "y": st.floats(-3, 3)}
).filter(lambda row: row.keys() & {"a", "b", "c"})
SOURCES = st.lists(st.lists(ROWS, min_size=1, max_size=4), min_size=1, max_size=3)
"""The samples of one to three sources; most samples have missing inputs or targets."""


def trained_of(experiment, **options):
    """Return the model of an experiment with all its tasks."""
    return TrainedModel(model=experiment.model, tasks=experiment.data.tasks, **options)


def split_of(experiment, sources):
    """Returns the validation split of a mixture of these sources, or of a single source without a mixture."""
    named = {f"s{number}": rows for number, rows in enumerate(sources)}
    dataset = Mixture(of={name: lambda rows=rows: Rows(rows=rows) for name, rows in named.items()})
    dataset = dataset if len(named) > 1 else Rows(rows=sources[0])
    return open_split(experiment.config, dataset, "val", experiment.data.choppers, experiment.data.tasks)


def needed_inputs(task):
    return {*task.needs.inputs, *task.needs.supervised_at}


def batch_alone(split, number, wanted):
    """Returns one sample as a batch, which contains only those of its inputs that are in `wanted`."""
    item, labels = split.item(number)
    parts = [(name, chopped(name, each, item[name])) for name, each in split.choppers.items() if name in item]
    parts = [(name, chunk) for name, chunk in parts if name in wanted]
    key = split.samples.keys[number]
    batch = split.collator.batch(
        [parts], labels={name: [value] for name, value in labels.items()}, keys=(key,), seeds=((0, 0, number),)
    )
    return replace(batch, units={name: 1.0 for name, _ in parts})


def one_by_one(experiment, split, name, inputs):
    """Returns for each sample the summed loss of the task in nats, its number of targets, and the tokens of each input,
    or None if it has no target."""
    task, costs = experiment.data.tasks[name], []
    for number in range(len(split)):
        batch = with_targets(batch_alone(split, number, {*inputs, *needed_inputs(task)}), {name: task})
        targets = batch.targets[name]
        with torch.inference_mode():
            output = experiment.model(experiment.model.plan(batch))[name]
        loss = float(next(iter(task.terms(output, targets).values())))
        tokens = {each: len(chunks.values.flatten()) for each, chunks in batch.main.chunks.items()}
        costs.append((loss, targets.count, tokens) if targets.count else None)
    return costs


def expected(costs):
    """Returns the loss per target and the number of samples with a target."""
    known = [cost for cost in costs if cost]
    return (sum(cost[0] for cost in known) / sum(cost[1] for cost in known), len(known)) if known else None


@settings(max_examples=12)
@given(sources=SOURCES, inputs=st.none() | st.sets(st.sampled_from("abc")), rows=st.integers(1, 5))
def test_every_task_is_measured_on_the_samples_and_inputs_that_it_needs(experiment, sources, inputs, rows):
    """For each source and for all: no task reads an input that another one hides, or an input that is not named."""
    split = split_of(experiment, sources)
    experiment.model.eval()
    measurement = measured(trained_of(experiment), split, rows=rows, inputs=inputs, generated=0)
    objective = 0.0
    for name, task in experiment.data.tasks.items():
        costs = one_by_one(experiment, split, name, "abc" if inputs is None else inputs)
        whole = expected(costs)
        assert (name in measurement.whole) == (whole is not None)
        if whole:
            assert measurement.whole[name].metrics["loss"] == pytest.approx(whole[0], rel=1e-4, abs=1e-6)
            assert measurement.whole[name].samples == whole[1] and not measurement.whole[name].counts
            assert measurement.metrics[f"val/{name}/loss"] == measurement.whole[name].metrics["loss"]
            assert measurement.samples[f"val/{name}/loss"] == whole[1]
            objective += task.weight * whole[0]
        for source, numbers in split.sources.items():
            part = expected([costs[number] for number in numbers])
            assert (name in measurement.sources[source]) == (part is not None)
            if part:
                assert measurement.metrics[f"val/{source}/{name}/loss"] == pytest.approx(part[0], rel=1e-4, abs=1e-6)
                assert measurement.samples[f"val/{source}/{name}/loss"] == part[1]
    assert measurement.metrics["val/loss"] == pytest.approx(objective, rel=1e-4, abs=1e-6)
    assert measurement.readable == len(split) == measurement.samples["val/loss"]


@settings(max_examples=3)
@given(sources=SOURCES)
def test_attribution_uses_samples_with_a_target_and_all_inputs_except_those_that_the_task_predicts(experiment, sources):
    split = split_of(experiment, sources)
    experiment.model.eval()
    tasks = {name: task for name, task in experiment.data.tasks.items() if name != "number"}
    costs = {name: one_by_one(experiment, split, name, "abc") for name in tasks}
    droppable = {
        name: tuple(
            each for each in "abc" if each not in needed_inputs(task) and any(c and each in c[2] for c in costs[name])
        )
        for name, task in tasks.items()
    }
    if not any(droppable.values()):
        with pytest.raises(ValueError, match="no task has an input that can be dropped"):
            measure_attribution(TrainedModel(model=experiment.model, tasks=tasks), split, generated=0)
        return
    contributions = measure_attribution(TrainedModel(model=experiment.model, tasks=tasks), split, generated=0)
    assert contributions.keys() == {name for name, inputs in droppable.items() if inputs}
    for name, contribution in contributions.items():
        assert contribution.inputs == droppable[name] and contribution.in_bits
        nats = {}
        for size in range(len(contribution.inputs) + 1):
            for subset in itertools.combinations(contribution.inputs, size):
                known = [cost for cost in one_by_one(experiment, split, name, subset) if cost]
                nats[subset] = sum(cost[0] for cost in known) / len(known)
        assert dict(contribution.nats) == pytest.approx(nats, rel=1e-4, abs=1e-5)
        known = [cost for cost in costs[name] if cost]
        assert contribution.samples == len(known) and set(contribution.measured_on.values()) <= {len(known)}
        for each in contribution.inputs:
            tokens = sum(cost[2].get(each, 0) for cost in known) / len(known)
            orders = [*itertools.permutations(contribution.inputs)]
            before = [tuple(x for x in contribution.inputs if x in order[: order.index(each)]) for order in orders]
            after = [tuple(x for x in contribution.inputs if x in {*set_, each}) for set_ in before]
            share = sum(nats[one] - nats[two] for one, two in zip(before, after)) / len(orders) / math.log(2)
            assert contribution.share(each) == pytest.approx(share, rel=1e-3, abs=1e-4)
            assert contribution.tokens[each] == pytest.approx(tokens)
            figures = contribution.figures(f"val/{name}")
            assert figures[f"val/{name}/bits_per_token/{each}"] == pytest.approx(share / tokens, rel=1e-3, abs=1e-4)


@settings(max_examples=6)
@given(sources=SOURCES, inputs=st.none() | st.sets(st.sampled_from("abc")), some=st.integers(1, 4))
def test_items_are_generated_and_chains_are_measured_for_samples_with_an_item(experiment, sources, inputs, some):
    """The chain of each source is the chain of the items of this source, with the inputs that the bound reads."""
    split = split_of(experiment, sources)
    experiment.model.eval()
    has_item = {
        name: [c is not None for c in one_by_one(experiment, split, name, "abc")]
        for name in ("first", "second", "write")
    }
    if not all(map(any, has_item.values())):
        return
    measurement = measured(trained_of(experiment), split, inputs=inputs, generated=some)
    for name in ("first", "write"):
        assert measurement.whole[name].counts["judged"] == min(some, sum(has_item[name]))
        assert measurement.samples[f"val/{name}/exact_match"] == measurement.metrics[f"val/{name}/judged"]
    for name in ("first", "second"):
        task = experiment.data.tasks[name]
        wanted = "abc" if inputs is None else inputs
        numbers = [number for number, has in enumerate(has_item[name]) if has]
        chosen = [numbers[k * len(numbers) // some] for k in range(some)] if some < len(numbers) else numbers
        batches = {number: batch_alone(split, number, {*wanted, *needed_inputs(task)}) for number in chosen}
        costs = {n: chain_of(experiment.model, name, task, experiment.model.plan(each)) for n, each in batches.items()}
        for source, source_numbers in {"": range(len(split)), **split.sources}.items():
            source_costs = [costs[number] for number in chosen if number in source_numbers]
            prefix = f"val/{source}/{name}/" if source else f"val/{name}/"
            assert measurement.metrics.get(prefix + "chain_samples", 0) == len(source_costs)
            if source_costs:
                chain = sum(nats for nats, _ in source_costs) / sum(tokens for _, tokens in source_costs)
                assert measurement.metrics[prefix + "chain"] == pytest.approx(chain, rel=1e-4)
                assert measurement.samples[prefix + "chain"] == len(source_costs)
            else:
                assert prefix + "chain" not in measurement.metrics


def test_samples_with_an_item_are_judged_although_they_are_rare(experiment):
    """Only the last 3 of 300 samples have an item: all 3 are judged, although an even choice of 4 samples has none."""
    rows = [{"a": "ab", "label": "u"}] * 297 + [{"a": "a", "c": "b", "b": "c", "label": "u"}] * 3
    measurement = measured(trained_of(experiment), split_of(experiment, [rows]), names=["write"], generated=4)
    assert measurement.metrics["val/write/judged"] == 3 == measurement.samples["val/write/exact_match"]
    assert measurement.samples["val/write/loss"] == 3


def test_the_number_of_measured_chains_is_limited_and_reported(experiment, monkeypatch):
    monkeypatch.setattr(generated, "CHAINS", 5)
    monkeypatch.setattr("chopmix.inference.evaluation.CHAINS", 5)
    measurement = measured(trained_of(experiment), split_of(experiment, [[{"b": "ab"}] * 9]), names=["second"])
    assert measurement.metrics["val/second/chain_samples"] == 5 == measurement.samples["val/second/chain"]
    assert measurement.samples["val/second/loss"] == 9


def test_a_split_without_a_target_is_an_error_and_not_a_loss_of_zero(experiment):
    split = split_of(experiment, [[{"a": "ab"}, {"a": "b"}]])
    tasks = {"kind": experiment.data.tasks["kind"]}
    with pytest.raises(DataError, match="split 'val': none of its 2 samples has a target of task 'kind'"):
        measured(TrainedModel(model=experiment.model, tasks=tasks), split).check()


def test_the_hidden_tokens_of_a_task_do_not_depend_on_other_tasks(experiment):
    """The loss of a task is the same with and without other tasks."""
    split = split_of(experiment, [[{"a": "abc", "b": "cab", "c": "b", "label": "u", "y": 1.0}] * 3])
    together = measured(trained_of(experiment), split, generated=0)
    for name in experiment.data.tasks:
        alone = measured(trained_of(experiment), split, names=[name], generated=0)
        assert alone.whole.keys() == {name}
        assert alone.whole[name].metrics["loss"] == pytest.approx(together.whole[name].metrics["loss"], rel=1e-6)


def test_items_that_do_not_fit_count_in_no_metric(experiment):
    """The last of 3 texts of two bytes is dropped because its sample is too long: the bits are those of four bytes."""
    rows = [{"a": "abc", "b": "ab"}, {"a": "abc", "b": "bc"}, {"a": "abcabcabcabcabcabcabc", "b": "ca"}]
    config = replace(experiment.config, data=replace(experiment.config.data, too_long="drop"))
    split = open_split(
        config, Rows(rows=rows), "val", experiment.data.choppers, experiment.data.tasks, say=lambda text: None
    )
    result = measured(trained_of(experiment), split, names=["second"]).whole["second"]
    assert result.samples == result.counts["chain_samples"] == 2
    for metric in ("loss", "chain"):
        bits = result.metrics[f"{'bound' if metric == 'loss' else metric}_bits_per_byte"]
        assert bits == pytest.approx(result.metrics[metric] / math.log(2), rel=1e-5)  # a token is a byte


def test_the_samples_that_are_shown_have_an_item(experiment):
    """Only the last 5 of 200 samples have an item of two of the tasks; all samples have an item of the other task."""
    rows = [{"a": "ab"}] * 195 + [{"a": "b", "b": "c", "c": "a"}] * 5
    split = split_of(experiment, [rows])
    for name in ("second", "write"):
        shown = samples_with(split, experiment.data.tasks[name], 3)
        assert len(shown) == 3 and min(place.number for place in shown) >= 195
    assert samples_with(split, experiment.data.tasks["first"], 4) == split.first(4)
    without = split_of(experiment, [[{"a": "ab"}] * 5])
    assert samples_with(without, experiment.data.tasks["second"], 2) == []
    assert samples_with(without, experiment.data.tasks["write"], 2) == without.first(2)


class NeedsAll(Classification):
    """Predicts a class only for samples with the input b, but does not declare that it needs b."""

    def targets(self, batch):
        labels = batch.main.labels[self.target] if "b" in batch.main.chunks else [None] * batch.main.samples
        main = replace(batch.main, labels={**batch.main.labels, self.target: labels})
        return batch, super().targets(replace(batch, main=main))[1]


def test_a_task_that_has_no_target_without_an_input_is_reported(experiment):
    task = NeedsAll(target="label")
    task.learned = experiment.data.tasks["kind"].learned
    split = split_of(experiment, [[{"a": "ab", "b": "c", "label": "u"}, {"a": "b", "b": "a", "label": "v"}]])
    with pytest.raises(ValueError, match="task 'kind' has 0 targets without a and b, but 2 with it: these losses"):
        measure_attribution(TrainedModel(model=experiment.model, tasks={"kind": task}), split)


class Pair(Processes):
    """One of two processes, which are threads in this test."""

    def __init__(self, rank, barrier, box):
        super().__init__(rank, 2, torch.device("cpu"), (barrier, box))

    def exchanged(self, value):
        barrier, box = self.control
        box[self.rank] = value
        barrier.wait(timeout=20)
        values = list(box)
        barrier.wait(timeout=20)
        return values

    def sum(self, values):
        first, second = self.exchanged(values.clone())
        return first + second

    def gathered(self, items):
        first, second = self.exchanged(list(items))
        return first + second

    def gathered_tensors(self, tensor):
        return self.exchanged(tensor)

    def agree(self, values, error=None):
        failed = self.exchanged(error is not None)
        if any(failed):
            raise error or ElsewhereError("another process met an error")
        return values


def measured_by_two(experiment, split, **options):
    """Returns the measurement of each of two processes, or its error."""
    barrier, box = threading.Barrier(2), [None, None]

    def run(rank):
        try:
            return measured(trained_of(experiment, processes=Pair(rank, barrier, box)), split, **options)
        except (ValueError, ElsewhereError) as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(run, range(2)))


def test_two_processes_measure_the_same_as_one(experiment):
    sources = [
        [{"a": "ab", "b": "c"}] * 3,
        [{"b": "abc", "c": "a", "label": "u"}] * 5,
        [{"a": "b", "c": "cb", "y": 1.0}],
    ]
    split = split_of(experiment, sources)
    experiment.model.eval()
    alone = measured(trained_of(experiment), split, rows=2, generated=3)
    for each in measured_by_two(experiment, split, rows=2, generated=3):
        assert each.metrics == pytest.approx(alone.metrics, rel=1e-5, nan_ok=True) and each.samples == alone.samples


@pytest.mark.parametrize("where", ["tally.tokens_of", "evaluation.chain_share"])
def test_an_error_of_one_process_stops_both(experiment, monkeypatch, where):
    """Neither waits for the other, for an error in any part of an evaluation."""
    real = resolve_name(f"chopmix.inference.{where}")

    def wrong(*parts, **options):
        if threading.current_thread().name.endswith("_1"):
            raise DataError("a bad sample")
        return real(*parts, **options)

    monkeypatch.setattr(f"chopmix.inference.{where}", wrong)
    results = measured_by_two(experiment, split_of(experiment, [[{"a": "ab", "b": "c", "c": "a"}] * 4]), generated=2)
    assert {type(each) for each in results} == {DataError, ElsewhereError}


SPEECH = """
inputs: {a: {use: text, encoding: characters}, b: {use: text, encoding: characters}}
model: {width: 8, depth: 1, heads: 1, context: 24, attention: same_sample}
tasks: {hear: {use: ctc, target: c, source: a, metrics: [wer, exact_match]}}
data: {dataset: {use: "test_evaluation:Rows"}}
training: {steps: 1, samples_per_step: 4}
logging: {tensorboard: false}
"""


def test_a_sample_without_the_source_is_not_compared(tmp_path):
    """No text is recognised in it, right or wrong; a text that is too long to be aligned is compared."""
    (tmp_path / "x.yaml").write_text(SPEECH)
    config = load_config(tmp_path / "x.yaml", [f"out={tmp_path / 'run'}"])
    prepare_run(config, config.out)
    experiment = assemble(config, Processes.start("cpu"), Progress(1))
    rows = [{"a": "abc", "c": "b"}, {"b": "a", "c": "b"}, {"a": "b", "c": "bca"}, {"a": "cab"}, {"c": "a", "b": "b"}]
    split = open_split(config, Rows(rows=rows), "val", experiment.data.choppers, experiment.data.tasks)
    measurement = measured(trained_of(experiment), split, rows=2)
    assert (
        measurement.metrics["val/judged"] == 2
        and measurement.samples["val/wer"] == 2
        and measurement.samples["val/loss"] == 1
    )


def test_items_are_generated_for_samples_that_judges_can_compare(experiment):
    """In an earlier version a judge stopped the training if the samples for which items were generated had no label."""
    split = split_of(experiment, [[{"a": "ab", **({"label": "u"} if number in (3, 7) else {})} for number in range(9)]])
    places = with_columns(split, ("label",), split.all())
    assert [place.number for place in places] == [3, 7]
    assert with_columns(split, ("label", "y"), split.all()) == split.all(), "none has both"
    assert with_columns(split, (), split.all()) == split.all()


def test_each_number_of_a_regression_is_measured_on_the_samples_that_have_it(experiment):
    rows = [{"a": "ab", "y": [1.0, float("nan")]}, {"a": "b", "y": [2.0, 1.0]}, {"a": "b", "y": [0.0, float("nan")]}]
    task = Regression(target="y", names=["first", "second"])
    task.learned = task.fit(TrainingData(Rows(rows=rows).open("train"), print))
    sums = {"known": torch.tensor([3.0, 1.0])}
    counts = {name: metric.counted and metric.counted(sums) for name, metric in task.metrics.items()}
    assert counts == {"loss": None, "mae_first": 3, "rmse_first": 3, "mae_second": 1, "rmse_second": 1}
