"""Attribution: how many bits of the answer each input contributes, from an evaluation with every subset of the inputs.

The value of a set S of inputs is how many bits less the answer costs with them than with none: v(S) = (nats(nothing) -
nats(S)) / ln 2, per sample. An input's share is its marginal value averaged over all orders in which inputs may be
added (Shapley 1953), so that the shares add up to the value of all. Of two inputs, v(image) = 3, v(text) = 1 and
v(both) = 6 give the image a share of (3 + 5) / 2 = 4 and the text one of (1 + 3) / 2 = 2. Of many inputs, which have
too many subsets, the mean is over some orders, each with its reverse (Castro et al. 2009): the shares still add up.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from rich.table import Table

from ...data.processes import Processes
from ...data.samples import Outcome, SampleDataset
from ...data.split import SampleSplit, Split
from ...models.model import Model
from ...tasks.base import Task, Wiring
from ..evaluation import Measured, TaskFigures, measured, own_inputs
from ..evaluator import Evaluator, Result

MOST = 6
"""Up to this many inputs all subsets are evaluated (64 of them)."""
ORDERS = 12
"""Of more inputs, the orders in which they are added."""
LEFT = {"title_justify": "left", "caption_justify": "left"}
"""Where tables have their titles and captions."""
Subset = tuple[str, ...]
"""Some of the inputs, in the order of all."""


@dataclass(frozen=True)
class Attribution:
    """The attribution of one task: metrics and nats per sample by subset of the inputs, tokens per sample by input. All
    figures are of the samples that have a target of the task."""

    inputs: tuple[str, ...]
    """All that a sample with a target may have besides what the task itself predicts: targets of other tasks, too."""
    metrics: Mapping[Subset, Mapping[str, float]]
    nats: Mapping[Subset, float]
    """The answer's loss per sample with each subset of the inputs."""
    tokens: Mapping[str, float]
    """Tokens of each input per sample, on average."""
    in_bits: bool = True
    """Whether the loss is a negative log-likelihood, so that `value` is in bits; else it is a share of the loss."""
    samples: int = 0
    """How many samples have a target."""
    measured_on: Mapping[str, int] = field(default_factory=dict)
    """On how many of them each metric is measured."""
    where: str = ""
    """The samples that have a target, in words: `500 of 2,922 samples of val (pairs 500)`."""
    never_dropped: tuple[str, ...] = ()
    """Inputs that were never withheld while training (their input dropout is 0)."""
    orders: tuple[Subset, ...] = ()
    """The orders over which shares are averaged; none: all there are."""

    def value(self, subset: Collection[str]) -> float:
        """The bits by which a set of inputs lowers the cost of the answer; where the loss is no likelihood, the share
        of the loss without inputs that it takes away."""
        unit = math.log(2) if self.in_bits else self.nats[()]
        return (self.nats[()] - self.nats[self.ordered(subset)]) / unit if unit else 0.0

    def ordered(self, subset: Collection[str]) -> Subset:
        """A set of inputs as a Subset."""
        return tuple(name for name in self.inputs if name in subset)

    def alone(self, name: str) -> float:
        """The value of an input when there is no other."""
        return self.value([name])

    def added(self, name: str) -> float:
        """The value that an input adds to all others: the loss without it minus the loss with it."""
        return self.value(self.inputs) - self.value(set(self.inputs) - {name})

    def share(self, name: str) -> float:
        """The Shapley value of an input, in the unit of `value`."""
        if self.orders:
            before = [order[: order.index(name)] for order in self.orders]
            return sum(self.value([*each, name]) - self.value(each) for each in before) / len(before)
        others = [each for each in self.inputs if each != name]
        total = 0.0
        for size in range(len(others) + 1):
            weight = 1 / (len(self.inputs) * math.comb(len(others), size))
            total += weight * sum(self.value([*s, name]) - self.value(s) for s in combinations(others, size))
        return total

    def per_token(self, name: str) -> float:
        """The share of an input per token that it has."""
        return self.share(name) / self.tokens[name]

    def figures(self, prefix: str) -> dict[str, float]:
        """All of it as flat metrics: `val/bits/image` (the share), `val/bits_per_token/image`,
        `val/without_image/exact_match`, ...; where the loss is no likelihood `val/share_of_loss/image`."""
        return {name: value for name, value, _ in self._figures(prefix)}

    def numbers(self, prefix: str) -> dict[str, int]:
        """On how many samples each of the `figures` is measured."""
        return {name: number for name, _, number in self._figures(prefix)}

    def _figures(self, prefix: str) -> Iterator[tuple[str, float, int]]:
        """Every figure with its name and the number of samples that it is measured on."""
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
    """Raised if there is no input that attribution could leave out of the samples."""


