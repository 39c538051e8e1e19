"""A metric of an existing task: how often the class is one of the two most probable ones.

tasks: {direction: {use: metric:TopTwo, target: word}}
checkpoints: {best: val/top2_accuracy}
"""

from chopmix import Metric
from chopmix.tasks.classification import Classification


class TopTwo(Classification):
    def measure(self, output, targets):  # sums of one micro-batch, which are added up over a split
        known = targets.values >= 0  # IGNORED is negative
        best = output[known].topk(2).indices == targets.values[known, None]
        return super().measure(output, targets) | {"top2": best.any(1).sum()}

    @property
    def metrics(self):  # `count` is the number of targets; a metric of all outputs of a split is `of_outputs`
        share = Metric("share", larger_is_better=True, of_sums=lambda sums: float(sums["top2"] / sums["count"]))
        return super().metrics | {"top2_accuracy": share}
