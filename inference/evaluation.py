"""Evaluation of a model on a whole split: every target counts once, the metrics are the same for any number of
processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..data.processes import Processes
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
from .generate import CHAINS, chain_share, generated_share
from .pages import draw_confusion

Sums = dict[str, dict[str, Tensor]]
"""By task and by name, what metrics are computed from, all summed: `loss`, `count` (of targets), `supervised` (samples
that have a target), `input_tokens` (the tokens of each input in these, by its number in the set), and more."""
Outputs = list[tuple[Tensor, Tensor]]
"""A task's outputs and the values of their targets, a pair for each batch, on the CPU."""
Pairs = list[Generated]
"""Items that were generated or recognised, each with the true one."""


@dataclass(frozen=True, kw_only=True)
class TaskFigures:
    """The metrics of one task on a split, or on one source of it, and the sums that they are computed from."""

    metrics: Mapping[str, float]
    measured_on: Mapping[str, int]
    """On how many samples each metric is measured."""
    samples: int
    """How many samples have a target."""
    counts: Mapping[str, int]
    """The numbers of generated or recognised items (`judged`), and of chains (`chain_samples`), where there are any."""
    sums: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An evaluation of a split: the metrics of every task that has a target there."""

    split: str
    tasks: Mapping[str, Task]
    """All tasks of the model, measured or not."""
    whole: Mapping[str, TaskFigures]
    """By task, on the whole split."""
    sources: Mapping[str, Mapping[str, TaskFigures]]
    """The same by the data set of a mixture, without the metrics of generated items."""
    readable: int
    """How many samples (of a corpus: windows) the split has, without bad ones."""
    unit: str = "samples"
    """What is counted: `samples` or `windows`."""

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric and the counts `judged` and `chain_samples` by name: `split/metric`, with several tasks
        `split/task/metric` and the weighted sum of their losses, `split/loss`; of each source of a mixture
        `split/source/task/metric`."""
        found: dict[str, float] = {}
        if len(self.tasks) > 1:
            losses = [self.tasks[name].weight * each.metrics.get("loss", 0.0) for name, each in self.whole.items()]
            found[f"{self.split}/loss"] = sum(losses)
        for prefix, each in self._named():
            found |= {prefix + name: value for name, value in {**each.metrics, **each.counts}.items()}
        return found

    @property
    def samples(self) -> dict[str, int]:
        """On how many samples every metric is measured, by the same names, without those of counts."""
        found = {f"{self.split}/loss": self.readable} if len(self.tasks) > 1 else {}
        for prefix, each in self._named():
            found |= {prefix + name: number for name, number in each.measured_on.items()}
        return found

    def check(self) -> None:
        """Raises DataError where no sample has a target."""
        if not self.whole:
            told = " or ".join(map(repr, self.tasks))
            raise DataError(f"split {self.split!r}: none of its {self.readable:,} samples has a target of task {told}")

    def _named(self) -> Iterator[tuple[str, TaskFigures]]:
        """Every task's figures, those of the whole split first, each after what its names begin with."""
        for name, each in self.whole.items():
            yield f"{self.split}/{name}/" if len(self.tasks) > 1 else f"{self.split}/", each
        for source, found in self.sources.items():
            for name, each in found.items():
                yield f"{self.split}/{source}/{name}/", each


def evaluate_split(
    model: Model, tasks: Mapping[str, Task], split: Split, *, rows: int = 64, processes: Processes | None = None,
    inputs: Collection[str] | None = None, generated: int | None = None, pictures: Path | None = None,
) -> dict[str, float]:  # fmt: skip
    """The metrics of a split by name; see `measured` and `Measured.metrics`. Raises DataError where no sample has a
    target."""
    found = measured(
        model, tasks, split, rows=rows, processes=processes, inputs=inputs, generated=generated, pictures=pictures
    )
    found.check()
    return found.metrics


