"""Derives the schema of a YAML from the signatures of the classes that the YAML names.

Positional parameters are passed by code. Keyword-only parameters (for a dataclass: its fields) are keys of the YAML,
with their annotation and default. A class with many keys may define these keys in an inner dataclass `Options`; its
constructor then receives an instance as `options`. Members of a union that only code can provide (`Graph` in
`str | Graph`) are omitted.

    Callable[..., X]   a part (`Choice`): the name of a class, or {use: NAME, ...}; read as a `Part`
    a dataclass        a mapping of its fields (`Record`); read as an instance
    anything else      a plain value (`Plain`)

`__init__(self, model, learning_rate, *, momentum: float = 0.95)` has one key, `momentum`, a number with the default
0.95. Each signature becomes one pydantic model. All problems of a value are raised together, as one ValidationError
whose locations are paths in the YAML."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import operator
import os
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PydanticUserError,
    Strict,
    Tag,
    ValidationError,
    create_model,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from ...tokenizers.base import Part, Target, keyword_only, options_of
from .hints import nearest, shown
from .registry import Registry, attribute_docstrings, registry_of, use_name

OURS = __name__.partition(".")[0]
"""The name of this package: `chopmix`."""


def problem(message: str, *path: str | int, kind: str = "config") -> ValidationError:
    """Returns a pydantic error with one problem. `path` contains the keys from the value that is being validated to the
    wrong part; it is empty for the value itself. `kind` is the type of the pydantic error."""
    error: InitErrorDetails = {"type": PydanticCustomError(kind, message), "loc": path, "input": None}
    return ValidationError.from_exception_data("configuration", [error])


class Plain:
    """Marker in `Annotated` for a plain value, that is, one that contains neither a part nor a dataclass. Error
    messages describe the annotation as `describe` does."""

    def __init__(self, annotation: Any):
        self.annotation = annotation

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable) -> core_schema.CoreSchema:
        return core_schema.no_info_wrap_validator_function(self.read, handler(source))

    def read(self, value: Any, validate: Callable[[Any], Any]) -> Any:
        """Returns the value as pydantic validates it. `validate` is pydantic's validator. Raises ValidationError with
        one problem, even if pydantic finds several errors."""
        try:
            return validate(value)
        except ValidationError as error:
            violated = error.errors()[0].get("ctx", {})
            expected = self.bounds(violated) if violated.keys() & BOUNDS.keys() else self.expected()
            hint = nearest(value, _words(self.annotation), list_all=False) if isinstance(value, str) else ""
            raise problem(f"must be {expected}, not {shown(value)}{hint}") from None

    def bounds(self, violated: Mapping[str, float]) -> str:
        """Returns the bounds of a number in words. `violated` is the bound that the value violates, by its name in
        pydantic: `{"ge": 1}`."""
        (constrained, *others) = [each for each in members(self.annotation) if each is not types.NoneType]
        if others or get_origin(constrained) is not Annotated:
            return self.expected()
        far = [f"{BOUNDS[name]} {bound:,}" for name, bound in violated.items() if bound >= FAR]
        return far[0] if far else " and ".join(_bounds(constrained))

    def expected(self) -> str:
        """Returns the type in words."""
        return describe(self.annotation)


def number(value: Any) -> Any:
    """Returns the number that a text represents. Any other value is returned unchanged."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value


def _integer(value: Any) -> Any:
    result = number(value)
    return int(result) if isinstance(result, float) and result.is_integer() else result


STRICT: dict[Any, Any] = {
    bool: Annotated[bool, Strict()],
    str: Annotated[str, Strict()],
    int: Annotated[int, Strict(), BeforeValidator(_integer)],
    float: Annotated[float, Strict(), AllowInfNan(False), BeforeValidator(number)],
}