def withholdable(tasks: Mapping[str, Task], split: Split) -> dict[str, Subset]:
    """By task the inputs that may be withheld from it: all that it reads but those that the task itself is about. Tasks
    that are about nothing but the encoder's inputs read no others."""
    columns, encoded = split.inputs.columns, {*split.inputs.encoded}
    own = {name: own_inputs(tasks, name) for name in tasks}
    read = {name: encoded if encoded and own[name] <= encoded else {*columns} for name in tasks}
    return {name: tuple(each for each in columns if each in read[name] - own[name]) for name in tasks}


def measure_attribution(
    model: Model, tasks: Mapping[str, Task], split: SampleSplit, *, rows: int = 64, generated: int | None = None,
    processes: Processes | None = None,
) -> dict[str, Attribution]:  # fmt: skip
    """Evaluate every task with every subset of the inputs that samples with a target of it have, or with those of some
    orders where there are more of them than `MOST`; gives the `Attribution` of each task that has such inputs. A task's
    own inputs are always read, targets of other tasks only where they are in the subset. `generated` as of `measured`.

    Raises ValueError where no task has an input that could be withheld, and for a task that has another number of
    targets without some of them.
    """

    def evaluated(names: Sequence[str], subset: Subset) -> Measured:
        return measured(
            model, tasks, split, names=names, rows=rows, inputs=subset, generated=generated, processes=processes
        )

    groups: dict[Subset, list[str]] = {}
    for name, inputs in withholdable(tasks, split).items():
        groups.setdefault(inputs, []).append(name)
    found: dict[str, Attribution] = {}
    for candidates, names in groups.items():
        whole = evaluated(names, candidates) if candidates else None
        there: dict[Subset, list[str]] = {}
        for name, figures in (whole.whole if whole else {}).items():
            tokens = tokens_by_input(split, figures)
            there.setdefault(tuple(each for each in candidates if tokens[each]), []).append(name)
        for inputs, several in there.items():
            orders = some_orders(inputs) if len(inputs) > MOST else ()
            subsets = subsets_of(inputs, orders) if inputs else []
            every = {s: whole if s == inputs else evaluated(several, s) for s in subsets}
            for name in several if inputs else ():
                check_counts(name, {s: targets_of(each.whole.get(name)) for s, each in every.items()}, inputs)
                by_subset = {subset: each.whole[name] for subset, each in every.items()}
                found[name] = attribution_of(name, tasks[name], split, whole, by_subset, inputs, orders)
    if not found:
        raise NothingToWithholdError(NOTHING)
    return {name: found[name] for name in tasks if name in found}


NOTHING = (
    "no task has an input that could be withheld: all that its samples have is needed or predicted by the task itself"
)
"""What is wrong where there is no attribution."""


def attribution_of(
    name: str, task: Task, split: SampleSplit, whole: Measured, by_subset: Mapping[Subset, TaskFigures], inputs: Subset,
    orders: tuple[Subset, ...],
) -> Attribution:  # fmt: skip
    """The `Attribution` of a task from its figures with every subset of the inputs. `whole` is the evaluation with all
    inputs."""
    with_all = by_subset[inputs]
    samples = {subset: each.samples for subset, each in by_subset.items()}
    nats = {
        subset: float(each.sums.get("nats", each.sums["loss"])) / samples[subset] for subset, each in by_subset.items()
    }
    tokens = {
        each: total / samples[inputs] for each, total in tokens_by_input(split, with_all).items() if each in inputs
    }
    sources = [f"{source} {found[name].samples:,}" for source, found in whole.sources.items() if name in found]
    of = f" of {whole.readable:,}" if samples[inputs] < whole.readable else ""
    where = f"{samples[inputs]:,}{of} samples of {split.name}" + (f" ({', '.join(sources)})" if sources else "")
    never = tuple(each for each in inputs if each not in split.inputs.dropped)
    return Attribution(
        inputs=inputs, metrics={subset: each.metrics for subset, each in by_subset.items()}, nats=nats, tokens=tokens,
        in_bits=task.metrics["loss"].in_nats, samples=with_all.samples, measured_on=with_all.measured_on, where=where,
        never_dropped=never, orders=orders,
    )  # fmt: skip


