"""Samples of what a model generates while it is trained."""

from __future__ import annotations

from ...data.split import Split
from ...inference.generating import Generating
from ...inference.items import generate_items, generate_unprompted
from ...inference.sheet import Samples, generated_rows
from ..run import Run


def samples_of(run: Run, split: Split) -> Samples:
    """What the model generates as it is now: a text of at most `evaluation.sample_tokens` tokens (0: nothing), the
    continuation of `evaluation.prompt`; for a split of samples the texts of three of them with their references, a line
    each: `'7+5=12' ('7+5=12' is true)`; of items that are no text a sheet. Nothing where no task generates."""
    writing = [(name, task) for name, task in run.tasks.items() if task.needs.generates or task.needs.refines]
    settings = run.config.evaluation
    if not writing or not settings.sample_tokens:
        return Samples()
    training = run.model.training
    run.model.eval()
    try:
        name, task = writing[0]
        if run.choppers[task.target].kind != "text":
            return Samples(
                rows=generated_rows(run.model, name, task, split, seed=run.step, most=settings.sample_tokens)
            )
        if split.samples is not None:
            how = Generating(max_tokens=settings.sample_tokens)
            found = generate_items(run.model, name, task, split, split.first(3), how)
            true = {number: split.item(number)[0].get(task.target, "") for number in found}
            lines = [f"{task.restore(ids)!r} ({true[number]!r} is true)" for number, ids in found.items()]
            return Samples("\n".join(lines))
        if task.needs.encoder:
            return Samples()
        if task.needs.refines:
            how = Generating(max_tokens=settings.sample_tokens, seed=run.step)
            return Samples(task.restore(generate_unprompted(run.model, name, task, 1, how)[0]))
        how = {"max_tokens": settings.sample_tokens, "temperature": 0.8, "top_k": 200, "seed": run.step}
        return Samples(settings.prompt + run.generate(settings.prompt or None, **how))
    finally:
        run.model.train(training)
