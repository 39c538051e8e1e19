"""Checks of inputs whose tokens have positions in seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from ....tasks.base import Needs, Wiring
from ....tokenizers.base import SECONDS
from ....tokenizers.part import Part, axes_of
from ..sections import Data
from .parts import Found, in_cores


def time_is_kept(wiring: Wiring, model: Part) -> Iterator[Found]:
    """With `causal(seconds)`, and with `causal` where tokens stand in the order of their seconds and what comes next is
    predicted, no token depends on a whole clip, and so on what comes after it."""
    written = in_cores(model, "attention").values()
    expressions = [text for each in written for text in ([each] if isinstance(each, str) else each)]
    predicted = wiring.order == SECONDS and any(needs.judged_at for needs in wiring.needs.values())
    graph = re.compile(r"\bcausal(\s*\(\s*seconds\s*\))" + "?" * predicted)
    used = next((found.group() for text in expressions if (found := graph.search(text))), None)
    if used is None:
        return
    known = wiring.ahead if predicted and "seconds" not in used else frozenset()
    for name, part in wiring.inputs.items():
        if name in known:  # all may read the whole of it anyway
            continue
        with suppress(ValueError, TypeError):  # one that cannot be built is told of elsewhere
            if SECONDS in part.target.Chopper.axes and part.build(part.target.Chopper).needs_whole:
                message = (
                    f"each token depends on the whole clip, which {used!r} must not let it hear: use "
                    "{use: audio}, normalize: data and no trim, or another attention"
                )
                yield ("inputs", name), message


def order_is_known(inputs: dict[str, Part], data: Data) -> Iterator[Found]:
    """With `data.order: seconds` some input stands on seconds."""
    if data.order == SECONDS and SECONDS not in axes_of(inputs):
        yield ("data", "order"), "no input has a time: give one an `offset`, or take order: inputs"


def generated_items_have_no_offset(inputs: dict[str, Part], needs: dict[str, Needs]) -> Iterator[Found]:
    """What is generated token by token, or refined, stands at no second: it has only an order."""
    for name, asked in needs.items():
        for each in asked.inputs if asked.generates or asked.refines else ():
            if each in inputs and inputs[each].options.get("offset") is not None:
                yield ("inputs", each, "offset"), f"must be null: task {name!r} generates this input, piece by piece"


CHECKS: tuple[Callable[..., Iterator[Found]], ...] = (time_is_kept, order_is_known, generated_items_have_no_offset)
