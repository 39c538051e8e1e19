"""An evaluator: the sum of the norms of the parameters of each input's tokenizer, at every evaluation. `scan` is the
name of an input.

evaluation: {also: {norms: {use: evaluator:Norms, inputs: [scan]}}}
checkpoints: {best: val/norm/scan}
"""

from chopmix import Evaluator, Result


class Norms(Evaluator):
    """`inputs`: the names of the inputs."""

    when = "evaluations"  # or "end": once, after the last step; or "saved": of the saved run

    def __init__(self, *, inputs: list[str]):
        self.inputs = inputs

    def metrics(self):  # those by which the best checkpoint may be chosen: whether larger is better
        return {f"val/norm/{name}": False for name in self.inputs}

    def check(self, trained, say):  # before the first step
        for name in self.inputs:
            if name not in trained.model.inputs:
                raise ValueError(f"norms: no input is named {name!r}; possible: {', '.join(trained.model.inputs)}")

    def run(self, trained, say):
        norms = {name: sum(float(parameter.detach().norm()) for parameter in trained.model.tokenizer(name).parameters())
                 for name in self.inputs}  # fmt: skip
        return Result(metrics={f"val/norm/{name}": norm for name, norm in norms.items()})
