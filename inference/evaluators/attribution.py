"""Attribution: measures how many bits each input contributes to the prediction, by evaluations with subsets of the
inputs.

The value of a set S of inputs is the number of bits by which these inputs reduce the mean loss per sample, compared
with the same model without any of these inputs: v(S) = (nats(no inputs) - nats(S)) / ln 2, where nats(S) is the mean
loss with the inputs S. The share of an input, in bits, is the increase of the value when the input is added, averaged
over all orders in which the inputs can be added (Shapley 1953). The shares add up to the value of all inputs. Example:
if v(image) = 3, v(text) = 1 and v(image and text) = 6, the share of the image is (3 + 5) / 2 = 4 and the share of the
text is (1 + 3) / 2 = 2. If there are too many subsets, the average is taken over some random orders and the reverse of
each of these orders (Castro et al. 2009). The shares still add up."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from rich.table import Table

from ...data.sample_dataset import Outcome, SampleDataset
from ...data.split import SampleSplit, Split
from ...tasks.base import Task, Wiring
from ..evaluation import Measured, TaskFigures, measured, own_inputs
from ..evaluator import Evaluator, Result
from ..trained import TrainedModel

MOST_INPUTS = 6
"""The maximum number of inputs for which all subsets are evaluated (2**6 = 64 subsets)."""
ORDERS = 12
"""The number of orders that are used if there are more than MOST_INPUTS inputs."""
LEFT = {"title_justify": "left", "caption_justify": "left"}
"""Options of a table that align its title and its caption to the left."""
Subset = tuple[str, ...]
"""The names of a subset of the inputs, in the order of all inputs."""


@dataclass(frozen=True)
class Attribution:
    """The attribution of one task. Only the samples that have a target of the task are counted."""

    inputs: tuple[str, ...]
    """The inputs that occur in samples with a target and that can be dropped. The inputs that the task itself predicts
    are excluded; inputs that other tasks predict are included."""
    metrics: Mapping[Subset, Mapping[str, float]]
    nats: Mapping[Subset, float]
    """The mean loss per sample with each subset of the inputs."""
    tokens: Mapping[str, float]
    """The mean number of tokens per sample of each input."""
    in_bits: bool = True
    """Whether the loss is a negative log-likelihood. If True, `value` returns bits, otherwise a fraction of the loss
    without inputs."""
    samples: int = 0
    """The number of samples that have a target."""
    measured_on: Mapping[str, int] = field(default_factory=dict)
    """The number of samples on which each metric is computed."""
    where: str = ""
    """A description of the samples that have a target: `500 of 2,922 samples of val (pairs 500)`."""
    never_dropped: tuple[str, ...] = ()
    """The inputs that training never dropped (their input dropout is 0)."""
    orders: tuple[Subset, ...] = ()
    """The orders over which shares are averaged. Empty: shares are averaged over all orders."""

    def value(self, subset: Collection[str]) -> float:
        """Returns by how many bits per sample a set of inputs reduces the loss. If the loss is not a negative
        log-likelihood, returns the reduction divided by the loss without inputs (0 if this loss is 0)."""
        unit = math.log(2) if self.in_bits else self.nats[()]
        return (self.nats[()] - self.nats[self.ordered(subset)]) / unit if unit else 0.0

    def ordered(self, subset: Collection[str]) -> Subset:
        """Returns a set of inputs as a tuple, in the order of all inputs."""
        return tuple(name for name in self.inputs if name in subset)

    def alone(self, name: str) -> float:
        """Returns the value of the set that contains only the input `name`."""
        return self.value([name])

    def added(self, name: str) -> float:
        """Returns the value of all inputs minus the value of all inputs except `name`, in the unit of the method
        `value`."""
        return self.value(self.inputs) - self.value(set(self.inputs) - {name})

    def share(self, name: str) -> float:
        """Returns the share (Shapley value) of the input `name`, in the unit of the method `value`."""
        if self.orders:
            preceding = [order[: order.index(name)] for order in self.orders]
            return sum(self.value([*subset, name]) - self.value(subset) for subset in preceding) / len(preceding)
        others = [other for other in self.inputs if other != name]
        total = 0.0
        for size in range(len(others) + 1):
            weight = 1 / (len(self.inputs) * math.comb(len(others), size))
            total += weight * sum(self.value([*s, name]) - self.value(s) for s in combinations(others, size))
        return total

    def per_token(self, name: str) -> float:
        """Returns the share of an input divided by its mean number of tokens."""
        return self.share(name) / self.tokens[name]

    def figures(self, prefix: str) -> dict[str, float]:
        """Returns the attribution as metrics by name: `val/bits/image` (the share), `val/bits_per_token/image`,
        `val/without_image/exact_match`, ... for the `prefix` `val`. If the loss is not a negative log-likelihood, the
        share is named `val/share_of_loss/image` and there is no value per token."""
        return {name: value for name, value, _ in self._figures(prefix)}

    def numbers(self, prefix: str) -> dict[str, int]:
        """Returns the number of samples on which each metric of `figures` is measured, by metric name."""
        return {name: number for name, _, number in self._figures(prefix)}

    def _figures(self, prefix: str) -> Iterator[tuple[str, float, int]]:
        """Yields each metric as (name, value, number of samples)."""
        for name in self.inputs:
            yield f"{prefix}/{'bits' if self.in_bits else 'share_of_loss'}/{name}", self.share(name), self.samples
            if self.in_bits:
                yield f"{prefix}/bits_per_token/{name}", self.per_token(name), self.samples
        for subset, metrics in self.metrics.items():
            if subset != self.inputs and (not self.orders or len(subset) in (0, len(self.inputs) - 1)):
                without = f"{prefix}/without_" + "_".join(name for name in self.inputs if name not in subset)
                for key, value in metrics.items():
                    yield f"{without}/{key}", value, self.measured_on[key]


class NothingToWithholdError(ValueError):
    """Raised if no task with targets has an input that attribution can drop."""


def droppable_inputs(tasks: Mapping[str, Task], split: Split) -> dict[str, Subset]:
    """Returns for each task the inputs that can be dropped: all inputs that the task can use, except the inputs that
    the task itself needs. If there is an encoder and it reads all inputs that a task needs, the task can use only
    inputs of the encoder."""
    columns, encoded = split.inputs.columns, {*split.inputs.encoded}
    needed = {name: own_inputs(tasks, name) for name in tasks}
    usable = {name: encoded if encoded and needed[name] <= encoded else {*columns} for name in tasks}
    return {name: tuple(column for column in columns if column in usable[name] - needed[name]) for name in tasks}


def measure_attribution(
    trained: TrainedModel, split: SampleSplit, *, rows: int | None = None, generated: int | None = None
) -> dict[str, Attribution]:  # fmt: skip
    """Returns the `Attribution` of each task. An input is varied if the task does not need it and if it occurs in
    samples with a target. The task is evaluated with every subset of these inputs. With more than `MOST_INPUTS` inputs,
    only some subsets are evaluated (see `some_orders`). Tasks without such inputs are left out. The model always reads
    the inputs that the task itself needs. It reads inputs that other tasks predict only if they are in the subset.
    `rows` and `generated` are parameters of `measured`.

    Raises NothingToWithholdError (a ValueError) if the result is empty, and ValueError if the number of targets of a
    task depends on the subset."""

    def evaluated(names: Sequence[str], subset: Subset) -> Measured:
        return measured(trained, split, names=names, rows=rows, inputs=subset, generated=generated)

    tasks, groups = trained.tasks, dict[Subset, list[str]]()
    for name, inputs in droppable_inputs(tasks, split).items():
        groups.setdefault(inputs, []).append(name)
    attributions: dict[str, Attribution] = {}
    for candidates, names in groups.items():
        complete = evaluated(names, candidates) if candidates else None
        names_by_inputs: dict[Subset, list[str]] = {}
        for name, figures in (complete.whole if complete else {}).items():
            tokens = tokens_by_input(split, figures)
            names_by_inputs.setdefault(tuple(input for input in candidates if tokens[input]), []).append(name)
        for inputs, members in names_by_inputs.items():
            orders = some_orders(inputs) if len(inputs) > MOST_INPUTS else ()
            subsets = subsets_of(inputs, orders) if inputs else []
            evaluations = {s: complete if s == inputs else evaluated(members, s) for s in subsets}
            for name in members if inputs else ():
                check_counts(name, {s: targets_of(result.whole.get(name)) for s, result in evaluations.items()}, inputs)
                by_subset = {subset: result.whole[name] for subset, result in evaluations.items()}
                attributions[name] = attribution_of(name, tasks[name], split, complete, by_subset, inputs, orders)
    if not attributions:
        raise NothingToWithholdError(NOTHING_TO_DROP)
    return {name: attributions[name] for name in tasks if name in attributions}


NOTHING_TO_DROP = "no task has an input that can be dropped: each task needs or predicts all inputs of its samples"
"""The message of NothingToWithholdError."""


def attribution_of(
    name: str, task: Task, split: SampleSplit, complete: Measured, by_subset: Mapping[Subset, TaskFigures],
    inputs: Subset, orders: tuple[Subset, ...],
) -> Attribution:  # fmt: skip
    """Returns the `Attribution` of a task. `by_subset` contains the figures of the task with each evaluated subset of
    the `inputs`. `complete` is the evaluation with all inputs; only its numbers of samples are used."""
    with_all = by_subset[inputs]
    samples = {subset: figures.samples for subset, figures in by_subset.items()}
    check_counts(name, samples, inputs)
    nats = {
        subset: float(figures.sums.get("nats", figures.sums["loss"])) / samples[subset]
        for subset, figures in by_subset.items()
    }
    tokens = {
        input: total / samples[inputs] for input, total in tokens_by_input(split, with_all).items() if input in inputs
    }
    sources = [f"{source} {tasks[name].samples:,}" for source, tasks in complete.sources.items() if name in tasks]
    of = f" of {complete.readable:,}" if samples[inputs] < complete.readable else ""
    where = f"{samples[inputs]:,}{of} samples of {split.name}" + (f" ({', '.join(sources)})" if sources else "")
    never = tuple(input for input in inputs if input not in split.inputs.dropped)
    metrics = {subset: figures.metrics for subset, figures in by_subset.items()}
    return Attribution(
        inputs=inputs, metrics=metrics, nats=nats, tokens=tokens,
        in_bits=task.metrics["loss"].in_nats, samples=with_all.samples, measured_on=with_all.measured_on, where=where,
        never_dropped=never, orders=orders,
    )  # fmt: skip


def tokens_by_input(split: SampleSplit, figures: TaskFigures) -> dict[str, float]:
    """Returns the number of tokens of each input, added up over all samples that have a target of the task."""
    return dict(zip(split.choppers, figures.sums["input_tokens"][1:].tolist(), strict=True))


def some_orders(inputs: Subset) -> tuple[Subset, ...]:
    """Returns `ORDERS` random orders of the inputs. Every second order is the reverse of the preceding order. The
    orders are equal at every call."""
    random = np.random.default_rng(0)
    drawn = [tuple(inputs[number] for number in random.permutation(len(inputs))) for _ in range(ORDERS // 2)]
    return tuple(permutation for order in drawn for permutation in (order, order[::-1]))


def subsets_of(inputs: Subset, orders: Sequence[Subset]) -> list[Subset]:
    """Returns the subsets to evaluate, sorted from no inputs to all inputs. Without `orders` these are all subsets.
    Otherwise these are the first 0, 1, 2, ... inputs of each order, each single input, and all inputs except one."""
    if not orders:
        return [subset for size in range(len(inputs) + 1) for subset in combinations(inputs, size)]
    subsets = {frozenset(order[:size]) for order in orders for size in range(len(inputs) + 1)}
    subsets |= {frozenset((name,)) for name in inputs} | {frozenset(inputs) - {name} for name in inputs}
    ordered = [tuple(name for name in inputs if name in subset) for subset in subsets]
    return sorted(ordered, key=lambda subset: (len(subset), [inputs.index(name) for name in subset]))


def targets_of(figures: TaskFigures | None) -> float:
    """Returns the number of targets of a task, or 0 if `figures` is None."""
    return float(figures.sums["count"]) if figures else 0.0


def check_counts(task: str, counts: Mapping[Subset, float], inputs: Subset) -> None:
    """Raises ValueError if the number of targets of a task depends on the subset of inputs, because the losses cannot
    be compared then. `counts` contains the number of targets by subset. `inputs` is the key of the complete set of
    inputs."""
    for subset, count in counts.items():
        if count != counts[inputs]:
            missing = " and ".join(name for name in inputs if name not in subset)
            raise ValueError(
                f"task {task!r} has {count:,.0f} targets without {missing}, but {counts[inputs]:,.0f} with it: these "
                "losses cannot be compared. `Needs.inputs` of the task must list the inputs that it requires"
            )


def entropy(outcomes: Sequence[Outcome], inputs: Sequence[str]) -> float:
    """Returns the conditional entropy of the answer in bits if these inputs are known. `outcomes` is the joint
    probability table of inputs and answers."""
    groups = _grouped(outcomes, inputs).values()
    return sum(-p * math.log2(p / answers.total()) for answers in groups for p in answers.values() if p > 0)


def best_guess(outcomes: Sequence[Outcome], inputs: Sequence[str]) -> float:
    """Returns the probability that the most likely answer is correct if these inputs are known. `outcomes` is the joint
    probability table of inputs and answers."""
    return sum(max(answers.values()) for answers in _grouped(outcomes, inputs).values())


def _grouped(outcomes: Sequence[Outcome], inputs: Sequence[str]) -> Mapping[tuple, Counter]:
    groups: Mapping[tuple, Counter] = defaultdict(Counter)
    for outcome in outcomes:
        groups[tuple(outcome.inputs[name] for name in inputs)][outcome.answer] += outcome.probability
    return groups


def tables(task: str, attribution: Attribution, truth: Sequence[Outcome] | None = None) -> list[Table]:
    """Returns two tables of a task: its metrics with every subset of the inputs, and how much each input contributes
    (in bits, or as a fraction of the loss). `truth` is the joint probability table of inputs and answers; None: the
    table is unknown."""
    return [subset_table(task, attribution, truth), table(task, attribution, truth)]


def table(task: str, attribution: Attribution, truth: Sequence[Outcome] | None = None) -> Table:
    """Returns a table with one row per input: its share, its value alone, its value if added last, and its tokens per
    sample: the mean over all samples, of which those without the input have none. If `truth` (the joint probability
    table) is known and the values are in bits, each value is followed by that of a perfect model. If the loss is not a
    negative log-likelihood, the values are fractions of the loss."""
    columns = ["bits", "alone", "added last", "tokens per sample", "bits per token"]
    if not attribution.in_bits:
        columns = ["share of loss", "alone", "added last", "tokens per sample"]
    rows = Table("input", *columns, title=f"{task}: what each input contributes", **LEFT)
    perfect = {}
    if truth:
        values = {s: entropy(truth, ()) - entropy(truth, s) for s in attribution.nats}
        nats = {s: (entropy(truth, ()) - value) * math.log(2) for s, value in values.items()}
        ideal = Attribution(attribution.inputs, {}, nats, attribution.tokens, orders=attribution.orders)
        perfect = {name: (ideal.share(name), ideal.alone(name), ideal.added(name)) for name in attribution.inputs}
    for name in attribution.inputs:
        values = attribution.share(name), attribution.alone(name), attribution.added(name)
        if attribution.in_bits:
            cells = [f"{v:.2f}" + (f" of {t:.2f}" if truth else "") for v, t in zip(values, perfect.get(name, values))]
        else:
            cells = [f"{v:.1%}" for v in values]
        per_token = [f"{attribution.per_token(name):.3f}"] if attribution.in_bits else []
        rows.add_row(name, *cells, f"{attribution.tokens[name]:.1f}", *per_token)
    if attribution.never_dropped:
        rows.caption = (
            f"The model was never trained without {' or '.join(attribution.never_dropped)} (training.input_dropout is "
            "0). Its loss without this input is not meaningful, and neither are these values."
        )
    elif any(
        v > t + 0.05
        for name in perfect
        for v, t in zip((attribution.share(name), attribution.alone(name)), perfect[name])
    ):
        rows.caption = (
            "Some values are larger than those of a perfect model, because the model is overconfident without this "
            "input. training.input_dropout: any_number trains every subset."
        )
    return rows


def subset_table(task: str, attribution: Attribution, truth: Sequence[Outcome] | None = None) -> Table:
    """Returns a table of the metrics with every subset of the inputs. If `truth` (the joint probability table) is known
    and the task has the metric `exact_match`, a column contains the highest possible `exact_match`. If `orders` are
    used, only subsets of none, one, all, and all except one input are shown."""
    names = list(attribution.metrics[attribution.inputs])
    extra = ["best guess"] * bool(truth and "exact_match" in names)
    rows = Table("inputs present", *names, *extra, title=f"{task}: with each subset of the inputs", **LEFT)
    names_by_count: dict[int, list[str]] = {}
    for name, number in attribution.measured_on.items():
        if number < attribution.samples:
            names_by_count.setdefault(number, []).append(name)
    parts = [f"; {', '.join(group)}: {number:,}" for number, group in names_by_count.items()]
    rows.caption = f"on {attribution.where}{''.join(parts)}"
    sizes = (0, 1, len(attribution.inputs) - 1, len(attribution.inputs))
    for subset, metrics in attribution.metrics.items():
        if attribution.orders and len(subset) not in sizes:
            continue
        guess = [f"{best_guess(truth, subset):.3f}"] if extra else []
        label = ", ".join(subset) or "none"
        if attribution.orders and len(subset) >= sizes[2]:
            label = "all but " + "".join({*attribution.inputs} - {*subset}) if len(subset) == sizes[2] else "all"
        rows.add_row(label, *(f"{metrics[name]:.4f}" for name in names), *guess)
    return rows


def truth_of(
    wiring: Wiring, dataset: SampleDataset, split: str, task: Task, inputs: Collection[str]
) -> list[Outcome] | None:
    """Returns the joint probability table of these inputs and the target of the task. Returns None if the target of the
    task is not the `truth_column` of the data set, if the data set has no table for the split, if an input is not in
    the table, or if the task predicts only parts of an item."""
    columns, needs = wiring.columns, task.needs
    if columns.get(task.target, task.target) != dataset.truth_column:
        return None
    outcomes = dataset.truth(split) if needs.makes_items or task.target in needs.columns else None
    if not outcomes or not {columns[name] for name in inputs} <= outcomes[0].inputs.keys():
        return None
    return [row._replace(inputs={name: row.inputs[columns[name]] for name in inputs}) for row in outcomes]


class AttributionEvaluator(Evaluator):
    """Computes at the end of training how many bits each input contributes to the prediction, and the metrics of each
    task with every subset of the inputs."""

    when = "end"

    def check(self, trained, say):
        """Raises ValueError if no task has an input that can be dropped."""
        split = trained.open("val")
        if not any(droppable_inputs(trained.tasks, split).values()):
            raise ValueError(f"evaluation.attribution: {NOTHING_TO_DROP}")

    def run(self, trained, say):
        split, has_several = trained.open("val"), len(trained.tasks) > 1
        try:
            attributions = measure_attribution(trained, split)
        except NothingToWithholdError as error:  # raised in all processes
            return Result(lines=[f"evaluation.attribution: {error}"])
        figures: dict[str, float] = {}
        all_tables: list[Table] = []
        for name, attribution in attributions.items():
            truth = truth_of(trained.wiring, trained.dataset(), "val", trained.tasks[name], attribution.inputs)
            all_tables += tables(name, attribution, truth)
            figures |= attribution.figures(f"val/{name}" if has_several else "val")
        return Result(metrics=figures, tables=all_tables)
