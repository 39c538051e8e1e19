"""Checks of what stands in time: inputs on seconds, their order, and who may read whom."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ....data.datasets.episodes import Episodes
from ....data.datasets.mixture import Mixture
from ....models.attention.grammar import own_graphs, parse_graph
from ....models.layers.relative import Alibi, RelativeBias, Rotary
from ....tasks.base import Needs
from ....tasks.next_item import NextItem
from ....tokenizers.base import SECONDS, stands_on
from ..registry import imported
from ..schema import Part
from ..sections import Data
from .parts import Found, in_cores

AFTER = ("reward", "action")
"""The columns of an episode that are known only after its agent has acted."""


def axes_of(inputs: Mapping[str, Part]) -> tuple[str, ...]:
    """The position axes of a set of these inputs: `order`, then those of the tokenizers, each once."""
    found = [stands_on(part.target.Chopper.axes, part.options.get("offset")) for part in inputs.values()]
    return tuple(dict.fromkeys(["order", *(axis for axes in found for axis in axes)]))


def read_ahead(inputs: Mapping[str, Part], model: Part) -> frozenset[str]:
    """The inputs that tokens before them in time may read, in some layer. A graph of a class of one's own, which does
    not say so, says nothing here, nor does an expression that is told of elsewhere."""
    names, axes, found = list(inputs), axes_of(inputs), set[str]()
    for text, graph in _graphs(inputs, model):
        sets = [graph.ahead(axis) for axis in (0, *(axes.index(each) for each in axes if each == SECONDS))]
        known = [{names[number - 1] for number in each if number} for each in sets if each is not None]
        found |= min(known, key=len) if known else set(() if own_graphs(text) else names)
    return frozenset(found)


def _graphs(inputs: Mapping[str, Part], model: Part) -> Iterator[tuple[str, Any]]:
    """The attention expressions of the main core that can be read, and their graphs."""
    for text in _expressions(model):
        with suppress(ValueError, LookupError):
            yield text, parse_graph(text, list(inputs), axes_of(inputs), imported)


def read_by_nobody(model: Part) -> frozenset[str]:
    """The inputs that no layer reads: every expression has them in `!from(...)`."""
    masked = [" ".join(re.findall(r"!\s*from\s*\(([^()]*)\)", text)) for text in _expressions(model)]
    hidden = [frozenset(re.split(r"[\s,]+", names)) for names in masked]
    return frozenset.intersection(*hidden) if hidden else frozenset()


def _expressions(model: Part) -> list[str]:
    written = model.options["attention"]
    return [written] if isinstance(written, str) else written


def time_is_kept(inputs: dict[str, Part], tasks: dict[str, Part], data: Data, model: Part) -> Iterator[Found]:
    """With `causal(seconds)`, and with `causal` where tokens stand in the order of their seconds and what comes next is
    predicted, no token depends on a whole clip, and so on what comes after it."""
    written = in_cores(model, "attention").values()
    expressions = [text for each in written for text in ([each] if isinstance(each, str) else each)]
    predicted = data.order == SECONDS and any(part.target is NextItem for part in tasks.values())
    graph = re.compile(r"\bcausal(\s*\(\s*seconds\s*\))" + "?" * predicted)
    used = next((found.group() for text in expressions if (found := graph.search(text))), None)
    if used is None:
        return
    known = read_ahead(inputs, model) if predicted and "seconds" not in used else frozenset()
    for name, part in inputs.items():
        if name in known:  # all may read the whole of it anyway
            continue
        with suppress(ValueError, TypeError):  # one that cannot be built is told of elsewhere
            if SECONDS in part.target.Chopper.axes and part.build(part.target.Chopper).needs_whole:
                message = (
                    f"each token depends on the whole clip, which {used!r} must not let it hear: use "
                    "{use: audio}, normalize: data and no trim, or another attention"
                )
                yield ("inputs", name), message


def in_time(inputs: Mapping[str, Part]) -> list[str]:
    """The inputs that stand on seconds."""
    return [name for name, part in inputs.items() if SECONDS in axes_of({name: part})]


def order_is_known(inputs: dict[str, Part], data: Data) -> Iterator[Found]:
    """With `data.order: seconds` some input stands on seconds."""
    if data.order == SECONDS and not in_time(inputs):
        yield ("data", "order"), "no input has a time: give one an `offset`, or take order: inputs"


def next_items_stand_in_time(inputs: dict[str, Part], tasks: dict[str, Part]) -> Iterator[Found]:
    """Both inputs of `next_item` are there and stand on seconds."""
    for name, part in tasks.items():
        for key in ("target", "at") if part.target is NextItem else ():
            asked = part.options.get(key)
            if asked in inputs and asked not in in_time(inputs):
                yield ("tasks", name, key), f"the input {asked!r} has no times; give it an `offset`"
            elif key == "at" and asked not in inputs:
                yield ("tasks", name, key), f"no input is named {asked!r}; possible: {', '.join(inputs)}"


def steps_are_played_as_read(
    inputs: dict[str, Part], tasks: dict[str, Part], data: Data, model: Part
) -> Iterator[Found]:
    """In each step of an episode all that is observed comes before the action, and its reward after that; nothing reads
    what comes later. Else an agent would know, while it is trained, what it cannot know when it plays, or read it in
    another order."""
    for source in _renamed(data):
        yield ("data", "dataset", "columns", source), "columns of episodes keep their names: use data.columns, by input"
    if isinstance(data.dataset, Part) and data.dataset.target is Episodes:
        reads = {name: data.columns.get(name, name) for name in inputs}
        yield from step_problems(inputs, reads, tasks, inputs, model)


def step_problems(
    inputs: Mapping[str, Part], reads: Mapping[str, str], tasks: Mapping[str, Part], every: Mapping[str, Part],
    model: Part,
) -> Iterator[Found]:  # fmt: skip
    """What of these inputs of episodes, by the columns that they read, is not read as it is played. `every` input is
    known to the model: a mixture has those of other data, too."""
    ahead, masked = read_ahead(every, model), read_by_nobody(model)
    offset = {name: part.options.get("offset") or 0.0 for name, part in inputs.items()}
    predicted = {part.options.get("target") for part in tasks.values() if part.target is NextItem}
    for name, part in tasks.items():
        target, at = (part.options.get(key) for key in ("target", "at")) if part.target is NextItem else ("", "")
        if not {target, at} <= inputs.keys() or reads[target] != "action":
            continue
        if reads[at] in AFTER:
            yield ("tasks", name, "at"), f"{at!r} has nothing before the first action: name what is observed"
        elif not _moves(inputs[at]):
            yield ("tasks", name, "at"), f"{at!r} is read once, not at every step: name what is observed at each"
        elif not offset[at] < offset[target] < offset[at] + 1:
            told = f"{target!r} has the offset {offset[target]:g}, {at!r}, at which it is predicted, {offset[at]:g}"
            yield ("tasks", name, "at"), f"{told}: it must be larger, by less than 1, or another step's is predicted"
        else:
            later = {n for n in inputs if reads[n] == "return" and n in predicted and offset[n] > offset[target]}
            own = {n: each for n, each in inputs.items() if n != target and n not in later}
            for each in sorted(later):
                told = f"{each!r} is predicted after the action, and while it plays nobody knows it"
                if each not in masked:
                    yield ("inputs", each), f"{told}: add '& !from({each})' to model.attention"
                yield from ((where, f"{told}, {remedy}") for where, remedy in _counting(every, model))
            yield from _out_of_step(own, reads, offset, target)
            yield from _not_step_by_step(own, ahead)


def _counting(inputs: Mapping[str, Part], model: Part) -> Iterator[Found]:
    """Where the main core counts how many tokens lie between two of them, and what to write in its place."""
    position = model.options["position"]
    counts = isinstance(position, Part) and issubclass(position.target, (Rotary, RelativeBias, Alibi))
    if counts and "order" in (position.options.get("per_axis") or ("order",)):
        remedy = "{use: rotary, per_axis: {seconds: 16}}, or another share of a head's channels"
        yield ("model", "position"), f"but its token would be counted: count seconds alone, as in {remedy}"
    if any(graph.counts() for _, graph in _graphs(inputs, model)):
        yield ("model", "attention"), "but its token would be counted: 'window(2, seconds)' counts none"


def _not_step_by_step(inputs: Mapping[str, Part], ahead: Collection[str]) -> Iterator[Found]:
    """The inputs that cannot be read as an agent comes to know them, step by step."""
    for each, part in inputs.items():
        several = next((key for key in ("window", "frames") if (part.options.get(key) or 1) > 1), None)
        if each not in in_time(inputs):
            yield ("inputs", each), "has no place in time, so that it comes last: give it an offset, such as -1"
        elif _moves(part) and each in ahead:
            yield (
                ("inputs", each),
                "is read by what comes before it (model.attention): while it plays nobody knows it yet",
            )
        elif _moves(part) and several:
            yield ("inputs", each, several), "must be 1: an agent acts at every step, and tokens are read one by one"


def _moves(part: Part) -> bool:
    """Whether an input has something at every step, unlike an instruction that stays the same."""
    return SECONDS in part.target.Chopper.axes


def _out_of_step(
    inputs: Mapping[str, Part], reads: Mapping[str, str], offset: Mapping[str, float], action: str
) -> Iterator[Found]:
    """Those of the inputs that stand elsewhere in a step than they are known while an agent plays."""
    seen = [each for each in in_time(inputs) if reads[each] not in AFTER]
    moving = [each for each in seen if _moves(inputs[each])]
    for each in seen:
        if offset[each] >= offset[action]:
            told = f"it is known before the action, so that it must stand before {action!r} ({offset[action]:g})"
            yield ("inputs", each, "offset"), f"{told}, not at {offset[each]:g}"
        elif each in moving and offset[each] <= offset[action] - 1:
            told = f"at {offset[each]:g} it stands before the action of the step before ({offset[action] - 1:g})"
            yield ("inputs", each, "offset"), f"{told}, when it is not known yet"
    last = max((offset[each] for each in seen), default=0.0)
    first = min((offset[each] for each in moving), default=last) + 1
    for each in [each for each in inputs if reads[each] in AFTER and not last < offset[each] < first]:
        told = f"a step's {reads[each]} is known after all that is observed ({last:g}) and before the next ({first:g})"
        yield ("inputs", each, "offset"), f"{told}: it must stand between them, not at {offset[each]:g}"


def _renamed(data: Data) -> list[str]:
    """The sources of episodes in a mixture whose columns it renames."""
    if not isinstance(data.dataset, Part) or data.dataset.target is not Mixture:
        return []
    of, columns = data.dataset.options.get("of") or {}, data.dataset.options.get("columns") or {}
    return [
        name for name, part in of.items() if isinstance(part, Part) and part.target is Episodes and columns.get(name)
    ]


def generated_items_have_no_offset(inputs: dict[str, Part], needs: dict[str, Needs]) -> Iterator[Found]:
    """What is generated token by token, or refined, stands at no second: it has only an order."""
    for name, asked in needs.items():
        for each in asked.inputs if asked.generates or asked.refines else ():
            if each in inputs and inputs[each].options.get("offset") is not None:
                yield ("inputs", each, "offset"), f"must be null: task {name!r} generates this input, piece by piece"


CHECKS: tuple[Callable[..., Iterator[Found]], ...] = (
    time_is_kept, order_is_known, next_items_stand_in_time, steps_are_played_as_read,
    generated_items_have_no_offset,
)  # fmt: skip
