"""The evaluator `divergence`, which measures how far the answers of a model are from those of the run it started
from."""

from __future__ import annotations

import math
from functools import cache

from ....experiment.run import Run, load_run
from ....files.errors import RunError
from ....inference.evaluator import Evaluator, Result


@cache
def loaded(folder: str) -> Run:
    """Returns a run, which is loaded once."""
    return load_run(folder, device="cpu")


class Divergence(Evaluator):
    """Estimates the Kullback-Leibler divergence KL(model || start), in nats per answer: the mean of log p(answer) of
    the model minus that of the run `start`, over answers that the model samples for `samples` samples of val. Prints it
    with its standard error. 0 means that both have the same distribution. `start`: null means the run of `from:`.
    Raises ValueError if `samples` is below 2."""

    def __init__(self, *, start: str | None = None, samples: int = 250):
        if samples < 2:
            raise ValueError(f"samples must be at least 2, not {samples}")
        self.start, self.samples = start, samples

    def check(self, trained, say):
        self.first(trained)

    def first(self, trained) -> Run:
        """Returns the run from which the answers of a run in training may diverge. Raises RunError if it is unknown."""
        start = self.start or trained.config.from_run
        if not start:
            raise RunError("evaluation.divergence.start: must name a run, because this run has no from=RUN")
        return loaded(start)

    def run(self, trained, say):
        name, task = next((name, task) for name, task in trained.tasks.items() if task.needs.generates)
        rows = trained.samples("val").select(range(min(self.samples, len(trained.samples("val")))))
        prompts = [{name: row[name] for name in trained.choppers if name != task.target} for row in rows]
        answers = trained.predict(prompts, temperature=1.0, seed=list(range(len(prompts))), say=lambda text: None)
        answered = [{**prompt, task.target: answer[name]["text"]} for prompt, answer in zip(prompts, answers)]
        first = self.first(trained)
        task_of_first = next(name for name, task in first.tasks.items() if task.needs.generates)
        ours, theirs = trained.losses(answered)[name], first.losses(answered)[task_of_first]
        differences = (theirs.cpu() - ours.cpu()).double()
        differences = differences[differences.isfinite()]
        mean, error = float(differences.mean()), float(differences.std() / math.sqrt(len(differences)))
        return Result(metrics={"divergence": mean}, lines=[f"divergence {mean:.3f} ± {error:.3f} nats per answer"])
