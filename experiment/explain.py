"""`chopmix explain [WORD]`: the reference of YAML keys, parts, attention graphs, commands and public classes, from
signatures and docstrings."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..files.errors import UsageError
from ..files.plugins import ROOT, modules_of
from ..files.printing import listed
from ..models.attention import grammar
from ..models.attention.grammar import USAGE, VALUES, plug_in
from ..tasks.measuring.texts import MEANINGS
from .settings.config import Config
from .settings.document import dumped_line
from .settings.reference import TOP_KEYS, Entry, Key, described_keys, reference, summary_of, unwrapped
from .settings.registry import attribute_docstrings, trusting

EXPRESSION = ("!", "&", "|", "attention", "expression", "graph", "mask", "not", "and", "or")
"""Words for which the grammar of attention graphs is explained."""
TITLES = 4
"""The largest number of places with the same text that a title names."""


class Topic(NamedTuple):
    """What the reference says about a word: a title, a text, and rows (key, type and default, description)."""

    title: str
    text: str
    rows: Sequence[tuple[str, str, str]] = ()


def overview(commands: Mapping[str, str]) -> Iterator[Topic]:
    """Yields what can be explained: sections, kinds of parts, graphs, commands and public classes. `commands`: the help
    of each command."""
    kinds, entries = reference()
    sections = [entry for entry in entries if "." not in entry.path]
    yield Topic(
        "sections of a YAML", "", [(entry.path, "", ", ".join(key.name for key in entry.keys)) for entry in sections]
    )
    yield Topic("parts", "", [(kind.path, "", ", ".join(kind.registry.names())) for kind in kinds])
    yield Topic("attention graphs", "", [("model.attention", "", ", ".join(graphs()))])
    yield Topic("commands", "", [("chopmix", "", ", ".join(commands))])
    yield Topic("Python", "", [("chopmix", "", ", ".join(public_names()))])


def graphs() -> dict[str, Any]:
    """Returns the graph classes by their names in an expression."""
    return {**VALUES, **{name: plug_in(name) for name in modules_of("models.graphs")}}


def public_names() -> list[str]:
    """Returns the public names of `import chopmix`."""
    return sorted(name for name in dir(importlib.import_module(ROOT)) if name[0] != "_" and name[0].isalpha())


def topics_of(word: str, commands: Mapping[str, str]) -> list[Topic]:
    """Returns what the reference says about a word: a key (`heads`), a place (`training.learning_rate`), a part
    (`rms_norm`), a graph (`causal`), a command or a public class. Raises UsageError with similar words if there is
    nothing."""
    _, entries = reference()
    word = word.partition("(")[0]  # `from(image)`
    topics = [Topic(f"key {word}", TOP_KEYS[word])] if word in TOP_KEYS else []
    topics += [topic_of(entry) for entry in entries if word == entry.name or is_place(word, entry.path)]
    topics += [
        topic_of_key(entry, key)
        for entry in entries
        for key in entry.keys
        if word in (key.name, f"{entry.name}.{key.name}") or is_place(word, f"{entry.path}.{key.name}")
    ]
    topics = topics or of_option(word)
    if (graph := graphs().get(word)) is not None:
        topics.insert(0, Topic(f"model.attention: {USAGE.get(word, word)}", prose(graph)))
    if word in MEANINGS:
        better = "larger" if MEANINGS[word].larger_is_better else "smaller"
        topics.append(Topic(f"metric {word}", f"{prose(MEANINGS[word].of_texts)} A {better} value is better."))
    if word in EXPRESSION:
        topics.append(Topic("expressions of model.attention", prose(grammar)))
    if word in commands:
        topics.append(Topic(f"chopmix {word}", f"{commands[word]}\n\nAll options: chopmix {word} --help"))
    name, _, member = word.partition(".")
    if name in public_names() and hasattr(value := getattr(importlib.import_module(ROOT), name), member or "__doc__"):
        topics.append(
            Topic(f"{ROOT}.{word}", prose(getattr(value, member) if member else value), members_of(value, member))
        )
    if not topics:
        near = difflib.get_close_matches(word, sorted(words(commands)), n=5)
        hint = f"; similar: {', '.join(near)}" if near else ""
        raise UsageError(f"nothing is named {word!r}{hint}; `chopmix explain` lists what can be explained")
    return merged(topics)


def members_of(value: Any, member: str = "") -> list[tuple[str, str, str]]:
    """Returns rows with the fields and public methods of a class; none for a function or a member."""
    if member or not inspect.isclass(value):
        return []
    fields = [(name, "", text) for name, text in attribute_docstrings(value, every_class=True).items()]
    methods = [(f"{name}()", "", summary_of(method)) for name, method in vars(value).items()
               if inspect.isfunction(method) and name[0] != "_"]  # fmt: skip
    return fields + methods


def of_option(word: str) -> list[Topic]:
    """Returns what the reference says about the last part of a place in a YAML, for the parts that can stand there:
    `model.block.norm.gain` is the key `gain` of a norm, `evaluation.attribution` the evaluator `attribution`."""
    _, entries = reference()
    *_, parent, name = ["", *word.split(".")]
    section = word.split(".")[0]
    parts = [entry for entry in entries if "." in word and entry.name == name and entry.path.split(".")[0] == section]
    options = [(entry, key) for entry in entries for key in entry.keys
               if key.name == name and parent in (entry.path.split(".")[-1], entry.name) and "." in word]  # fmt: skip
    return [*map(topic_of, parts), *(topic_of_key(entry, key) for entry, key in options)]


def of_file(config: Config) -> Topic:
    """Returns the keys of a configuration that differ from the defaults, with their values and descriptions."""
    with trusting(config.trust):
        entries = [entry for entry in described_keys(config.tree) if not entry.is_default]
    rows = [(f"{'.'.join(entry.path)}: {dumped_line(entry.value)}", "", entry.text) for entry in entries]
    return Topic("the keys that differ from the defaults", "", rows)


def is_place(word: str, path: str) -> bool:
    """Whether a word is a place in a YAML, in which `NAME` is any name: `inputs.image.position` is
    `inputs.NAME.position`."""
    parts, places = word.split("."), path.split(".")
    return len(parts) == len(places) and all(place in ("NAME", part) for part, place in zip(parts, places))


def merged(topics: Sequence[Topic]) -> list[Topic]:
    """Returns topics without repetitions: the same text at several places is listed once, with all titles."""
    titles: dict[tuple[str, tuple], list[str]] = {}
    for topic in topics:
        titles.setdefault((topic.text, tuple(topic.rows)), []).append(topic.title)
    return [Topic(listed(names, TITLES), text, rows) for (text, rows), names in titles.items()]


def words(commands: Mapping[str, str]) -> set[str]:
    """Returns all words that can be explained."""
    _, entries = reference()
    names = {name for entry in entries for name in (entry.name, entry.path, *(key.name for key in entry.keys)) if name}
    return names | {*TOP_KEYS, *EXPRESSION, *MEANINGS, *graphs(), *commands, *public_names()}


def topic_of(entry: Entry) -> Topic:
    """Returns the docstring of a mapping and its keys."""
    rows = [(key.name, f"{key.type}; default: {default_of(key)}", key.text) for key in entry.keys]
    return Topic(entry.title, prose(entry.target), rows)


def topic_of_key(entry: Entry, key: Key) -> Topic:
    """Returns the type, the default and the description of a key."""
    facts = f"{key.type}; default: {default_of(key)}"
    return Topic(
        f"{entry.title}, key {key.name}", "\n\n".join(filter(None, [key.text or summary_of(entry.target), facts]))
    )


def prose(target: Any) -> str:
    """Returns the docstring of a class or function, with one line per paragraph."""
    return unwrapped(inspect.getdoc(target) or "There is no description.")


def default_of(key: Key) -> str:
    """Returns the default of a key as it is written in a YAML."""
    if key.default is ...:
        return "none, the key is required"
    return dumped_line(key.default)
