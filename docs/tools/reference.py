"""Writes the pages of the reference from signatures and docstrings: every key and part of a YAML, every attention
graph, command and public class."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from chopmix.commands.cli import command_modules, parser
from chopmix.experiment.explain import default_of, graphs, members_of, prose, public_names
from chopmix.experiment.settings.document import read_yaml
from chopmix.experiment.settings.reference import TOP_KEYS, Entry, Key, reference
from chopmix.experiment.settings.sections import sections
from chopmix.models.attention.grammar import USAGE

ROOT = Path(__file__).parents[2]
PAGES = {
    "inputs": "Inputs", "model": "Model", "tasks": "Tasks", "data": "Data", "training": "Training",
    "evaluation": "Evaluation", "checkpoints": "Checkpoints", "logging": "Logging",
}  # fmt: skip
"""The sections that have a page, and its title. The remaining keys are on the page of the reference itself."""
MASKS = {
    "causal": "causal & same_sample", "same_sample": "same_sample", "same_item": "same_item",
    "from": "same_sample & (causal | from(image))", "window": "causal & same_sample & window(3)",
    "on": "same_sample & on(column)", "edges": "same_sample & edges(image->text, text->text)",
    "neighbourhood": "same_sample & neighbourhood(1, row, column)",
}  # fmt: skip
"""The expression whose mask is drawn for each graph."""


def write_reference(folder: Path) -> None:
    """Write the pages into a folder. Files that have not changed are not written again."""
    folder.mkdir(exist_ok=True)
    pages = {"index": index_page(), "graphs": graphs_page(), "commands": commands_page(), "python": python_page()}
    pages |= {name: section_page(name, title) for name, title in PAGES.items()}
    for name, text in pages.items():
        file = folder / f"{name}.md"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def index_page() -> str:
    """Returns the page that lists the sections of a YAML, the keys outside of sections, and the other pages."""
    rows = [
        f"| [`{name}`]({name}.md) | {cell(sentence(sections_of(name)))} |" if name in PAGES
        else f"| `{name}` | {cell(sentence(sections_of(name)))} |" for name in sections()
    ]  # fmt: skip
    names = "\n".join([*PAGES, "graphs", "commands", "python"])
    return (
        "# Reference\n\nThese pages are generated from the signatures and docstrings of the code. "
        "`chopmix explain WORD` prints the same texts in a terminal.\n\n"
        "| top-level key | contents |\n| --- | --- |\n" + "\n".join(rows) + f"\n\n```{{toctree}}\n{names}\n```\n"
    )


def sections_of(name: str) -> str:
    """Returns the description of a top-level key."""
    _, entries = reference()
    entry = next((entry for entry in entries if entry.path == name), None)
    if entry is not None:
        return prose(entry.target)
    kind = next((entry for entry in entries if entry.path == f"{name}.NAME"), None)
    return TOP_KEYS.get(name, "" if kind is None else f"One {name.removesuffix('s')} per name.")


def section_page(name: str, title: str) -> str:
    """Returns the page of a section: all mappings and parts that can stand in it."""
    _, entries = reference()
    mine = [entry for entry in entries if entry.path.split(".")[0] == name]
    head = [] if any(entry.path == name for entry in mine) else [TOP_KEYS[name]]
    return "\n\n".join([f"# {title}", *head, *(entry_text(entry) for entry in mine)]) + "\n"


def entry_text(entry: Entry) -> str:
    """Returns the heading, the description, an example and the table of keys of one mapping."""
    title = f"`{entry.name}`, {words(entry.path)}" if entry.name else f"`{entry.path}`"
    parts = [f"## {title}", markdown(prose(entry.target)), f"```yaml\n{example_of(entry)}```"]
    if entry.keys:
        rows = [f"| `{key.name}` | {cell(key.text)} | {cell(key.type)}; {default_cell(key)} |" for key in entry.keys]
        head = "| key | description | values; default |\n| --- | --- | --- |\n"
        parts.append(f"```{{table}}\n:class: keys\n\n{head}" + "\n".join(rows) + "\n```")
    return "\n\n".join(parts)


def words(path: str) -> str:
    """Returns where a part stands: `inputs.NAME.position` is `in inputs.NAME.position`."""
    return f"in `{path}`"


def cell(text: str) -> str:
    """Returns a text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def default_cell(key: Key) -> str:
    """Returns the default of a key for a cell of a table."""
    return "**required**" if key.default is ... else f"default `{cell(default_of(key))}`"


