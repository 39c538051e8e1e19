"""`chopmix explain [WORD]`: the reference of YAML keys, parts, attention graphs, commands and public classes, from
signatures and docstrings."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from ..files.plugins import ROOT, modules_of
from ..models.attention.grammar import VALUES, plug_in
from .run_folder import RunError
from .settings.reference import Entry, Key, reference, summary_of


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
    (`rms_norm`), a graph (`causal`), a command or a public class. Raises RunError with similar words if there is
    nothing."""
    _, entries = reference()
    topics = [topic_of(entry) for entry in entries if word in (entry.name, entry.path)]
    topics += [topic_of_key(entry, key) for entry in entries for key in entry.keys
               if word == key.name or word in (f"{entry.path}.{key.name}", f"{entry.name}.{key.name}")]  # fmt: skip
    if (graph := graphs().get(word)) is not None:
        topics.append(Topic(f"model.attention: {word}", prose(graph)))
    if word in commands:
        topics.append(Topic(f"chopmix {word}", f"{commands[word]}\n\nAll options: chopmix {word} --help"))
    if word in public_names():
        topics.append(Topic(f"{ROOT}.{word}", prose(getattr(importlib.import_module(ROOT), word))))
    if not topics:
        near = difflib.get_close_matches(word, sorted(words(commands)), n=5)
        hint = f"; similar: {', '.join(near)}" if near else ""
        raise RunError(f"nothing is named {word!r}{hint}; `chopmix explain` lists what can be explained")
    return merged(topics)


def merged(topics: Sequence[Topic]) -> list[Topic]:
    """Returns topics without repetitions: the same text at several places is listed once, with all titles."""
    titles: dict[tuple[str, tuple], list[str]] = {}
    for topic in topics:
        titles.setdefault((topic.text, tuple(topic.rows)), []).append(topic.title)
    return [Topic(listed(names), text, rows) for (text, rows), names in titles.items()]


def listed(names: Sequence[str], most: int = 4) -> str:
    """Returns at most `most` names, and the number of the others."""
    more = f" and {len(names) - most} other places" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def words(commands: Mapping[str, str]) -> set[str]:
    """Returns all words that can be explained."""
    _, entries = reference()
    names = {name for entry in entries for name in (entry.name, entry.path, *(key.name for key in entry.keys)) if name}
    return names | {*graphs(), *commands, *public_names()}


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
    """Returns the docstring of a class or function, with one line per paragraph, so that it can be wrapped to any
    width. Paragraphs with indented lines, such as examples, are unchanged."""
    paragraphs = (inspect.getdoc(target) or "There is no description.").split("\n\n")
    return "\n\n".join(text if "\n " in f"\n{text}" else " ".join(text.split("\n")) for text in paragraphs)


def default_of(key: Key) -> str:
    """Returns the default of a key as it is written in a YAML."""
    if key.default is ...:
        return "none, the key is required"
    return yaml.safe_dump(key.default, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