def strict(annotation: Any) -> Any:
    """Returns an annotation in which each `bool`, `str`, `int` and `float` is replaced by its value in STRICT."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal or not arguments:
        return STRICT.get(annotation, annotation)
    if origin is Annotated:
        return Annotated[strict(arguments[0]), *arguments[1:]]
    return over_arguments(strict, annotation)


def members(annotation: Any) -> tuple[Any, ...]:
    """Returns the members of a union. For any other annotation, returns a tuple with only the annotation."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def yaml_types(annotation: Any) -> Any:
    """Returns an annotation without the members of unions that only code can provide: `str | Graph | list[str | Graph]`
    becomes `str | list[str]`."""
    if get_origin(annotation) in (list, tuple):
        return over_arguments(yaml_types, annotation)
    kept = [member for member in members(annotation) if is_dataclass(member) or not _is_ours(member)]
    return functools.reduce(operator.or_, map(yaml_types, kept)) if len(kept) > 1 else kept[0] if kept else annotation


def _is_ours(annotation: Any) -> bool:
    return inspect.isclass(annotation) and annotation.__module__.startswith(f"{OURS}.")


def over_arguments(change: Callable[[Any], Any], annotation: Any) -> Any:
    """Returns a union or generic type in which `change` is applied to each argument except None and `...`."""
    origin = get_origin(annotation)
    unchanged = (..., types.NoneType)
    changed = tuple(argument if argument in unchanged else change(argument) for argument in get_args(annotation))
    return functools.reduce(operator.or_, changed) if origin in (Union, types.UnionType) else origin[changed]


NAMES = {bool: "true or false", str: "text", int: "a whole number", float: "a number", types.NoneType: "null"}
BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
"""The names of bounds in pydantic's `Field`, with the words for messages."""
FAR = 2**16
"""Larger bounds are far above any practical value: a typing error gives a message instead of a long computation."""


def _bounds(annotation: Any) -> list[str]:
    """Returns the bounds of an annotation in words: `["at least 0", "less than 1"]` for
    `Annotated[float, Field(ge=0, lt=1)]`. Bounds far above any practical value are left out."""
    constraints = [item for field in get_args(annotation)[1:] for item in getattr(field, "metadata", [field])]
    bounds = [(word, getattr(item, name, None)) for item in constraints for name, word in BOUNDS.items()]
    return [f"{word} {bound:g}" for word, bound in bounds if bound is not None and bound < FAR]