def sentence(text: str) -> str:
    """Returns the first sentence of a text."""
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(text.split("\n\n")[0].split()))[0]


def markdown(text: str) -> str:
    """Returns a docstring as Markdown: paragraphs that are indented or begin with `>>>` become code."""
    parts = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(("    ", ">>>")):
            code = inspect.cleandoc(paragraph)
            if parts and parts[-1].startswith("```"):
                parts[-1] = parts[-1].removesuffix("\n```") + f"\n\n{code}\n```"
            else:
                parts.append(f"```text\n{code}\n```")
        else:
            lines = paragraph.split("\n")
            first = next((n for n, line in enumerate(lines) if line.startswith("    ")), None)
            if first is None:
                parts.append(paragraph)
            else:
                parts += [" ".join(lines[:first]), "```text\n" + inspect.cleandoc("\n".join(lines[first:])) + "\n```"]
    return "\n\n".join(parts)


# ------------------------------------------------------------------------------------------------------- the examples


@cache
def configurations() -> tuple[Mapping[str, Any], ...]:
    """Returns the contents of all YAML files in `configs/`, the quickstart first."""
    files = sorted((ROOT / "configs").rglob("*.yaml"), key=lambda file: (file.name != "quickstart.yaml", str(file)))
    return tuple(read_yaml(file.read_text(encoding="utf-8"), {}, []) for file in files)


def example_of(entry: Entry) -> str:
    """Returns an example as YAML: the shortest use in `configs/`, or an entry of EXAMPLES, or the name alone."""
    if found := [dumped(place, value, tree) for tree in configurations() for place, value in uses(tree, entry)]:
        return min(found, key=len)
    if entry.title in EXAMPLES:
        return EXAMPLES[entry.title]
    *place, last = entry.path.replace("NAME", "name").split(".")
    return dumped([*place, last], entry.name, yaml.safe_load(OWNERS.get(entry.path, "{}")))


OWNERS = {
    "inputs.NAME.position": "inputs: {name: {use: audio, rate: 16000}}",
    "inputs.NAME.norm": "inputs: {name: {use: category, size: 3}}",
    "tasks.NAME.pooling": "tasks: {name: {use: classification, target: label}}",
    "tasks.NAME.head": "tasks: {name: {use: masked_modeling, target: text}}",
    "data.dataset.function": "data: {dataset: {use: in_context}}",
}
"""What the examples of parts that no configuration uses are a part of."""
EXAMPLES: dict[str, str] = yaml.safe_load((Path(__file__).parent / "examples.yaml").read_text(encoding="utf-8"))
"""The examples of other parts that no configuration uses, by the title of the entry."""


