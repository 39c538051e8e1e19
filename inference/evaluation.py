"""Evaluation of a model on a complete split. Every target counts once, and the metrics do not depend on the number of
processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from ..data.processes import Processes
from ..data.request import Request
from ..data.sampler import SampleIndex
from ..data.split import Split, spread
from ..files.reading import DataError
from ..models.arithmetic import computing_type
from ..models.batch import Batch
from ..tasks.base import Task
from ..tasks.judging import is_known
from .evaluator import Evaluator
from .items import CHAINS, chain_share, generated_share
from .sample_sums import Collected, TaskSums
from .tally import Outputs, Tally, TaskFigures, recognises_texts
from .trained import TrainedModel


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The result of the evaluation of a split, with the metrics of all tasks that have at least one target in the
    split."""

    split: str
    tasks: Mapping[str, Task]
    """All tasks of the model, with or without targets in the split."""
    whole: Mapping[str, TaskFigures]
    """The results on the complete split, by task."""
    sources: Mapping[str, Mapping[str, TaskFigures]]
    """The results by source (a data set of a mixture) and by task, without the metrics of generated items. Empty if the
    split is not a mixture."""
    readable: int
    """The number of samples of the split (for a corpus: windows) that can be read."""
    bad: int = 0
    """The number of samples of the split that cannot be read."""
    unit: str = "samples"
    """What `readable` counts: `samples` or `windows`."""
    by_sample: Mapping[str, TaskSums] = field(default_factory=dict)
    """The sums by sample, by task, if they were counted and if they add up to the sums of the split."""
    outputs: Mapping[str, Outputs] = field(default_factory=dict)
    """All outputs, targets and sample numbers, by task, of the tasks with a metric of all outputs."""

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics by name, and the counts `judged` (generated or recognised items) and `chain_samples`. If the
        model has one task, the names are `split/metric`. If it has several tasks, the names are `split/task/metric`,
        and `split/loss` is the weighted sum of the losses of the tasks. The metrics of a source of a mixture are always
        named `split/source/task/metric`."""
        metrics: dict[str, float] = {}
        if len(self.tasks) > 1:
            losses = [self.tasks[name].weight * result.metrics.get("loss", 0.0) for name, result in self.whole.items()]
            metrics[f"{self.split}/loss"] = sum(losses)
        for prefix, result in self._with_prefix():
            metrics |= {prefix + name: value for name, value in {**result.metrics, **result.counts}.items()}
        return metrics

    @property
    def samples(self) -> dict[str, int]:
        """The number of samples on which each metric is measured, by the names of `metrics`. The counts `judged` and
        `chain_samples` are not included."""
        samples = {f"{self.split}/loss": self.readable} if len(self.tasks) > 1 else {}
        for prefix, result in self._with_prefix():
            samples |= {prefix + name: number for name, number in result.measured_on.items()}
        return samples

    def check(self) -> None:
        """Raises DataError if no sample of the split can be read, or if none has a target of any task."""
        if self.bad and not self.readable:
            raise DataError(f"split {self.split!r}: none of its {self.bad:,} samples can be read")
        if not self.whole:
            names = " or ".join(map(repr, self.tasks))
            raise DataError(f"split {self.split!r}: none of its {self.readable:,} samples has a target of task {names}")

    def _with_prefix(self) -> Iterator[tuple[str, TaskFigures]]:
        """Yields (prefix of the metric names, results) for each task on the complete split, and then for each source
        and task."""
        for name, result in self.whole.items():
            yield f"{self.split}/{name}/" if len(self.tasks) > 1 else f"{self.split}/", result
        for source, results in self.sources.items():
            for name, result in results.items():
                yield f"{self.split}/{source}/{name}/", result


@torch.inference_mode()
def measured(
    trained: TrainedModel, split: Split, *, names: Sequence[str] | None = None, rows: int | None = None,
    inputs: Collection[str] | None = None, generated: int | None = None,
    detail: Literal["split", "samples", "targets"] = "split",
) -> Measured:  # fmt: skip
    """Returns the metrics of a split for the tasks `names` (None: all tasks), and the sums from which they are
    computed; with the `detail` "samples" also those of each sample, with "targets" also the losses of their targets.

    `rows` is the number of samples (or windows) per forward pass (None: `trained.rows`). Each process evaluates its
    share of the split, and the sums are added up. A value that one task hides from the model remains visible to the
    other tasks. `inputs`: the model reads only these inputs and the inputs that a task itself needs (None: all inputs).
    Metrics of generated items are computed on `generated` samples, spread evenly over the split (None: all samples with
    a true item; 0: these metrics are not computed). Raises DataError if more samples are bad than the split allows, or
    if a task with metrics of generated or recognised items has no such item."""
    model, processes = trained.model, trained.processes
    counted = [name for name in trained.tasks if names is None or name in names]
    share = Share(trained, split, {name: empty_tally(trained, split, name, detail) for name in counted},
                  rows or trained.rows, inputs)  # fmt: skip
    training = model.training
    model.eval()
    try:
        in_all_processes(processes, share.read)
        if generated != 0:
            share.generate(generated)
    finally:
        model.train(training)
    split.skipped.bad.check(processes)
    split.keep()
    sources = split.by_source()
    for tally in share.tallies.values():
        tally.gather(processes, sources)
    bad = set(processes.gathered(list(split.skipped.bad)))
    tallies = share.tallies.items()
    return Measured(
        split=split.name, tasks=trained.tasks,
        whole=with_metrics({name: tally.figures(split) for name, tally in tallies}),
        sources={
            source: with_metrics({name: tally.figures(split, source) for name, tally in tallies})
            for source in sources if source
        },
        readable=len(split.all()) - len(bad), bad=len(bad), unit="samples" if split.answerable else "windows",
        by_sample={name: tally.by_sample for name, tally in tallies if tally.by_sample is not None},
        outputs={name: tally.outputs[0] for name, tally in tallies if tally.outputs},
    )  # fmt: skip


def empty_tally(trained: TrainedModel, split: Split, name: str, detail: str) -> Tally:
    """Returns the tally of a task before the first batch."""
    task = trained.tasks[name]
    has_outputs = any(metric.of_outputs for metric in task.metrics.values())
    return Tally(
        name=name, task=task, model=trained.model, inputs=len(split.choppers),
        pairs=[] if recognises_texts(task) else None, outputs=[] if has_outputs else None,
        samples=Collected(by_target=detail == "targets") if detail != "split" else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Share:
    """This process's share of the evaluation of a split."""

    trained: TrainedModel
    split: Split
    tallies: Mapping[str, Tally]
    """What is counted, by task."""
    rows: int
    inputs: Collection[str] | None

    def read(self) -> None:
        """Evaluates the share, and adds the results to the tallies."""
        split, tasks, rows = self.split, self.trained.tasks, self.rows
        apart = any(tally.samples for tally in self.tallies.values())
        feeding = split if split.feed else replace(split, tasks=tasks)
        for source, every in split.by_source().items():
            indices = self.trained.processes.share(every)
            for group, targets, inputs in passes(tasks, list(self.tallies), self.inputs):
                # a process without samples reads one sample and counts nothing: all processes need the same keys
                parts = [indices[first : first + rows] for first in range(0, len(indices), rows)] or [split.all()[:1]]
                requests = [
                    Request(indices=part, tasks=[*group], inputs=inputs, targets=targets, apart=apart and bool(indices))
                    for part in parts
                ]
                for batches in feeding.fetch_all(requests):
                    for batch in batches:
                        self.add(source, batch, bool(indices))

    def add(self, source: str, batch: Batch, counts: bool) -> None:
        """Adds the results of a batch to the tallies, or, if `counts` is false, only the names of its sums."""
        model, device = self.trained.model, self.trained.model_device
        planned = model.plan(batch, dtype=computing_type(model), device=device).to(device)
        outputs = model(planned)
        for name in batch.targets:
            if name in self.tallies:
                self.tallies[name].add(source, batch, planned, outputs[name], counts)

    def generate(self, count: int | None) -> None:
        """Adds generated items to the tallies, each with its true item: for `count` samples with a target (None: all),
        spread evenly over the split."""
        split, gathered = self.split, self.trained.processes.gathered
        candidates = {
            name: indices_of(split, gathered(tally.supervised)) for name, tally in self.tallies.items()
            if tally.task.needs.refines or is_scored(tally.task, split)
        }  # fmt: skip
        if candidates:
            in_all_processes(self.trained.processes, lambda: self.generate_for(candidates, count))

    def generate_for(self, candidates: Mapping[str, Sequence[SampleIndex]], count: int | None) -> None:
        """Generates items for `count` of the `candidates`, the samples with a target by task. For tasks that refine
        drafts, also adds the loss of items that are predicted from left to right."""
        trained, split = self.trained, self.split
        for name, indices in candidates.items():
            task, tally = trained.tasks[name], self.tallies[name]
            chosen = indices if count is None else spread(with_columns(split, task.needs.compared, indices), count)
            if is_scored(task, split):
                tally.pairs = generated_share(trained, name, split, chosen, self.inputs, max(self.rows, 64))
            if any(metric.of_chain for metric in task.metrics.values()):
                self.add_chain(name, spread(indices, min(len(chosen), CHAINS)))

    def add_chain(self, name: str, indices: Sequence[SampleIndex]) -> None:
        """Adds the loss of items of a task that refines drafts, predicted from left to right."""
        trained, split = self.trained, self.split
        ((_, targets, inputs),) = passes(trained.tasks, [name], self.inputs)
        predicting = split if targets is None else split.predicting(targets)
        for source, source_indices in split.by_source().items():
            numbers = {index.number for index in source_indices}
            of_source = [index for index in indices if index.number in numbers]
            self.tallies[name].sums[source] |= chain_share(trained, name, predicting, of_source, inputs)


