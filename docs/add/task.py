"""A task: an angle in degrees, of which 359 is near to 1.

tasks: {heading: {use: task:Angle, target: direction}}
"""

import torch
from chopmix import Metric, Needs, Targets, Task
from chopmix.models.heads import MeanPooling, PooledLinear


class Angle(Task):
    def __init__(self, *, target: str):
        self.target = target

    needs = property(lambda self: Needs(columns={self.target: float}))
    metrics = property(lambda self: {"loss": Metric("1 - cosine", of_sums=lambda sums: float(sums["loss"] / sums["count"])),
                                     "error": Metric("degrees", of_outputs=mean_error)})  # fmt: skip

    def head(self, tokenizers, width):  # two numbers, the sine and the cosine
        return PooledLinear(MeanPooling(width), width, 2)

    def targets(self, batch):
        slots, groups = MeanPooling.slots(batch.main)
        labels = [float("nan" if value is None else value) for value in batch.main.labels[self.target]]
        values = torch.tensor(labels).reshape(-1).deg2rad()
        return batch, Targets(values=values, slots=slots, groups=groups, count=int((~values.isnan()).sum()))

    def terms(self, output, targets):  # a sum over the targets, never a mean
        return {"loss": (1 - (degrees(output).deg2rad() - targets.values).cos()).nansum()}

    def answers(self, output, targets, batch):
        return [{"degrees": round(float(value) % 360, 1)} for value in degrees(output)]


def degrees(output):
    return torch.atan2(output[:, 0], output[:, 1]).rad2deg()


def mean_error(output, values):  # over all targets of a split
    return float(((degrees(output) - values.rad2deg() + 180) % 360 - 180).abs().mean())
