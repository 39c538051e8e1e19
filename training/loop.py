"""How a model is trained. Read `Trainer.fit` (the loop) and `Trainer.update` (one step); the rest prepares and saves.

Nothing here depends on how many processes there are or where a run was stopped: the global batch is a pure function of
(seed, step), dropout of (seed, step, micro-batch, rank), rates of the step, and losses are sums over global counts.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from math import ceil
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..data.batches import make_batch
from ..data.corpus import StreamSplit
from ..data.processes import ElsewhereError, Processes, seed_of
from ..data.samples import SampleDataset
from ..experiment.build import build_choppers, build_model, build_optimizer, build_tasks, open_split
from ..experiment.folder.reading import RunError, fingerprints, load_weights
from ..experiment.folder.transfer import take_assets, take_weights
from ..experiment.run import Run
from ..experiment.settings.config import Config
from ..experiment.settings.resolved import choose
from ..experiment.views.text_sample import sample_of
from ..inference.attribution import measure_attribution, tables
from ..inference.evaluation import directions, evaluate_split, left_unread, told_of
from ..models.batch import Batch
from ..tokenizers.files.reading import DataError
from ..tokenizers.files.writing import write_json
from . import checkpoint
from .accounting import Costs
from .checkpoint import Best, NotFiniteError, State, Unreported
from .ema import Ema
from .objective import Objective, autocast
from .optimizers import freeze
from .preflight import prove, told_of_inputs
from .record import MetricsFile, Progress, peak_memory
from .stop import StopRequest, orderly_end
from .throughput import Counted


class Trainer:
    """Everything of one run while it is trained: data, model, optimizer, and the place in the plan.

    Raises DataError, RunError or ValueError for what cannot be trained, before any step is made.
    """

    def __init__(self, config: Config, processes: Processes, progress: Progress):
        self.config, self.settings, self.folder = config, config.training, Path(config.out)
        self.processes, self.device, self.progress = processes, processes.device, progress
        self.choices = processes.told(
            choose(self.settings, self.config.model, self.folder, self.device) if self.first else None
        )
        with orderly_end():
            self.choppers, self.tasks, self.splits = self._open_data()
        torch.manual_seed(self.settings.seed)
        self.model = build_model(config, self.choppers, self.tasks).to(self.device)
        self.costs = Costs(self.model)
        self.rows = self.settings.samples_per_step or self.rows_of_budget()
        self._check_batches_are_whole()
        self.objective = Objective(self.model, self.tasks, self.choices.precision)
        freeze(self.model, self.settings.freeze)
        self.optimizer = build_optimizer(self.settings, self.model)
        self.schedule = self.settings.schedule(self.settings.steps)
        self.ema = Ema(self.model, self.settings.ema) if self.settings.ema else None
        self.step, self.seconds, self.best, self.evaluated = 0, 0.0, None, -1
        self.averaged = self.finished = False
        self.skipped: list[tuple[int, int]] = []
        self.counted, self.unreported = Counted(), Unreported()
        self.planner, self.ahead = ThreadPoolExecutor(1), {}
        self.stop = StopRequest()

    # ---------------------------------------------------------------------------------------------- the loop

    def fit(self) -> dict[str, float]:
        """Train from where the run stands to its last step, or until asked to stop; gives the last validation metrics."""
        state = self.resume()
        prove(self)
        self.introduce()
        self.forward = self.wrapped()
        with self.planner, self.stop:  # its thread ends here, even where Ctrl-C came while it was being started
            while True:
                self.record = self.metrics_file(state)
                try:
                    with self.record:
                        return self.train()
                except NotFiniteError as error:
                    state = self.go_back(error)

    def train(self) -> dict[str, float]:
        """The loop itself. Raises NotFiniteError where the loss or the weights are no longer numbers."""
        metrics = self.evaluate_what_was_not()
        losses: list[Tensor] = []
        self.clock = time.perf_counter()
        while self.step < self.settings.steps and not self.stop.requested(self.processes, self.step):
            try:
                losses.append(self.update(self.step))
            except (DataError, ElsewhereError):  # met before the weights change: the steps made so far are kept
                self.put_off_report(losses)
                self.save()
                self.processes.wait()
                raise
            self.step += 1
            evaluates, saves = self.evaluates(), self.due(self.config.checkpoints.every)
            if evaluates or saves or self.due(self.config.logging.every):
                self.report(losses)
                hurried = self.stop.requested(self.processes, self.step)
                metrics = self.evaluate_or_save() if evaluates and not hurried else metrics
                if saves:
                    self.save()
                self.clock = time.perf_counter()
        if self.step == self.settings.steps:
            return metrics | self.finish()
        self.put_off_report(losses)
        self.save()
        self.processes.wait()
        return metrics

    def update(self, step: int) -> Tensor:
        """One update from one global batch, of which this process reads its share; gives its part of the mean loss."""
        micro_batches, counts = self.micro_batches(step)
        total, dtype = torch.zeros((), device=self.device), getattr(torch, self.choices.precision)
        for number, (batch, counts_for_us) in enumerate(micro_batches):
            torch.manual_seed(seed_of(self.settings.seed, step, number, self.processes.rank))
            last = number + 1 == len(micro_batches)
            with nullcontext() if last or self.processes.count == 1 else self.forward.no_sync():
                batch = self.model.plan(batch, dtype=dtype, device=self.device)  # here, since it asks whether we train
                batch = batch if self.device.type == "cpu" else batch.to(self.device)
                terms = self.forward(self.settings.mixup(batch, self.tasks) if self.settings.mixup else batch)
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

    def micro_batches(self, step: int) -> tuple[list[tuple[Batch, bool]], dict[str, float]]:
        """This process's share of a global batch, planned on the CPU, and whether each part counts; and how many targets each
        task has in the whole of it, which its summed loss is divided by. They also tell each other who was asked to stop.

        The next step's is planned meanwhile by a thread, where planning means reading and chopping. What stops one process
        stops all, before the weights change.
        """
        started, found, error = time.perf_counter(), [], None
        planned = self.ahead.pop(step, None)
        try:
            found = planned.result() if isinstance(planned, Future) else self.planned(step)
        except (ValueError, OSError, RuntimeError) as wrong:
            error = wrong
        own = [sum(batch.targets[name].count * counts for batch, counts in found) for name in self.tasks]
        *counts, asked = self.processes.agree([*own, float(self.stop.signal is not None)], error)
        self.stop.hear(asked)
        if self.splits["train"].ahead and step + 1 < self.settings.steps:
            self.ahead = {step + 1: self.planner.submit(self.planned, step + 1)}
        self.counted.waited += time.perf_counter() - started
        for batch, counts_for_us in found:
            self.counted.add(batch, self.costs.flops(batch), counts_for_us)
        return found, {name: max(float(count), 1.0) for name, count in zip(self.tasks, counts, strict=True)}

    def planned(self, step: int) -> list[tuple[Batch, bool]]:
        """The parts of `micro_batches`. With uneven shares one may be empty: it then reads a sample that does not count."""
        places = self.splits["train"].plan(self.settings.seed, self.batch_number(step), self.rows)
        parts = self.split(self.processes.share(places, self.together), len(places))
        return [
            (make_batch(self.splits["train"], part or places[:1], self.tasks, training=True), bool(part))
            for part in parts
        ]

    def batch_number(self, step: int) -> int:
        """Which global batch a step reads: its own, or a later one where some were skipped since training went wrong there."""
        return step + sum(count for first, count in self.skipped if step >= first)

    def split(self, places: Sequence, rows: int | None = None) -> list[list]:
        """This process's places as micro-batches of nearly equal size; the same number of them in every process. `rows` is
        how many the global batch has, where that differs from step to step."""
        together = self.together
        groups = ceil(len(places) / together)
        most = ceil(ceil((rows or self.rows) / together) / self.processes.count)
        parts = ceil(most / max(min((self.settings.rows_per_micro_batch or most * together) // together, most), 1))
        size, more = divmod(groups, parts)
        ends = [together * (size * (part + 1) + min(part + 1, more)) for part in range(parts)]
        return [list(places[start:end]) for start, end in zip([0, *ends], ends)]

    @property
    def together(self) -> int:
        """How many samples of a batch stay beside each other: pairs, where they are mixed."""
        return 2 if self.settings.mixup else 1

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens after this one; the last step is always due."""
        return self.step % every == 0 or self.step == self.settings.steps

    def evaluates(self) -> bool:
        """Whether this step is evaluated; the last one not yet where its weights will be averaged first."""
        return self.due(self.config.evaluation.every) and not (
            self.config.checkpoints.average and self.step == self.settings.steps
        )

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
        """Choppers, tasks and splits. The first process learns what is to be learned of the data; the others are told, whether or
        not they share a disk with it."""
        dataset, assets = self.config.data.dataset(), self.folder / "assets"
        if self.first and self.config.from_run and not checkpoint.steps(self.folder):
            take_assets(self.config, Path(self.config.from_run), assets)
        if self.first:
            choppers = build_choppers(self.config, assets, dataset)
            tasks = build_tasks(self.config, choppers, assets, dataset)
            self.processes.told(
                {file.relative_to(assets): file.read_bytes() for file in assets.rglob("*") if file.is_file()}
            )
        else:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in self.processes.told(None).items():
                    (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                    (Path(folder) / name).write_bytes(content)
                choppers = build_choppers(self.config, Path(folder))
                tasks = build_tasks(self.config, choppers, Path(folder))
        for task in tasks.values():
            task.say = self.say
            for note in task.notes:
                self.say(note)
        with self.processes.in_turn():
            splits = {
                name: open_split(self.config, dataset, name, choppers, tasks, say=self.say) for name in ("train", "val")
            }
        if self.first:
            self.about = {} if isinstance(dataset, SampleDataset) else dataset.about()
            write_json(self.folder / "data.json", {"dataset": dataset.name, **self.about})
        return choppers, tasks, splits

    def rows_of_budget(self) -> int:
        """The rows of a step where its size is given in tokens: windows of a corpus, or as many samples as step 0 has."""
        train, tokens = self.splits["train"], self.settings.tokens_per_step
        return tokens // train.context if isinstance(train, StreamSplit) else len(train.plan(self.settings.seed, 0, 0))

    def _check_batches_are_whole(self) -> None:
        parted = (self.settings.rows_per_micro_batch or self.rows) < self.rows
        for name, task in self.tasks.items():
            if task.whole_batches and (parted or self.processes.count > 1 or self.settings.mixup):
                raise RunError(
                    f"tasks.{name} judges the samples of a batch together (unlabelled): train it in one process, without "
                    "training.rows_per_micro_batch and training.mixup"
                )

    def resume(self) -> State | None:
        """Go on from the newest sound checkpoint, and give its state; without one, start from `from:` or from the first values."""
        if self.choices.note:
            self.say(self.choices.note)
        step = self.processes.told(checkpoint.newest_sound(self.folder, self.say) if self.first else None)
        if step is not None:
            state = self.load(step)
            self.say(f"resumed {self.folder} at step {step:,}")
            return state
        if self.config.from_run:
            if self.first:
                self.say(take_weights(self.model, self.config))
            self.model.load_state_dict(
                self.processes.told_tensors(on_cpu(self.model.state_dict()) if self.first else None)
            )
            if self.ema:
                self.ema = Ema(self.model, self.settings.ema)
        return None

    def load(self, step: int) -> State:
        """Take everything from a checkpoint of the first process's disk; gives its state."""
        state = None
        if self.first:
            state = load_weights(self.model, self.folder, step, self.choppers, averaged=False)
        state = self.processes.told(state)
        parts = {
            part: self.processes.told_tensors(checkpoint.read_part(self.folder, step, part) if self.first else None)
            for part in (("model", "optimizer", "ema") if self.processes.count > 1 else ("optimizer", "ema"))
        }
        if not self.first:
            self.model.load_state_dict(parts["model"])
        if state.data != self.data():
            wrong = ", ".join(name for name, source in self.data().items() if state.data.get(name) != source)
            raise RunError(
                f"{self.folder}: the data ({wrong}) changed since step {step}; start again with another out="
            )
        self.optimizer.load(parts["optimizer"])
        if state.averaged and step == self.settings.steps:
            self.ema = Ema(self.model, 0.0)
        if self.ema and parts["ema"]:
            self.ema.load(parts["ema"])
        self.step, self.seconds, self.best, self.evaluated = step, state.seconds, state.best, state.evaluated
        self.skipped, last = list(state.skipped), step == self.settings.steps
        self.finished, self.averaged = state.finished and last, state.averaged and last
        self.ahead, self.counted, self.unreported = {}, Counted(), state.unreported
        if self.best and self.best.metric != self.config.checkpoints.best:
            self.best = None  # another metric is judged from now on
        self.remember(state)
        if self.first:
            self.point_to_best()
        return state

    def introduce(self) -> None:
        """Say what is trained, where, and how: before the first step, which may take its time."""
        count = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        compiled = ", compiled" if self.choices.compile else ""
        several = f" in {self.processes.count} processes" if self.processes.count > 1 else ""
        self.say(
            f"{self.folder}: {count:,} parameters on {self.device.type}{several} in {self.choices.precision}{compiled}"
        )
        for line in told_of_inputs(self) if self.step == 0 else ():
            self.say(line)

    def remember(self, state: State) -> None:
        """Which samples were found to be bad before, so that their share is counted over the whole run."""
        if not isinstance(self.splits["train"], StreamSplit) and state.bad:
            known = {int(number): why for number, why in state.bad.items() if number.isdecimal()}
            self.splits["train"].bad.update(known)
            self.say(f"train: {len(known):,} of its samples are known to be bad")

    def data(self) -> dict[str, str]:
        """What identifies the data that are read."""
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

    def metrics_file(self, state: State | None) -> MetricsFile:
        """`metrics.jsonl` from where the run stands."""
        lines = state.records if state else ()
        return MetricsFile(
            self.folder, step=self.step, lines=lines, tensorboard=self.config.logging.tensorboard, writes=self.first
        )

    # ---------------------------------------------------------------------------------------- beside the loop

    def report(self, losses: list[Tensor]) -> None:
        """Count the time since the clock was set, write the mean loss and the speed of these steps, forget the losses."""
        recent = self.processes.sum(torch.stack(losses).double())
        before, self.unreported = self.unreported, Unreported()
        loss = (
            torch.cat([recent.new_tensor(before.losses), recent]).mean().item()
        )  # waits for the device: the clock is true
        seconds = time.perf_counter() - self.clock
        self.seconds += seconds
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss}")
        counted, self.counted = self.counted.over(self.processes), Counted()
        figures = {
            "train/loss": loss,
            **self.optimizer.figures(),
            "train/tokens_per_second": counted.tokens / seconds,
            "train/flops_per_second": counted.flops / seconds / self.processes.count,
            "train/seconds_per_step": seconds / len(losses),
            "train/peak_memory_bytes": peak_memory(self.device),
            "train/padding": 1 - (counted.tokens + before.tokens) / max(counted.slots + before.slots, 1),
            "train/waited": counted.waited / self.processes.count / seconds,
        }
        losses.clear()
        gc.collect(0)
        self.record.write(self.step, self.seconds, figures)
        if self.first:
            self.progress.show(self.step, figures, self.device)
        self.check_share_of_bad()
        self.clock = time.perf_counter()

    def put_off_report(self, losses: list[Tensor]) -> None:
        """Before the run is saved where no report is due: what the next one, of the run that goes on, tells of these steps too."""
        if losses:
            counted, before = self.counted.over(self.processes), self.unreported
            every = [*before.losses, *self.processes.sum(torch.stack(losses).double()).tolist()]
            if not all(map(math.isfinite, every)):
                raise NotFiniteError(f"the loss is {every[-1]}")
            tokens, slots = before.tokens + counted.tokens, before.slots + counted.slots
            self.unreported = Unreported(losses=every, tokens=tokens, slots=slots)

    def check_share_of_bad(self) -> None:
        """Raises DataError where all processes together met more bad samples than `data.bad_share` allows."""
        split = self.splits["train"]
        if self.processes.count == 1 or isinstance(split, StreamSplit) or not self.processes.agree([len(split.bad)])[0]:
            return
        bad = set(self.processes.gathered(list(split.bad)))
        if len(bad) / len(split) > self.config.data.bad_share:
            raise DataError(
                f"train: {len(bad)} of {len(split)} samples are bad, data.bad_share allows a share of "
                f"{self.config.data.bad_share:g}"
            )

    def evaluate(self) -> dict[str, float]:
        """Read the whole validation split, with the averaged weights where the run keeps them; note a new best. Raises NotFiniteError
        for weights that are no numbers."""
        with self.ema.applied() if self.ema else nullcontext(), autocast(self.device, self.choices.precision):
            checkpoint.check_finite({"model": self.model.state_dict()})
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
        self.evaluated = self.step
        self.judge(metrics)
        return metrics

    def judge(self, metrics: dict[str, float]) -> None:
        """Save what is the best so far; of equals the newer one."""
        name = self.config.checkpoints.best
        judged = -metrics[name] if directions(self.tasks, "val")[name] else metrics[name]
        if math.isfinite(judged) and (self.best is None or judged <= self.best.judged):
            self.best = Best(step=self.step, metric=name, judged=judged, metrics=metrics)
            self.save()

    def evaluate_what_was_not(self) -> dict[str, float]:
        """The evaluation that was due at the step where the run was stopped, if it was stopped before it."""
        due = self.step and self.step < self.settings.steps and self.due(self.config.evaluation.every)
        if due and self.evaluated < self.step:
            metrics = self.evaluate()
            self.save()
            return metrics
        return {}

    def evaluate_or_save(self) -> dict[str, float]:
        """Evaluate; where the validation data stop that, the steps made so far are saved before the user is told."""
        try:
            return self.evaluate()
        except (ValueError, KeyboardInterrupt):
            self.save()
            raise

    def not_read(self) -> dict[str, float]:
        """What of the data was left out so far, by all processes."""
        counts = left_unread(self.splits, self.tasks)
        return dict(zip(counts, self.processes.agree(list(counts.values()))))

    def finish(self) -> dict[str, float]:
        """What comes after the last step, once: averaging, the last evaluation, what each input is worth; gives the metrics. All
        of it is in the last checkpoint before it is told, so that a kill repeats nothing and loses nothing."""
        if self.config.checkpoints.average and not self.averaged:
            self.average_last()
        if self.evaluated < self.step:
            self.evaluate_or_save()
        figures = {}
        if self.config.evaluation.attribution and not self.finished:
            figures = self.tell_attribution()
        self.finished = True
        self.save()
        for split in self.splits.values():
            for line in told_of(split):
                self.say(line)
        self.processes.wait()
        found = [line for line in self.record.here if not any(name.startswith("train/") for name in line)]
        told = {name: value for line in found for name, value in line.items() if name not in ("step", "seconds")}
        return {name: value for name, value in told.items() if not name.startswith("data/")} | figures

    def averaged_steps(self) -> list[int]:
        """The newest checkpoints that are averaged at the end: regular ones, not those of an interruption or a new best."""
        if not self.config.checkpoints.average:
            return []
        every, last = self.config.checkpoints.every, self.settings.steps
        regular = [step for step in checkpoint.steps(self.folder) if step % every == 0 or step == last]
        return regular[-self.config.checkpoints.average :]

    def average_last(self) -> None:
        """The mean of the newest checkpoints' weights as the averages of the last step: it is what the run was to give, and so
        its best, whatever came before."""
        self.save()
        self.processes.wait()
        newest = self.processes.told(self.averaged_steps() if self.first else None)
        mean: dict[str, Tensor] = {}
        if self.first:
            every = [checkpoint.read_part(self.folder, step, "model") for step in newest]
            mean = {name: torch.stack([each[name] for each in every]).mean(0) for name in every[0]}
        self.ema = Ema(self.model, 0.0)
        self.ema.load(self.processes.told_tensors(mean if self.first else None))
        self.say(f"averaged the weights of steps {', '.join(map(str, newest))}")
        self.best, self.evaluated, self.averaged = None, -1, True

    def tell_attribution(self) -> dict[str, float]:
        """Say what each input is worth to each task, as tables; gives the figures."""
        with self.ema.applied() if self.ema else nullcontext(), autocast(self.device, self.choices.precision):
            found = measure_attribution(
                self.model, self.tasks, self.splits["val"], rows=self.config.evaluation.rows, processes=self.processes
            )
        figures: dict[str, float] = {}
        truth = self.config.data.dataset().truth("val")
        for name, worth in found.items():
            if self.first:
                self.progress.show_tables(*tables(name, worth, truth))
            figures |= worth.figures("val" if len(found) == 1 else f"val/{name}")
        self.record.write(self.step, self.seconds, figures)
        return figures

    def run(self) -> Run:
        """The run as it is now, to be asked for texts."""
        return Run(
            folder=self.folder, config=self.config, step=self.step, model=self.model, tasks=self.tasks, choppers=self.choppers
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------- saving

    def save(self) -> None:
        """Write a checkpoint of this step (the first process does), and delete what need not be kept. A step that is saved already
        gets its new state, and averages where there are some now. Raises NotFiniteError, in all processes, for weights that are
        no numbers."""
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state()}
        if not self.step:
            return
        checkpoint.check_finite(tensors)
        if not self.first:
            return
        averages = {"ema": self.ema.state()} if self.ema else {}
        if self.step in checkpoint.steps(self.folder):
            checkpoint.add(self.folder, self.step, averages, self.state())
        else:
            checkpoint.save(self.folder, self.step, tensors | averages, self.state())
        self.point_to_best()
        checkpoint.point(self.folder, "last", self.step)
        checkpoint.prune(self.folder, self.config.checkpoints.keep, also=self.averaged_steps())

    def state(self) -> dict:
        """What a checkpoint holds besides tensors."""
        train = self.splits["train"]
        return {
            "seconds": self.seconds, "best": self.best.model_dump() if self.best else None, "evaluated": self.evaluated,
            "averaged": self.averaged, "finished": self.finished, "records": self.record.here if self.record.step == self.step else [],
            "unreported": self.unreported.model_dump(), "skipped": self.skipped, "bad": {} if isinstance(train, StreamSplit) else dict(train.bad),
            "vocabularies": fingerprints(self.choppers), "data": self.data(), "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }  # fmt: skip

    def point_to_best(self) -> None:
        """Let `best.json` say what the checkpoint says: a kill between the two is put right here."""
        told = self.best and checkpoint.read_step(self.folder, "best") == self.best.step
        if self.best and not told and self.best.step in checkpoint.steps(self.folder):
            checkpoint.point(self.folder, "best", self.best.step, **self.best.metrics)

    def go_back(self, error: NotFiniteError) -> State:
        """Return to the last sound checkpoint, once, and go on without the batches from there to the failure: their numbers are in
        its state before anything else happens, so that every resume skips the same. Raises RunError at the second time."""
        failed = self.step
        self.processes.wait()
        step = self.processes.told(checkpoint.newest_sound(self.folder, self.say) if self.first else None)
        advice = "try a smaller training.learning_rate, more warmup, or precision float32"
        if step is None or self.skipped:
            kept = (
                "there is no checkpoint to go back to"
                if step is None
                else "it went back once before, and does not again"
            )
            raise RunError(f"{error} near step {failed:,}; {kept}; {advice}")
        skipped = [(step, failed - step)]
        if self.first:
            state = checkpoint.read_state(self.folder, step)
            told = state.model_dump(exclude={"files", "step", "skipped"})
            checkpoint.add(self.folder, step, {}, {**told, "skipped": skipped})
        self.processes.wait()
        state = self.load(step)
        self.say(
            f"{error} near step {failed:,}: back to the checkpoint of step {step:,}, and on without the batches {step:,} to "
            f"{failed - 1:,}. If it happens again, {advice}"
        )
        return state


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors where the processes hand them around."""
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}