def in_all_processes(processes: Processes, compute: Callable[[], Any]) -> Any:
    """Calls `compute` in every process and returns the result of this process. If `compute` raises ValueError in one
    process (for example for a bad sample), this process raises the error and all other processes raise
    ElsewhereError."""
    result, error = None, None
    try:
        result = compute()
    except ValueError as raised:
        error = raised
    processes.agree([], error)
    return result


def with_metrics(results: Mapping[str, TaskFigures]) -> dict[str, TaskFigures]:
    """Returns the results that contain metrics. A task without any target has no metrics and is removed."""
    return {name: result for name, result in results.items() if result.metrics}


def indices_of(split: Split, numbers: Collection[int]) -> list[SampleIndex]:
    """Returns the indices of the samples with these numbers. For a corpus, returns the indices of all windows."""
    wanted = set(numbers)
    return [index for index in split.all() if not split.answerable or index.number in wanted]


def with_columns(split: Split, columns: Collection[str], indices: Sequence[SampleIndex]) -> Sequence[SampleIndex]:
    """Returns the indices of the samples that have a known value in all of these data columns, which judges need.
    Returns all indices for a corpus, if `columns` is empty, or if no sample has all values."""
    if not split.answerable or not columns:
        return indices
    rows = ((index, split.samples.row(index.number, columns)) for index in indices)
    return [index for index, row in rows if all(is_known(row.get(name)) for name in columns)] or indices


