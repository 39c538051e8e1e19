"""What is said of a class from outside the package that gives something else than is expected of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class ContractError(TypeError):
    """A class breaks its contract: the message names the class, what it gave, and what is expected."""


def described(value: Any) -> str:
    """A value in such a message, by its type; a tensor by its shape."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value) if isinstance(value, str | int | float | type(None)) else ""
    kind = type(value).__name__
    return text if 0 < len(text) <= 60 else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def check_embedded(name: str, embedder: object, tokens: Any, count: int, width: int) -> None:
    """Raises ContractError where an input's embedder gave anything but one vector of the model's width per token."""
    shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else ()
    if shape[-1:] != (width,) or tokens.numel() != count * width:
        raise ContractError(
            f"inputs.{name}: {type(embedder).__name__} gave {described(tokens)}; expected is ({count}, {width}): for "
            "each token of its chunks one vector of the model's width"
        )
