"""Names of earlier versions (keys and values of a YAML, modules and classes of chopmix) and their present ones: tables
for messages."""

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
"""Renamed keys, and renamed values as `key=word` (the word may be part of a longer text, of a list, or stand under
`use`); `*` is any name. Applied from first to last: a path holds the new names of the keys above, so `data.card` comes
before `data.dataset.left_out`."""

MOVED = {
    "data.card": "data.base",
    "data.cards": "data.datasets",
    "data.samples.dataset": "data.samples",
    "data.samples.functions": "data.functions",
    "data.samples.made": "data.samples",
    "inference.generating": "inference.generate",
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
    "tasks.metrics": "tasks.measuring.texts",
    "tasks.task": "tasks.base",
    "tasks.text_metrics": "tasks.measuring.texts",
    "tokenizers.augmentation": "tokenizers.media.augmentation",
    "tokenizers.chopper": "tokenizers.base",
    "tokenizers.files": "files",
    "tokenizers.ids": "tokenizers.chopping.ids",
    "tokenizers.sound": "tokenizers.media.sound",
    "training.mix": "training.mixup",
}
"""Renamed modules and classes (`module:Class`) of chopmix that a YAML may name or a user's class may import, without
`chopmix.`"""

REFERENCE = re.compile(r"(\w+)((?:\.\w+)+)(:\w+)?")


class Renaming(NamedTuple):
    """An old name that was found in a tree and replaced."""

    path: tuple[str | int, ...]
    """The path of the renamed key, or of the key whose value was renamed."""
    old: str
    new: str
    doubled: bool = False
    """Whether the new key stood beside the old one: then the old key was dropped with its value."""

    @property
    def moved(self) -> tuple[str | int, ...]:
        """The path with the new name."""
        return (*self.path[:-1], self.new) if self.path[-1] == self.old else self.path

    def __str__(self) -> str:
        """`data.card is called data.dataset now`."""
        return f"{'.'.join(map(str, self.path))} {self.sentence}"

    @property
    def sentence(self) -> str:
        """The message at the path: `is called data.dataset now`, of a value `'same_span' is called 'same_item' now`."""
        if self.path[-1] == self.old:
            return f"is called {'.'.join(map(str, self.moved))} now"
        return f"{self.old!r} is called {self.new!r} now"


def rename(tree: Any) -> list[Renaming]:
    """Replace the old names in a YAML's tree, in place, keeping the order of keys; gives what was replaced.

    Keys beside a class from outside chopmix (`use: mylab.lidar:Lidar`) are left as they are.
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
    """(path, mapping) of every mapping at a path of keys, in which `*` stands for any key."""
    if not isinstance(tree, dict):
        return
    if not parents:
        yield path, tree
        return
    for key in list(tree) if parents[0] == "*" else [parents[0]]:
        yield from mappings(tree.get(key), parents[1:], (*path, key))


def is_foreign(part: Mapping[str, Any]) -> bool:
    """Whether a mapping holds the options of a class from outside chopmix."""
    use = part.get("use")
    return isinstance(use, str) and ":" in use and not use.startswith("chopmix.")


def with_key(mapping: dict, path: tuple[str, ...], old: str, new: str) -> Renaming:
    """Rename a key of a mapping in place, keeping the order; drop it where the new key is there too."""
    items, doubled = list(mapping.items()), new in mapping
    mapping.clear()
    mapping.update((new if key == old else key, value) for key, value in items if key != old or not doubled)
    return Renaming((*path, old), old, new, doubled)


def with_value(value: Any, path: tuple[str | int, ...], old: str, new: str, found: list[Renaming]) -> Any:
    """A value with a word replaced: in a text, a list of texts, the `use` of a mapping; adds changes to `found`."""
    if isinstance(value, list):
        return [with_value(item, (*path, number), old, new, found) for number, item in enumerate(value)]
    if isinstance(value, dict) and "use" in value:
        value["use"] = with_value(value["use"], (*path, "use"), old, new, found)
    elif isinstance(value, str):
        changed = re.sub(rf"(?<![\w.:]){old}(?![\w.:])", new, value)  # not within package.module:Class
        found += [Renaming(path, old, new)] if changed != value else []
        return changed
    return value


def with_references(value: Any, path: tuple[str | int, ...], found: list[Renaming]) -> Any:
    """A tree with the present names of every `chopmix.module:Class`, in place; adds changes to `found`."""
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = with_references(item, (*path, key), found)
    elif isinstance(value, str) and ":" in value and (now := moved(value)):
        found.append(Renaming(path, value, now))
        return now
    return value


def moved(reference: str) -> str | None:
    """The present name of a renamed module of chopmix (or `module:Class`); None for any other.

    `chopmix.models.norms:RmsNorm` is now `chopmix.models.layers.norms:RmsNorm`.
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
