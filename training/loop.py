"""The training loop. Read `Trainer.fit` (the loop), then `Learner.update` (one step).

A run can be stopped and resumed at any step. The global batch depends only on the seed and the step, dropout on the
seed, the step, the number of the micro-batch and the rank of the process, and the learning rates on the step. Only
dropout depends on the number of processes: losses are summed over all processes, and the sum is divided by the number
of targets in the global batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..data.loader import Loader, Share
from ..data.processes import Processes, seed_of
from ..files.printing import figure_text
from ..models.seeding import seed_torch
from .checkpoints import Best, Saver
from .early_stop import EarlyStop, Patience
from .ema import Ema
from .evaluation import Evaluations
from .log import Log
from .objective import Replica
from .optimizers import Optimizer
from .rollouts import Rollouts
from .stop import StopRequest
from .whole_batch import output_gradients

FIRST_LOSS_LIMIT = 1.5
"""A warning is printed if the first loss is more than this factor times the loss of a uniform guess."""
LIKELY_CAUSES = (
    "Likely causes: a tied head with large embeddings (try head: unembedding), large initial values of a user-defined "
    "class, or weights of a run with another vocabulary."
)


def not_measured(best: str, metrics: Mapping[str, float]) -> ValueError:
    """Returns the error that the metric of `checkpoints.best` is not among those of an evaluation."""
    task, _, _ = best.rpartition("/")
    measured = any(name.rpartition("/")[0] == task for name in metrics if name != "val/loss")
    why = "val has too few samples for it" if measured else "no sample of val has a target of its task"
    return ValueError(f"checkpoints.best is {best!r}, but {why}; measured: {', '.join(metrics)}")


@dataclass
class Learner:
    """The model and everything that changes its weights. `update` makes one optimizer step."""

    replica: Replica
    """The model and its tasks. Called with a micro-batch, it returns the summed loss of each task."""
    optimizer: Optimizer
    schedule: Callable[[int], float]
    """Maps a step to the factor (0 to 1) by which the peak learning rates are multiplied."""
    averages: Ema | None
    """The exponential moving average of the weights; None: the weights are not averaged."""
    clip: float | None
    """The maximum norm of the gradient, over all parameters together; None: the gradient is not clipped."""
    seed: int
    processes: Processes

    def update(self, step: int, share: Share) -> Tensor:
        """Makes one optimizer step with this process's share of a global batch. Returns this process's part of the mean
        loss, a scalar. The sum of these parts over all processes is the mean loss."""
        total, batches = torch.zeros((), device=self.processes.device), share.micro_batches
        seeds = [seed_of(self.seed, step, number, self.processes.rank) for number in range(len(batches))]  # of dropout
        gradients = output_gradients(self.replica.objective, self.processes, batches, seeds)
        for number, batch in enumerate(batches):
            seed_torch(seeds[number], self.processes.device)
            with self.replica.gradient_sync(enabled=number + 1 == len(batches)):  # one all-reduce per step
                losses = self.replica(batch, gradients[number])  # by task, summed over this micro-batch
                loss = sum(losses[name] / share.counts[name] for name in losses)  # of the global batch
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
        """The model itself, without the wrappers of DDP and torch.compile."""
        return self.replica.objective.model

    def averaged(self) -> AbstractContextManager[None]:
        """Returns a context in which the model has its averaged weights. Without averages the context has no effect."""
        return self.averages.applied() if self.averages else nullcontext()


@dataclass(frozen=True)
class Every:
    """The numbers of steps between two lines of the log (`log`), two evaluations (`evaluate`) and two checkpoints
    (`save`). All three are also done after the last step."""

    log: int
    evaluate: int
    save: int


@dataclass
class Trainer:
    """The training loop of one run, and the state of the run (`step`, `best`, `evaluated`, `averaged`, `finished`)."""

    learner: Learner
    loader: Loader
    evaluation: Evaluations
    saver: Saver
    log: Log
    stop: StopRequest
    steps: int
    """The number of steps of the complete run. Early stopping sets it to the current step."""
    every: Every
    rollouts: Rollouts | None = None
    """The object that makes training samples from the answers of the model; None: training reads the samples of the
    data set."""
    early_stop: EarlyStop | None = None
    """When the training ends before the last step; None: never."""
    step: int = field(default=0, init=False)
    """The number of completed steps."""
    best: Best | None = field(default=None, init=False)
    patience: Patience = field(default_factory=Patience, init=False)
    """The evaluations so far, for early stopping."""
    stopped_early: bool = field(default=False, init=False)
    """Whether early stopping has ended the training at the current step."""
    evaluated: int = field(default=-1, init=False)
    """The last step after which the model was evaluated; -1: none."""
    averaged: bool = field(default=False, init=False)
    """Whether the averaged weights are the mean of the last checkpoints (`checkpoints.average`), computed at the end of
    training."""
    finished: bool = field(default=False, init=False)
    """Whether everything after the last step (averaging, the last evaluation, attribution) is done."""

    def fit(self) -> dict[str, float]:
        """Trains from `step` to the last step, or until a stop is requested. Returns the metrics of the last evaluation
        by name; empty if there was no evaluation. Raises NotFiniteError if the loss or a weight is infinite or NaN, and
        ValueError if the data cannot be read (DataError) or the metric of the best checkpoint cannot be measured."""
        metrics, first = self.catch_up_evaluation(), None
        self.log.start_clock()
        while self.step < self.steps and not self.stop.requested(self.learner.processes):
            loss = self.update()
            first = loss if self.step == 0 else first
            self.log.add(loss)
            self.step += 1
            evaluates = self.must_evaluate()
            if evaluates or self.due(self.every.save) or self.due(self.every.log):
                self.log.report(self.step, self.learner.optimizer.figures())  # waits for the device
                if first is not None:
                    self.warn_above_chance(first)
                    first = None
                self.loader.split.skipped.bad.check(self.learner.processes)
                if evaluates and not self.stop.requested(self.learner.processes):
                    metrics = self.evaluate_saving_on_error()
                if self.due(self.every.save):  # also if early stopping has made this step the last one
                    self.save()
                self.log.start_clock()
        if self.step < self.steps:
            self.interrupt()
        return metrics

    def update(self) -> Tensor:
        """Loads this process's share of the global batch of the current step and makes one optimizer step. Returns this
        process's part of the mean loss, a scalar. If the data cannot be read, saves the run before the error is
        raised."""
        waited = self.loader.waited
        try:
            if self.rollouts:
                self.rollouts.prepare(self.step)
            share = self.loader.load(self.step, stops=self.stop.signal is not None)
        except ValueError:  # bad data, and the weights have not changed yet: save the steps so far
            self.interrupt()
            raise
        self.stop.receive(share.stop_votes)
        self.log.count(share.micro_batches, self.loader.waited - waited)
        return self.learner.update(self.step, share)

    def due(self, every: int) -> bool:
        """Returns whether the current step is a multiple of `every` or the last step of the run."""
        return self.step % every == 0 or self.step == self.steps

    def must_evaluate(self) -> bool:
        """Returns whether to evaluate after the current step. With `checkpoints.average` this is False at the last
        step, because the last evaluation follows the averaging."""
        return self.due(self.every.evaluate) and not (self.saver.average and self.step == self.steps)

    # -------------------------------------------------------------------------------------- evaluating and saving

    def warn_above_chance(self, first: Tensor) -> None:
        """Prints a warning if the mean loss of the first step is more than `FIRST_LOSS_LIMIT` times the loss of a
        uniform guess. `first` is this process's part of the mean loss. Every process must call this method."""
        loss = self.learner.processes.sum(first.double()).item()
        chance = self.learner.replica.objective.chance()
        if chance and loss > FIRST_LOSS_LIMIT * chance:
            self.log.say(
                f"warning: the first loss is {loss:.4g}, but a uniform guess has {chance:.4g}. {LIKELY_CAUSES}"
            )

    def evaluate(self) -> dict[str, float]:
        """Evaluates the model on the complete validation split, with the averaged weights if there are any. Saves a
        checkpoint if the metric `checkpoints.best` is as good as the best value so far or better. Returns the metrics
        by name. Raises NotFiniteError if a weight is not finite, and ValueError if the evaluation has no value for the
        metric `checkpoints.best`."""
        self.log.keep()
        started = time.perf_counter()
        with self.learner.averaged():
            result = self.evaluation.run(self.step)
        self.log.remaining.add_evaluation(time.perf_counter() - started)
        metrics, samples = dict(result.metrics), result.samples
        self.log.write(self.step, metrics | self.evaluation.skipped())
        self.log.record.samples(self.step, samples)
        figures = "  ".join(f"{name} {figure_text(value)}" for name, value in metrics.items())
        self.log.say(f"step {self.step:,}  {self.log.seconds:.1f} s  {figures}")
        if samples.text:
            self.log.say(f"  | {samples.text.strip()}".replace("\n", "\n  | "))
        self.log.show(result.tables, result.lines)
        self.evaluated = self.step
        if self.saver.best and self.saver.best not in metrics:
            raise not_measured(self.saver.best, metrics)
        if self.early_stop and self.step < self.steps:  # before the best is saved with its state
            self.check_early_stop(self.early_stop, metrics)
        if self.saver.best:
            self.note_best(self.saver.best, metrics)
        return metrics

    def note_best(self, name: str, metrics: Mapping[str, float]) -> None:
        """Saves a checkpoint if the value of a metric is as good as the best value so far or better."""
        score = self.score(name, metrics)
        if math.isfinite(score) and (self.best is None or score <= self.best.judged):  # the newer of two equal scores
            self.best = Best(step=self.step, metric=name, judged=score, metrics=metrics)
            self.save()

    def score(self, name: str, metrics: Mapping[str, float]) -> float:
        """Returns the value of a metric, with the sign changed if larger values are better."""
        return -metrics[name] if self.evaluation.larger_is_better(name) else metrics[name]

    def check_early_stop(self, early_stop: EarlyStop, metrics: Mapping[str, float]) -> None:
        """Makes the current step the last step if the metric has not improved for the number of evaluations that
        `training.stop` allows. Raises ValueError if the evaluation has no value for the metric."""
        name = early_stop.metric or self.saver.best
        if name is None or name not in metrics:
            raise ValueError(f"training.stop.metric is {name!r}; measured: {', '.join(metrics)}")
        self.patience = self.patience.by(name, early_stop.improvement).after(self.score(name, metrics))
        if self.patience.waited >= early_stop.patience:
            self.log.say(f"step {self.step:,}: {name} has not improved for {self.patience.waited} evaluations: stop")
            self.end_at_current_step()

    def end_at_current_step(self) -> None:
        """Makes the current step the last step of the run."""
        self.steps, self.saver = self.step, replace(self.saver, steps=self.step)
        self.stopped_early = True

    def catch_up_evaluation(self) -> dict[str, float]:
        """Makes the evaluation of the current step, if it is due and a stop prevented it, and saves a checkpoint.
        Returns the metrics by name; empty if nothing was evaluated."""
        if not (self.evaluated < self.step < self.steps and self.step and self.due(self.every.evaluate)):
            return {}
        metrics = self.evaluate()
        self.save()
        return metrics

    def evaluate_saving_on_error(self) -> dict[str, float]:
        """Calls `evaluate` and returns the metrics. If the evaluation raises ValueError or KeyboardInterrupt (Ctrl-C),
        saves the run before the error is raised."""
        try:
            return self.evaluate()
        except (ValueError, KeyboardInterrupt):
            self.save()
            raise

    def save(self) -> None:
        """Writes a checkpoint of the current step, except at step 0. Every process must call this method; only the
        first process writes. If the step already has a checkpoint, only its state and averages are replaced. Raises
        NotFiniteError, in all processes, if a tensor of the model or of the optimizer is not finite."""
        learner, log = self.learner, self.log
        if self.step:
            samples, inputs = self.loader.everywhere()
            state = {
                "seconds": log.seconds, "best": self.best.model_dump() if self.best else None,
                "evaluated": self.evaluated, "averaged": self.averaged, "finished": self.finished,
                "patience": self.patience.model_dump(), "stopped_early": self.stopped_early,
                "rollout": self.rollouts.state() if self.rollouts else None,
                "records": log.record.lines_of(self.step), "unreported": log.unreported.model_dump(),
                "skipped": self.loader.skipped, "samples": samples, "inputs": inputs,
                "bad": dict(self.loader.split.skipped.everywhere(learner.processes).bad),
            }  # fmt: skip
            tensors = {"model": learner.replica.objective.weights(), "optimizer": learner.optimizer.state()}
            averages = learner.averages.state() if learner.averages else None
            self.saver.save(self.step, tensors, averages, state, self.best)

    def interrupt(self) -> None:
        """Saves the run at the current step, with the losses that are not logged yet. The first line of the log after
        resuming includes these losses."""
        self.log.keep_unreported()
        self.save()
        self.learner.processes.wait()
