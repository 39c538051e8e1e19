"""Losses that compare all samples of a global batch with each other, over micro-batches and processes.

A contrastive loss (CLIP) needs the outputs of the complete batch, which may not fit into memory at once. The gradient of
the one large batch is computed in two passes (GradCache: Gao et al. 2021, arXiv:2101.06983): the first computes the
outputs of all micro-batches without gradients, then the loss of all outputs, and its gradient with respect to each
output; the second computes each micro-batch again, with gradients, and continues from these. Dropout draws the same
values in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..data.processes import Processes
from ..models.batch import Batch, Targets
from ..models.contract import ContractError, described
from .objective import Objective, OutputGradient, autocast


def output_gradients(
    objective: Objective, processes: Processes, batches: Sequence[Batch], seeds: Sequence[int]
) -> list[dict[str, OutputGradient]]:
    """For each of this process's micro-batches: by name, the output gradients of the tasks with `Needs.whole_batch`.
    `seeds` are those of dropout. Empty if no task needs it, and if the global batch is a single micro-batch."""
    names = objective.whole_batch
    if not names or (len(batches) == 1 and processes.world_size == 1):
        return [{} for _ in batches]
    outputs: list[Mapping[str, Tensor]] = []
    targets: list[Mapping[str, Targets]] = []
    with torch.no_grad():
        for batch, seed in zip(batches, seeds, strict=True):
            torch.manual_seed(seed)
            batch = objective.ready(batch, processes.device)
            outputs.append(objective.outputs(batch))
            targets.append(batch.targets)
    (micro_batches,) = processes.agree([sum(batch.real for batch in batches)])
    gradients: list[dict[str, OutputGradient]] = [{} for _ in batches]
    for name in names:
        check_output(name, objective, outputs[0][name])
        leaves = [output[name].detach().requires_grad_() for output in outputs]
        counted = [number for number, batch in enumerate(batches) if batch.real]
        own = torch.cat([leaves[number] for number in counted] or [leaves[0][:0]])
        parts = processes.gathered_tensors(own.detach())
        parts[processes.rank] = own
        everything = gathered_targets([targets[number][name] for number in counted], targets[0][name], processes)
        with autocast(processes.device, objective.precision):
            loss = objective.loss(name, torch.cat(parts), everything)
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        for made, leaf, gradient in zip(gradients, leaves, found, strict=True):
            filled = torch.zeros_like(leaf) if gradient is None else gradient
            made[name] = OutputGradient(loss.detach() / micro_batches, filled)
    return gradients


def check_output(name: str, objective: Objective, output: Tensor) -> None:
    """Raises ContractError unless the head of a task with `Needs.whole_batch` returned a tensor."""
    if not isinstance(output, Tensor) or output.dim() == 0:
        raise ContractError(
            f"tasks.{name}.head: {type(objective.model.heads[name]).__name__} returned {described(output)}; expected "
            "is a tensor whose first axis is that of the targets, since the task has Needs.whole_batch"
        )


def gathered_targets(own: Sequence[Targets], like: Targets, processes: Processes) -> Targets:
    """The targets of several micro-batches of all processes as one: `values`, `weights` and `count`; their slots, which
    are numbered within a micro-batch, are left out. `like`: any targets of the task, if `own` is empty."""

    def joined(name: str) -> Tensor | None:
        if getattr(like, name) is None:
            return None
        parts = [getattr(targets, name) for targets in own] or [getattr(like, name)[:0]]
        return torch.cat(processes.gathered_tensors(torch.cat(parts)))

    (count,) = processes.agree([sum(targets.count for targets in own)])
    return replace(like, values=joined("values"), weights=joined("weights"), count=int(count), slots=None, carriers=None,
                   groups=None, lengths=None, left_out={})  # fmt: skip