@torch.inference_mode()
def measured(
    model: Model, tasks: Mapping[str, Task], split: Split, *, names: Sequence[str] | None = None, rows: int = 64,
    processes: Processes | None = None, inputs: Collection[str] | None = None, generated: int | None = None,
    pictures: Path | None = None,
) -> Measured:  # fmt: skip
    """The metrics of a split, of all tasks or of those of these `names`, and the sums that they are computed from.

    `rows` samples (or windows) are read at a time; each process reads its share and the sums are added up. Every task
    is measured without seeing what another one hides. `inputs`, where given, are the only ones that are read, beside
    those that a task itself predicts. Metrics of generated items are computed on `generated` samples that have one,
    spread over the split (None: all; 0: none). `pictures` is a folder for confusion matrices:
    `confusion-<split>-<task>.png`. Raises DataError where too many samples are bad, and where no sample has an item by
    which a task could be judged.
    """
    processes = processes or Processes(0, 1, next(model.parameters()).device)
    names = list(tasks if names is None else names)
    training = model.training
    model.eval()
    try:
        shares, pairs, own, outputs = agreed(
            processes, lambda: read_share(model, tasks, names, split, processes, rows, inputs)
        )
        if generated != 0:
            made = [name for name in names if tasks[name].needs.refines or is_scored(tasks[name], split)]
            chosen = {name: with_target(split, processes.gathered(own[name])) for name in made}
            pairs |= agreed(processes, lambda: generate_share(
                model, tasks, split, processes, rows, inputs, generated, chosen, shares
            ))  # fmt: skip
    finally:
        model.train(training)
    split.skipped.bad.check(processes)
    split.keep()
    added = {source: everywhere(sums, processes) for source, sums in shares.items()}
    totals = {name: together([added[source][name] for source in added]) for name in names}
    compared_pairs = {name: processes.gathered(found) for name, found in pairs.items()}
    complete = {name: everything(parts, processes) for name, parts in outputs.items()}
    whole = {
        name: task_figures(name, tasks[name], split, totals[name], compared_pairs.get(name), complete.get(name))
        for name in names
    }
    for name in names if pictures is not None else ():
        if "confusion" in totals[name]:
            draw_confusion(
                totals[name]["confusion"], tasks[name].classes, pictures / f"confusion-{split.name}-{name}.png"
            )
    sources = {
        source: {name: task_figures(name, tasks[name], split, found[name]) for name in names}
        for source, found in added.items()
        if source
    }
    bad = set(processes.gathered(list(split.skipped.bad)))
    return Measured(
        split=split.name, tasks=tasks, whole=with_metrics(whole),
        sources={source: with_metrics(each) for source, each in sources.items()}, readable=len(split.all()) - len(bad),
        unit="windows" if split.samples is None else "samples",
    )  # fmt: skip


def agreed(processes: Processes, compute: Callable[[], Any]) -> Any:
    """What `compute` gives in this process. A ValueError of one process (a bad sample) stops all: the others raise
    ElsewhereError."""
    found, error = None, None
    try:
        found = compute()
    except ValueError as wrong:
        error = wrong
    processes.agree([], error)
    return found


def everywhere(sums: Sums, processes: Processes) -> Sums:
    """The sums over all processes, in float64 on the CPU."""
    return {
        name: {key: processes.sum(value.to("cpu", torch.float64)) for key, value in sorted(found.items())}
        for name, found in sums.items()
    }


def everything(parts: Outputs, processes: Processes) -> tuple[Tensor, Tensor] | None:
    """The outputs and targets of all processes, concatenated; None if there are none."""
    shapes = processes.gathered([(output.shape[1:], values.shape[1:], values.dtype) for output, values in parts[:1]])
    if not shapes:
        return None
    wide, narrow, kind = shapes[0]
    output = torch.cat([output for output, _ in parts] or [torch.empty(0, *wide)])
    values = torch.cat([values for _, values in parts] or [torch.empty(0, *narrow, dtype=kind)])
    return torch.cat(processes.gathered_tensors(output)), torch.cat(processes.gathered_tensors(values))


