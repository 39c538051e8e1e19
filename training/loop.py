"""How a model is trained. Read `Trainer.fit` (the loop) and `Trainer.update` (one step); the rest prepares and saves.

Nothing here depends on how many processes there are or where a run was stopped: the global batch is a pure function of
(seed, step), dropout of (seed, step, micro-batch, rank), rates of the step, and losses are sums over global counts.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..data.root import DataError
from ..data.samples import SampleCard
from ..data.stream import StreamSplit
from ..models.batch import Batch
from . import checkpoint
from .accounting import flops_per_token
from .build import build_choppers, build_model, build_optimizer, build_tasks, make_batch, open_split
from .choices import choose
from .config import Config
from .counted import Counted
from .distribution import Processes, seed_of
from .ema import Ema
from .evaluation import directions, evaluate_split, left_unread
from .objective import Objective
from .optimizers import freeze
from .progress import Progress, Record, peak_memory
from .proofs import prove
from .run import Run, RunError, fingerprints, load_weights
from .signals import StopRequest
from .text_sample import sample_of
from .transfer import take_assets, take_weights
from .worth import measure_worth, tables


class Trainer:
    """Everything of one run while it is trained: data, model, optimizer, and the place in the plan.

    Raises DataError, RunError or ValueError for what cannot be trained, before any step is made.
    """

    def __init__(self, config: Config, processes: Processes, progress: Progress):
        self.config, self.settings, self.folder = config, config.training, Path(config.out)
        self.processes, self.device, self.progress = processes, processes.device, progress
        self.choices = choose(self.settings, self.folder, self.device)
        self.choppers, self.tasks, self.splits = self._open_data()
        torch.manual_seed(self.settings.seed)
        self.model = build_model(config, self.choppers, self.tasks).to(self.device)
        self.rows = self.settings.samples_per_step or self.rows_of_budget()
        self._check_batches_are_whole()
        self.objective = Objective(self.model, self.tasks, self.choices.precision)
        freeze(self.model, self.settings.freeze)
        self.optimizer = build_optimizer(self.settings, self.model)
        self.schedule = self.settings.schedule(self.settings.steps)
        self.ema = Ema(self.model, self.settings.ema) if self.settings.ema else None
        self.step, self.seconds, self.best = 0, 0.0, math.inf
        self.counted = Counted()
        self.planner, self.ahead = ThreadPoolExecutor(1), {}
        self.stop = StopRequest(self.config.logging.every)

    # ---------------------------------------------------------------------------------------------- the loop

    def fit(self) -> dict[str, float]:
        """Train from where the run stands to its last step, or until asked to stop; gives the last validation metrics."""
        self.resume()
        prove(self)
        self.forward = self.wrapped()
        self.record = Record(
            self.folder, step=self.step, tensorboard=self.config.logging.tensorboard, writes=self.first
        )
        metrics: dict[str, float] = {}
        losses: list[Tensor] = []
        self.clock = time.perf_counter()
        with self.record, self.stop:
            while self.step < self.settings.steps and not self.stop.requested(self.processes, self.step):
                try:
                    losses.append(self.update(self.step))
                except DataError:  # met before the weights change: the steps made so far are kept
                    if self.step:
                        self.save()
                    raise
                self.step += 1
                evaluates, saves = self.due(self.config.evaluation.every), self.due(self.config.checkpoints.every)
                if evaluates or saves or self.due(self.config.logging.every):
                    self.report(losses)
                    hurried = self.stop.signal is not None and self.processes.count == 1
                    metrics = self.evaluate_or_save() if evaluates and not hurried else metrics
                    if saves:
                        self.save()
                    self.clock = time.perf_counter()
            if self.step and checkpoint.read_step(self.folder, "last") != self.step:
                self.save()
            elif self.step == self.settings.steps and not metrics:  # killed between its last checkpoint and its summary
                metrics = self.evaluate()
            if self.step == self.settings.steps and self.config.checkpoints.average:
                metrics = self.average_last()
            if self.step == self.settings.steps and self.config.evaluation.worth and self.first:
                metrics |= self.tell_worth()
            self.processes.wait()
        return metrics

    def update(self, step: int) -> Tensor:
        """One update from one global batch, of which this process reads its share; gives its part of the mean loss."""
        micro_batches = self.micro_batches(step)
        counts, dtype = self.global_counts(micro_batches), getattr(torch, self.choices.precision)
        total = torch.zeros((), device=self.device)
        for number, (batch, counts_for_us) in enumerate(micro_batches):
            torch.manual_seed(seed_of(self.settings.seed, step, number, self.processes.rank))
            last = number + 1 == len(micro_batches)
            with nullcontext() if last or self.processes.count == 1 else self.forward.no_sync():
                batch = self.model.plan(batch, dtype=dtype, device=self.device)  # here, since it asks whether we train
                batch = batch if self.device.type == "cpu" else batch.to(self.device)
                terms = self.forward(self.settings.mix(batch, self.tasks) if self.settings.mix else batch)
                loss = sum(term.weight * term.sum / counts[name.partition("/")[0]] for name, term in terms.items())
                loss = loss * counts_for_us
                (loss * self.processes.count).backward()  # DDP averages over the processes
            total += loss.detach()
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step(self.schedule(step))
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(step)
        return total

    def micro_batches(self, step: int) -> list[tuple[Batch, bool]]:
        """This process's share of a global batch, planned on the CPU, and whether each part counts.

        The next step's is planned meanwhile by a thread, where planning means reading and chopping.
        """
        started = time.perf_counter()
        planned = self.ahead.pop(step, None)
        found = planned.result() if isinstance(planned, Future) else self.planned(step)
        if self.splits["train"].ahead and step + 1 < self.settings.steps:
            self.ahead = {step + 1: self.planner.submit(self.planned, step + 1)}
        self.counted.waited += time.perf_counter() - started
        for batch, counts_for_us in found:
            self.counted.add(batch, counts_for_us)
        return found

    def planned(self, step: int) -> list[tuple[Batch, bool]]:
        """The parts of `micro_batches`. With uneven shares one may be empty: it then reads a sample that does not count."""
        places = self.splits["train"].plan(self.settings.seed, step, self.rows)
        parts = self.split(self.processes.share(places, self.together), len(places))
        return [
            (make_batch(self.splits["train"], part or places[:1], self.tasks, training=True), bool(part))
            for part in parts
        ]

    def _check_batches_are_whole(self) -> None:
        parted = (self.settings.rows_per_micro_batch or self.rows) < self.rows
        for name, task in self.tasks.items():
            if task.whole_batches and (parted or self.processes.count > 1 or self.settings.mix):
                raise RunError(
                    f"tasks.{name} judges the samples of a batch together (unlabelled): train it in one process, without "
                    "training.rows_per_micro_batch and training.mix"
                )

    def rows_of_budget(self) -> int:
        """The rows of a step where its size is given in tokens: windows of a corpus, or as many samples as step 0 has."""
        train, tokens = self.splits["train"], self.settings.tokens_per_step
        return tokens // train.context if isinstance(train, StreamSplit) else len(train.plan(self.settings.seed, 0, 0))

    def split(self, places: Sequence, rows: int | None = None) -> list[list]:
        """This process's places as micro-batches of nearly equal size; the same number of them in every process. `rows` is
        how many the global batch has, where that differs from step to step."""
        together = self.together
        groups, most = -(-len(places) // together), -(-(-(-(rows or self.rows) // together)) // self.processes.count)
        parts = -(-most // max(min((self.settings.rows_per_micro_batch or most * together) // together, most), 1))
        size, more = divmod(groups, parts)
        ends = [together * (size * (part + 1) + min(part + 1, more)) for part in range(parts)]
        return [list(places[start:end]) for start, end in zip([0, *ends], ends)]

    @property
    def together(self) -> int:
        """How many samples of a batch stay beside each other: pairs, where they are mixed."""
        return 2 if self.settings.mix else 1

    def global_counts(self, micro_batches: list[tuple[Batch, bool]]) -> dict[str, Tensor]:
        """How many targets each task has in the whole global batch: what its summed loss is divided by."""
        own = [sum(batch.targets[name].count * counts for batch, counts in micro_batches) for name in self.tasks]
        counts = self.processes.sum(torch.tensor(own, dtype=torch.float32, device=self.device))
        return dict(zip(self.tasks, counts.clamp(min=1)))

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens after this one; the last step is always due."""
        return self.step % every == 0 or self.step == self.settings.steps

    # ---------------------------------------------------------------------------------------- before the loop

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.processes.is_first

    def say(self, text: str) -> None:
        """Tell the user, once."""
        if self.first:
            self.progress.say(text)

    def _open_data(self):
        """Choppers, tasks and splits: prepared by the first process, then opened by all."""
        card, assets = self.config.data.card(), self.folder / "assets"
        if not self.first:
            self.processes.wait()
        elif self.config.from_run and not checkpoint.steps(self.folder):
            take_assets(self.config, Path(self.config.from_run), assets)
        choppers = build_choppers(self.config, assets, card)
        tasks = build_tasks(self.config, choppers, assets, card)
        for task in tasks.values():
            task.say = self.say
        splits = {name: open_split(self.config, card, name, choppers, tasks, say=self.say) for name in ("train", "val")}
        if self.first:
            self.about = {} if isinstance(card, SampleCard) else card.about()
            checkpoint.write_json(self.folder / "data.json", {"card": card.name, **self.about})
            self.processes.wait()
        return choppers, tasks, splits

    def resume(self) -> None:
        """Go on from the newest sound checkpoint; without one, start from `from:` or from the first values."""
        if self.choices.note:
            self.say(self.choices.note)
        step = checkpoint.newest_sound(self.folder, self.say)
        if step is None:
            if self.config.from_run:
                self.say(take_weights(self.model, self.config))
                if self.ema:
                    self.ema = Ema(self.model, self.settings.ema)
            return
        state = load_weights(self.model, self.folder, step, self.choppers, averaged=False)
        if state["data"] != self.data():
            raise RunError(f"{self.folder}: the training text changed since step {step}; start again with another out=")
        self.optimizer.load(checkpoint.read_tensors(self.folder, step, "optimizer"))
        if self.ema:
            self.ema.load(checkpoint.read_tensors(self.folder, step, "ema"))
        self.step, self.seconds, self.best = step, state["seconds"], state["best"]
        if state.get("best_metric", self.config.checkpoints.best) != self.config.checkpoints.best:
            self.best = math.inf  # another metric is judged from now on
        self.say(f"resumed {self.folder} at step {step:,}")

    def data(self) -> dict[str, str]:
        """What identifies the text that is read."""
        return {name: split.source for name, split in self.splits.items()}

    def wrapped(self):
        """The objective, compiled where that was chosen, and under DDP when there are several processes."""
        self.objective.train()
        if self.choices.compile:
            self.objective.compile()
        if self.processes.count == 1:
            return self.objective
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.objective, device_ids=ids)

    # ---------------------------------------------------------------------------------------- beside the loop

    def report(self, losses: list[Tensor]) -> None:
        """Count the time since the clock was set, write the mean loss and the speed of these steps, forget the losses."""
        shared = self.processes.sum(torch.stack(losses).double()).mean()
        loss = shared.item()  # waits for the device, so that the clock is true
        seconds = time.perf_counter() - self.clock
        self.seconds += seconds
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} near step {self.step}; the last checkpoint is kept. "
                "Try a smaller training.learning_rate, more warmup, or precision float32"
            )
        counted, self.counted = self.counted.over(self.processes, self.device), Counted()
        speed = counted.tokens / seconds
        figures = {
            "train/loss": loss,
            **self.optimizer.figures(),
            "train/tokens_per_second": speed,
            "train/flops_per_second": speed * flops_per_token(self.model) / self.processes.count,
            "train/seconds_per_step": seconds / len(losses),
            "train/peak_memory_bytes": peak_memory(self.device),
            "train/padding": 1 - counted.tokens / max(counted.places, 1),
            "train/waited": counted.waited / self.processes.count / seconds,
        }
        losses.clear()
        gc.collect(0)
        self.record.write(self.step, self.seconds, figures)
        if self.first:
            self.progress.show(self.step, figures, self.device)
        self.clock = time.perf_counter()

    def evaluate(self) -> dict[str, float]:
        """Read the whole validation split, with the averaged weights where the run keeps them; note a new best."""
        with self.ema.applied() if self.ema else nullcontext(), self._evaluation_precision():
            metrics = evaluate_split(
                self.model, self.tasks, self.splits["val"], rows=self.config.evaluation.rows,
                processes=self.processes, generated=self.config.evaluation.generated,
            )  # fmt: skip
            sample = sample_of(self.run(), self.splits["val"]) if self.first else ""
        self.record.write(self.step, self.seconds, metrics | self.not_read())
        self.record.text(self.step, sample)
        figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.say(f"step {self.step:,}  {self.seconds:.1f} s  {figures}")
        if sample:
            self.say(f"  | {sample.strip()}".replace("\n", "\n  | "))
        judged = metrics[self.config.checkpoints.best]
        judged = -judged if directions(self.tasks, "val")[self.config.checkpoints.best] else judged
        if judged <= self.best:
            self.best = judged
            self.save()
            if self.first:
                checkpoint.write_json(self.folder / "best.json", {"step": self.step, **metrics})
        return metrics

    def not_read(self) -> dict[str, float]:
        """What of the data was left out so far, by all processes."""
        counts = left_unread(self.splits, self.tasks)
        total = (
            self.processes.sum(torch.tensor(list(counts.values()), device=self.device)) if counts else torch.zeros(0)
        )
        return dict(zip(counts, total.tolist()))

    def averaged_steps(self) -> list[int]:
        """The newest checkpoints that are averaged at the end: regular ones, not those of an interruption or a new best."""
        if not self.config.checkpoints.average:
            return []
        every, last = self.config.checkpoints.every, self.settings.steps
        regular = [step for step in checkpoint.steps(self.folder) if step % every == 0 or step == last]
        return regular[-self.config.checkpoints.average :]

    def average_last(self) -> dict[str, float]:
        """Put the mean of the newest checkpoints' weights beside those of the last step, as its averages, and make it the best,
        since it is what the run was to give; gives its metrics."""
        self.processes.wait()
        newest = self.averaged_steps()
        every = [checkpoint.read_tensors(self.folder, step, "model") for step in newest]
        self.ema = Ema(self.model, 0.0)
        self.ema.load({name: torch.stack([each[name] for each in every]).mean(0) for name in self.ema.average})
        self.processes.wait()
        if self.first:
            checkpoint.forget(self.folder, self.step)
        self.save()
        self.say(f"averaged the weights of steps {', '.join(map(str, newest))}")
        self.best = math.inf
        return self.evaluate()

    def evaluate_or_save(self) -> dict[str, float]:
        """Evaluate; where the validation data stop that, the steps made so far are saved before the user is told."""
        try:
            return self.evaluate()
        except (ValueError, KeyboardInterrupt):
            self.save()
            raise

    def tell_worth(self) -> dict[str, float]:
        """Say what each input is worth to each task, as tables; gives the figures."""
        with self.ema.applied() if self.ema else nullcontext(), self._evaluation_precision():
            found = measure_worth(self.model, self.tasks, self.splits["val"], rows=self.config.evaluation.rows)
        figures: dict[str, float] = {}
        truth = self.config.data.card().truth("val")
        for name, worth in found.items():
            self.progress.show_tables(*tables(name, worth, truth))
            figures |= worth.figures("val" if len(found) == 1 else f"val/{name}")
        self.record.write(self.step, self.seconds, figures)
        return figures

    def _evaluation_precision(self):
        half = self.device.type == "cuda" and self.choices.precision == "bfloat16"
        return torch.autocast("cuda", torch.bfloat16) if half else nullcontext()

    def run(self) -> Run:
        """The run as it is now, to be asked for texts."""
        return Run(
            folder=self.folder, config=self.config, step=self.step, model=self.model, tasks=self.tasks, choppers=self.choppers
        )  # fmt: skip

    def save(self) -> None:
        """Write a checkpoint of this step (the first process does), and delete what need not be kept."""
        if not self.first:
            return
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state()}
        if self.ema:
            tensors["ema"] = self.ema.state()
        state = {
            "seconds": self.seconds, "best": self.best if math.isfinite(self.best) else 1e300,
            "best_metric": self.config.checkpoints.best, "vocabularies": fingerprints(self.choppers), "data": self.data(),
            "torch": torch.__version__,
        }  # fmt: skip
        if self.step in checkpoint.steps(self.folder):
            checkpoint.write_json(self.folder / "last.json", {"step": self.step})
        else:
            checkpoint.save(self.folder, self.step, tensors, state)
        checkpoint.prune(self.folder, self.config.checkpoints.keep, also=self.averaged_steps())
