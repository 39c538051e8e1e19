"""What a model writes while it is trained, so that one sees it learn."""

from __future__ import annotations

from ...data.samples.split import SampleSplit
from ...data.split import Split
from ...inference.generate import write_texts
from ...models.generation.sampling import Sampling
from ...tasks.base import Task
from ..run import Run

SAMPLING = Sampling(temperature=0.8, top_k=200)
"""How a text of its own is drawn."""


def sample_of(run: Run, split: Split) -> str:
    """What the model writes as it is now, `evaluation.sample_tokens` long: a text of its own, or its answers to a few
    samples of the split; nothing where no task writes."""
    writing = [(name, task) for name, task in run.tasks.items() if task.needs.generates]
    settings = run.config.evaluation
    if not writing or not settings.sample_tokens:
        return ""
    training = run.model.training
    run.model.eval()
    if split.samples is not None:
        text = answers(run, split, *writing[0])
    elif writing[0][1].needs.encoder:
        text = ""
    else:
        text = settings.prompt + run.generate(
            settings.prompt or None, max_tokens=settings.sample_tokens, sampling=SAMPLING, seed=run.step
        )
    run.model.train(training)
    return text


def answers(run: Run, split: SampleSplit, name: str, task: Task) -> str:
    """A few samples' texts, as the model writes them, beside the true ones."""
    found = write_texts(run.model, name, task, split, split.first(3), most=run.config.evaluation.sample_tokens)
    return "\n".join(
        f"{text!r} ({split.item(number)[0].get(task.target, '')!r} is true)" for number, text in found.items()
    )
