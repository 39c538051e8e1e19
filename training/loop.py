"""How a model is trained. Read `Trainer.fit` (the loop) and `Trainer.update` (one step); the rest prepares and saves.

Nothing here depends on how many processes there are or where a run was stopped: the global batch is a pure function of
(seed, step), dropout of (seed, step, micro-batch, rank), rates of the step, and losses are sums over global counts.
"""

from __future__ import annotations

import gc
import math
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..models.batch import Batch
from ..models.generation import Sampling
from ..models.mixture import leaks
from . import checkpoint
from .accounting import flops_per_token
from .build import build_choppers, build_model, build_tasks, make_batch, open_split
from .choices import choose
from .config import Config
from .distribution import Processes
from .ema import Ema
from .evaluation import evaluate_split
from .objective import Objective
from .progress import Progress, Record, peak_memory
from .run import Run, RunError, fingerprints, load_weights
from .signals import StopRequest
from .transfer import take_assets, take_weights


class Trainer:
    """Everything of one run while it is trained: data, model, optimizer, and the place in the plan.

    Raises DataError, RunError or ValueError for what cannot be trained, before any step is made.
    """

    def __init__(self, config: Config, processes: Processes, progress: Progress):
        self.config, self.settings, self.folder = config, config.training, Path(config.out)
        self.processes, self.device, self.progress = processes, processes.device, progress
        self.choices = choose(self.settings, self.folder, self.device)
        self.choppers, self.splits = self._open_data()
        self.input = next(iter(self.choppers))
        self.tasks = build_tasks(config)
        torch.manual_seed(self.settings.seed)
        self.model = build_model(config, self.choppers, self.tasks).to(self.device)
        self.rows = self.settings.tokens_per_step // self.model.context
        self.objective = Objective(self.model, self.tasks, self.choices.precision)
        self.optimizer = self.settings.optimizer(self.model, self.settings.learning_rate)
        self.schedule = self.settings.schedule(self.settings.steps)
        self.ema = Ema(self.model, self.settings.ema) if self.settings.ema else None
        self.step, self.seconds, self.best = 0, 0.0, math.inf
        self.stop = StopRequest(self.config.logging.every)

    # ---------------------------------------------------------------------------------------------- the loop

    def fit(self) -> dict[str, float]:
        """Train from where the run stands to its last step, or until asked to stop; gives the last validation metrics."""
        self.resume()
        self.prove_no_leak()
        self.forward = self.wrapped()
        self.record = Record(
            self.folder, step=self.step, tensorboard=self.config.logging.tensorboard, writes=self.first
        )
        metrics: dict[str, float] = {}
        losses: list[Tensor] = []
        self.clock = time.perf_counter()
        with self.record, self.stop:
            while self.step < self.settings.steps and not self.stop.requested(self.processes, self.step):
                losses.append(self.update(self.step))
                self.step += 1
                evaluates, saves = self.due(self.config.evaluation.every), self.due(self.config.checkpoints.every)
                if evaluates or saves or self.due(self.config.logging.every):
                    self.report(losses)
                    metrics = self.evaluate() if evaluates else metrics
                    if saves:
                        self.save()
                    self.clock = time.perf_counter()
            if self.step and checkpoint.read_step(self.folder, "last") != self.step:
                self.save()
            elif self.step == self.settings.steps and not metrics:  # killed between its last checkpoint and its summary
                metrics = self.evaluate()
            self.processes.wait()
        return metrics

    def update(self, step: int) -> Tensor:
        """One update from one global batch, of which this process reads its share; gives its part of the mean loss."""
        starts = self.splits["train"].plan(self.settings.seed, step, self.rows)
        targets = self.splits["train"].count(starts)
        micro_batches = self.split(self.processes.share(starts))
        total = torch.zeros((), device=self.device)
        for number, rows in enumerate(micro_batches):
            torch.manual_seed(seed_of(self.settings.seed, step, number, self.processes.rank))
            batch = self.batch(rows or starts[:1])
            last = number + 1 == len(micro_batches)
            with nullcontext() if last or self.processes.count == 1 else self.forward.no_sync():
                terms = self.forward(batch)
                loss = sum(term.weight * term.sum / targets for term in terms.values()) * bool(rows)
                (loss * self.processes.count).backward()  # DDP averages over the processes
            total += loss.detach()
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step(self.schedule(step))
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(step)
        return total

    def split(self, rows: list[int]) -> list[list[int]]:
        """This process's rows as micro-batches of nearly equal size; the same number of them in every process, so that
        with uneven shares one may be empty (it then reads a row that does not count)."""
        most = -(-self.rows // self.processes.count)
        parts = -(-most // min(self.settings.rows_per_micro_batch or most, most))
        return [part.tolist() for part in np.array_split(np.asarray(rows, dtype=np.int64), parts)]

    def batch(self, starts: list[int]) -> Batch:
        """The windows at these places: planned on the CPU, then on the device."""
        dtype = getattr(torch, self.choices.precision)
        batch = make_batch(self.splits["train"], starts, self.tasks, self.input)
        batch = self.model.plan(batch, dtype=dtype, device=self.device)
        return batch if self.device.type == "cpu" else batch.to(self.device)

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
        """Choppers and splits: prepared by the first process, then opened by all."""
        card, assets = self.config.data.card(), self.folder / "assets"
        if not self.first:
            self.processes.wait()
        elif self.config.from_run:
            take_assets(self.config, Path(self.config.from_run), assets)
        choppers = build_choppers(self.config, assets, card)
        splits = {name: open_split(self.config, card, name, choppers) for name in ("train", "val")}
        if self.first:
            self.processes.wait()
        return choppers, splits

    def resume(self) -> None:
        """Go on from the newest sound checkpoint; without one, start from `from:` or from the first values."""
        if self.choices.note:
            self.say(self.choices.note)
        step = checkpoint.newest_sound(self.folder, self.say)
        if step is None:
            if self.config.from_run:
                self.say(take_weights(self.model, Path(self.config.from_run)))
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
        self.say(f"resumed {self.folder} at step {step:,}")

    def data(self) -> dict[str, str]:
        """What identifies the text that is read."""
        return {name: split.file.header["source"] for name, split in self.splits.items()}

    def prove_no_leak(self) -> None:
        """Raises RunError when a target of the first batch can reach its own predictor through the layers."""
        graphs = {name: core.graphs for name, core in self.model.cores.items()}
        starts = self.splits["train"].plan(self.settings.seed, 0, self.rows)[:4]
        for task, found in leaks(make_batch(self.splits["train"], starts, self.tasks, self.input), graphs).items():
            if found:
                place, holder = found[0]
                raise RunError(
                    f"model.attention leaks: task {task!r} must predict token {holder} at place {place}, which can read "
                    f"it ({len(found)} such places in {len(starts)} rows); for language modelling use 'causal & same_sample'"
                )

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
        speed = len(losses) * self.rows * self.model.context / seconds
        figures = {
            "train/loss": loss,
            "train/learning_rate": self.settings.learning_rate * self.schedule(self.step - 1),
            "train/tokens_per_second": speed,
            "train/flops_per_second": speed * flops_per_token(self.model) / self.processes.count,
            "train/seconds_per_step": seconds / len(losses),
            "train/peak_memory_bytes": peak_memory(self.device),
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
                self.model, self.tasks, self.splits["val"], self.input,
                rows=self.config.evaluation.rows, processes=self.processes,
            )  # fmt: skip
            sample = self.sample() if self.first and self.config.evaluation.sample_tokens else ""
        self.record.write(self.step, self.seconds, metrics)
        self.record.text(self.step, sample)
        figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.say(f"step {self.step:,}  {self.seconds:.1f} s  {figures}")
        if sample:
            self.say(f"  | {sample.strip()}".replace("\n", "\n  | "))
        judged = metrics.get(self.config.checkpoints.best)
        if judged is None:
            raise RunError(f"checkpoints.best is {self.config.checkpoints.best!r}; possible: {', '.join(metrics)}")
        if judged < self.best:
            self.best = judged
            self.save()
            if self.first:
                checkpoint.write_json(self.folder / "best.json", {"step": self.step, **metrics})
        return metrics

    def _evaluation_precision(self):
        half = self.device.type == "cuda" and self.choices.precision == "bfloat16"
        return torch.autocast("cuda", torch.bfloat16) if half else nullcontext()

    def sample(self) -> str:
        """A text by the model as it is now."""
        self.model.eval()
        run = Run(
            folder=self.folder, config=self.config, step=self.step, model=self.model, tasks=self.tasks,
            choppers=self.choppers,
        )  # fmt: skip
        settings = self.config.evaluation
        sampling = Sampling(temperature=0.8, top_k=200)
        text = run.generate(
            settings.prompt or None, max_tokens=settings.sample_tokens, sampling=sampling, seed=self.step
        )
        self.model.train()
        return settings.prompt + text

    def save(self) -> None:
        """Write a checkpoint of this step (the first process does), and delete what need not be kept."""
        if not self.first:
            return
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state()}
        if self.ema:
            tensors["ema"] = self.ema.state()
        state = {
            "seconds": self.seconds, "best": self.best if math.isfinite(self.best) else 1e300,
            "vocabularies": fingerprints(self.choppers), "data": self.data(), "torch": torch.__version__,
        }  # fmt: skip
        if self.step not in checkpoint.steps(self.folder):
            try:
                checkpoint.save(self.folder, self.step, tensors, state)
            except OSError as error:
                kept = checkpoint.read_step(self.folder, "last")
                whole = (
                    "no checkpoint was written before" if kept is None else f"the checkpoint of step {kept} is whole"
                )
                message = f"{self.folder}: step {self.step} could not be saved ({error.strerror or error}); {whole}"
                raise OSError(error.errno, message) from error
        checkpoint.prune(self.folder, self.config.checkpoints.keep)


def seed_of(*numbers: int) -> int:
    """One 63-bit seed from several numbers, such that neighbours have nothing in common."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
