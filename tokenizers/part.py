"""A class that a configuration names, with its options: the tokenizer of an input, an optimizer, a data set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .base import stands_on

Target = Callable[..., Any]


@dataclass(frozen=True)
class Part:
    """A class and its options from the YAML; called with the positional arguments, which come from code, it makes the
    object. Options that the callable does not take are left out: a tokenizer's include those of its chopper."""

    target: Target
    options: Mapping[str, Any] = field(default_factory=dict)
    use: str | None = field(default=None, compare=False)
    """Its name in the YAML; None for the section `model`, which has no choice."""

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        return self.build(self.target, *arguments, **more)

    def build(self, target: Target, *arguments: Any, **more: Any) -> Any:
        """Call another `target` with those of the options that it takes: `part.build(TextPreprocessor)`."""
        keys = options_of(target)
        known = keyword_only(keys)
        taken = {name: value for name, value in self.options.items() if name in known}
        return target(*arguments, **more, **(taken if keys is target else {"options": keys(**taken)}))


def options_of(target: Target) -> Target:
    """The callable whose signature holds the keys of a class: its dataclass `Options`, else the class itself."""
    return getattr(target, "Options", target)


def keyword_only(target: Target) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a callable, by name."""
    parameters = inspect.signature(target).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def axes_of(inputs: Mapping[str, Part]) -> tuple[str, ...]:
    """The position axes of a set of these inputs: `order`, then those of the tokenizers, each once."""
    axes = [stands_on(part.target.Chopper.axes, part.options.get("offset")) for part in inputs.values()]
    return tuple(dict.fromkeys(["order", *(axis for each in axes for axis in each)]))
