"""What an evaluation counts of one task, batch by batch, and the metrics that follow from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..data.processes import Processes
from ..data.split import Split
from ..files.reading import DataError
from ..models.batch import Batch, SetPlan
from ..models.contract import ContractError, described
from ..models.model import Model
from ..tasks.base import Task, figures, known_values
from ..tasks.judging import Generated
from ..tasks.measuring.texts import as_text
from .sample_sums import Collected, TaskSums, outputs_alone

Sums = dict[str, Tensor]
"""The sums from which the metrics of a task are computed, by name: `loss`, `count` (the number of targets),
`supervised` (the number of samples with a target), `input_tokens` (the number of tokens of each input in these samples;
index 0 counts core tokens, index i the input number i of the set), `units` (the size of the true items, for tasks that
generate items), and sums of `Task.measure`."""
Outputs = tuple[Tensor, Tensor, Tensor]
"""The outputs of a task, the values of its targets, and the numbers of their samples (-1: not counted)."""


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


@dataclass
class Tally:
    """What a process counts of one task on its share of a split; after `gather`, what all processes have counted."""

    name: str
    task: Task
    model: Model
    inputs: int
    """The number of inputs whose tokens are counted; 0 for a corpus."""
    sums: dict[str, Sums] = field(default_factory=dict)
    """The sums by source; the key is "" if the split is not a mixture."""
    supervised: list[int] = field(default_factory=list)
    """The numbers of the samples with a target."""
    pairs: list[Generated] | None = None
    """Generated or recognised items, each with the true item of its sample; None if the task has none."""
    outputs: list[Outputs] | None = None
    """The outputs of each batch on the CPU, for a task with a metric of all outputs (`Metric.of_outputs`)."""
    samples: Collected | None = None
    """The sums by sample; None if they are not counted."""
    by_sample: TaskSums | None = None
    """After `gather`, the sums by sample, if they were counted and if they add up to the sums of the split."""

    def add(self, source: str, batch: Batch, planned: Batch, output: Tensor, counts: bool = True) -> None:
        """Adds the results of a batch. `planned` is the same batch on the device of the model, `output` the output of
        the task's head. If `counts` is false, the batch only determines the names of the sums, which are 0."""
        task, targets = self.task, planned.targets[self.name]
        mask = task.supervised(batch, batch.targets[self.name])
        loss = next(iter(task.terms(output, targets).values()))
        sums = {"loss": loss, "count": torch.tensor(float(targets.count)), "supervised": mask.sum(),
                "input_tokens": tokens_of(batch, mask, self.inputs), **task.measure(output, targets)}  # fmt: skip
        if task.needs.makes_items:
            sums["units"] = torch.tensor(batch.units.get(task.target, 0.0))
        of_source = self.sums.setdefault(source, {})
        for key, value in sums.items():
            of_source[key] = of_source.get(key, 0.0) + value.double() * counts
        if not counts:
            return
        numbers = [seed[-1] for seed in batch.set_of(batch.targets[self.name]).seeds]
        self.supervised += [number for number, has_target in zip(numbers, mask.tolist()) if has_target]
        if self.samples:
            self.samples.add(self.name, task, self.model.heads[self.name], output, planned, mask, sums)
        if self.outputs is not None:
            self.outputs.append(self.outputs_of(planned, output, numbers))
        if recognises_texts(task):
            self.pairs += self.recognised(batch, planned, output, numbers)

    def outputs_of(self, batch: Batch, output: Tensor, numbers: Sequence[int]) -> Outputs:
        """Returns the outputs at known targets, with the numbers of their samples if these are counted."""
        values = batch.targets[self.name].values
        is_known = known_values(values)
        owners = torch.full((len(output),), -1)
        if self.samples and (parts := outputs_alone(self.name, self.model.heads[self.name], output, batch)):
            owners = torch.tensor(numbers).repeat_interleave(torch.tensor([len(rows) for rows, _ in parts]))
        return output[is_known].float().cpu(), values[is_known].cpu(), owners[is_known.cpu()]

    def recognised(
        self, batch: Batch, planned: Batch, output: Tensor, numbers: Sequence[int]
    ) -> list[Generated]:  # fmt: skip
        """Returns the recognised texts of the samples that have the inputs of the task and a true text."""
        samples, targets = batch.set_of(batch.targets[self.name]), planned.targets[self.name]
        answers, texts = self.task.answers(output, targets, planned), samples.labels[self.task.target]
        is_present = has_inputs(samples, self.task.needs.inputs).tolist()
        return [
            Generated(answer["text"], as_text(text), {}, number)
            for number, answer, text, present in zip(numbers, answers, texts, is_present, strict=True)
            if present and text is not None
        ]

    def gather(self, processes: Processes, sources: Iterable[str]) -> None:
        """Replaces what this process has counted by what all processes have counted."""
        self.sums = {source: over_processes(self.sums[source], processes) for source in sources}
        if self.pairs is not None:
            self.pairs = processes.gathered(self.pairs)
        if self.outputs is not None:
            self.outputs = gathered_outputs(self.outputs, processes)
        if self.samples:
            self.by_sample = self.samples.joined(processes, self.compared_texts())

    def compared_texts(self) -> list[tuple[int, str, str]]:
        """Returns (number of the sample, text, true text) of the items, if the task has metrics of texts."""
        has_texts = any(metric.of_texts for metric in self.task.metrics.values())
        return [(pair.number, pair.item, pair.true) for pair in self.pairs or () if has_texts]

    def metrics_of_outputs(self) -> dict[str, float]:
        """Returns the metrics of all outputs by name."""
        metrics = self.task.metrics.items()
        return {key: metric.of_outputs(output, values) for key, metric in metrics if metric.of_outputs
                for output, values, _ in self.outputs or ()}  # fmt: skip

    def figures(self, split: Split, source: str | None = None) -> TaskFigures:
        """Returns the metrics of the complete split, or those of one source of a mixture, which have none of generated
        items and of all outputs. Without a target, there are only the metrics of generated items."""
        sums = added(self.sums.values()) if source is None else self.sums[source]
        metrics = figures(self.task.metrics, sums) if sums["count"] else {}
        if self.outputs and source is None and sums["count"]:
            metrics |= self.metrics_of_outputs()
        if not all(isinstance(value, int | float) for value in metrics.values()):
            raise not_a_number(self.name, self.task, metrics)
        numbers = {"samples": int(sums["supervised"])}
        if sums.get("chain_samples"):
            numbers["chain_samples"] = int(sums["chain_samples"])
        measured_on: dict[str, int] = {}
        if self.pairs is not None and source is None:
            item_metrics, measured_on = metrics_of_items(self.name, self.task, split, self.pairs)
            metrics, numbers = metrics | item_metrics, numbers | {"judged": len(self.pairs)}
        for key, metric in self.task.metrics.items():
            if key in metrics and key not in measured_on:
                measured_on[key] = int(metric.counted(sums)) if metric.counted else numbers[metric.measured_on]
        return TaskFigures(
            metrics=metrics, measured_on={key: measured_on[key] for key in metrics if key in measured_on}, sums=sums,
            samples=numbers.pop("samples"), counts=numbers,
        )  # fmt: skip