def tokens_by_input(split: SampleSplit, figures: TaskFigures) -> dict[str, float]:
    """The tokens of each input in all samples that have a target of a task."""
    return dict(zip(split.choppers, figures.sums["input_tokens"][1:].tolist(), strict=True))


def some_orders(inputs: Subset) -> tuple[Subset, ...]:
    """ORDERS orders of these inputs, the same every time, each beside its reverse."""
    random = np.random.default_rng(0)
    drawn = [tuple(inputs[number] for number in random.permutation(len(inputs))) for _ in range(ORDERS // 2)]
    return tuple(each for order in drawn for each in (order, order[::-1]))


def subsets_of(inputs: Subset, orders: Sequence[Subset]) -> list[Subset]:
    """The subsets that are evaluated, from none to all: every one, or those that the orders pass through, with each
    input alone and all but each."""
    if not orders:
        return [subset for size in range(len(inputs) + 1) for subset in combinations(inputs, size)]
    passed = {frozenset(order[:size]) for order in orders for size in range(len(inputs) + 1)}
    passed |= {frozenset((name,)) for name in inputs} | {frozenset(inputs) - {name} for name in inputs}
    ordered = [tuple(name for name in inputs if name in subset) for subset in passed]
    return sorted(ordered, key=lambda subset: (len(subset), [inputs.index(name) for name in subset]))


def targets_of(figures: TaskFigures | None) -> float:
    """How many targets a task has; 0 where it was not measured."""
    return float(figures.sums["count"]) if figures else 0.0


def check_counts(task: str, counts: Mapping[Subset, float], inputs: Subset) -> None:
    """Raises ValueError where a task has another number of targets with some inputs than with all: such losses cannot
    be compared. `counts`: targets by subset."""
    for subset, count in counts.items():
        if count != counts[inputs]:
            missing = " and ".join(name for name in inputs if name not in subset)
            raise ValueError(
                f"task {task!r} has {count:,.0f} targets without {missing}, {counts[inputs]:,.0f} with it: these "
                "losses cannot be compared. A task names the inputs that it cannot do without in `Needs.inputs`"
            )


def entropy(outcomes: Sequence[Outcome], known: Sequence[str]) -> float:
    """The entropy of the answer given these inputs, in bits, by the joint table."""
    groups = _grouped(outcomes, known).values()
    return sum(-p * math.log2(p / answers.total()) for answers in groups for p in answers.values() if p > 0)


def best_guess(outcomes: Sequence[Outcome], known: Sequence[str]) -> float:
    """The probability that the likeliest answer given these inputs is right, by the joint table."""
    return sum(max(answers.values()) for answers in _grouped(outcomes, known).values())


def _grouped(outcomes: Sequence[Outcome], known: Sequence[str]) -> Mapping[tuple, Counter]:
    groups: Mapping[tuple, Counter] = defaultdict(Counter)
    for outcome in outcomes:
        groups[tuple(outcome.inputs[name] for name in known)][outcome.answer] += outcome.probability
    return groups


def tables(task: str, worth: Attribution, truth: Sequence[Outcome] | None = None) -> list[Table]:
    """The two tables of a task: its metrics with every subset of the inputs, and the bits of each input. `truth` is the
    data set's joint table, where it is known."""
    return [subset_table(task, worth, truth), table(task, worth, truth)]


def table(task: str, worth: Attribution, truth: Sequence[Outcome] | None = None) -> Table:
    """Bits by input: its share, alone, and added last; where the joint table of inputs and answers is known, with those
    of a perfect model. Where the loss is no likelihood, shares of the loss instead of bits."""
    unit = ["bits", "alone", "added last", "tokens", "bits a token"]
    if not worth.in_bits:
        unit = ["of the loss taken away", "alone", "added last", "tokens"]
    found = Table("input", *unit, title=f"{task}: what each input contributes", **LEFT)
    perfect = {}
    if truth:
        values = {s: entropy(truth, ()) - entropy(truth, s) for s in worth.nats}
        nats = {s: (entropy(truth, ()) - value) * math.log(2) for s, value in values.items()}
        ideal = Attribution(worth.inputs, {}, nats, worth.tokens, orders=worth.orders)
        perfect = {name: (ideal.share(name), ideal.alone(name), ideal.added(name)) for name in worth.inputs}
    for name in worth.inputs:
        values = worth.share(name), worth.alone(name), worth.added(name)
        if worth.in_bits:
            shown = [f"{v:.2f}" + (f" of {t:.2f}" if truth else "") for v, t in zip(values, perfect.get(name, values))]
        else:
            shown = [f"{v:.1%}" for v in values]
        each = [f"{worth.per_token(name):.3f}"] if worth.in_bits else []
        found.add_row(name, *shown, f"{worth.tokens[name]:.1f}", *each)
    if worth.never_dropped:
        found.caption = (
            f"The model was never trained without {' or '.join(worth.never_dropped)} (training.input_dropout is 0 "
            "there): its loss without it is a guess, and so are these figures."
        )
    elif any(v > t + 0.05 for name in perfect for v, t in zip((worth.share(name), worth.alone(name)), perfect[name])):
        found.caption = (
            "More bits than there are: without that input the model is surer of itself than it should be. "
            "training.input_dropout: any_number teaches it every subset."
        )
    return found


def subset_table(task: str, worth: Attribution, truth: Sequence[Outcome] | None = None) -> Table:
    """The metrics with every subset of the inputs, and, where there are `exact_match` and a joint table, the best that
    the table allows."""
    names = list(worth.metrics[worth.inputs])
    extra = ["best guess"] * bool(truth and "exact_match" in names)
    found = Table("inputs present", *names, *extra, title=f"{task}: with each subset of the inputs", **LEFT)
    fewer: dict[int, list[str]] = {}
    for name, number in worth.measured_on.items():
        if number < worth.samples:
            fewer.setdefault(number, []).append(name)
    parts = [f"; {', '.join(some)}: {number:,}" for number, some in fewer.items()]
    found.caption = f"on {worth.where}{''.join(parts)}"
    shown = (0, 1, len(worth.inputs) - 1, len(worth.inputs))
    for subset, metrics in worth.metrics.items():
        if worth.orders and len(subset) not in shown:
            continue
        guess = [f"{best_guess(truth, subset):.3f}"] if extra else []
        told = ", ".join(subset) or "none"
        if worth.orders and len(subset) >= shown[2]:
            told = "all but " + "".join({*worth.inputs} - {*subset}) if len(subset) == shown[2] else "all"
        found.add_row(told, *(f"{metrics[name]:.4f}" for name in names), *guess)
    return found


def truth_of(
    wiring: Wiring, dataset: SampleDataset, split: str, task: Task, inputs: Collection[str]
) -> list[Outcome] | None:
    """The joint table of these inputs, by their names, and of what the task predicts. None where the data set does not
    know it: for another column, for inputs that are in no table, and for a task that predicts only parts of items."""
    columns, needs = wiring.columns, task.needs
    if columns.get(task.target, task.target) != dataset.truth_column:
        return None
    outcomes = dataset.truth(split) if needs.generates or needs.refines or task.target in needs.columns else None
    if not outcomes or not {columns[name] for name in inputs} <= outcomes[0].inputs.keys():
        return None
    return [each._replace(inputs={name: each.inputs[columns[name]] for name in inputs}) for each in outcomes]


class AttributionEvaluator(Evaluator):
    """Metrics for every subset of the inputs at the end of training: how many bits of the answer each input
    contributes."""

    when = "end"

    def check(self, trained, say):
        """Raises ValueError if no input can be withheld from a task."""
        split = trained.open("val")
        if not any(withholdable(trained.tasks, split).values()):
            raise ValueError(f"evaluation.attribution: {NOTHING}")

    def run(self, trained, say):
        split, several = trained.open("val"), len(trained.tasks) > 1
        try:
            found = measure_attribution(
                trained.model, trained.tasks, split, rows=trained.rows, processes=trained.processes
            )
        except NothingToWithholdError as error:  # in all processes
            return Result(lines=[f"evaluation.attribution: {error}"])
        figures: dict[str, float] = {}
        shown: list[Table] = []
        for name, attribution in found.items():
            truth = truth_of(trained.wiring, trained.dataset(), "val", trained.tasks[name], attribution.inputs)
            shown += tables(name, attribution, truth)
            figures |= attribution.figures(f"val/{name}" if several else "val")
        return Result(metrics=figures, tables=shown)
