"""Descriptions of the keys of a YAML and of the parts that it can name, from signatures and docstrings: for the page of
a run, `chopmix explain`, and the documentation."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Any, NamedTuple, get_args, get_origin

from ...tokenizers.base import Target, options_of
from .registry import Registry, attribute_docstrings
from .schema import describe, halves, keys_of, marker_of, members, plain, reader
from .sections import sections

TOP_KEYS = {
    "inputs": "The inputs of the model by name. Each chops one modality: `image: {use: image, patch_size: 4}`.",
    "tasks": "What the model learns, by name: `digit: {use: classification, target: label}`.",
    "out": "The folder of the run. Default: `runs/` and the path of the YAML file below `configs/`, or its name.",
    "from": "The folder of a run, or `quickstart`: its weights are the initial weights of this run.",
    "format": "The version of the format of a run's configuration. chopmix writes it into the folder of a run.",
    "use": "In a mapping that describes a part: the name of the part. `x: image` is short for `x: {use: image}`.",
    "same_as": "An input with the vocabulary and the embedding of another one: `target: {same_as: source}`.",
}  # fmt: skip
"""The descriptions of top-level keys that are not a section with fixed keys, and of keys that all parts have."""


class Key(NamedTuple):
    """A key of a mapping in a YAML."""

    name: str
    annotation: Any
    default: Any
    """The default as plain YAML values; `...` if the key is required."""
    text: str
    """The description; empty if there is none."""

    @property
    def type(self) -> str:
        """The possible values in words."""
        marker = marker_of(reader(self.annotation, self.default))
        return marker.expected() if marker else describe(self.annotation)


def sentences_about(key: str, text: str) -> str:
    """Returns the sentences of a docstring that contain the name of a key in backticks. Examples (indented lines) and
    sentences about errors are left out."""
    prose = [" ".join(line for line in part.split("\n") if not line.startswith("    ")) for part in text.split("\n\n")]
    sentences = [each for part in prose for each in re.split(r"(?<=\.)\s+(?=[A-Z`])", part)]
    return " ".join(
        sentence
        for sentence in sentences
        if re.search(rf"`{re.escape(key)}[`:]", sentence) and not sentence.startswith("Raises ")
    )


@functools.cache
def keys_with_text(*targets: Target) -> tuple[Key, ...]:
    """Returns the keys of classes that are written as one mapping, such as a chopper and its tokenizer."""
    texts: dict[str, str] = {}
    for target in targets:
        for name in keys_of(target):
            texts[name] = texts.get(name) or text_of(name, target)
    return tuple(
        Key(name, annotation, ... if default is ... else plain(default), texts.get(name, ""))
        for name, (annotation, default) in keys_of(*targets).items()
    )


def text_of(name: str, target: Target) -> str:
    """Returns the description of a key: the docstring after the field, or the sentences about it in the docstring of
    the class or of a base class. Empty if there is none."""
    if text := attribute_docstrings(options_of(target), every_class=True).get(name):
        return unwrapped(text)
    documented = [base.__doc__ or "" for base in getattr(target, "__mro__", (target,))]
    return next(filter(None, (sentences_about(name, inspect.cleandoc(text)) for text in documented)), "")


def unwrapped(text: str) -> str:
    """Returns a text with one line per paragraph, so that it can be wrapped to any width. Paragraphs with indented
    lines, such as examples, are unchanged."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(part if "\n " in f"\n{part}" else " ".join(part.split("\n")) for part in paragraphs)


