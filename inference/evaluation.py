"""Evaluation of a model on a complete split. Every target counts once, and the metrics do not depend on the number of
processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..data.processes import Processes
from ..data.request import Request
from ..data.sampler import SampleIndex
from ..data.split import Split, spread
from ..files.reading import DataError
from ..models.arithmetic import computing_type
from ..models.batch import Batch, SetPlan
from ..models.contract import ContractError, described
from ..models.model import Model
from ..tasks.base import Task, figures, known_values
from ..tasks.judging import Generated, is_known
from ..tasks.measuring.texts import as_text
from .evaluator import Evaluator
from .items import CHAINS, chain_share, generated_share
from .sample_sums import Collected, TaskSums, outputs_alone

Sums = dict[str, Tensor]
"""The sums from which the metrics of a task are computed, by name: `loss`, `count` (the number of targets),
`supervised` (the number of samples with a target), `input_tokens` (the number of tokens of each input in these samples;
index 0 counts core tokens, index i the input number i of the set), `units` (the size of the true items, for tasks that
generate items), and sums of `Task.measure`."""
Pairs = list[Generated]
"""Generated or recognised items, each with the true item of its sample."""


@dataclass
class Tally:
    """What a process counts of one task, on its share of a split."""

    sums: dict[str, Sums] = field(default_factory=dict)
    """The sums by source; the key is "" if the split is not a mixture."""
    supervised: list[int] = field(default_factory=list)
    """The numbers of the samples with a target."""
    pairs: Pairs | None = None
    """The recognised or generated items; None if the task has none."""
    outputs: list[tuple[Tensor, Tensor, Tensor]] | None = None
    """For a task with a metric of all outputs (`Metric.of_outputs`): its outputs, the values of its targets and the
    numbers of their samples (-1: not counted), as tensors on the CPU for each batch."""
    samples: Collected | None = None
    """The sums by sample; None if they are not counted."""

    @classmethod
    def of(cls, task: Task, by_sample: bool, by_target: bool) -> Tally:
        """Returns an empty tally of a task. `by_sample`: the sums of each sample are counted, too; `by_target`: also
        the losses of their targets."""
        has_outputs = any(metric.of_outputs for metric in task.metrics.values())
        return cls(
            pairs=[] if reads_texts(task) else None, outputs=[] if has_outputs else None,
            samples=Collected(by_target) if by_sample or by_target else None,
        )  # fmt: skip

    def add(self, source: str, sums: Mapping[str, Tensor]) -> None:
        """Adds the sums of a batch."""
        own = self.sums.setdefault(source, {})
        for key, value in sums.items():
            own[key] = own.get(key, 0.0) + value.double()


@dataclass(frozen=True, kw_only=True)
class TaskFigures:
    """The metrics of one task and the sums from which they are computed, on a split or on one source (data set) of a
    mixture."""

    metrics: Mapping[str, float]
    measured_on: Mapping[str, int]
    """The number of samples on which each metric is measured."""
    samples: int
    """The number of samples with a target."""
    counts: Mapping[str, int]
    """`judged`: the number of generated or recognised items; `chain_samples`: the number of items whose tokens are
    predicted one by one. A key is missing if the task has no such items."""
    sums: Mapping[str, Tensor]


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
    outputs: Mapping[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
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


def evaluate_split(
    model: Model, tasks: Mapping[str, Task], split: Split, *, rows: int = 64, processes: Processes | None = None,
    inputs: Collection[str] | None = None, generated: int | None = None,
) -> dict[str, float]:  # fmt: skip
    """Returns the metrics of a split by name. The parameters are those of `measured`, the names those of
    `Measured.metrics`. Raises DataError if no sample has a target, and in the cases of `measured`."""
    result = measured(model, tasks, split, rows=rows, processes=processes, inputs=inputs, generated=generated)
    result.check()
    return result.metrics


@torch.inference_mode()
def measured(
    model: Model, tasks: Mapping[str, Task], split: Split, *, names: Sequence[str] | None = None, rows: int = 64,
    processes: Processes | None = None, inputs: Collection[str] | None = None, generated: int | None = None,
    by_sample: bool = False, by_target: bool = False,
) -> Measured:  # fmt: skip
    """Returns the metrics of a split for the tasks `names` (None: all tasks), and the sums from which they are
    computed, with `by_sample` also those of each sample, and with `by_target` the losses of their targets.

    `rows` is the number of samples (or windows) per forward pass. Each process evaluates its share of the split, and
    the sums are added up. A value that one task hides from the model remains visible to the other tasks. `inputs`: the
    model reads only these inputs and the inputs that a task itself needs (None: all inputs). Metrics of generated items
    are computed on `generated` samples, spread evenly over the split (None: all samples with a true item; 0: these
    metrics are not computed). Raises DataError if more samples are bad than the split allows, or if a task with
    metrics of generated or recognised items has no such item."""
    processes = processes or Processes(0, 1, next(model.parameters()).device)
    names = list(tasks if names is None else names)
    training = model.training
    model.eval()
    try:
        tallies = {name: Tally.of(tasks[name], by_sample, by_target) for name in names}
        in_all_processes(processes, lambda: read_share(model, tasks, tallies, split, processes, rows, inputs))
        if generated != 0:
            generating = [name for name in names if tasks[name].needs.refines or is_scored(tasks[name], split)]
            candidates = {name: indices_of(split, processes.gathered(tallies[name].supervised)) for name in generating}
            if candidates:
                in_all_processes(processes, lambda: generate_share(
                    model, tasks, split, processes, rows, inputs, generated, candidates, tallies
                ))  # fmt: skip
    finally:
        model.train(training)
    split.skipped.bad.check(processes)
    split.keep()
    by_source = {
        source: {name: over_processes(tally.sums[source], processes) for name, tally in tallies.items()}
        for source in split.by_source()
    }
    totals = {name: added([sums[name] for sums in by_source.values()]) for name in names}
    pairs = {name: processes.gathered(tally.pairs) for name, tally in tallies.items() if tally.pairs is not None}
    outputs = {
        name: gathered_outputs(tally.outputs, processes) for name, tally in tallies.items() if tally.outputs is not None
    }
    whole = {
        name: task_figures(name, tasks[name], split, totals[name], pairs.get(name), outputs.get(name)) for name in names
    }
    sources = {
        source: {name: task_figures(name, tasks[name], split, sums[name]) for name in names}
        for source, sums in by_source.items()
        if source
    }
    collected = {
        name: tally.samples.joined(processes, compared_texts(tasks[name], pairs.get(name, ())))
        for name, tally in tallies.items() if tally.samples
    }  # fmt: skip
    bad = set(processes.gathered(list(split.skipped.bad)))
    return Measured(
        split=split.name, tasks=tasks, whole=with_metrics(whole),
        sources={source: with_metrics(by_task) for source, by_task in sources.items()},
        readable=len(split.all()) - len(bad), bad=len(bad), unit="windows" if split.samples is None else "samples",
        by_sample={name: sums for name, sums in collected.items() if sums is not None},
        outputs={name: parts for name, parts in outputs.items() if parts is not None},
    )  # fmt: skip


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


def over_processes(sums: Mapping[str, Tensor], processes: Processes) -> Sums:
    """Returns the sums, added up over all processes, in float64 on the CPU."""
    return {key: processes.sum(value.to("cpu", torch.float64)) for key, value in sorted(sums.items())}


def gathered_outputs(
    parts: Sequence[tuple[Tensor, Tensor, Tensor]], processes: Processes
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Returns (outputs, targets, numbers of the samples) of all processes, concatenated along the first axis. Returns
    None if `parts` is empty in all processes."""
    kinds = processes.gathered([[(each.shape[1:], each.dtype) for each in part] for part in parts[:1]])
    if not kinds:
        return None
    empty = tuple(torch.empty(0, *shape, dtype=dtype) for shape, dtype in kinds[0])
    columns = [torch.cat(column) for column in zip(empty, *parts, strict=True)]
    output, values, numbers = (torch.cat(processes.gathered_tensors(column)) for column in columns)
    return output, values, numbers


