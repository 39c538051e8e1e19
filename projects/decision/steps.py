"""Checks of a configuration that reads episodes: each step is read in training as it is known while an agent plays."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from ...models.layers.relative import Alibi, RelativeBias, Rotary
from ...tasks.base import Needs, Problems, Task, Wiring
from ...tokenizers.base import SECONDS

AFTER = ("reward", "action")
"""The columns of an episode that are known only after its agent has acted."""


def step_problems(wiring: Wiring, columns: Mapping[str, str]) -> Problems:
    """Problems of the inputs that read episodes; `columns` maps them to the columns of the episodes. In each step all
    observations come before the action and its reward after it, and no input is read by an earlier one. Otherwise an
    agent would know in training what it cannot know when it plays, or would read it in another order."""
    inputs = {name: wiring.inputs[name] for name in columns}
    offset = {name: part.options.get("offset") or 0.0 for name, part in inputs.items()}
    tasks = {name: (task.target, *needs.supervised_at) for name, task, needs in _next_items(wiring)}
    predicted, masked = {target for target, _ in tasks.values()}, read_by_nobody(wiring.model["attention"])
    for name, (target, at) in tasks.items():
        if not {target, at} <= inputs.keys() or columns[target] != "action":
            continue
        if columns[at] in AFTER:
            yield ("tasks", name, "at"), f"{at!r} has nothing before the first action: name what is observed"
        elif not _moves(wiring, at):
            yield ("tasks", name, "at"), f"{at!r} is read once, not at every step: name what is observed at each"
        elif not offset[at] < offset[target] < offset[at] + 1:
            told = f"{target!r} has the offset {offset[target]:g}, {at!r}, at which it is predicted, {offset[at]:g}"
            yield ("tasks", name, "at"), f"{told}: it must be larger, by less than 1, or another step's is predicted"
        else:
            later = {n for n in inputs if columns[n] == "return" and n in predicted and offset[n] > offset[target]}
            for each in sorted(later):
                told = f"{each!r} is predicted after the action, and while it plays nobody knows it"
                if each not in masked:
                    yield ("inputs", each), f"{told}: add '& !from({each})' to model.attention"
                yield from ((where, f"{told}, {remedy}") for where, remedy in _counting(wiring))
            others = [each for each in inputs if each != target and each not in later]
            yield from _out_of_step(wiring, others, columns, offset, target)
            yield from _not_step_by_step(wiring, others)


def _next_items(wiring: Wiring) -> Iterator[tuple[str, Task, Needs]]:
    """Name, task and needs of each task that predicts what comes next at the tokens of one other input."""
    for name, needs in wiring.needs.items():
        if len(needs.supervised_at) == 1:
            yield name, wiring.tasks[name], needs


def read_by_nobody(attention: str | Sequence[str]) -> frozenset[str]:
    """The inputs that no layer reads: every expression of `model.attention` excludes them by `!from(...)`."""
    texts = [attention] if isinstance(attention, str) else attention
    masked = [" ".join(re.findall(r"!\s*from\s*\(([^()]*)\)", text)) for text in texts]
    hidden = [frozenset(re.split(r"[\s,]+", names)) for names in masked]
    return frozenset.intersection(*hidden) if hidden else frozenset()


def _counting(wiring: Wiring) -> Problems:
    """Where the main core counts the tokens between two others, and what to write instead."""
    position = wiring.model["position"]
    counts = position is not None and issubclass(position.target, (Rotary, RelativeBias, Alibi))
    if counts and "order" in (position.options.get("per_axis") or ("order",)):
        remedy = "{use: rotary, per_axis: {seconds: 16}}, or another share of a head's channels"
        yield ("model", "position"), f"but its token would be counted: count seconds alone, as in {remedy}"
    if any(graph.counts() for graph in wiring.graphs.values()):
        yield ("model", "attention"), "but its token would be counted: 'window(2, seconds)' counts none"


def _not_step_by_step(wiring: Wiring, names: Collection[str]) -> Problems:
    """The inputs that cannot be read step by step, as an agent receives them."""
    ahead, in_time = wiring.ahead, wiring.in_time
    for each in names:
        options = wiring.inputs[each].options
        several = next((key for key in ("window", "frames") if (options.get(key) or 1) > 1), None)
        if each not in in_time:
            yield ("inputs", each), "has no place in time, so that it comes last: give it an offset, such as -1"
        elif _moves(wiring, each) and each in ahead:
            yield (
                ("inputs", each),
                "is read by what comes before it (model.attention): while it plays nobody knows it yet",
            )
        elif _moves(wiring, each) and several:
            yield ("inputs", each, several), "must be 1: an agent acts at every step, and tokens are read one by one"


def _moves(wiring: Wiring, name: str) -> bool:
    """Whether an input has a value at every step, unlike an instruction, which stays the same."""
    return SECONDS in wiring.inputs[name].target.Chopper.axes


def _out_of_step(
    wiring: Wiring, names: Collection[str], columns: Mapping[str, str], offset: Mapping[str, float], action: str
) -> Problems:
    """The inputs whose offset within a step is not that at which an agent knows them."""
    seen = [each for each in wiring.in_time if each in names and columns[each] not in AFTER]
    moving = [each for each in seen if _moves(wiring, each)]
    for each in seen:
        if offset[each] >= offset[action]:
            told = f"it is known before the action, so that it must stand before {action!r} ({offset[action]:g})"
            yield ("inputs", each, "offset"), f"{told}, not at {offset[each]:g}"
        elif each in moving and offset[each] <= offset[action] - 1:
            told = f"at {offset[each]:g} it stands before the action of the step before ({offset[action] - 1:g})"
            yield ("inputs", each, "offset"), f"{told}, when it is not known yet"
    last = max((offset[each] for each in seen), default=0.0)
    first = min((offset[each] for each in moving), default=last) + 1
    for each in [each for each in names if columns[each] in AFTER and not last < offset[each] < first]:
        told = (
            f"a step's {columns[each]} is known after all that is observed ({last:g}) and before the next ({first:g})"
        )
        yield ("inputs", each, "offset"), f"{told}: it must stand between them, not at {offset[each]:g}"