def summary_of(target: Target) -> str:
    """Returns the first sentence of the docstring of a class or function; empty if it has none of its own."""
    own = inspect.cleandoc(target.__doc__ or "")  # a docstring that is inherited describes the base class
    generated = is_dataclass(target) and own.startswith(f"{target.__name__}(")
    text = "" if generated else " ".join(own.split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", text)[0]


class Described(NamedTuple):
    """A value of a configuration and its description."""

    path: tuple[str, ...]
    value: Any
    text: str
    is_default: bool
    """Whether the value is the default of its key."""


def described_keys(tree: Mapping[str, Any]) -> Iterator[Described]:
    """Yields the values of a complete configuration, with the description of each key. A part is one entry with its
    name, followed by those of its options."""
    for name, (annotation, default) in sections().items():
        if name in tree:
            yield from under((name,), tree[name], annotation, default, "")


def under(path: tuple[str, ...], value: Any, annotation: Any, default: Any, text: str) -> Iterator[Described]:
    """Yields the entries of one value. `annotation` and `default` are those of its key, `text` its description."""
    marker = marker_of(reader(annotation, default))
    if marker and marker.registry and isinstance(value, Mapping) and isinstance(value.get("use"), str):
        _, target = marker.registry.find(value["use"])
        is_default = default in (value["use"], {"use": value["use"]})
        summaries = [text, summary_of(target), *map(summary_of, halves(target))]
        yield Described(path, value["use"], next(filter(None, summaries), ""), is_default)
        yield from of_keys(path, value, keys_with_text(*halves(target)))
    elif marker and marker.targets and isinstance(value, Mapping):
        yield from of_keys(path, value, keys_with_text(*marker.targets))
    elif isinstance(value, Mapping) and any(isinstance(item, Mapping) for item in value.values()):
        named = next((member for member in members(annotation) if get_origin(member) is dict), dict[str, Any])
        for name, item in value.items():
            yield from under((*path, str(name)), item, get_args(named)[1], None, text)
    else:
        yield Described(path, value, text, default is not ... and value == default)


def of_keys(path: tuple[str, ...], value: Mapping[str, Any], keys: tuple[Key, ...]) -> Iterator[Described]:
    for key in keys:
        if key.name in value:
            yield from under((*path, key.name), value[key.name], key.annotation, key.default, key.text)


class Kind(NamedTuple):
    """A kind of parts, such as the tokenizers of inputs."""

    path: str
    """The first place in a YAML where such a part stands: `inputs.NAME`, `training.optimizer`."""
    registry: Registry


class Entry(NamedTuple):
    """A mapping in a YAML with its keys: a section, a part or an option with fixed keys."""

    path: str
    """The place in a YAML: `training`, `inputs.NAME`, `model.block.norm`."""
    name: str
    """The name of the part, the value of `use`; empty for other mappings."""
    target: Target
    keys: tuple[Key, ...]

    @property
    def title(self) -> str:
        """The place and the name: `inputs.NAME: image`."""
        return f"{self.path}: {self.name}" if self.name else self.path


@functools.cache
def reference() -> tuple[tuple[Kind, ...], tuple[Entry, ...]]:
    """Returns all kinds of parts and all mappings that a YAML can contain, in the order of the sections. A part is
    listed at the first place where it can stand. Parts whose requirements are not installed are left out."""
    kinds: dict[str, Kind] = {}
    entries: dict[tuple[str, Target], Entry] = {}

    def visit(path: str, annotation: Any, default: Any) -> None:
        marker = marker_of(reader(annotation, default))
        if marker and marker.registry:
            registry = marker.registry
            if registry.what in kinds:
                return
            kinds[registry.what] = Kind(path, registry)
            for name in registry.names():
                with suppress(LookupError):
                    add(path, name, registry.find(name)[1])
        elif marker and marker.targets:
            add(path, "", *marker.targets)
        else:
            for member in members(annotation):
                if get_origin(member) in (dict, list, tuple):
                    for inner in get_args(member):
                        if inner not in (str, ...):
                            visit(f"{path}.NAME" if get_origin(member) is dict else path, inner, None)

    def add(path: str, name: str, *targets: Target) -> None:
        targets = halves(targets[0]) if name else targets
        if (path, targets[-1]) in entries:
            return
        keys = keys_with_text(*targets)
        entries[path, targets[-1]] = Entry(path, name, targets[-1] if name else targets[0], keys)
        for key in keys:
            visit(f"{path}.{key.name}", key.annotation, key.default)

    for name, (annotation, default) in sections().items():
        visit(name, annotation, default)
    return tuple(kinds.values()), tuple(entries.values())
