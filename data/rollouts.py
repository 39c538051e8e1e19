"""Rollouts: training samples that are made from the answers of the current model, every few steps.

A data set with a `Rule` (`Dataset.rule`) has them. Before steps 0, `every`, 2 * `every`, ..., the rule receives the
training samples of the data set and a function that answers samples with the current weights. It returns the samples of
the next `every` steps: numbers of training samples, and the columns that replace those of the sample.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from ..files.reading import DataError
from ..models.contract import ContractError, described
from .fingerprint import Fingerprint
from .generated import Numbered
from .sampler import Order, SampleIndex, Sampler
from .samples import ByColumn, Columns, Samples, picked
from .skipped import Skipped
from .split import SampleSplit, Split

Answers = Callable[..., Sequence[Mapping[str, Any]]]
"""Returns the predictions of the current model for samples, as `Run.predict` does, with its options:
`answers(samples, temperature=1.0, seed=7)`."""


class Rolled(NamedTuple):
    """A sample that a rule makes: the training sample `number`, in which `columns` replace columns of the data set."""

    number: int
    columns: Mapping[str, str | float]


class Rule(ABC):
    """Makes the training samples of the next `every` steps. The attributes of a rule are its options; they must be
    numbers and texts."""

    every: int
    """The number of steps between two calls of `samples`."""
    columns: Mapping[str, str | float]
    """The columns of each sample that `samples` returns. Before the first call, those that the data set lacks have
    these values."""

    @abstractmethod
    def samples(self, prompts: Samples, answers: Answers, count: int, seed: int) -> Sequence[Rolled]:
        """Returns `count` samples, in the order in which training reads them. `prompts` are the training samples of the
        data set. The result must depend only on the arguments; `seed` is different in each call."""

    def fingerprint(self) -> str:
        """Returns a hash of the options and of the source code of the rule."""
        try:
            source = "".join(inspect.getsource(kind) for kind in type(self).__mro__ if kind not in Rule.__mro__)
        except OSError:  # a class without a file
            source = ""
        return Fingerprint(type(self).__qualname__, source, vars(self)).hex


class RolledOut(ByColumn):
    """The samples of a training with rollouts: `per_rollout` from each call of the rule, in total `count`. Only those
    of the current rollout can be read. Before the first rollout, they are training samples of the data set."""

    def __init__(self, prompts: Samples, rule: Rule, per_rollout: int, count: int):
        self.prompts, self.rule, self.per_rollout = prompts, rule, per_rollout
        self.keys = Numbered("rollout sample", count)
        self.index, self.current = -1, list[Rolled]()

    def take(self, index: int, samples: Sequence[Rolled]) -> None:
        """Replaces the current samples by those of the rollout `index`, counted from 0."""
        self.index, self.current = index, [Rolled(*sample) for sample in samples]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        if not self.current:
            return picked({**self.rule.columns, **self.prompts.row(number % len(self.prompts), names)}, names)
        rolled = self.current[number % self.per_rollout]
        return picked({**self.prompts.row(rolled.number, names), **rolled.columns}, names)

    def caches(self, number: int) -> bool:
        return False

    @property
    def column_names(self) -> list[str]:
        return list(dict.fromkeys([*self.prompts.column_names, *self.rule.columns]))

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        stored = [name for name in labels if name not in self.rule.columns]
        return Fingerprint(self.prompts.fingerprint(stored), self.rule.fingerprint()).hex


class Consecutive(Sampler):
    """Batches of `rows` consecutive samples."""

    def __init__(self, rows: int):
        super().__init__()
        self.rows = rows

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return [SampleIndex(seed, 0, number) for number in self.slots_of(step)]

    def drawn(self, seed: int, epoch: int) -> Order:
        raise NotImplementedError("the samples are not drawn")


class Length(Protocol):
    """The settings of a training that rollouts read."""

    steps: int
    minutes: float | None
    epochs: float | None


def rolled_out(split: Split, rule: Rule, training: Length) -> SampleSplit:
    """Returns the training split of a run with the rollouts of a rule. Raises DataError if the number of steps follows
    from minutes or epochs, or if the steps have different numbers of samples, or draw them with weights."""
    drawn = not isinstance(split, SampleSplit) or not split.sampler.rows or split.samples.weights is not None
    if drawn or training.minutes or training.epochs:
        needs = "training.steps and training.samples_per_step, and no data.balance"
        raise DataError(f"data.dataset: {type(rule).__name__} makes rollouts, which need {needs}")
    rows = split.sampler.rows
    samples = RolledOut(split.samples, rule, rows * rule.every, rows * training.steps)
    skipped = Skipped.of(split.name, samples.keys, split.skipped.bad.share, split.skipped.bad.say)
    reader = copy(split.reader).with_bad(skipped.bad, cache=False)
    reader.samples = samples
    collator = replace(split.collator, note=skipped.note)
    return replace(split, skipped=skipped, reader=reader, collator=collator, sampler=Consecutive(rows))


def checked(rule: Rule, made: Any, count: int, prompts: int) -> list[Rolled]:
    """Returns what `Rule.samples` has returned. Raises ContractError if these are not `count` samples with a number
    below `prompts` and with all columns of the rule, or if a value is neither a text nor a finite number."""

    def wrong(what: str, expected: str) -> ContractError:
        return ContractError(f"data.dataset: {type(rule).__name__}.samples returned {what}; expected: {expected}")

    if not isinstance(made, Sequence) or len(made) != count:
        what = f"{len(made)} samples" if isinstance(made, Sequence) else described(made)
        raise wrong(what, f"{count} samples, Rolled(number, columns)")
    for place, sample in enumerate(made):
        if not isinstance(sample, Rolled) or type(sample.number) is not int or not 0 <= sample.number < prompts:
            raise wrong(f"{described(sample)} as sample {place}", f"Rolled(number, columns), number below {prompts}")
        if sample.columns.keys() != rule.columns.keys():
            raise wrong(f"the columns {', '.join(sample.columns)} in sample {place}", ", ".join(rule.columns))
        for name, value in sample.columns.items():
            if not (isinstance(value, str) or (type(value) in (int, float) and math.isfinite(value))):
                raise wrong(f"{value!r} as {name!r} of sample {place}", "a text or a finite number")
    return list(made)
