"""Every task asked what it wants to hear of a batch; one's own may be wrong, and is told so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..models.batch import Batch, Targets
from ..models.contract import ContractError, described
from .base import Task


def with_targets(batch: Batch, tasks: Mapping[str, Task]) -> Batch:
    """A batch with every task's targets, in which tasks have hidden what they must; those that make sets of their own
    are asked first."""
    targets = {}
    for name, task in sorted(tasks.items(), key=lambda each: not each[1].needs.makes):
        batch, targets[name] = targets_of(name, task, batch)
    return replace(batch, targets={name: targets[name] for name in tasks})


def targets_of(name: str, task: Task, batch: Batch) -> tuple[Batch, Targets]:
    """`task.targets(batch)` of the task of this name. Raises ContractError where it is not what was promised."""
    found = task.targets(batch)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Batch) and isinstance(found[1], Targets):
        return found
    given = f"({', '.join(map(described, found))})" if isinstance(found, tuple) else described(found)
    raise ContractError(
        f"tasks.{name}: {type(task).__name__}.targets gave {given}; expected is (batch, Targets): the batch, in which "
        "it may have hidden something, and which slots are judged against what"
    )
