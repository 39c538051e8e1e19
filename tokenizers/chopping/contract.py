"""Checks that tokenizer classes, above all those from outside chopmix, keep the contract of `Chopper`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...models.contract import ContractError, described
from ..base import Chopper, Chunk, Preprocessor, in_time


def chopped(name: str, chopper: Chopper, item: Any) -> Chunk:
    """`chopper.chop(item)` for the input `name`, checked, with its times moved by `chopper.offset`.

    Raises ContractError where the chunk breaks the contract (`problem_of`), or `chop` raises TypeError, AttributeError
    or LookupError: it does not expect such an item. ValueError, OSError and RuntimeError of `chop`, which tell of a bad
    item, pass through.
    """
    where = f"inputs.{name}: {type(chopper).__name__}"
    try:
        chunk = chopper.chop(item)
    except (TypeError, AttributeError, LookupError) as error:
        unread = type(chopper).decode is Chopper.decode and isinstance(item, str | bytes | os.PathLike)
        hint = "; it has no `decode` of its own, which would read the file" if unread else ""
        raise ContractError(f"{where}.chop cannot take {described(item)}: {error}{hint}") from error
    if wrong := problem_of(chunk, chopper, item):
        raise ContractError(f"{where}.{wrong}")
    return in_time(chunk, chopper)


def problem_of(chunk: Any, chopper: Chopper, item: Any) -> str | None:
    """How a chunk breaks the contract of `Chopper.chop` (the end of a message); None where it keeps it."""
    if not isinstance(chunk, Chunk):
        return f"chop gave {described(chunk)}; expected is a Chunk(values, count, coordinates)"
    if not isinstance(chunk.values, Tensor):
        return f"chop gave as values {described(chunk.values)}; expected is a tensor"
    if not isinstance(chunk.count, int) or chunk.count < 0:
        return f"chop gave the count {described(chunk.count)}; expected is a whole number of tokens"
    if type(chopper).count is not Chopper.count and (told := chopper.count(item)) != chunk.count:
        return f"count says {described(told)} where chop gave {chunk.count} tokens; they must agree"
    if chunk.next_ids is not None and tuple(chunk.next_ids.shape) != (chunk.count,):
        return f"chop gave as next_ids {described(chunk.next_ids)}; expected is one id for each of {chunk.count} tokens"
    return None if chunk.coordinates is None else _problem_of_coordinates(chunk, chopper.axes)


def _problem_of_coordinates(chunk: Chunk, axes: tuple[str, ...]) -> str | None:
    expected = (chunk.count, len(axes))
    if isinstance(chunk.coordinates, Tensor) and tuple(chunk.coordinates.shape) == expected:
        return None
    given = f"chop gave as coordinates {described(chunk.coordinates)}"
    if not axes:
        return f"{given}, but its `axes` name none, so that no position would use them; name each, such as ('seconds',)"
    return f"{given}; expected is {expected}: a row per token, a column for each of its axes ({', '.join(axes)})"


def check_complete(name: str, preprocessor: Preprocessor) -> None:
    """Raises ContractError for a chopper class that has `fit` but lacks `save` or `load`."""
    kind = type(preprocessor)
    if isinstance(preprocessor, Chopper) and kind.fit is not Chopper.fit:
        missing = [method for method in ("save", "load") if getattr(kind, method) is getattr(Chopper, method)]
        if missing:
            expected = "expected are all three of fit, save and load: a run works without its data"
            raise ContractError(f"inputs.{name}: {kind.__name__} has `fit` but no `{missing[0]}`; {expected}")


def constructor_problem(embedder: Callable) -> str | None:
    """What is wrong with the parameters of an embedder, which must be (chopper, width, context, *, keys of the YAML);
    None where nothing is."""
    kinds = inspect.Parameter
    every = list(inspect.signature(embedder).parameters.values())
    positional = [each for each in every if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    needed = sum(each.default is each.empty for each in positional)
    if needed <= 3 and (len(positional) >= 3 or any(each.kind is kinds.VAR_POSITIONAL for each in every)):
        return None
    given = ", ".join(each.name for each in positional)
    expected = "(chopper, width, context), and behind * the keys of the YAML"
    return f"{embedder.__name__} takes ({given}); expected is {expected}"
