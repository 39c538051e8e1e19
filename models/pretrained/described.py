"""What a published model's `config.json` says, read as typed and bounded fields with transformers' own defaults.

A field whose type is a `Literal` can only have the values that we reproduce exactly; keys that no field names do not change what
a model computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Depth = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=2**17)]
Heads = Annotated[int, Field(ge=1, le=2**12)]
Count = Annotated[int, Field(ge=1, le=2**24)]
Id = Annotated[int, Field(ge=0, lt=2**24)]
Share = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, lt=1)]


class Described(BaseModel):
    """Base of the descriptions of architectures."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())


D = TypeVar("D", bound=Described)


def described(kind: type[D], values: Mapping[str, Any]) -> D:
    """A `config.json` as the description of an architecture. Raises ValueError naming the first option that is missing, out of
    bounds, or not reproduced exactly; nothing is approximated."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place, given = ".".join(map(str, first["loc"])), first["input"]
    if first["type"] == "missing":
        raise ValueError(f"config.json has no {place!r}")
    if first["type"] == "literal_error":
        expected = first["ctx"]["expected"].replace("'True'", "True").replace("'False'", "False")
        raise ValueError(f"config.json: {place} is {_short(given)}; only {expected} is reproduced exactly")
    if first["type"] == "value_error":
        raise ValueError(f"config.json: {first['ctx']['error']}")
    message = first["msg"].replace("Input should be ", "it must be ").replace("a valid ", "a ")
    raise ValueError(f"config.json: {place} is {_short(given)}; {message}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def first(value: int | list[int] | None, otherwise: int) -> int:
    """An id, where a directory may name several, or none."""
    if isinstance(value, list):
        return value[0] if value else otherwise
    return otherwise if value is None else value
