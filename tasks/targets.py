"""Calling the tasks' `targets` and `terms`, with checks that classes from outside chopmix keep the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..models.batch import Batch, Targets
from ..models.contract import ContractError, described
from ..models.heads import VocabularyHead
from .base import Task


def with_targets(batch: Batch, tasks: Mapping[str, Task]) -> Batch:
    """The batch with every task's targets, and with what the tasks hide hidden; tasks that make inputs (`Needs.makes`)
    come first."""
    targets = {}
    for name, task in sorted(tasks.items(), key=lambda each: not each[1].needs.makes):
        batch, targets[name] = targets_of(name, task, batch)
    return replace(batch, targets={name: targets[name] for name in tasks})


def with_targets_apart(batch: Batch, tasks: Mapping[str, Task]) -> list[Batch]:
    """The batch with the targets of every task, several times: no task sees what another one hides. The first has those
    of all tasks that leave the batch as it is; each of the others those of one task, with what it hides hidden. What
    tasks make (`Needs.makes`) is in all of them."""
    together, apart = {}, []
    for name, task in tasks.items():
        if task.needs.makes:
            batch, together[name] = targets_of(name, task, batch)
    for name, task in tasks.items():
        if not task.needs.makes:
            changed, targets = targets_of(name, task, batch)
            if changed is batch:
                together[name] = targets
            else:
                apart.append(replace(changed, targets={name: targets}))
    return [replace(batch, targets=together), *apart] if together else apart


def targets_of(name: str, task: Task, batch: Batch) -> tuple[Batch, Targets]:
    """`task.targets(batch)` of the task `name`. Raises ContractError where it is not (Batch, Targets)."""
    found = task.targets(batch)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Batch) and isinstance(found[1], Targets):
        return found
    given = f"({', '.join(map(described, found))})" if isinstance(found, tuple) else described(found)
    raise ContractError(
        f"tasks.{name}: {type(task).__name__}.targets gave {given}; expected is (batch, Targets): the batch, in which "
        "it may have hidden something, and which slots are judged against what"
    )


WRONG = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What code raises for a tensor of another shape than it expects."""


def terms_of(name: str, task: Task, head: nn.Module, output: Tensor, targets: Targets) -> Mapping[str, Tensor]:
    """`task.terms(output, targets)` of the task `name`, where its class or that of `head`, which gave the output, comes
    from outside chopmix. Raises ContractError where the task cannot take the output, or its terms are not scalars by
    name."""
    given = f"{type(head).__name__} gave {described(output)} for {len(targets.values)} targets"
    if isinstance(head, VocabularyHead) and (output.dim() != 2 or output.shape[1] != len(head.table)):
        raise ContractError(f"tasks.{name}.head: {given}; expected is ({len(targets.values)}, {len(head.table)}): a "
                            "score for each id of the vocabulary")  # fmt: skip
    try:
        found = task.terms(output, targets)
    except torch.OutOfMemoryError:
        raise
    except WRONG as error:
        raise ContractError(f"tasks.{name}: {type(task).__name__}.terms cannot take it: {given}: {error}") from error
    scalars = isinstance(found, Mapping) and all(isinstance(each, Tensor) and not each.dim() for each in found.values())
    if not scalars or not found:
        told = {key: described(each) for key, each in found.items()} if isinstance(found, Mapping) else described(found)
        raise ContractError(
            f"tasks.{name}: {type(task).__name__}.terms gave {told}; expected are losses by name, each a tensor of one "
            "number: summed over the targets, not a mean"
        )
    return found


def is_own(part: object) -> bool:
    """Whether an object is of a class outside chopmix."""
    return type(part).__module__.partition(".")[0] != __name__.partition(".")[0]
