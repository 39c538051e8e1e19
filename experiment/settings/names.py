"""What earlier versions called the keys and values of a YAML, and classes of ours: one table, for messages and for
`chopmix upgrade`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

RENAMED = {
    "data.card": "data.dataset",
    "data.dataset.left_out": "data.dataset.held_out",
    "evaluation.worth": "evaluation.attribution",
    "inputs.*.deviation": "inputs.*.std",
    "model.attention=same_span": "model.attention=same_item",
    "model.encoder.attention=same_span": "model.encoder.attention=same_item",
    "model.initialization.deviation": "model.initialization.std",
    "model.own_tokens": "model.core_tokens",
    "tasks.*.judge": "tasks.*.metrics",
    "tasks.*.pooling=own_tokens": "tasks.*.pooling=core_tokens",
    "training.mix": "training.mixup",
}
"""Keys, and values as `key=word` (the word may stand in a longer text, in a list, or under `use`); `*` is any name.
Read from the first to the last: a path holds the new names of what stands above it."""

MOVED = {
    "data.card": "data.base",
    "data.cards": "data.datasets",
    "models.feed_forward": "models.layers.feed_forward",
    "models.heads:OwnTokens": "models.heads:CoreTokens",
    "models.linear": "models.layers.linear",
    "models.mixture": "models.model",
    "models.norms": "models.layers.norms",
    "models.positions": "models.layers.positions",
    "models.positions:Alibi": "models.layers.relative:Alibi",
    "models.positions:RelativeBias": "models.layers.relative:RelativeBias",
    "models.positions:RelativePosition": "models.layers.relative:RelativePosition",
    "models.positions:Rotary": "models.layers.relative:Rotary",
    "models.token_set": "models.tokens",
    "tasks.task": "tasks.base",
    "tasks.text_metrics": "tasks.metrics",
    "tokenizers.augmentation": "tokenizers.media.augmentation",
    "tokenizers.chopper": "tokenizers.base",
    "tokenizers.sound": "tokenizers.media.sound",
    "training.mix": "training.mixup",
}
"""Modules of ours, and classes as `module:Class`, that a YAML names or that a user's own classes build upon, without
`chopmix.`"""

REFERENCE = re.compile(r"(\w+)((?:\.\w+)+)(:\w+)?")


class Renaming(NamedTuple):
    """An old name that was found in a tree, and replaced."""

    path: tuple[str | int, ...]
    """Where it stands: of a key its own path, of a value that of its key."""
    old: str
    new: str
    doubled: bool = False
    """Whether the new key was there beside the old one: then the old one's value was dropped."""

    @property
    def moved(self) -> tuple[str | int, ...]:
        """The path, once the name is replaced."""
        return (*self.path[:-1], self.new) if self.path[-1] == self.old else self.path

    def __str__(self) -> str:
        """`data.card is called data.dataset now`."""
        return f"{'.'.join(map(str, self.path))} {self.sentence}"

    @property
    def sentence(self) -> str:
        """What is to be said at the path."""
        if self.path[-1] == self.old:
            return f"is called {'.'.join(map(str, self.moved))} now"
        return f"{self.old!r} is called {self.new!r} now"


def rename(tree: Any) -> list[Renaming]:
    """Give what stands under an old name in a YAML's tree its new one, in place and in its order; tells what was found.

    A class from outside chopmix (`use: mylab.lidar:Lidar`) has keys of its own, which are left as they are.
    """
    found: list[Renaming] = []
    for old, new in RENAMED.items():
        (before, _, word), after = old.partition("="), new.rpartition("=")[2]
        *parents, key = before.split(".")
        for path, mapping in mappings(tree, parents):
            if key not in mapping:
                continue
            if word:
                mapping[key] = with_value(mapping[key], (*path, key), word, after, found)
            elif not is_foreign(mapping):
                found.append(with_key(mapping, path, key, after.rpartition(".")[2]))
    with_references(tree, (), found)
    return found


def mappings(tree: Any, parents: list[str], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """The mappings at a path of keys, of which `*` stands for any, and their own paths."""
    if not isinstance(tree, dict):
        return
    if not parents:
        yield path, tree
        return
    for key in list(tree) if parents[0] == "*" else [parents[0]]:
        yield from mappings(tree.get(key), parents[1:], (*path, key))


def is_foreign(part: Mapping[str, Any]) -> bool:
    """Whether the keys of a mapping are those of a class from outside chopmix."""
    use = part.get("use")
    return isinstance(use, str) and ":" in use and not use.startswith("chopmix.")


def with_key(mapping: dict, path: tuple[str, ...], old: str, new: str) -> Renaming:
    """Rename a key, which keeps its place among the others."""
    items, doubled = list(mapping.items()), new in mapping
    mapping.clear()
    mapping.update((new if key == old and not doubled else key, value) for key, value in items)
    if doubled:
        del mapping[old]
    return Renaming((*path, old), old, new, doubled)


def with_value(value: Any, path: tuple[str | int, ...], old: str, new: str, found: list[Renaming]) -> Any:
    """A value with a word of it replaced: in a text, in the texts of a list, in the `use` of a mapping."""
    if isinstance(value, list):
        return [with_value(item, (*path, number), old, new, found) for number, item in enumerate(value)]
    if isinstance(value, dict) and "use" in value:
        value["use"] = with_value(value["use"], (*path, "use"), old, new, found)
    elif isinstance(value, str):
        changed = re.sub(rf"(?<![\w.:]){old}(?![\w.:])", new, value)  # no part of a `package.module:Class`
        found += [Renaming(path, old, new)] if changed != value else []
        return changed
    return value


def with_references(value: Any, path: tuple[str | int, ...], found: list[Renaming]) -> Any:
    """A tree in which every `chopmix.module:Class` stands as it is called now."""
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = with_references(item, (*path, key), found)
    elif isinstance(value, str) and ":" in value and (now := moved(value)):
        found.append(Renaming(path, value, now))
        return now
    return value


def moved(reference: str) -> str | None:
    """What a module of ours (or `module:Class`) is called now; None where it is called so still, or is none of ours.

    `chopmix.models.norms:RmsNorm` is `chopmix.models.layers.norms:RmsNorm`.
    """
    parts = REFERENCE.fullmatch(reference)
    if not parts or parts[1] != "chopmix":
        return None
    module, name = parts[2][1:], parts[3] or ""
    if module + name in MOVED:
        return f"chopmix.{MOVED[module + name]}"
    folder, _, file = module.rpartition(".")
    if module in MOVED:
        return f"chopmix.{MOVED[module]}{name}"
    return f"chopmix.{MOVED[folder]}.{file}{name}" if folder in MOVED else None
