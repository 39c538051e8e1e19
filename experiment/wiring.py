"""The `Wiring` of a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..models.attention.grammar import parse_graph
from ..models.attention.graph import Graph
from ..tasks.base import Needs, Task, Wiring
from ..tokenizers.base import Role
from ..tokenizers.part import Part, axes_of
from .settings.registry import imported
from .settings.sections import Data, Training


def wire(
    inputs: Mapping[str, Part], shares: Mapping[str, str], tasks: Mapping[str, Task], model: Part, data: Data,
    training: Training,
) -> Wiring:  # fmt: skip
    """The wiring of a configuration whose sections are checked and whose tasks are built. `shares`: the input whose
    tokenizer an input uses, for inputs written `{same_as: OTHER}`."""
    owners = {name: shares.get(name, name) for name in inputs}
    needs = {name: task.needs for name, task in tasks.items()}
    generated = tuple(task.target for name, task in tasks.items() if needs[name].generates)
    encoder, dropout = model.options["encoder"] is not None, training.input_dropout
    return Wiring(
        inputs=inputs, model=model.options, graphs=dict(graphs_of(inputs, model)), order=data.order, tasks=tasks,
        needs=needs, owners=owners, generated=generated, axes=axes_of(inputs),
        columns={name: data.columns.get(name, name) for name in inputs},
        roles={name: role_of(name, owners, generated, needs) for name in inputs},
        encoded=tuple(name for name in inputs if encoder and name not in generated),
        optional=frozenset(n for n in inputs if (dropout.get(n) if isinstance(dropout, Mapping) else dropout)),
    )  # fmt: skip


def graphs_of(inputs: Mapping[str, Part], model: Part) -> Iterator[tuple[str, Graph]]:
    """The attention expressions of the main core that can be parsed, and their graphs."""
    written: Any = model.options["attention"]
    for text in [written] if isinstance(written, str) else written:
        with suppress(ValueError, LookupError):
            yield text, parse_graph(text, list(inputs), axes_of(inputs), imported)


def role_of(name: str, owners: Mapping[str, str], generated: tuple[str, ...], needs: Mapping[str, Needs]) -> Role:
    """Whether a task generates an input, and which special ids the tasks need in it and in the inputs that share its
    tokenizer."""
    group = {each for each, owner in owners.items() if owner == owners[name]}
    ids = [id for each in needs.values() if group & {*each.inputs} for id in each.special_ids]
    return Role(generated=name in generated, special_ids=tuple(dict.fromkeys(ids)))
