"""Evaluation of a model on a whole split: every target counts once, the metrics are the same for any number of
processes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..data.processes import Processes
from ..data.split import Split
from ..models.arithmetic import computing_type
from ..models.model import Model
from ..tasks.base import Task, figures
from ..tasks.judging import Generated
from ..tasks.measuring.texts import as_text
from ..tokenizers.files.reading import DataError
from .generated import chain_share, generated_share
from .pictures import draw_confusion

Sums = dict[str, dict[str, Tensor]]
"""By task and by name, what metrics are computed from: `loss` and `count` (of targets), both summed, and more."""
Pairs = list[Generated]
"""Items that were generated or recognised, each with the true one."""


def evaluate_split(
    model: Model, tasks: Mapping[str, Task], split: Split, *, rows: int = 64, processes: Processes | None = None,
    inputs: Collection[str] | None = None, generated: int | None = None, pictures: Path | None = None,
) -> dict[str, float]:  # fmt: skip
    """The metrics of a split, named `split/metric`; with several tasks `split/task/metric`, and the weighted sum of
    their losses, `split/loss`.

    `rows` samples (or windows) are read at a time; each process reads its share and the sums are added up. `inputs`,
    where given, are the only ones read, beside those that a task predicts. Metrics of generated texts (BLEU, word
    error rate) are computed on `generated` samples, spread over the split (None: all; 0: none), and the metric `judged`
    tells on how many. `pictures` is a folder for confusion matrices: `confusion-<split>-<task>.png`. Raises DataError
    where too many samples are bad.
    """
    return measured(
        model, tasks, split, rows=rows, processes=processes, inputs=inputs, generated=generated, pictures=pictures
    )[0]


@torch.inference_mode()
def measured(
    model: Model, tasks: Mapping[str, Task], split: Split, *, rows: int = 64, processes: Processes | None = None,
    inputs: Collection[str] | None = None, generated: int | None = None, pictures: Path | None = None,
) -> tuple[dict[str, float], Sums]:  # fmt: skip
    """The metrics as `evaluate_split` gives them, and every task's sums over the whole split, from which they are
    computed."""
    processes = processes or Processes(0, 1, next(model.parameters()).device)
    shares, pairs = read_share(model, tasks, split, processes, rows, inputs, generated)
    added = {source: everywhere(sums, processes) for source, sums in shares.items()}
    totals = {name: together([added[source][name] for source in added]) for name in tasks}
    metrics: dict[str, float] = {}
    for name, task in tasks.items():
        if pictures is not None and "confusion" in totals[name]:
            draw_confusion(totals[name]["confusion"], task.classes, pictures / f"confusion-{split.name}-{name}.png")
        prefix = f"{split.name}/" if len(tasks) == 1 else f"{split.name}/{name}/"
        found = figures(task.metrics, totals[name])
        if len(tasks) > 1:
            objective = f"{split.name}/loss"
            metrics[objective] = metrics.get(objective, 0.0) + task.weight * found["loss"]
        if name in pairs:
            found |= compared(name, task, split, processes.gathered(pairs[name]))
        metrics |= {prefix + key: value for key, value in found.items()}
    return metrics | by_source(tasks, split, added), totals


def everywhere(sums: Sums, processes: Processes) -> Sums:
    """The sums over all processes, in float64 on the CPU."""
    return {
        name: {key: processes.sum(value.to("cpu", torch.float64)) for key, value in sorted(found.items())}
        for name, found in sums.items()
    }


def together(several: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sums by name, added up."""
    found: dict[str, Tensor] = {}
    for sums in several:
        for key, value in sums.items():
            found[key] = found[key] + value if key in found else value
    return found


def by_source(tasks: Mapping[str, Task], split: Split, sums: Mapping[str, Sums]) -> dict[str, float]:
    """The metrics of each source of a mixture, of the tasks that have targets there: `val/mnist/digit/accuracy`."""
    return {
        f"{split.name}/{source}/{name}/{metric}": value
        for source, found in sums.items()
        if source
        for name, task in tasks.items()
        if float(found[name]["count"])
        for metric, value in figures(task.metrics, found[name]).items()
    }


def read_share(
    model: Model, tasks: Mapping[str, Task], split: Split, processes: Processes, rows: int, inputs,
    generated: int | None,
) -> tuple[dict[str, Sums], dict[str, Pairs]]:  # fmt: skip
    """Every task's sums over this process's share of a split, by source ("": it has no sources); and, of tasks that are
    judged by items, these. An error of one process stops all: the others raise ElsewhereError."""
    training = model.training
    model.eval()
    shares, pairs, error = {}, {}, None
    try:
        for source, places in split.by_source().items():
            shares[source], read = summed(model, tasks, split, processes.share(places), rows, inputs)
            pairs = {name: [*pairs.get(name, []), *found] for name, found in read.items()}
        sums = next(iter(shares.values()))
        for name, task in tasks.items():
            places = split.all() if generated is None else split.first(generated)
            if is_judged(task, split) and places:
                pairs[name] = generated_share(model, tasks, name, split, places, processes, inputs, max(rows, 64))
            if task.needs.refines and generated != 0:
                sums[name] |= chain_share(model, name, task, split, processes, inputs, len(places))
    except ValueError as wrong:  # a bad sample stops all processes, not only the one that met it
        error = wrong
    finally:
        model.train(training)
    processes.agree([], error)
    split.unread.bad.check(processes)
    split.keep()
    return shares, pairs