def compared_texts(task: Task, pairs: Sequence[Generated]) -> list[tuple[int, str, str]]:
    """Returns (number of the sample, text, true text) of the pairs, if the task has metrics of texts."""
    if not any(metric.of_texts for metric in task.metrics.values()):
        return []
    return [(pair.number, pair.item, pair.true) for pair in pairs]


def added(parts: Sequence[Mapping[str, Tensor]]) -> Sums:
    """Returns the sums of several mappings, added up by name. A name may be missing in some of the mappings."""
    totals: dict[str, Tensor] = {}
    for sums in parts:
        for key, value in sums.items():
            totals[key] = totals[key] + value if key in totals else value
    return totals


def task_figures(
    name: str, task: Task, split: Split, sums: Mapping[str, Tensor], pairs: Pairs | None = None,
    outputs: tuple[Tensor, Tensor, Tensor] | None = None,
) -> TaskFigures:  # fmt: skip
    """Returns the figures of a task on a split: the metrics of its `sums` if at least one sample has a target, the
    metrics of the generated or recognised items `pairs` (None: these metrics are not computed), and the metrics of all
    `outputs`, a tuple (outputs, targets, numbers) (None: these metrics are not computed)."""
    metrics = figures(task.metrics, sums) if sums["count"] else {}
    for key, metric in task.metrics.items() if outputs and sums["count"] else ():
        if metric.of_outputs:
            metrics[key] = metric.of_outputs(*outputs[:2])
    for key, value in metrics.items():
        if not isinstance(value, int | float):
            raise ContractError(
                f"tasks.{name}: the metric {key!r} of {type(task).__name__} returned {described(value)}; expected: a "
                "number"
            )
    numbers = {"samples": int(sums["supervised"])}
    if sums.get("chain_samples"):
        numbers["chain_samples"] = int(sums["chain_samples"])
    measured_on: dict[str, int] = {}
    if pairs is not None:
        item_metrics, measured_on = metrics_of_items(name, task, split, pairs)
        metrics |= item_metrics
        numbers["judged"] = len(pairs)
    for key, metric in task.metrics.items():
        if key in metrics and key not in measured_on:
            measured_on[key] = int(metric.counted(sums)) if metric.counted else numbers[metric.measured_on]
    return TaskFigures(
        metrics=metrics, measured_on={key: measured_on[key] for key in metrics if key in measured_on}, sums=sums,
        samples=numbers.pop("samples"), counts=numbers,
    )  # fmt: skip


