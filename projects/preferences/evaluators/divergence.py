"""The evaluator `divergence`, which measures how far the answers of a model are from those of the run it started
from."""

from __future__ import annotations

import math
from functools import cached_property

from ....experiment.run import Run, load_run
from ....inference.evaluator import Evaluator, Result


class Divergence(Evaluator):
    """Estimates the Kullback-Leibler divergence KL(model || start), in nats per answer: the mean of log p(answer) of
    the model minus that of the run `start`, over answers that the model samples for `samples` samples of val. Prints it
    with its standard error. 0 means that both have the same distribution. Raises ValueError if `samples` is below 2."""

    def __init__(self, *, start: str, samples: int = 250):
        if samples < 2:
            raise ValueError(f"samples must be at least 2, not {samples}")
        self.start, self.samples = start, samples

    @cached_property
    def first(self) -> Run:
        """The run in the folder `start`."""
        return load_run(self.start, device="cpu")

    def check(self, trained, say):
        self.first  # noqa: B018

    def run(self, trained, say):
        name, task = next((name, task) for name, task in trained.tasks.items() if task.needs.generates)
        rows = trained.samples("val").select(range(min(self.samples, len(trained.samples("val")))))
        prompts = [{name: row[name] for name in trained.choppers if name != task.target} for row in rows]
        answers = trained.predict(prompts, temperature=1.0, seed=0, say=lambda text: None)
        answered = [{**prompt, task.target: answer[name]["text"]} for prompt, answer in zip(prompts, answers)]
        start_task = next(name for name, task in self.first.tasks.items() if task.needs.generates)
        ours, theirs = trained.losses(answered)[name], self.first.losses(answered)[start_task]
        differences = (theirs.cpu() - ours.cpu()).double()
        differences = differences[differences.isfinite()]
        mean, error = float(differences.mean()), float(differences.std() / math.sqrt(len(differences)))
        return Result(metrics={"divergence": mean}, lines=[f"divergence {mean:.3f} ± {error:.3f} nats per answer"])