def compared(name: str, task: Task, split: Split, pairs: Pairs) -> dict[str, float]:
    """The metrics of a task's generated items over a whole split, and their number (`judged`). Raises DataError where
    there are none."""
    if not pairs:
        raise DataError(f"split {split.name!r} has no item of {task.target!r} by which task {name!r} could be judged")
    said, true = [each.item for each in pairs], [each.true for each in pairs]
    found = {name: metric.of_texts(said, true) for name, metric in task.metrics.items() if metric.of_texts}
    for name, judge in task.judges.items():
        figures = judge.judge(pairs, task.choppers[task.target].vocabulary)
        found |= {name + more: value for more, value in figures.items()}
    return found | {"judged": len(pairs)}


def is_judged(task: Task, split: Split) -> bool:
    """Whether a task generates items of a split for its metrics; of a corpus, which has no references, for judges
    alone."""
    judged = any(metric.of_texts for metric in task.metrics.values()) and split.samples is not None
    return (task.needs.generates or task.needs.refines) and (judged or bool(task.judges))


def reads_texts(task: Task) -> bool:
    """Whether a task recognises texts that its metrics compare (CTC)."""
    generates = task.needs.generates or task.needs.refines
    return not generates and any(metric.of_texts for metric in task.metrics.values())


def directions(tasks: Mapping[str, Task], split: str, returns: Collection[str] = ()) -> dict[str, bool]:
    """Whether larger is better, by the name of every metric of a split and of the `returns` of what the model plays."""
    found = {f"{split}/loss": False} if len(tasks) > 1 else {}
    for name, task in tasks.items():
        prefix = f"{split}/{name}/" if len(tasks) > 1 else f"{split}/"
        found |= {prefix + metric: meaning.larger_is_better for metric, meaning in task.metrics.items()}
    return found | dict.fromkeys(returns, True)


def larger_is_better(metric: str, directions: Mapping[str, bool]) -> bool:
    """Whether larger values of a metric are better, by `directions`. Raises ValueError for a name that is no metric."""
    if metric not in directions:
        raise ValueError(f"{metric!r} is no metric by which runs can be compared; possible: {', '.join(directions)}")
    return directions[metric]


def summed(
    model: Model, tasks: Mapping[str, Task], split: Split, places: Sequence, rows: int, inputs
) -> tuple[Sums, dict[str, Pairs]]:  # fmt: skip
    """Every task's sums over these places: `loss`, `count`, what `Task.measure` gives and, of tasks that generate, the
    target's `units`; and, of tasks that read a text off the model's output (CTC), the pairs of texts."""
    device, dtype = next(model.parameters()).device, computing_type(model)
    predicted = [name for task in tasks.values() for name in task.needs.inputs]
    wanted = None if inputs is None else {*inputs, *predicted}
    sums: Sums = {name: {} for name in tasks}
    pairs: dict[str, Pairs] = {name: [] for name, task in tasks.items() if reads_texts(task)}
    # a process without a share reads one sample and counts it 0 times, so that all have the same keys
    for first in range(0, max(len(places), 1), rows):
        batch = split.batch(places[first : first + rows] or split.all()[:1], inputs=wanted)
        batch = model.plan(batch, dtype=dtype, device=device).to(device)
        outputs = model(batch)
        for name, task in tasks.items():
            targets = batch.targets[name]
            loss = next(iter(task.terms(outputs[name], targets).values()))
            found = {"loss": loss, "count": torch.tensor(float(targets.count)), **task.measure(outputs[name], targets)}
            if task.needs.generates or task.needs.refines:
                found["units"] = torch.tensor(batch.units.get(task.target, 0.0))
            if name in pairs and places:
                said, true = task.answers(outputs[name], targets, batch), batch.set_of(targets).labels[task.target]
                known = [(answer["text"], text) for answer, text in zip(said, true) if text is not None]
                pairs[name] += [Generated(text, as_text(other), {}) for text, other in known]
            for key, value in found.items():
                sums[name][key] = sums[name].get(key, 0.0) + value.double() * bool(places)
    return sums, pairs


def left_unread(splits: Mapping[str, Split], tasks: Mapping[str, Task], processes: Processes) -> dict[str, int]:
    """Counts so far, over all processes, of what was not read or not supervised: `data/val_bad` samples,
    `data/val_without_room` items, `data/NAME_left_out` samples that the task NAME left out. Empty where all splits are
    streams."""
    unread = {name: split.unread.everywhere(processes) for name, split in splits.items()}
    counts = {f"data/{name}_{why}": count for name, each in unread.items() for why, count in each.counts().items()}
    left_out = {name: sum(len(each.left_out.get(name, ())) for each in unread.values()) for name in tasks}
    return counts | ({f"data/{name}_left_out": count for name, count in left_out.items()} if counts else {})
