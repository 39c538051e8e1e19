"""The training loop. Read `Trainer.fit` (the loop), then `Learner.update` (one step).

A run can be stopped and resumed at any step: the global batch depends only on (seed, step), dropout on (seed, step,
micro-batch, rank), and the learning rates on the step. Except for dropout, nothing depends on the number of processes:
losses are sums, which are divided by the number of targets in the global batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..data.loader import Loader, Share
from ..data.processes import Processes, seed_of
from ..files.printing import figure_text
from .checkpoints import Best, Saver
from .ema import Ema
from .evaluation import Evaluations
from .log import Log
from .objective import Replica
from .optimizers import Optimizer
from .stop import StopRequest
from .whole_batch import output_gradients

FIRST_LOSS_LIMIT = 1.5
"""A warning is printed if the first loss is more than this many times the loss of a uniform guess."""


@dataclass
class Learner:
    """The model with its optimizer: `update` makes one optimizer step."""

    replica: Replica
    """The model and its tasks. Maps a micro-batch to the summed loss of each task."""
    optimizer: Optimizer
    schedule: Callable[[int], float]
    """Maps a step to the factor (0 to 1) by which the peak learning rates are multiplied."""
    averages: Ema | None
    """The exponential moving average of the weights; None: not used."""
    clip: float | None
    """The maximum norm of the gradient of all parameters; None: no clipping."""
    seed: int
    processes: Processes

    def update(self, step: int, share: Share) -> Tensor:
        """Make one optimizer step with this process's share of a global batch. Returns this process's part of the mean
        loss, a scalar: the parts of all processes add up to the mean loss."""
        total, batches = torch.zeros((), device=self.processes.device), share.micro_batches
        seeds = [seed_of(self.seed, step, number, self.processes.rank) for number in range(len(batches))]  # of dropout
        gradients = output_gradients(self.replica.objective, self.processes, batches, seeds)
        for number, batch in enumerate(batches):
            torch.manual_seed(seeds[number])
            with self.replica.gradient_sync(enabled=number + 1 == len(batches)):  # one all-reduce per step
                losses = self.replica(batch, gradients[number])  # by task, summed over this micro-batch's targets
                loss = sum(losses[task] / share.targets[task] for task in losses)  # of the global batch
                loss = loss * batch.real  # 0 if this process has no sample: all processes run a backward pass
                (loss * self.processes.world_size).backward()  # DDP averages over processes; this makes it a sum
            total += loss.detach()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step(self.schedule(step))
        self.optimizer.zero_grad()
        if self.averages:
            self.averages.update(step)
        return total

    @property
    def model(self) -> nn.Module:
        """The model, outside DDP and torch.compile."""
        return self.replica.objective.model

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the model has its averaged weights, if there are any."""
        return self.averages.applied() if self.averages else nullcontext()


@dataclass(frozen=True)
class Every:
    """Numbers of steps between two lines of the log, two evaluations and two checkpoints. The last step always has all
    three."""

    log: int
    evaluate: int
    save: int


