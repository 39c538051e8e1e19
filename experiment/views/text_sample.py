"""Sample texts that a model generates at each evaluation, to watch it learn."""

from __future__ import annotations

from ...data.split import Split
from ...inference.generate import write_texts
from ...models.generation.sampling import Sampling
from ..run import Run

SAMPLING = Sampling(temperature=0.8, top_k=200)
"""How the text that continues `evaluation.prompt` is drawn."""


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
            found = write_texts(run.model, name, task, split, split.first(3), most=settings.sample_tokens)
            true = {number: split.item(number)[0].get(task.target, "") for number in found}
            return "\n".join(f"{text!r} ({true[number]!r} is true)" for number, text in found.items())
        if task.needs.encoder:
            return ""
        return settings.prompt + run.generate(
            settings.prompt or None, max_tokens=settings.sample_tokens, sampling=SAMPLING, seed=run.step
        )
    finally:
        run.model.train(training)