def is_scored(task: Task, split: Split) -> bool:
    """Returns whether items are generated for the metrics of a task. For a corpus, which has no true items, this
    requires a judge."""
    has_references = any(metric.of_texts for metric in task.metrics.values()) and split.answerable
    return task.needs.makes_items and (has_references or bool(task.judges))


def directions(tasks: Mapping[str, Task], split: str, evaluators: Iterable[Evaluator] = ()) -> dict[str, bool]:
    """Returns for each metric of the tasks on a split and of the evaluators whether larger values are better. Metrics
    by which runs cannot be compared are left out. Raises ValueError if an evaluator has a metric with the name of
    another metric."""
    is_larger_better = {f"{split}/loss": False} if len(tasks) > 1 else {}
    for name, task in tasks.items():
        prefix = f"{split}/{name}/" if len(tasks) > 1 else f"{split}/"
        by_metric = {key: metric.larger_is_better for key, metric in task.metrics.items()}
        is_larger_better |= {prefix + key: larger for key, larger in by_metric.items() if larger is not None}
    for evaluator in evaluators:
        metrics = evaluator.metrics()
        for name in metrics.keys() & is_larger_better.keys():
            raise ValueError(f"evaluation.also: the metric {name!r} of {type(evaluator).__name__} exists twice")
        is_larger_better |= metrics
    return is_larger_better


