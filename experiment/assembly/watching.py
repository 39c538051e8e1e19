"""The evaluator of a run, with the text samples that it prints, and the saver of its checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from ...data.processes import Processes
from ...data.split import Split
from ...inference.generate import write
from ...inference.generating import Generating
from ...training.checkpoints.saver import Saver
from ...training.evaluator import Evaluator
from ...training.objective import Objective
from ..data.opened_data import OpenedData
from ..folder.reading import fingerprints
from ..run import Run
from ..settings.config import Config


def build_evaluator(config: Config, data: OpenedData, processes: Processes, objective: Objective) -> Evaluator:
    """The evaluator of the validation split; at each evaluation it also lets the model generate sample texts."""

    def sample(step: int) -> str:
        run = Run(folder=Path(config.out), config=config, step=step, model=objective.model, tasks=data.tasks,
                  choppers=data.choppers)  # fmt: skip
        return sample_of(run, data.splits["val"])

    return Evaluator(
        objective=objective, splits=data.splits, processes=processes, rows=config.evaluation.rows,
        generated=config.evaluation.generated, sample=sample,
    )  # fmt: skip


def sample_of(run: Run, split: Split) -> str:
    """A text that the model generates as it is now, of at most `evaluation.sample_tokens` tokens: the continuation of
    `evaluation.prompt`, or, for a split of samples, the texts of three of them with their references, a line each:
    `'7+5=12' ('7+5=12' is true)`. Empty where no task generates text."""
    writing = [(name, task) for name, task in run.tasks.items() if task.needs.generates]
    settings = run.config.evaluation
    if not writing or not settings.sample_tokens:
        return ""
    training = run.model.training
    run.model.eval()
    try:
        name, task = writing[0]
        if split.samples is not None:
            found = write(run.model, name, task, split, split.first(3), Generating(max_tokens=settings.sample_tokens))
            true = {number: split.item(number)[0].get(task.target, "") for number in found}
            return "\n".join(f"{task.restore(ids)!r} ({true[number]!r} is true)" for number, ids in found.items())
        if task.needs.encoder:
            return ""
        how = {"max_tokens": settings.sample_tokens, "temperature": 0.8, "top_k": 200, "seed": run.step}
        return settings.prompt + run.generate(settings.prompt or None, **how)
    finally:
        run.model.train(training)


def build_saver(config: Config, data: OpenedData, writes: bool) -> Saver:
    """The saver of checkpoints into the run's folder. `writes`: whether this process is the one that writes files."""
    settings = config.checkpoints
    return Saver(
        folder=Path(config.out), writes=writes, every=settings.every, steps=config.training.steps, keep=settings.keep,
        average=settings.average, best=settings.best,
        known={"vocabularies": fingerprints(data.choppers), "data": data.contents, "torch": torch.__version__,
               "threads": torch.get_num_threads()},
    )  # fmt: skip
