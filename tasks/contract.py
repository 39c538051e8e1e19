"""What is checked of every task, one's own above all, in every batch."""

from __future__ import annotations

from ..models.batch import Batch, Targets
from ..models.contract import ContractError, described
from .base import Task


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
