"""The training samples of a data set with a rule (`rules.py`): the loader reads those of the current rollout."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import replace

from ..files.reading import DataError
from .fingerprint import Fingerprint
from .generated import Numbered
from .rules import Rolled, Rule
from .sampler import Order, SampleIndex, Sampler
from .samples import ByColumn, Columns, Samples, picked
from .skipped import Skipped
from .split import SampleSplit, Split


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


def rolled_out(split: Split, rule: Rule, steps: int | None) -> SampleSplit:
    """Returns the training split of a run of `steps` steps with the rollouts of a rule. Raises DataError if the number
    of steps is not set (None), or if the steps have different numbers of samples, or draw them with weights."""
    drawn = not isinstance(split, SampleSplit) or not split.sampler.rows or split.samples.weights is not None
    if drawn or steps is None:
        needs = "training.steps and training.samples_per_step, and no data.balance"
        raise DataError(f"data.dataset: {type(rule).__name__} makes rollouts, which need {needs}")
    rows = split.sampler.rows
    samples = RolledOut(split.samples, rule, rows * rule.every, rows * steps)
    skipped = Skipped.of(split.name, samples.keys, split.skipped.bad.share, split.skipped.bad.say)
    reader = copy(split.reader).with_bad(skipped.bad, cache=False)
    reader.samples = samples
    collator = replace(split.collator, note=skipped.note)
    return replace(split, skipped=skipped, reader=reader, collator=collator, sampler=Consecutive(rows))
