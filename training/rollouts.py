"""Rollouts during training (`data/rules.py`): when they are made, and how every process and worker receives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..data.loader import Loader
from ..data.processes import Processes, seed_of
from ..data.rollouts import RolledOut
from ..data.rules import Rolled, checked
from ..data.samples import Columns
from ..data.skipped import silent
from ..inference.evaluator import TrainedRun
from .checkpoints import CheckpointError, Rollout
from .evaluation import Evaluations


def answers(trained: TrainedRun, samples: Sequence[Columns], **options: Any) -> list[dict[str, Any]]:
    """Returns the predictions for samples of the data set: each input reads its column. Other columns are ignored."""
    inputs = trained.wiring.columns.items()
    rows = [{name: sample[column] for name, column in inputs if column in sample} for sample in samples]
    return trained.predict(rows, say=silent, **options)


@dataclass
class Rollouts:
    """Replaces the training samples before every step at which a rollout is due."""

    loader: Loader
    """The loader of the training split, whose samples are `RolledOut`."""
    evaluation: Evaluations
    processes: Processes
    seed: int

    @property
    def samples(self) -> RolledOut:
        """The samples of the training split."""
        return self.loader.split.samples

    def prepare(self, step: int) -> None:
        """Makes the samples of this step and of the following ones, if a rollout is due. Every process must call this
        method; the first one calls the rule. Raises the errors of the rule, and ContractError for a wrong result."""
        index = step // self.samples.rule.every
        if index != self.samples.index:
            self.take(index, self.processes.broadcast(self.made(step)))

    def made(self, step: int) -> list[Rolled] | None:
        """Returns the samples of a rollout in the first process, None in all others. An error is raised in all
        processes."""
        made, error, rule = None, None, self.samples.rule
        if self.processes.is_first:
            count, prompts = self.samples.per_rollout, self.samples.prompts
            try:
                with self.evaluation.evaluating(step) as trained:
                    samples = rule.samples(prompts, partial(answers, trained), count, seed_of(self.seed, step, 5))
                made = checked(rule, samples, count, len(prompts))
            except Exception as raised:  # a rule is code of a user; all processes must end
                error = raised
        self.processes.agree([], error)
        return made

    def take(self, index: int, samples: Sequence[Rolled]) -> None:
        """Lets this process, its workers and its loader use the samples of the rollout `index`."""
        every = self.samples.rule.every
        self.samples.take(index, samples)
        self.loader.feed.take(self.loader.split.name, index, samples)
        self.loader.read_until((index + 1) * every)

    def state(self) -> Mapping[str, Any] | None:
        """Returns the current rollout for a checkpoint; None if there is none yet."""
        return {"index": self.samples.index, "samples": self.samples.current} if self.samples.current else None

    def restore(self, step: int, stored: Rollout | None) -> None:
        """Uses the rollout of a checkpoint again. Raises CheckpointError if it does not fit the configuration."""
        if stored is None or step % self.samples.rule.every == 0:
            return  # the next rollout is made before this step
        number = len(self.samples.prompts)
        if stored.index != step // self.samples.rule.every or len(stored.samples) != self.samples.per_rollout:
            raise CheckpointError(f"the rollout in the checkpoint of step {step} does not belong to this step")
        rolled = [Rolled(*sample) for sample in stored.samples]
        self.take(stored.index, checked(self.samples.rule, rolled, self.samples.per_rollout, number))