def with_metrics(results: Mapping[str, TaskFigures]) -> dict[str, TaskFigures]:
    """Returns the results that contain metrics. A task without any target has no metrics and is removed."""
    return {name: result for name, result in results.items() if result.metrics}


def generates(task: Task) -> bool:
    """Returns whether a task generates items, token by token or by refining drafts."""
    return task.needs.generates or task.needs.refines


def indices_of(split: Split, numbers: Collection[int]) -> list[SampleIndex]:
    """Returns the indices of the samples with these numbers. For a corpus, returns the indices of all windows."""
    wanted = set(numbers)
    return [index for index in split.all() if split.samples is None or index.number in wanted]


def generate_share(
    model: Model, tasks: Mapping[str, Task], split: Split, processes: Processes, rows: int,
    inputs: Collection[str] | None, generated: int | None, candidates: Mapping[str, Sequence[SampleIndex]],
    tallies: Mapping[str, Tally],
) -> None:  # fmt: skip
    """Adds to the tallies this process's share of the generated items, each with its true item. Items are generated for
    `generated` samples (None: all) of the `candidates`, which are the indices of the samples with a target, by task.
    For tasks that refine drafts, also adds the loss of items that are predicted from left to right."""
    for name, indices in candidates.items():
        task = tasks[name]
        chosen = indices if generated is None else spread(with_columns(split, task.needs.compared, indices), generated)
        if is_scored(task, split):
            items = generated_share(model, tasks, name, split, chosen, processes, inputs, max(rows, 64))
            tallies[name].pairs = items
        if task.needs.refines:
            chained = spread(indices, min(len(chosen), CHAINS))
            ((_, targets, task_inputs),) = passes(tasks, [name], inputs)
            task_split = split if targets is None else split.predicting(targets)
            for source, source_indices in split.by_source().items():
                numbers = {index.number for index in source_indices}
                of_source = [index for index in chained if index.number in numbers]
                chain = chain_share(model, name, task, task_split, of_source, processes, task_inputs)
                tallies[name].sums[source] |= chain