def describe(annotation: Any) -> str:
    """Returns an annotation in words: `"a whole number or null"` for `int | None`, `"a list of values (text)"` for
    `list[str]`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Callable:
        return f"{{use: {members(arguments[1])[0].__name__}, ...}}"
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
    """Yields the texts that the `Literal`s in an annotation allow."""
    for argument in get_args(annotation):
        if get_origin(annotation) is Literal and isinstance(argument, str):
            yield argument
        else:
            yield from _words(argument)


Keys = dict[str, tuple[Any, Any]]
"""The annotation and the default of each key. The default `...` means that the key is required."""


def halves(target: Target) -> tuple[Target, ...]:
    """Returns the classes or functions whose parameters are the keys of one mapping in the YAML. For a tokenizer, these
    are its chopper and the tokenizer itself; for anything else, only `target`."""
    return (target.Chopper, target) if hasattr(target, "Chopper") else (target,)


def keys_of(*targets: Target) -> Keys:
    """Returns the keys of all these classes or functions together, in the order of their signatures."""
    keys: Keys = {}
    for target in map(options_of, targets):
        annotated: Any = target if is_dataclass(target) or not inspect.isclass(target) else target.__init__
        hints = get_type_hints(annotated, include_extras=True)
        factories = {f.name: f.default_factory for f in fields(annotated)} if is_dataclass(target) else {}
        for name, parameter in keyword_only(target).items():
            factory = factories.get(name, MISSING)
            default = parameter.default if factory is MISSING else factory()
            keys[name] = (yaml_types(hints.get(name, Any)), ... if default is parameter.empty else default)
    return keys


def plain(value: Any) -> Any:
    """Returns a checked value, or the default of a parameter, as plain YAML values (mappings, lists, texts, numbers,
    null)."""
    if isinstance(value, Part):
        return ({"use": value.use} if value.use else {}) | plain(value.options)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return use_name(value) if callable(value) else value


class Marker:
    """What reads the value of a key that is not plain: a `Choice` or a `Record`."""

    registry: Registry | None = None
    """The classes among which a value chooses; None for a mapping with fixed keys."""
    targets: tuple[Target, ...] = ()
    """The classes whose parameters are the keys of a mapping."""


class Choice(Marker):
    """Reads a part: the name of a class in `registry`, or a mapping with `use` and options of this class. `default` is
    the name of the class if a mapping has no `use`. If `optional`, null and "none" are read as None."""

    def __init__(self, registry: Registry, default: Any = None, optional: bool = False):
        self.registry, self.optional = registry, optional
        self.default: str | None = default if isinstance(default, str) else None

    def read(self, value: Any) -> Part | None:
        """Returns the part with all its options, or None. Raises ValidationError if the value is neither a text nor a
        mapping, if no class has this name, and for unknown, missing or invalid options."""
        if self.optional and (value is None or value == "none"):
            return None
        if not isinstance(value, str | Mapping):
            raise problem(f"must be {self.expected()}, not {shown(value)}")
        options, location = ({}, ()) if isinstance(value, str) else (dict(value), ("use",))
        use = value if isinstance(value, str) else options.pop("use", self.default)
        if not isinstance(use, str):
            reason = "needs 'use', a name" if use is None else f"'use' must be a name, not {shown(use)}"
            raise problem(f"{reason}; possible: {', '.join(self.registry.names())}")
        try:
            name, target = self.registry.find(use)
            model = model_of_part(target)
        except LookupError as error:
            raise problem(self._about_folder(use) or str(error.args[0]), *location) from None
        return Part(target, check(model, options, name), name)

    def _about_folder(self, use: str) -> str:
        """Returns a message with possible values if `use` is the path of a folder instead of a name. Otherwise returns
        an empty text."""
        entries = []
        for name in self.registry.names() if os.path.isdir(use) else ():
            with contextlib.suppress(LookupError):  # the requirements of this class are not installed
                keys = keys_of(*halves(self.registry.find(name)[1]))
                required = [key for key, (_, default) in keys.items() if default is ...]
                entries += [f"{{use: {name}, {key}: {use}}}" for key in required if required in (["path"], ["train"])]
        return f"{use!r} is a folder: {' or '.join(entries)}" if entries else ""

    def expected(self) -> str:
        names = ", ".join(self.registry.names())
        return f"a name or {{use: NAME, ...}}{' or null' * self.optional} (possible: {names})"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        names, outside = self.registry.names(), {"type": "string", "pattern": r"^[\w.]+:\w+$"}
        choices: list[dict[str, Any]] = [{"enum": names + ["none"] * self.optional}, outside]
        if inside := self.registry.what in _described:  # a mixture of data sets may contain mixtures, recursively
            choices.append({"type": "object"})
        for name in () if inside else names:
            target = self.registry.find(name)[1]
            _described.append(self.registry.what)
            json = json_of(model_of_part(target), halves(target), handler, use=name)
            _described.pop()
            required = ["use"] * (name != self.default) + json.get("required", [])
            choices.append(json | {"required": required})
        choices.append({"type": "object", "properties": {"use": outside}, "required": ["use"]})
        return {"anyOf": choices + [{"type": "null"}] * self.optional}


class Record(Marker):
    """Reads a mapping with the keys of `targets` and returns `make(**values)`. If `optional`, null is read as None. If
    the first target has a method `from_number`, a number is read by this method: `dropout: 0.1`. `label` is the name in
    messages."""

    def __init__(self, label: str, targets: tuple[Target, ...], make: Target, optional: bool = False):
        self.label, self.targets, self.make, self.optional = label, targets, make, optional
        self.from_number: Target | None = getattr(targets[0], "from_number", None)

    @functools.cached_property
    def model(self) -> type[BaseModel]:
        return model_of(self.label, keys_of(*self.targets), inspect.getdoc(self.targets[0]))

    def read(self, value: Any) -> Any:
        """Returns the result of `make`. Raises ValidationError for invalid keys and values, and every exception that
        `make` raises."""
        if value is None and self.optional:
            return None
        amount = number(value)
        if self.from_number and isinstance(amount, int | float) and not isinstance(amount, bool):
            return self.from_number(amount)
        if not isinstance(value, Mapping):
            raise problem(f"must be {self.expected()}, not {shown(value)}")
        return self.make(**check(self.model, value))

    def expected(self) -> str:
        alternatives = "a number or " * bool(self.from_number) + "null or " * self.optional
        return f"{alternatives}a mapping (possible keys: {', '.join(keys_of(*self.targets))})"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        json = json_of(self.model, self.targets, handler)
        alternatives = [{"type": "number"}] * bool(self.from_number) + [{"type": "null"}] * self.optional
        return {"anyOf": [json, *alternatives]} if alternatives else json


def reader(annotation: Any, default: Any = None) -> Any:
    """Returns an annotation for pydantic: with a `Choice` for parts, a `Record` for dataclasses, and `Plain` for
    anything else. `default` is the default of the key."""
    union = members(annotation)
    inner = [member for member in union if member is not types.NoneType]
    optional, only = len(inner) < len(union), inner[0] if len(inner) == 1 else None
    if get_origin(only) is Callable:
        return Annotated[Any, Choice(registry_of(members(get_args(only)[1])), plain(default), optional)]
    if inspect.isclass(only) and is_dataclass(only):
        return Annotated[Any, Record(only.__name__, (only,), only, optional)]
    if marker_of(annotation):
        return annotation
    if any(map(_has_parts, get_args(annotation))):
        return _by_shape(inner) if len(inner) > 1 else over_arguments(reader, annotation)
    return Annotated[strict(annotation), Plain(annotation)]


_described: list[str] = []  # the kinds of parts whose JSON Schema is being generated
SHAPES = "<mapping>", "<other>"  # tags of the members of a union


def _by_shape(members: list[Any]) -> Any:
    """Returns the annotation of a union of a mapping and one other type. Only the member that fits the value reports
    problems."""
    shape = Discriminator(lambda value: SHAPES[not isinstance(value, Mapping)])
    tagged = [Annotated[reader(member), Tag(SHAPES[get_origin(member) is not dict])] for member in members]
    return Annotated[functools.reduce(operator.or_, tagged), shape]


def marker_of(annotation: Any) -> Marker | None:
    """Returns what reads an annotation: a `Choice` for parts, a `Record` for mappings with fixed keys; None for plain
    values and for mappings and lists."""
    last = get_args(annotation)[-1] if get_origin(annotation) is Annotated else None
    return last if isinstance(last, Marker) else None


def _has_parts(annotation: Any) -> bool:
    record = inspect.isclass(annotation) and is_dataclass(annotation)
    is_part = record or get_origin(annotation) is Callable or marker_of(annotation) is not None
    return is_part or any(map(_has_parts, get_args(annotation)))


def model_of(label: str, keys: Keys, docstring: str | None = None) -> type[BaseModel]:
    """Returns a pydantic model with exactly these keys. The names of its fields end in `_`, so no key is equal to the
    name of a method."""
    typed: dict[str, Any] = {
        f"{name}_": (reader(annotation, default), Field(plain(default), alias=name))
        for name, (annotation, default) in keys.items()
    }
    config = ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())
    return create_model(label, __config__=config, __doc__=docstring, **typed)


@functools.cache
def model_of_part(target: Target) -> type[BaseModel]:
    """Returns the pydantic model of a class that a YAML names. Raises LookupError if the signature of the class cannot
    be converted to a schema."""
    try:
        return model_of(target.__name__, keys_of(*halves(target)), inspect.getdoc(target))
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        raise LookupError(f"the signature of {use_name(target)!r} cannot be read as a schema: {error}") from error


def check(model: type[BaseModel], value: Any, use: str | None = None) -> dict[str, Any]:
    """Returns the checked values of a mapping by key, including defaults. `use` is the name of the part in messages.
    Raises ValidationError with all problems in words."""
    try:
        return {name.removesuffix("_"): option for name, option in model.model_validate(value)}
    except ValidationError as error:
        raise in_words(model, error, use) from None


def in_words(model: type[BaseModel], error: ValidationError, use: str | None) -> ValidationError:
    """Returns the error with its problems in words. A key that a misspelt key stands for is not reported as missing."""
    errors = error.errors(include_url=False)
    keys = [str(field.alias) for field in model.model_fields.values()]
    unknown = [str(item["loc"][-1]).lower() for item in errors if item["type"] == "extra_forbidden"]
    misspelled = {match for name in unknown for match in difflib.get_close_matches(name, keys, n=1)}
    missing = [item["loc"][-1] for item in errors if item["type"] == "missing"]
    only_missing = missing[0] if len(missing) == len(unknown) == 1 and not misspelled else None
    implied = {*misspelled, only_missing}
    reported = [item for item in errors if item["type"] != "missing" or item["loc"][-1] not in implied]
    explained = [_explained(model, item, only_missing, use) for item in reported]
    return ValidationError.from_exception_data(model.__name__, explained)


COLLECTIONS = {"dict_type": "a mapping", "list_type": "a list", "tuple_type": "a list"}
"""pydantic's error types for collections, with the words for messages."""


