"""Plain values of a YAML (numbers, text, lists of them): validated strictly by pydantic, with one sentence per error.

Strict: true is no number, 2.5 no whole number and "yes" no boolean. Two coercions are made: text that spells a number
is one where a number is wanted (PyYAML reads `1e-4` as text), and 2.0 is the whole number 2.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import operator
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AllowInfNan, BeforeValidator, Strict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from .hints import hint_for

OURS = __name__.partition(".")[0]
"""The package: `chopmix`."""


def problem(message: str, *path: str | int, kind: str = "config") -> ValidationError:
    """A pydantic error with one problem, at `path` below the value that is being read."""
    error: InitErrorDetails = {"type": PydanticCustomError(kind, message), "loc": path, "input": None}
    return ValidationError.from_exception_data("configuration", [error])


def nearest(name: Any, possible: Iterable[str], *, list_all: bool = True) -> str:
    """The end of a message about an unknown name: `; write training.learning_rate` for a word of another library,
    `; did you mean 'depth'?` for a near name, else (with `list_all`) `; possible: depth, width`."""
    possible = list(possible)
    if hint := hint_for(name):
        return f"; {hint}"
    near = difflib.get_close_matches(str(name).lower(), possible, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; possible: {', '.join(possible) or 'nothing'}" if list_all else ""


def shown(value: Any) -> str:
    """A given value for a message, as YAML writes it (null, true, false), cut to 80 characters."""
    text = {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


class Plain:
    """Marker in `Annotated` for a value without parts: its errors are explained in the words of `describe`."""

    def __init__(self, annotation: Any):
        self.annotation = annotation

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable) -> core_schema.CoreSchema:
        return core_schema.no_info_wrap_validator_function(self.read, handler(source))

    def read(self, value: Any, judge: Callable[[Any], Any]) -> Any:
        """The value as `judge` (pydantic) gives it. Raises ValidationError with one problem for all that is wrong."""
        try:
            return judge(value)
        except ValidationError as error:
            constrained = get_origin(self.annotation) is Annotated
            wanted = error.errors()[0]["msg"].removeprefix("Input should be ") if constrained else self.expected()
            near = nearest(value, _words(self.annotation), list_all=False) if isinstance(value, str) else ""
            raise problem(f"must be {wanted}, not {shown(value)}{near}") from None

    def expected(self) -> str:
        """The type in words."""
        return describe(self.annotation)


def number(value: Any) -> Any:
    """The number that a text spells; any other value as it is."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value


def _whole(value: Any) -> Any:
    found = number(value)
    return int(found) if isinstance(found, float) and found.is_integer() else found


STRICT: dict[Any, Any] = {
    bool: Annotated[bool, Strict()],
    str: Annotated[str, Strict()],
    int: Annotated[int, Strict(), BeforeValidator(_whole)],
    float: Annotated[float, Strict(), AllowInfNan(False), BeforeValidator(number)],
}


def strict(annotation: Any) -> Any:
    """An annotation with each `bool`, `str`, `int` and `float` in it replaced by its entry in STRICT."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal or not arguments:
        return STRICT.get(annotation, annotation)
    if origin is Annotated:
        return Annotated[strict(arguments[0]), *arguments[1:]]
    return over_arguments(strict, annotation)


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def written(annotation: Any) -> Any:
    """An annotation without what only code can give: `str | list[str]` of `str | Graph | list[str | Graph]`."""
    if get_origin(annotation) is list:
        return over_arguments(written, annotation)
    kept = [each for each in members(annotation) if is_dataclass(each) or not _is_ours(each)]
    return functools.reduce(operator.or_, map(written, kept)) if len(kept) > 1 else kept[0] if kept else annotation


def _is_ours(annotation: Any) -> bool:
    return inspect.isclass(annotation) and annotation.__module__.startswith(f"{OURS}.")


def over_arguments(change: Callable[[Any], Any], annotation: Any) -> Any:
    """A union or generic type with `change` applied to each of its arguments but None and `...`."""
    origin = get_origin(annotation)
    kept = (..., types.NoneType)
    inner = tuple(argument if argument in kept else change(argument) for argument in get_args(annotation))
    return functools.reduce(operator.or_, inner) if origin in (Union, types.UnionType) else origin[inner]


NAMES = {bool: "true or false", str: "text", int: "a whole number", float: "a number", types.NoneType: "null"}
BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
"""The bounds of pydantic's `Field`, in words."""


def _bounds(annotation: Any) -> list[str]:
    """The bounds of an annotation in words: of `Annotated[float, Field(ge=0, lt=1)]` ["at least 0", "less than 1"]."""
    constraints = [each for field in get_args(annotation)[1:] for each in getattr(field, "metadata", [field])]
    known = [(word, getattr(each, name, None)) for each in constraints for name, word in BOUNDS.items()]
    return [f"{word} {bound:g}" for word, bound in known if bound is not None]


def describe(annotation: Any) -> str:
    """An annotation in words: `int | None` is "a whole number or null", `list[str]` "a list of values (text)"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is Annotated:
        return " of ".join([describe(arguments[0]), *filter(None, [" and ".join(_bounds(annotation))])])
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, arguments))
    if origin is tuple and ... not in arguments:
        return f"a list of {len(arguments)} values ({', '.join(map(describe, arguments))})"
    if origin is dict:
        return f"a mapping of names to values ({describe(arguments[1])})"
    if arguments:
        return f"a list of values ({describe(arguments[0])})"
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _words(annotation: Any) -> Iterator[str]:
    """The texts that the `Literal`s in an annotation allow."""
    for argument in get_args(annotation):
        if get_origin(annotation) is Literal and isinstance(argument, str):
            yield argument
        else:
            yield from _words(argument)
