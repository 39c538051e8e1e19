"""Losses that compare all samples of a global batch with each other, across micro-batches and processes.

A contrastive loss (CLIP) needs the outputs of the complete global batch, but the activations of a complete batch may
not fit into memory. Therefore the gradient of the loss is computed in two passes (GradCache: Gao et al. 2021,
arXiv:2101.06983). The first pass computes the outputs of all micro-batches without gradients, the loss of all outputs,
and the gradient of this loss with respect to each output. The second pass computes each micro-batch again and
backpropagates these gradients through the model. Dropout draws the same values in both passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..data.processes import Processes
from ..models.batch import Batch, Targets
from ..models.contract import ContractError, described
from ..models.seeding import seed_torch
from .objective import Objective, OutputGradient, autocast

Gradients = list[dict[str, OutputGradient]]
"""For each micro-batch of this process, the `OutputGradient` of each task with `Needs.whole_batch`, by name."""


def output_gradients(
    objective: Objective, processes: Processes, batches: Sequence[Batch], seeds: Sequence[int]
) -> Gradients:
    """Returns the gradients of the tasks with `Needs.whole_batch`. The dictionaries are empty if there is no such task,
    or if the global batch is a single micro-batch. `seeds` has one seed of dropout per micro-batch."""
    if objective.whole_batch and (len(batches) > 1 or processes.world_size > 1):
        return gathered_gradients(objective, processes, batches, seeds)
    return [{} for _ in batches]


def gathered_gradients(
    objective: Objective, processes: Processes, batches: Sequence[Batch], seeds: Sequence[int]
) -> Gradients:
    """Returns the gradients of losses over the outputs of all micro-batches of all processes."""
    outputs: list[Mapping[str, Tensor]] = []
    targets: list[Mapping[str, Targets]] = []
    with torch.no_grad():
        for batch, seed in zip(batches, seeds, strict=True):
            seed_torch(seed, processes.device)
            batch = objective.ready(batch, processes.device)
            outputs.append(objective.outputs(batch))
            targets.append(batch.targets)
    (micro_batches,) = processes.agree([sum(batch.real for batch in batches)])
    gradients: list[dict[str, OutputGradient]] = [{} for _ in batches]
    for name in objective.whole_batch:
        check_output(name, objective, outputs[0][name])
        leaves = [output[name].detach().requires_grad_() for output in outputs]
        real = [number for number, batch in enumerate(batches) if batch.real]
        local = torch.cat([leaves[number] for number in real] or [leaves[0][:0]])
        parts = processes.gathered_tensors(local.detach())
        parts[processes.rank] = local  # only the outputs of this process have gradients
        all_targets = gathered_targets([targets[number][name] for number in real], targets[0][name], processes)
        with autocast(processes.device, objective.precision):
            loss = objective.loss(name, torch.cat(parts), all_targets)
        leaf_gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        for by_task, leaf, gradient in zip(gradients, leaves, leaf_gradients, strict=True):
            gradient = torch.zeros_like(leaf) if gradient is None else gradient
            by_task[name] = OutputGradient(loss.detach() / micro_batches, gradient)
    return gradients


def check_output(name: str, objective: Objective, output: Tensor) -> None:
    """Raises ContractError if `output`, the output of the head of the task `name`, is not a tensor with an axis."""
    if not isinstance(output, Tensor) or output.dim() == 0:
        raise ContractError(
            f"tasks.{name}.head: {type(objective.model.heads[name]).__name__} returned {described(output)}; expected: "
            "a tensor whose first axis is that of the targets, because the task has Needs.whole_batch"
        )


def gathered_targets(local: Sequence[Targets], like: Targets, processes: Processes) -> Targets:
    """Returns the targets of all micro-batches of all processes as one `Targets`: `values`, `weights` and `extra` are
    concatenated, `count` is the sum. The result has no slots, because slots are numbered within a micro-batch. `local`
    has the targets of each real micro-batch of this process. `like` is one of the task's `Targets`; its dtypes and
    shapes are used if `local` is empty, and its other fields are copied."""

    def joined(name: str) -> Tensor | None:
        if getattr(like, name) is None:
            return None
        parts = [getattr(targets, name) for targets in local] or [getattr(like, name)[:0]]
        return torch.cat(processes.gathered_tensors(torch.cat(parts)))

    (count,) = processes.agree([sum(targets.count for targets in local)])
    return replace(
        like, values=joined("values"), weights=joined("weights"), extra=joined("extra"), count=int(count), slots=None,
        carriers=None, groups=None, lengths=None, left_out={},
    )  # fmt: skip
