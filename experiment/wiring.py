"""The `Wiring` of a configuration."""

from __future__ import annotations

from collections.abc import Mapping

from ..tasks.base import Needs, Task
from ..tasks.wiring import Wiring
from ..tokenizers.base import Role
from .settings.checks.timing import axes_of
from .settings.schema import Part


def wire(
    inputs: Mapping[str, Part], shares: Mapping[str, str], tasks: Mapping[str, Task], columns: Mapping[str, str], *,
    encoder: bool,
) -> Wiring:  # fmt: skip
    """The wiring of checked inputs and of tasks that are built. `shares` says which input uses the tokenizer of which
    other one, `columns` which column an input reads whose name differs, `encoder` whether there is one."""
    owners = {name: shares.get(name, name) for name in inputs}
    needs = {name: task.needs for name, task in tasks.items()}
    generated = tuple(task.target for name, task in tasks.items() if needs[name].generates)
    return Wiring(
        tasks=tasks, needs=needs, owners=owners, generated=generated, axes=axes_of(inputs),
        columns={name: columns.get(name, name) for name in inputs},
        roles={name: role_of(name, owners, generated, needs) for name in inputs},
        encoded=tuple(name for name in inputs if encoder and name not in generated),
    )  # fmt: skip


def role_of(name: str, owners: Mapping[str, str], generated: tuple[str, ...], needs: Mapping[str, Needs]) -> Role:
    """Whether a task generates an input, and which special ids the tasks need in it and in the inputs that share its
    tokenizer."""
    group = {each for each, owner in owners.items() if owner == owners[name]}
    ids = [id for each in needs.values() if group & {*each.inputs} for id in each.special_ids]
    return Role(generated=name in generated, special_ids=tuple(dict.fromkeys(ids)))