def with_columns(split: Split, columns: Collection[str], indices: Sequence[SampleIndex]) -> Sequence[SampleIndex]:
    """Returns the indices of the samples that have a known value in all of these data columns, which judges need.
    Returns all indices for a corpus, if `columns` is empty, or if no sample has all values."""
    if split.samples is None or not columns:
        return indices
    rows = ((index, split.samples.row(index.number, columns)) for index in indices)
    return [index for index, row in rows if all(is_known(row.get(name)) for name in columns)] or indices


def metrics_of_items(name: str, task: Task, split: Split, pairs: Pairs) -> tuple[dict[str, float], dict[str, int]]:
    """Returns the metrics of the generated or recognised items `pairs` of a task, and the number of items on which each
    metric is measured. Raises DataError if `pairs` is empty, and ContractError if a judge does not return numbers by
    the names of its figures."""
    if not pairs:
        raise DataError(
            f"split {split.name!r} has no item of {task.target!r} with which task {name!r} can be evaluated"
        )
    items, references = [pair.item for pair in pairs], [pair.true for pair in pairs]
    metrics = {key: metric.of_texts(items, references) for key, metric in task.metrics.items() if metric.of_texts}
    measured_on = dict.fromkeys(metrics, len(pairs))
    for judge_name, judge in task.judges.items():
        scores = judge.judge(pairs, task.choppers[task.target].vocabulary)
        if not isinstance(scores, Mapping) or not scores.keys() <= judge.figures.keys():
            returned = sorted(scores) if isinstance(scores, Mapping) else described(scores)
            raise ContractError(
                f"tasks.{task.target}.metrics.{judge_name}: {type(judge).__name__}.judge returned {returned}; "
                f"expected: numbers by the names of its figures, {list(judge.figures)}"
            )
        counts = judge.counts(scores, len(pairs))
        for suffix, value in scores.items():
            metrics[judge_name + suffix] = value
            measured_on[judge_name + suffix] = counts.get(suffix, len(pairs))
    return metrics, measured_on


def is_scored(task: Task, split: Split) -> bool:
    """Returns whether items are generated for the metrics of a task. For a corpus, which has no true items, this
    requires a judge."""
    has_references = any(metric.of_texts for metric in task.metrics.values()) and split.samples is not None
    return generates(task) and (has_references or bool(task.judges))


def reads_texts(task: Task) -> bool:
    """Returns whether a task recognises texts (CTC), which its metrics compare with the true texts."""
    return not generates(task) and any(metric.of_texts for metric in task.metrics.values())


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


def read_share(
    model: Model, tasks: Mapping[str, Task], tallies: Mapping[str, Tally], split: Split, processes: Processes,
    rows: int, inputs: Collection[str] | None,
) -> None:  # fmt: skip
    """Evaluates this process's share of a split, and adds the results to the tallies of the tasks."""
    apart = any(tally.samples for tally in tallies.values())
    input_count = 0 if split.samples is None else len(split.choppers)
    feeding = split if split.feed else replace(split, tasks=tasks)
    for source, every in split.by_source().items():
        indices = processes.share(every)
        for group, targets, group_inputs in passes(tasks, list(tallies), inputs):
            # a process without samples reads one sample and counts nothing, because all processes need the same keys
            parts = [indices[first : first + rows] for first in range(0, len(indices), rows)] or [split.all()[:1]]
            requests = [
                Request(
                    indices=part, tasks=[*group], inputs=group_inputs, targets=targets, apart=apart and bool(indices)
                )
                for part in parts
            ]
            for batches in feeding.answers(requests):
                for batch in batches:
                    count_batch(model, tasks, tallies, source, batch, input_count, bool(indices))