def over_processes(sums: Mapping[str, Tensor], processes: Processes) -> Sums:
    """Returns the sums, added up over all processes, in float64 on the CPU."""
    return {key: processes.sum(value.to("cpu", torch.float64)) for key, value in sorted(sums.items())}


def not_a_number(name: str, task: Task, metrics: Mapping[str, Any]) -> ContractError:
    """Returns the error about the first metric of a task that is not a number."""
    key, value = next((key, value) for key, value in metrics.items() if not isinstance(value, int | float))
    text = f"tasks.{name}: the metric {key!r} of {type(task).__name__} returned {described(value)}; expected: a number"
    return ContractError(text)


def gathered_outputs(parts: Sequence[Outputs], processes: Processes) -> list[Outputs]:
    """Returns the outputs of all processes, concatenated along the first axis. Empty if `parts` is empty in all
    processes."""
    kinds = processes.gathered([[(each.shape[1:], each.dtype) for each in part] for part in parts[:1]])
    if not kinds:
        return []
    empty = tuple(torch.empty(0, *shape, dtype=dtype) for shape, dtype in kinds[0])
    columns = [torch.cat(column) for column in zip(empty, *parts, strict=True)]
    output, values, numbers = (torch.cat(processes.gathered_tensors(column)) for column in columns)
    return [(output, values, numbers)]


def added(parts: Iterable[Mapping[str, Tensor]]) -> Sums:
    """Returns the sums of several mappings, added up by name. A name may be missing in some of the mappings."""
    totals: dict[str, Tensor] = {}
    for sums in parts:
        for key, value in sums.items():
            totals[key] = totals[key] + value if key in totals else value
    return totals


def metrics_of_items(
    name: str, task: Task, split: Split, pairs: Sequence[Generated]
) -> tuple[dict[str, float], dict[str, int]]:
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
    for judge_name in task.judges:
        scores, counts = scores_of(judge_name, task, pairs)
        metrics |= {judge_name + suffix: value for suffix, value in scores.items()}
        measured_on |= {judge_name + suffix: counts.get(suffix, len(pairs)) for suffix in scores}
    return metrics, measured_on


def scores_of(
    name: str, task: Task, pairs: Sequence[Generated]
) -> tuple[Mapping[str, float], Mapping[str, int]]:  # fmt: skip
    """Returns (the figures of a judge, the number of items on which each is measured) by the end of their names. Raises
    ContractError if the judge does not return numbers by the names of its figures."""
    judge = task.judges[name]
    scores = judge.judge(pairs, task.choppers[task.target].vocabulary)
    if not isinstance(scores, Mapping) or not scores.keys() <= judge.figures.keys():
        returned = sorted(scores) if isinstance(scores, Mapping) else described(scores)
        raise ContractError(
            f"tasks.{task.target}.metrics.{name}: {type(judge).__name__}.judge returned {returned}; expected: numbers "
            f"by the names of its figures, {list(judge.figures)}"
        )
    return scores, judge.counts(scores, len(pairs))


def recognises_texts(task: Task) -> bool:
    """Returns whether a task recognises texts (CTC), which its metrics compare with the true texts."""
    return not task.needs.makes_items and any(metric.of_texts for metric in task.metrics.values())


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
