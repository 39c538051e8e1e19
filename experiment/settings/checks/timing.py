"""Checks of what stands in time: inputs on seconds, their order, and who may read whom."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from ....data.datasets.episodes import OWN
from ....tasks.next_item import NextItem
from ....tokenizers.base import SECONDS, stands_on
from ..schema import Part
from ..sections import Data
from .parts import Found, in_cores, needs_of


def axes_of(inputs: Mapping[str, Part]) -> tuple[str, ...]:
    """The position axes of a set of these inputs: `order`, then those of the tokenizers, each once."""
    found = [stands_on(part.target.Chopper.axes, part.options.get("offset")) for part in inputs.values()]
    return tuple(dict.fromkeys(["order", *(axis for axes in found for axis in axes)]))


def time_is_kept(inputs: dict[str, Part], model: Part) -> Iterator[Found]:
    """With `causal(seconds)`, no token depends on a whole clip, and so on what comes after it."""
    written = in_cores(model, "attention").values()
    expressions = [text for each in written for text in ([each] if isinstance(each, str) else each)]
    if not any(re.search(r"\bcausal\s*\(\s*seconds\b", text) for text in expressions):
        return
    for name, part in inputs.items():
        with suppress(ValueError, TypeError):  # one that cannot be built is told of elsewhere
            if SECONDS in part.target.Chopper.axes and part.build(part.target.Chopper).needs_whole:
                message = (
                    "each token depends on the whole clip, which 'causal(seconds)' must not let it hear: use "
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


def actions_follow_what_is_seen(inputs: dict[str, Part], tasks: dict[str, Part], data: Data) -> Iterator[Found]:
    """An action that is predicted at what is observed stands behind it, within the same step of an episode: else the
    next token of its input would be another step's."""
    for name, part in tasks.items():
        target, at = (part.options.get(key) for key in ("target", "at")) if part.target is NextItem else ("", "")
        column, seen = data.columns.get(target, target), data.columns.get(at, at)
        if column != "action" or seen in OWN or not {target, at} <= inputs.keys():
            continue
        places = [inputs[each].options.get("offset") or 0.0 for each in (at, target)]
        if not places[0] < places[1] < places[0] + 1:
            told = f"{target!r} has the offset {places[1]:g}, {at!r}, at which it is predicted, {places[0]:g}"
            yield ("tasks", name, "at"), f"{told}: it must be larger, by less than 1, or another step's is predicted"


def generated_items_have_no_offset(inputs: dict[str, Part], tasks: dict[str, Part]) -> Iterator[Found]:
    """What is generated token by token, or refined, stands at no second: it has only an order."""
    for name, needs in needs_of(tasks).items():
        for each in needs.inputs if needs.generates or needs.refines else ():
            if each in inputs and inputs[each].options.get("offset") is not None:
                yield ("inputs", each, "offset"), f"must be null: task {name!r} generates this input, piece by piece"


CHECKS: tuple[Callable[..., Iterator[Found]], ...] = (
    time_is_kept, order_is_known, next_items_stand_in_time, actions_follow_what_is_seen,
    generated_items_have_no_offset,
)  # fmt: skip