@dataclass
class Trainer:
    """The training loop of one run, and its state (`step`, `best`, ...). All parts are arguments."""

    learner: Learner
    loader: Loader
    evaluation: Evaluations
    saver: Saver
    log: Log
    stop: StopRequest
    steps: int
    """The number of steps of the complete run."""
    every: Every
    step: int = field(default=0, init=False)
    """The number of completed steps."""
    best: Best | None = field(default=None, init=False)
    evaluated: int = field(default=-1, init=False)
    """The last step after which the model was evaluated; -1: none."""
    averaged: bool = field(default=False, init=False)
    """Whether the averaged weights are the mean of the last checkpoints (`checkpoints.average`), computed at the end of
    training."""
    finished: bool = field(default=False, init=False)
    """Whether everything that follows the last step (averaging, the last evaluation, attribution) is done."""

    def fit(self) -> dict[str, float]:
        """Train from `step` to the last step, or until a stop is requested. Returns the metrics of the last evaluation
        (empty if there was none). Raises NotFiniteError if the loss or a weight is infinite or NaN, and ValueError
        (DataError) if the data cannot be read."""
        metrics, first = self.catch_up_evaluation(), None
        self.log.start_clock()
        while self.step < self.steps and not self.stop.requested(self.learner.processes):
            loss = self.update()
            first = loss if self.step == 0 else first
            self.log.add(loss)
            self.step += 1
            evaluates, saves = self.must_evaluate(), self.due(self.every.save)
            if evaluates or saves or self.due(self.every.log):
                self.log.report(self.step, self.learner.optimizer.figures())  # waits for the device
                if first is not None:
                    self.warn_above_chance(first)
                    first = None
                self.loader.split.skipped.bad.check(self.learner.processes)
                if evaluates and not self.stop.requested(self.learner.processes):
                    metrics = self.evaluate_saving_on_error()
                if saves:
                    self.save()
                self.log.start_clock()
        if self.step < self.steps:
            self.interrupt()
        return metrics

    def update(self) -> Tensor:
        """Load this process's share of the step's global batch and make one step. Returns this process's part of the
        mean loss. If the data cannot be read, the run is saved before the error is raised."""
        waited = self.loader.waited
        try:
            share = self.loader.load(self.step, stops=self.stop.signal is not None)
        except ValueError:  # bad data, and the weights have not changed yet: save the steps so far
            self.interrupt()
            raise
        self.stop.receive(share.stop_votes)
        self.log.count(share.micro_batches, self.loader.waited - waited)
        return self.learner.update(self.step, share)

    def due(self, every: int) -> bool:
        """Whether `step` is a multiple of `every` or the last step."""
        return self.step % every == 0 or self.step == self.steps

    def must_evaluate(self) -> bool:
        """Whether to evaluate after this step. With `checkpoints.average` the last step is evaluated later, after
        averaging."""
        return self.due(self.every.evaluate) and not (self.saver.average and self.step == self.steps)

    # -------------------------------------------------------------------------------------- evaluating and saving

    def warn_above_chance(self, first: Tensor) -> None:
        """Print a warning if the loss of the first step is much larger than that of a uniform guess. `first` is this
        process's part of the loss. Every process must call this method."""
        loss = self.learner.processes.sum(first.double()).item()
        chance = self.learner.replica.objective.chance()
        if chance and loss > FIRST_LOSS_LIMIT * chance:
            self.log.say(
                f"warning: the first loss is {loss:.4g}, but a uniform guess has {chance:.4g}. Likely causes: a tied "
                "head with large embeddings (try head: unembedding), large initial values of a user-defined class, or "
                "weights of a run with another vocabulary."
            )

    def evaluate(self) -> dict[str, float]:
        """Evaluate on the complete validation split, with the averaged weights if there are any. Save a checkpoint if
        it is the best so far. Returns the metrics by name. Raises NotFiniteError if a weight is not finite, and
        ValueError if the metric of the best checkpoint could not be measured."""
        with self.learner.averaged():
            result = self.evaluation.run(self.step)
        metrics, samples = dict(result.metrics), result.samples
        self.log.write(self.step, metrics | self.evaluation.skipped())
        self.log.record.samples(self.step, samples)
        figures = "  ".join(f"{name} {figure_text(value)}" for name, value in metrics.items())
        self.log.say(f"step {self.step:,}  {self.log.seconds:.1f} s  {figures}")
        if samples.text:
            self.log.say(f"  | {samples.text.strip()}".replace("\n", "\n  | "))
        self.log.show(result.tables, result.lines)
        self.evaluated = self.step
        if self.saver.best not in metrics:
            task, _, _ = self.saver.best.rpartition("/")
            measured = any(name.rpartition("/")[0] == task for name in metrics if name != "val/loss")
            why = "val has too few samples for it" if measured else "no sample of val has a target of its task"
            raise ValueError(f"checkpoints.best is {self.saver.best!r}, but {why}; measured: {', '.join(metrics)}")
        value = metrics[self.saver.best]
        score = -value if self.evaluation.larger_is_better(self.saver.best) else value
        if math.isfinite(score) and (self.best is None or score <= self.best.judged):  # the newer of two equal scores
            self.best = Best(step=self.step, metric=self.saver.best, judged=score, metrics=metrics)
            self.save()
        return metrics

    def catch_up_evaluation(self) -> dict[str, float]:
        """Make the evaluation of this step if a stop prevented it, and save. Returns {} if no evaluation is due."""
        if not (self.evaluated < self.step < self.steps and self.step and self.due(self.every.evaluate)):
            return {}
        metrics = self.evaluate()
        self.save()
        return metrics

    def evaluate_saving_on_error(self) -> dict[str, float]:
        """Evaluate. If bad data or Ctrl-C interrupt the evaluation, the run is saved before the error is raised."""
        try:
            return self.evaluate()
        except (ValueError, KeyboardInterrupt):
            self.save()
            raise

    def save(self) -> None:
        """Write a checkpoint of this step, unless it is step 0. Only the first process writes. If the step has a
        checkpoint already, its state and averages are replaced. Raises NotFiniteError, in all processes, if a tensor is
        not finite."""
        learner, log = self.learner, self.log
        if self.step:
            state = {
                "seconds": log.seconds,
                "best": self.best.model_dump() if self.best else None,
                "evaluated": self.evaluated,
                "averaged": self.averaged,
                "finished": self.finished,
                "records": log.record.lines_of(self.step),
                "unreported": log.unreported.model_dump(),
                "skipped": self.loader.skipped,
                "bad": dict(self.loader.split.skipped.everywhere(learner.processes).bad),
            }
            tensors = {"model": learner.model.state_dict(), "optimizer": learner.optimizer.state()}
            averages = learner.averages.state() if learner.averages else None
            self.saver.save(self.step, tensors, averages, state, self.best)

    def interrupt(self) -> None:
        """Save the run at this step, with the losses that are not logged yet: the first line after resuming includes
        them."""
        self.log.keep_unreported()
        self.save()
        self.learner.processes.wait()