def count_batch(
    model: Model, tasks: Mapping[str, Task], tallies: Mapping[str, Tally], source: str, batch: Batch, inputs: int,
    counts: bool,
) -> None:  # fmt: skip
    """Adds the results of a batch to the tallies. `inputs` is the number of inputs, 0 for a corpus. If `counts` is
    false, all sums are 0, and nothing else is added."""
    masks = {name: tasks[name].supervised(batch, t) for name, t in batch.targets.items() if name in tallies}
    device, dtype = next(model.parameters()).device, computing_type(model)
    tokens = {name: tokens_of(batch, mask, inputs) for name, mask in masks.items()}
    present = {
        name: has_inputs(batch.set_of(batch.targets[name]), tasks[name].needs.inputs)
        for name in masks
        if reads_texts(tasks[name])
    }
    batch = model.plan(batch, dtype=dtype, device=device).to(device)
    outputs = model(batch)
    for name, mask in masks.items():
        task, targets, tally, output = tasks[name], batch.targets[name], tallies[name], outputs[name]
        loss = next(iter(task.terms(output, targets).values()))
        sums = {"loss": loss, "count": torch.tensor(float(targets.count)), "supervised": mask.sum(),
                "input_tokens": tokens[name], **task.measure(output, targets)}  # fmt: skip
        if generates(task):
            sums["units"] = torch.tensor(batch.units.get(task.target, 0.0))
        tally.add(source, {key: value.double() * counts for key, value in sums.items()})
        if not counts:
            continue
        numbers = [seed[-1] for seed in batch.set_of(targets).seeds]
        tally.supervised += [number for number, has_target in zip(numbers, mask.tolist()) if has_target]
        if tally.samples:
            tally.samples.add(name, task, model.heads[name], output, batch, mask, sums)
        if tally.outputs is not None:
            is_known = known_values(targets.values)
            owners = torch.full((len(output),), -1)
            if tally.samples and (parts := outputs_alone(name, model.heads[name], output, batch)):
                owners = torch.tensor(numbers).repeat_interleave(torch.tensor([len(own) for own, _ in parts]))
            tally.outputs.append(
                (output[is_known].float().cpu(), targets.values[is_known].cpu(), owners[is_known.cpu()])
            )
        if name in present:
            answers, texts = task.answers(output, targets, batch), batch.set_of(targets).labels[task.target]
            for number, answer, text, is_present in zip(numbers, answers, texts, present[name].tolist(), strict=True):
                if is_present and text is not None:
                    tally.pairs.append(Generated(answer["text"], as_text(text), {}, number))


def has_inputs(planned: SetPlan, names: Collection[str]) -> Bool[Tensor, "s"]:
    """Returns for each sample of a set whether the sample has at least one token of each of the inputs `names`."""
    has_all = torch.ones(planned.samples, dtype=torch.bool)
    for name in names:
        has_input, chunks = torch.zeros_like(has_all), planned.chunks.get(name)
        if chunks is not None:
            has_input[planned.tokens.sample.flatten()[chunks.slots] - 1] = True
        has_all &= has_input
    return has_all


def tokens_of(batch: Batch, samples: Bool[Tensor, "s"], inputs: int) -> Int[Tensor, "i"]:
    """Returns the number of tokens of each input in the selected `samples` of a batch, as `inputs + 1` numbers. Index 0
    counts core tokens; index i counts the input number i of the set. For a corpus (`inputs` is 0) the result is 0."""
    selected = torch.cat([torch.zeros(1, dtype=torch.bool), samples])  # sample 0 is padding
    counts = torch.zeros(inputs + 1, dtype=torch.long)
    for planned in batch.sets.values() if inputs else ():
        numbers = planned.tokens.input.flatten()[selected[planned.tokens.sample.flatten()]]
        counts += torch.bincount(numbers, minlength=inputs + 1)
    return counts


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