def uses(value: Any, entry: Entry, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields (place, value) for each place in a configuration where a mapping or a part stands."""
    if place and place[0] != entry.path.split(".")[0]:
        return
    named = value.get("use") if isinstance(value, Mapping) else value
    complete = isinstance(value, Mapping) or all(key.default is not ... for key in entry.keys)
    if (entry.name and named == entry.name and place and complete and same_kind(place, entry)) or (
        not entry.name and isinstance(value, Mapping) and fits(place, entry.path)
    ):
        yield place, value
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from uses(below, entry, (*place, str(key)))


def fits(where: Sequence[str], path: str) -> bool:
    """Whether a place in a configuration is the place `path` of an entry, in which `NAME` is any name."""
    parts = path.split(".")
    return len(parts) == len(where) and all(part in ("NAME", name) for part, name in zip(parts, where))


def same_kind(where: Sequence[str], entry: Entry) -> bool:
    """Whether a part with the name of an entry, at this place, is of the kind of the entry."""
    if fits(where, entry.path):
        return True
    last = [part for part in entry.path.split(".") if part != "NAME"][-1]
    nested = {"norm", "position", "augment", "pooling", "head", "block", "feed_forward"}
    return (last in nested and where[-1] == last) or (
        entry.path == "data.dataset" and where[:3] == ("data", "dataset", "of")
    )


def dumped(place: Sequence[str], value: Any, tree: Mapping[str, Any]) -> str:
    """Returns a value at its place in a YAML, as text. Of the mappings around it, only what names the part (`use`, and
    options that the part requires) is repeated from `tree`."""
    above: list[Any] = [tree]
    for name in place[:-1]:
        above.append(above[-1].get(name, {}) if isinstance(above[-1], Mapping) else {})
    for name, outer in zip(reversed(place), reversed(above)):
        kept = (
            {key: outer[key] for key in KEPT if isinstance(outer, Mapping) and key in outer} if len(place) > 1 else {}
        )
        value = {**(kept if "use" in kept else {}), name: value}
    return yaml.safe_dump(value, sort_keys=False, width=100, default_flow_style=None, allow_unicode=True)


KEPT = ("use", "same_as", "target", "input", "patch_size", "encoding", "rate", "channels", "size", "at", "source")
"""The keys that are repeated of the mappings around an example."""


# ------------------------------------------------------------------------------------- graphs, commands, Python


def graphs_page() -> str:
    """Returns the page of the attention graphs that can be named in `model.attention`."""
    parts = [
        "# Attention graphs\n\nThese names can be used in `model.attention`, with the arguments in parentheses. "
        "The descriptions name the fields of the Python class. [Attention is a graph](../attention.md) explains the "
        "expressions."
    ]
    for name, graph in graphs().items():
        mask = f"\n\n```{{mask}} {MASKS[name]}\n```" if name in MASKS else ""
        parts.append(f"## `{USAGE.get(name, name)}`\n\n{markdown(prose(graph))}{mask}")
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    """Returns the page of the commands with their options."""
    os.environ["COLUMNS"] = "88"
    root = parser()
    (choices,) = [action for action in root._actions if isinstance(action, argparse._SubParsersAction)]
    parts = ["# Commands\n\n`uv run chopmix COMMAND --help` prints the same texts."]
    for name, module in command_modules().items():
        parts.append(
            f"## `chopmix {name}`\n\n{capital(module.HELP)}.\n\n```text\n{choices.choices[name].format_help()}```"
        )
    return "\n\n".join(parts) + "\n"


def capital(text: str) -> str:
    """Returns a text whose first letter is a capital."""
    return text[:1].upper() + text[1:]


def python_page() -> str:
    """Returns the page of the names that `import chopmix` offers."""
    package = importlib.import_module("chopmix")
    parts = ["# Python\n\nThe public names of `import chopmix`. [Use from Python](../python.md) has examples."]
    for name in public_names():
        value = getattr(package, name)
        parts.append(f"## `chopmix.{name}`\n\n```python\n{signature(name, value)}\n```\n\n{markdown(prose(value))}")
        fields = [row for row in members_of(value) if not row[0].endswith("()")] if inspect.isclass(value) else []
        if fields:
            rows = "\n".join(f"| `{field}` | {cell(text)} |" for field, _, text in fields)
            parts.append(f"```{{table}}\n:class: keys\n\n| field | description |\n| --- | --- |\n{rows}\n```")
        parts += [
            f"### `{name}.{method}`\n\n```python\n{signature(method, member)}\n```\n\n{markdown(prose(member))}"
            for method, member in methods_of(value)
        ]
    return "\n\n".join(parts) + "\n"


def methods_of(value: Any) -> list[tuple[str, Any]]:
    """Returns the public methods that a class of chopmix defines, in the order of the source."""
    if not inspect.isclass(value):
        return []
    return [(name, member) for name, member in vars(value).items() if inspect.isfunction(member) and name[0] != "_"]


def signature(name: str, value: Any) -> str:
    """Returns the call of a function or class, as it is written."""
    try:
        text = str(inspect.signature(value)).replace("'", "")
    except (TypeError, ValueError):
        return name
    text = re.sub(r"<function (\w+) at 0x\w+>", r"\1", re.sub(r"ForwardRef\((\w+)\)", r"\1", text))
    return name + re.sub(r"(chopmix|collections|pathlib|typing)(\.\w+)*\.(?=[A-Z])", "", text)
