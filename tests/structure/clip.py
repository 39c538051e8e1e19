"""A task: CLIP (Radford et al. 2021, arXiv:2103.00020) matches two inputs of a sample against all others of the batch.

tasks: {match: {use: clip:Clip, left: scan, right: word}}
model: {attention: same_item}
"""

import torch
import torch.nn.functional as F
from chopmix import Head, Metric, Needs, Targets, Task
from torch import nn


class Pairs(Head):
    """A vector of length 1 for each item (left, right, left, ...); those on the left are divided by the temperature."""

    def __init__(self, width):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.07).log())

    def forward(self, x, targets):
        sums = x.new_zeros(len(targets.values), x.shape[1]).index_add(0, targets.groups, x)
        is_left = torch.arange(len(sums), device=x.device) % 2 == 0
        return F.normalize(sums, dim=-1) * torch.where(is_left, (-self.temperature).exp(), 1.0)[:, None]


class Clip(Task):
    def __init__(self, *, left: str, right: str):
        self.target, self.names = left, (left, right)

    needs = property(lambda self: Needs(inputs=self.names, whole_batch=True, hides="compared"))
    metrics = property(lambda self: {"loss": Metric("nats per pair", of_sums=lambda s: float(s["loss"] / s["count"])),
                                     "recall": Metric("share", True, of_outputs=recall)})  # fmt: skip

    def head(self, tokenizers, width):
        return Pairs(width)

    def targets(self, batch):
        samples, sets = batch.main.samples, [batch.main.chunks.get(name) for name in self.names]
        slots = [torch.empty(0, dtype=torch.long) if chunks is None else chunks.slots for chunks in sets]
        owners = [batch.main.tokens.sample.flatten()[each] - 1 for each in slots]
        complete = torch.isin(torch.arange(samples), owners[0]) & torch.isin(torch.arange(samples), owners[1])
        values = torch.where(complete[:, None], torch.tensor([0, 1]), -100).flatten()  # -100: no target
        groups = torch.cat([2 * owners[0], 2 * owners[1] + 1])
        content = torch.zeros(samples, dtype=torch.double)  # equal right items have equal numbers
        if (right := sets[1]) is not None:
            numbers = right.values.reshape(len(right.slots), -1).double().sum(1) * (right.index + 1) ** 2
            content = content.index_add(0, owners[1], numbers)
        return batch, Targets(values=values, slots=torch.cat(slots), groups=groups, count=int(complete.sum()),
                              extra=content.repeat_interleave(2))  # fmt: skip

    def terms(self, output, targets):
        left, right = targets.values == 0, targets.values == 1
        scores = output[left] @ output[right].T
        is_equal = targets.extra[left][:, None] == targets.extra[right]  # an equal item of another pair is not wrong
        scores = scores.masked_fill(is_equal & ~torch.eye(len(scores), dtype=torch.bool), -torch.inf)
        labels = torch.arange(len(scores), device=scores.device)
        return {"loss": sum(F.cross_entropy(each, labels, reduction="sum") for each in (scores, scores.T)) / 2}

    def answers(self, output, targets, batch):
        pairs = output.unflatten(0, (-1, 2)).prod(1).sum(1).tolist()
        return [{"score": score} if one == 0 else {"error": f"it needs {' and '.join(self.names)}"}
                for score, one in zip(pairs, targets.values[::2].tolist())]  # fmt: skip


def recall(output, values):
    """The share of left items whose right item is the nearest of all right items."""
    nearest = (output[values == 0] @ output[values == 1].T).argmax(1)
    return (nearest == torch.arange(len(nearest))).float().mean().item()
