"""Checks of a configuration that reads episodes. In training, the model must read each step in the order in which an
agent reads the step during play."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from ...models.contract import Problems
from ...tasks.base import Needs, Task, Wiring
from ...tokenizers.base import SECONDS

AFTER = ("reward", "action")
"""The columns of an episode that are known only after the action of the step."""


def step_problems(wiring: Wiring, columns: Mapping[str, str]) -> Problems:
    """Yields problems of the inputs that read episodes. `columns` maps these inputs to the columns of the episodes. In
    each step all observations must come before the action, the reward must come after the action, and no token may read
    an input of a later time. Otherwise a model is trained on values that an agent does not know yet, or in another
    order than during play."""
    inputs = {name: wiring.inputs[name] for name in columns}
    offset = {name: part.options.get("offset") or 0.0 for name, part in inputs.items()}
    tasks = {name: (task.target, *needs.supervised_at) for name, task, needs in _next_items(wiring)}
    predicted, masked = {target for target, _ in tasks.values()}, masked_inputs(wiring.model["attention"])
    for name, (target, at) in tasks.items():
        if not {target, at} <= inputs.keys() or columns[target] != "action":
            continue
        if columns[at] in AFTER:
            yield ("tasks", name, "at"), f"{at!r} has no token before the first action; name an observation"
        elif not _has_steps(wiring, at):
            yield ("tasks", name, "at"), f"{at!r} has no value at each step; name an observation that has one"
        elif not offset[at] < offset[target] < offset[at] + 1:
            rule = f"the offset of {target!r} ({offset[target]:g}) must be greater than that of {at!r} ({offset[at]:g})"
            yield ("tasks", name, "at"), f"{rule}, by less than 1; otherwise the action of another step is predicted"
        else:
            later = {n for n in inputs if columns[n] == "return" and n in predicted and offset[n] > offset[target]}
            for value in sorted(later):
                reason = f"{value!r} is predicted after the action and is unknown during play"
                if value not in masked:
                    yield ("inputs", value), f"{reason}; add '& !from({value})' to model.attention"
                yield from ((path, f"{reason}, {remedy}") for path, remedy in _counted_tokens(wiring))
            others = [n for n in inputs if n != target and n not in later]
            yield from _out_of_step(wiring, others, columns, offset, target)
            yield from _not_step_by_step(wiring, others)


def _next_items(wiring: Wiring) -> Iterator[tuple[str, Task, Needs]]:
    """Yields (name, task, needs) for each task that predicts at the tokens of exactly one other input."""
    for name, needs in wiring.needs.items():
        if len(needs.supervised_at) == 1:
            yield name, wiring.tasks[name], needs


def masked_inputs(attention: str | Sequence[str]) -> frozenset[str]:
    """Returns the inputs that no layer reads. These are the inputs that every expression of `model.attention` excludes
    by `!from(...)`."""
    texts = [attention] if isinstance(attention, str) else attention
    excluded = [" ".join(re.findall(r"!\s*from\s*\(([^()]*)\)", text)) for text in texts]
    names = [frozenset(re.split(r"[\s,]+", text)) for text in excluded]
    return frozenset.intersection(*names) if names else frozenset()


def _counted_tokens(wiring: Wiring) -> Problems:
    """Yields the options of the main core whose result depends on the number of tokens between two tokens, with an
    option that can replace them."""
    position = wiring.model["position"]
    axes = () if position is None else position.options.get("per_axis") or ("order",)
    if "order" in axes and position.target.counts_tokens:
        remedy = "{use: rotary, per_axis: {seconds: 16}}, or another share of the channels of a head"
        yield ("model", "position"), f"but its token would be counted; use times only, such as {remedy}"
    if any(graph.counts() for graph in wiring.graphs.values()):
        yield ("model", "attention"), "but its token would be counted; 'window(2, seconds)' counts no tokens"


def _not_step_by_step(wiring: Wiring, names: Collection[str]) -> Problems:
    """Yields the inputs that cannot be read one step at a time, which is how an agent receives the values."""
    ahead, in_time = wiring.ahead, wiring.in_time
    for name in names:
        options = wiring.inputs[name].options
        several = next((key for key in ("window", "frames") if (options.get(key) or 1) > 1), None)
        if name not in in_time:
            yield ("inputs", name), "has no time and is therefore read last; give it an offset, such as -1"
        elif _has_steps(wiring, name) and name in ahead:
            yield ("inputs", name), "is read by earlier tokens (model.attention), but is not known yet during play"
        elif _has_steps(wiring, name) and several:
            yield ("inputs", name, several), "must be 1, because an agent reads one step at a time"


def _has_steps(wiring: Wiring, name: str) -> bool:
    """Returns whether an input has a value at every step. An instruction, for example, has only one value per
    episode."""
    return SECONDS in wiring.inputs[name].target.Chopper.axes


def _out_of_step(
    wiring: Wiring, names: Collection[str], columns: Mapping[str, str], offset: Mapping[str, float], action: str
) -> Problems:
    """Yields a problem (path, message) for each input whose offset contradicts the order in which an agent learns the
    values: the observations of a step come before its action and its reward, and these come before the observations of
    the next step. `offset` contains the offset of each input within a step, in steps. `action` is the input that reads
    the action."""
    observations = [name for name in wiring.in_time if name in names and columns[name] not in AFTER]
    moving = [name for name in observations if _has_steps(wiring, name)]
    for name in observations:
        if offset[name] >= offset[action]:
            rule = f"it is known before the action, so its offset must be less than that of {action!r}"
            yield ("inputs", name, "offset"), f"{rule} ({offset[action]:g}), not {offset[name]:g}"
        elif name in moving and offset[name] <= offset[action] - 1:
            rule = f"{offset[name]:g} is not later than the preceding action ({offset[action] - 1:g})"
            yield ("inputs", name, "offset"), f"{rule}, when it is not known yet"
    last = max((offset[name] for name in observations), default=0.0)
    first = min((offset[name] for name in moving), default=last) + 1
    for name in [name for name in names if columns[name] in AFTER and not last < offset[name] < first]:
        rule = f"the {columns[name]} of a step is known after its observations ({last:g}) and before those of the next"
        yield ("inputs", name, "offset"), f"{rule} ({first:g}); the offset must be between these, not {offset[name]:g}"