def _explained(model: type[BaseModel], error: Any, only_missing: str | None, use: str | None) -> Any:
    """Returns a pydantic error in words. If exactly one key is missing and exactly one key is unknown, `only_missing`
    is the missing key; else None."""
    kind, message = error["type"], error["msg"]
    path = tuple(step for step in error["loc"] if step not in SHAPES)
    keys = {str(field.alias): field for field in model.model_fields.values()}
    if kind == "extra_forbidden":
        options = [*([f"use: {use}"] if use else []), f"{only_missing}: {shown(error['input'])}".replace("'", "")]
        hint = f"; it needs {only_missing!r}: {{{', '.join(options)}}}" if only_missing else nearest(path[-1], keys)
        kind, message = "unknown_key", f"{model.__name__} has no such key{hint}"
    elif kind == "missing":
        hints = [marker.expected() for marker in keys[path[-1]].metadata if hasattr(marker, "expected")]
        kind, path, message = "config", path[:-1], ": ".join([f"{model.__name__} needs {path[-1]!r}", *hints])
    elif kind == "value_error":
        kind, message = "config", str(error["ctx"]["error"])
    elif kind not in ("config", "unknown_key"):
        expected = COLLECTIONS.get(kind, message.removeprefix("Input should be "))
        kind, message = "config", f"must be {expected}, not {shown(error['input'])}"
    return {"type": PydanticCustomError(kind, message), "loc": path, "input": error["input"]}


def json_of(
    model: type[BaseModel], targets: tuple[Target, ...], handler: Any, use: str | None = None
) -> dict[str, Any]:
    """Returns the JSON Schema of a model. The docstrings of fields become descriptions. `use` is the name of the part
    and becomes a constant property; None: the model is not a part."""
    json = handler(model.__pydantic_core_schema__)
    properties = json.setdefault("properties", {})
    for name, docstring in (pair for target in targets for pair in attribute_docstrings(options_of(target)).items()):
        if name in properties:
            properties[name].setdefault("description", docstring)
    return json if use is None else json | {"properties": {"use": {"const": use}} | properties}