def larger_is_better(metric: str, directions: Mapping[str, bool]) -> bool:
    """Returns whether larger values of a metric are better, according to `directions`. Raises ValueError if
    `directions` does not contain the metric."""
    if metric not in directions:
        raise ValueError(
            f"{metric!r} is unknown, or does not define whether larger values are better; possible: "
            f"{', '.join(directions)}"
        )
    return directions[metric]


def own_inputs(tasks: Mapping[str, Task], name: str) -> frozenset[str]:
    """Returns the inputs that are always read when the task `name` is evaluated: the inputs that contain its target or
    at which it predicts, and the same inputs of every task that creates inputs."""
    evaluated = [task for other, task in tasks.items() if other == name or task.needs.makes]
    return frozenset(input for task in evaluated for input in (*task.needs.inputs, *task.needs.supervised_at))


Pass = tuple[dict[str, Task], Collection[str] | None, Collection[str] | None]
"""One pass over a split: the tasks that are evaluated by name, the predicted inputs (None: those of the split), which
are always read, and the inputs that are read (None: all)."""


def passes(tasks: Mapping[str, Task], names: Sequence[str], inputs: Collection[str] | None) -> list[Pass]:
    """Returns the passes over a split in which the tasks `names` are evaluated. If `inputs` is None, one pass reads all
    inputs. Otherwise the model reads the selected `inputs` and the inputs that the evaluated task itself needs, but no
    input that is only the target of another task. Tasks that need the same inputs share a pass."""
    makers = {name: task for name, task in tasks.items() if task.needs.makes}
    if inputs is None:
        return [({**makers, **{name: tasks[name] for name in names}}, None, None)]
    groups: dict[frozenset[str], dict[str, Task]] = {}
    for name in names:
        groups.setdefault(own_inputs(tasks, name), {**makers})[name] = tasks[name]
    return [(group, needed, {*inputs, *needed}) for needed, group in groups.items()]


def skipped_counts(splits: Mapping[str, Split], tasks: Mapping[str, Task], processes: Processes) -> dict[str, int]:
    """Returns counts of skipped data so far, over all processes. For a split VAL and a task NAME the keys are
    `data/VAL_bad` (samples), `data/VAL_without_room` (items that do not fit into the context) and `data/NAME_left_out`
    (samples that the task excludes). Returns an empty mapping if all splits are streams."""
    skipped = {name: split.skipped.everywhere(processes) for name, split in splits.items()}
    counts = {
        f"data/{name}_{reason}": count for name, record in skipped.items() for reason, count in record.counts().items()
    }
    left_out = {name: sum(len(record.left_out.get(name, ())) for record in skipped.values()) for name in tasks}
    return counts | ({f"data/{name}_left_out": count for name, count in left_out.items()} if counts else {})