def together(several: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sums by name, added up."""
    found: dict[str, Tensor] = {}
    for sums in several:
        for key, value in sums.items():
            found[key] = found[key] + value if key in found else value
    return found


def task_figures(
    name: str, task: Task, split: Split, sums: Mapping[str, Tensor], pairs: Pairs | None = None,
    complete: tuple[Tensor, Tensor] | None = None,
) -> TaskFigures:  # fmt: skip
    """The figures of a task by its sums, if any sample has a target; by the items that were generated or recognised, if
    there are `pairs`; and by the outputs and targets of the `complete` split, for metrics that need them."""
    metrics = figures(task.metrics, sums) if sums["count"] else {}
    for key, metric in task.metrics.items() if complete else ():
        if metric.of_outputs:
            metrics[key] = metric.of_outputs(*complete)
    for key, value in metrics.items():
        if not isinstance(value, int | float):
            raise ContractError(f"tasks.{name}: the metric {key!r} of {type(task).__name__} returned {described(value)}; "
                                "expected is a number")  # fmt: skip
    numbers = {"samples": int(sums["supervised"])}
    if sums.get("chain_samples"):
        numbers["chain_samples"] = int(sums["chain_samples"])
    measured_on: dict[str, int] = {}
    if pairs is not None:
        found, measured_on = compared(name, task, split, pairs)
        metrics |= found
        numbers["judged"] = len(pairs)
    for key, metric in task.metrics.items():
        if key in metrics and key not in measured_on:
            measured_on[key] = int(metric.counted(sums)) if metric.counted else numbers[metric.measured_on]
    return TaskFigures(
        metrics=metrics, measured_on={key: measured_on[key] for key in metrics if key in measured_on}, sums=sums,
        samples=numbers.pop("samples"), counts=numbers,
    )  # fmt: skip


def with_metrics(found: Mapping[str, TaskFigures]) -> dict[str, TaskFigures]:
    """The tasks that have a metric, without those of which no sample has a target."""
    return {name: each for name, each in found.items() if each.metrics}


def generates(task: Task) -> bool:
    """Whether a task generates items."""
    return task.needs.generates or task.needs.refines


def with_target(split: Split, numbers: Collection[int]) -> list[SampleIndex]:
    """The places of a split whose samples have a target of a task, by their numbers; all places of a corpus."""
    known = set(numbers)
    return [place for place in split.all() if split.samples is None or place.number in known]


def read_share(
    model: Model, tasks: Mapping[str, Task], names: Sequence[str], split: Split, processes: Processes, rows: int,
    inputs: Collection[str] | None,
) -> tuple[dict[str, Sums], dict[str, Pairs], dict[str, list[int]], dict[str, Outputs]]:  # fmt: skip
    """Of this process's share of a split: every task's sums by source ("": it has no sources); the recognised and the
    true texts of tasks that recognise texts (CTC); the numbers of the samples that have a target, by task; and the
    outputs of tasks with a metric of all outputs (`Metric.of_outputs`)."""
    shares: dict[str, Sums] = {}
    pairs: dict[str, Pairs] = {name: [] for name in names if reads_texts(tasks[name])}
    own: dict[str, list[int]] = {name: [] for name in names}
    outputs: dict[str, Outputs] = {
        name: [] for name in names if any(metric.of_outputs for metric in tasks[name].metrics.values())
    }
    for source, places in split.by_source().items():
        shares[source] = summed(model, tasks, names, split, processes.share(places), rows, inputs, pairs, own, outputs)
    return shares, pairs, own, outputs


def generate_share(
    model: Model, tasks: Mapping[str, Task], split: Split, processes: Processes, rows: int,
    inputs: Collection[str] | None, generated: int | None, chosen: Mapping[str, Sequence[SampleIndex]],
    shares: Mapping[str, Sums],
) -> dict[str, Pairs]:  # fmt: skip
    """This process's share of the items that tasks generate for `generated` of the `chosen` places, by task. Adds to
    the sums of each source in `shares` what items of a task that refines drafts cost from left to right."""
    pairs = {}
    for name, places in chosen.items():
        task = tasks[name]
        some = places if generated is None else spread(with_columns(split, task.needs.compared, places), generated)
        if is_scored(task, split):
            pairs[name] = generated_share(model, tasks, name, split, some, processes, inputs, max(rows, 64))
        if task.needs.refines:
            chain = spread(places, min(len(some), CHAINS))
            ((_, read, wanted),) = readings(tasks, [name], split, inputs)
            for source, every in split.by_source().items():
                numbers = {place.number for place in every}
                mine = [place for place in chain if place.number in numbers]
                shares[source][name] |= chain_share(model, name, task, read, mine, processes, wanted)
    return pairs


def with_columns(split: Split, columns: Collection[str], places: Sequence[SampleIndex]) -> Sequence[SampleIndex]:
    """The places of the samples that have a value in all of these columns, with which judges compare; all places where
    no sample has."""
    if split.samples is None or not columns:
        return places
    rows = ((place, split.samples.row(place.number, columns)) for place in places)
    return [place for place, row in rows if all(is_known(row.get(name)) for name in columns)] or places


def compared(name: str, task: Task, split: Split, pairs: Pairs) -> tuple[dict[str, float], dict[str, int]]:
    """The metrics of a task's generated items over a whole split, and on how many items each is measured. Raises
    DataError where there are none."""
    if not pairs:
        raise DataError(f"split {split.name!r} has no item of {task.target!r} by which task {name!r} could be judged")
    said, true = [each.item for each in pairs], [each.true for each in pairs]
    found = {name: metric.of_texts(said, true) for name, metric in task.metrics.items() if metric.of_texts}
    measured_on = dict.fromkeys(found, len(pairs))
    for name, judge in task.judges.items():
        figures = judge.judge(pairs, task.choppers[task.target].vocabulary)
        if not isinstance(figures, Mapping) or not figures.keys() <= judge.figures.keys():
            given = sorted(figures) if isinstance(figures, Mapping) else described(figures)
            raise ContractError(f"tasks.{task.target}.metrics.{name}: {type(judge).__name__}.judge returned {given}; "
                                f"expected are numbers by the names of its figures, {list(judge.figures)}")  # fmt: skip
        counts = judge.counts(figures, len(pairs))
        for ending, value in figures.items():
            found[name + ending] = value
            measured_on[name + ending] = counts.get(ending, len(pairs))
    return found, measured_on


def is_scored(task: Task, split: Split) -> bool:
    """Whether a task generates items of a split for its metrics; of a corpus, which has no references, for judges
    alone."""
    judged = any(metric.of_texts for metric in task.metrics.values()) and split.samples is not None
    return generates(task) and (judged or bool(task.judges))


def reads_texts(task: Task) -> bool:
    """Whether a task recognises texts that its metrics compare (CTC)."""
    return not generates(task) and any(metric.of_texts for metric in task.metrics.values())


def directions(tasks: Mapping[str, Task], split: str, evaluators: Iterable[Evaluator] = ()) -> dict[str, bool]:
    """Whether larger is better, by the name of every metric of a split and of these evaluators. Raises ValueError if
    two of them have the same name."""
    found = {f"{split}/loss": False} if len(tasks) > 1 else {}
    for name, task in tasks.items():
        prefix = f"{split}/{name}/" if len(tasks) > 1 else f"{split}/"
        meanings = {name: metric.larger_is_better for name, metric in task.metrics.items()}
        found |= {prefix + name: larger for name, larger in meanings.items() if larger is not None}
    for each in evaluators:
        metrics = each.metrics()
        for name in metrics.keys() & found.keys():
            raise ValueError(f"evaluation.also: the metric {name!r} of {type(each).__name__} exists twice")
        found |= metrics
    return found


def larger_is_better(metric: str, directions: Mapping[str, bool]) -> bool:
    """Whether larger values of a metric are better, by `directions`. Raises ValueError for a name that is no metric."""
    if metric not in directions:
        raise ValueError(f"{metric!r} is no metric by which runs can be compared; possible: {', '.join(directions)}")
    return directions[metric]


def own_inputs(tasks: Mapping[str, Task], name: str) -> frozenset[str]:
    """The inputs that the task `name` is about, without which it is never measured, and those of tasks that make
    inputs."""
    every = [task for other, task in tasks.items() if other == name or task.needs.makes]
    return frozenset(each for task in every for each in (*task.needs.inputs, *task.needs.supervised_at))


Reading = tuple[dict[str, Task], Split, Collection[str] | None]
"""Some tasks, the split from which they are measured, and the inputs that are read of it (None: all)."""


def readings(
    tasks: Mapping[str, Task], names: Sequence[str], split: Split, inputs: Collection[str] | None
) -> list[Reading]:
    """How the tasks of these names are measured where only these `inputs` are read: each with its own inputs, without
    those that only other tasks predict. Tasks with the same inputs are read together, all where `inputs` is None."""
    made = {name: task for name, task in tasks.items() if task.needs.makes}
    if inputs is None:
        return [({**made, **{name: tasks[name] for name in names}}, split, None)]
    groups: dict[frozenset[str], dict[str, Task]] = {}
    for name in names:
        groups.setdefault(own_inputs(tasks, name), {**made})[name] = tasks[name]
    return [(several, predicting(split, own), {*inputs, *own}) for own, several in groups.items()]


def predicting(split: Split, targets: Collection[str]) -> Split:
    """The split of which no inputs but these are kept whatever else is read; a corpus has only one."""
    if split.samples is None:
        return split
    return replace(split, collator=replace(split.collator, inputs=replace(split.inputs, targets=targets)))


def summed(
    model: Model, tasks: Mapping[str, Task], names: Sequence[str], split: Split, places: Sequence[SampleIndex], rows: int,
    inputs: Collection[str] | None, pairs: Mapping[str, Pairs], own: Mapping[str, list[int]],
    outputs: Mapping[str, Outputs] = MappingProxyType({}),
) -> Sums:  # fmt: skip
    """Every task's sums over these places: `loss`, `count`, `supervised`, `input_tokens`, what `Task.measure` gives,
    and of tasks that generate the target's `units`. Adds the texts that are recognised to `pairs`, the numbers of the
    samples that have a target to `own`, and the outputs of tasks with a metric of all outputs to `outputs`."""
    sums: Sums = {name: {} for name in names}
    numbered = 0 if split.samples is None else len(split.choppers)
    heard, kept = (pairs, outputs) if places else ({}, {})
    for several, read, wanted in readings(tasks, names, split, inputs):
        # a process without a share reads one sample and counts it 0 times, so that all have the same keys
        for first in range(0, max(len(places), 1), rows):
            for batch in read.batches(places[first : first + rows] or split.all()[:1], several, wanted):
                known = {name: tasks[name].supervised(batch, t) for name, t in batch.targets.items() if name in sums}
                for name, found in summed_of_batch(model, tasks, known, batch, numbered, heard, kept).items():
                    for key, value in found.items():
                        sums[name][key] = sums[name].get(key, 0.0) + value.double() * bool(places)
                for name, samples in known.items() if places else ():
                    seeds = batch.set_of(batch.targets[name]).seeds
                    own[name] += [seed[-1] for seed, counts in zip(seeds, samples.tolist()) if counts]
    return sums


def summed_of_batch(
    model: Model, tasks: Mapping[str, Task], known: Mapping[str, Tensor], batch: Batch, inputs: int,
    pairs: Mapping[str, Pairs], kept: Mapping[str, Outputs],
) -> Sums:  # fmt: skip
    """The sums of some tasks over a batch. `known`: by task whether each sample has a target; `inputs`: how many inputs
    there are, 0 for a corpus. Adds the texts that are recognised to `pairs`, and outputs to `kept`."""
    device, dtype = next(model.parameters()).device, computing_type(model)
    heard = {
        name: with_inputs(batch.set_of(batch.targets[name]), tasks[name].needs.inputs) for name in {*pairs} & {*known}
    }
    tokens = {name: tokens_of(batch, samples, inputs) for name, samples in known.items()}
    batch = model.plan(batch, dtype=dtype, device=device).to(device)
    outputs, sums = model(batch), {}
    for name, samples in known.items():
        task, targets = tasks[name], batch.targets[name]
        loss = next(iter(task.terms(outputs[name], targets).values()))
        sums[name] = {"loss": loss, "count": torch.tensor(float(targets.count)), "supervised": samples.sum(),
                      "input_tokens": tokens[name], **task.measure(outputs[name], targets)}  # fmt: skip
        if generates(task):
            sums[name]["units"] = torch.tensor(batch.units.get(task.target, 0.0))
        if name in kept:
            counted = known_values(targets.values)
            kept[name].append((outputs[name][counted].float().cpu(), targets.values[counted].cpu()))
        if name in pairs:
            said, true = task.answers(outputs[name], targets, batch), batch.set_of(targets).labels[task.target]
            for answer, text, present in zip(said, true, heard[name].tolist()):
                if present and text is not None:
                    pairs[name].append(Generated(answer["text"], as_text(text), {}))
    return sums


def with_inputs(planned: SetPlan, names: Collection[str]) -> Bool[Tensor, "s"]:
    """Whether each sample of a set has a token of every one of these inputs."""
    present = torch.ones(planned.samples, dtype=torch.bool)
    for name in names:
        here, chunks = torch.zeros_like(present), planned.chunks.get(name)
        if chunks is not None:
            here[planned.tokens.sample.flatten()[chunks.slots] - 1] = True
        present &= here
    return present


def tokens_of(batch: Batch, samples: Bool[Tensor, "s"], inputs: int) -> Int[Tensor, "i"]:
    """How many tokens of each input these samples of a batch have, by the input's number in the set, from 1 to
    `inputs`; at 0 those of the core. Of a corpus (`inputs` is 0) they are not counted."""
    counted = torch.cat([torch.zeros(1, dtype=torch.bool), samples])
    found = torch.zeros(inputs + 1, dtype=torch.long)
    for planned in batch.sets.values() if inputs else ():
        own = planned.tokens.input.flatten()[counted[planned.tokens.sample.flatten()]]
        found += torch.bincount(own, minlength=inputs + 1)
    return found


def skipped_counts(splits: Mapping[str, Split], tasks: Mapping[str, Task], processes: Processes) -> dict[str, int]:
    """Counts so far, over all processes, of what was not read or not supervised: `data/val_bad` samples,
    `data/val_without_room` items, `data/NAME_left_out` samples that the task NAME left out. Empty where all splits are
    streams."""
    skipped = {name: split.skipped.everywhere(processes) for name, split in splits.items()}
    counts = {f"data/{name}_{why}": count for name, each in skipped.items() for why, count in each.counts().items()}
    left_out = {name: sum(len(each.left_out.get(name, ())) for each in skipped.values()) for name in tasks}
    return counts | ({f"data/{name}_left_out": count for name, count in left_out.items()} if counts else {})
