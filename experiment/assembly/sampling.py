"""Samples of what a model generates while it is trained."""

from __future__ import annotations

from ...data.split import Split
from ...inference.generating import Generating
from ...inference.items import generate_items, generate_unprompted
from ...inference.sheet import Samples, draws, generated_rows, samples_with
from ...tasks.base import Task
from ..run import Run


def samples_of(run: Run, split: Split) -> Samples:
    """What the model generates as it is now: a text of at most `evaluation.sample_tokens` tokens (0: nothing), the
    continuation of `evaluation.prompt`; for a split of samples the texts of three of them with their references, a line
    each: `'7+5=12' ('7+5=12' is true)`; of items that are more than text a sheet. Nothing where no task generates."""
    writing = [(name, task) for name, task in run.tasks.items() if task.needs.generates or task.needs.refines]
    settings = run.config.evaluation
    if not writing or not settings.sample_tokens:
        return Samples()
    training = run.model.training
    run.model.eval()
    try:
        most = settings.sample_tokens
        rows = [] if split.samples is None else generated_rows(run.model, run.tasks, split, seed=run.step, most=most)
        texts = [(name, task) for name, task in writing if not draws(task)]
        return Samples(text_of(run, split, *texts[0]) if texts else "", rows)
    finally:
        run.model.train(training)


def text_of(run: Run, split: Split, name: str, task: Task) -> str:
    """What the task writes, as lines; empty where there is nothing from which it could."""
    settings, refines = run.config.evaluation, task.needs.refines
    if split.samples is not None:
        how, places = Generating(max_tokens=None if refines else settings.sample_tokens), samples_with(split, task, 3)
        found = generate_items(run.model, run.tasks, name, split, places, how) if places else {}
        true = {number: split.item(number)[0].get(task.target, "") for number in found}
        return "\n".join(f"{task.restore(ids)!r} ({true[number]!r} is true)" for number, ids in found.items())
    if task.needs.encoder:
        return ""
    if refines:
        how = Generating(max_tokens=min(settings.sample_tokens, run.model.context), seed=run.step)
        return task.restore(generate_unprompted(run.model, name, task, 1, how)[0])
    drawn = {"max_tokens": settings.sample_tokens, "temperature": 0.8, "top_k": 200, "seed": run.step}
    return settings.prompt + run.generate(settings.prompt or None, **drawn)
