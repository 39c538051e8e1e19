"""YAML files of configurations: read strictly and within bounds, with overrides and the line of every problem.

No tags, anchors, inheritance or interpolation; nothing is evaluated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ...files.reading import DataError, read_text
from .hints import nearest, rename, shown

Where = tuple[str | int, ...]
"""A path of keys and list indices in the YAML, such as ("inputs", "image", "patch_size")."""
LONGEST, DEEPEST = 2**18, 40
"""The most characters that a configuration may have, and the most levels of mappings and lists."""


class Problem(NamedTuple):
    """One thing to correct: its path in the YAML, and a message with what is given and what is possible."""

    path: Where
    message: str


class ConfigError(Exception):
    """All problems of a configuration; `str` gives one line for each, sorted by line:

        configs/x.yaml:7  model.depth: must be at least 1, not 0

    `lines` maps paths of the YAML to lines of the file (None: given on the command line); a path that is not in it has
    the line of its parent.
    """

    def __init__(self, file: str, problems: Sequence[Problem], lines: Mapping[Where, int | None] | None = None):
        self.file, self.lines = file, dict(lines or {})
        self.problems = sorted(problems, key=lambda each: self.line(each.path) or (float("inf") if self.lines else 0))
        super().__init__("\n".join(map(self._shown, self.problems)))

    def line(self, path: Where) -> int | None:
        """The line of a path in the file, counted from 1; None: it has none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def _shown(self, each: Problem) -> str:
        line = self.line(each.path)
        place = f"{self.file}:{line}" if line else "command line" if self.lines else self.file
        return f"{place}  {f'{dotted(each.path)}: ' if each.path else ''}{each.message}"


def dotted(path: Where) -> str:
    """A path as written on the command line: `inputs.image.patch_size`."""
    return ".".join(map(str, path))


@dataclass
class Document:
    """A configuration being read: its tree of plain values, the line of each path, and the problems found so far."""

    file: str
    tree: Any
    lines: dict[Where, int | None] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a YAML file. Raises ConfigError where it is missing or not valid YAML."""
        found, text = cls(str(path), None), text_of(path)
        try:
            found.tree = read_yaml(text, found.lines, found.problems)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise ConfigError(found.file, [yaml_problem(error)], {(): mark.line + 1} if mark else None) from error
        return found

    def rename(self) -> None:
        """Replace names of earlier versions (names.py) in the tree; each is noted as a problem."""
        for each in rename(self.tree):
            self.problems.append(Problem(each.path, each.sentence))
            size = len(each.path)
            for path in [known for known in self.lines if known[:size] == each.path and not each.doubled]:
                self.lines[each.moved + path[size:]] = self.lines[path]

    def override(self, text: str) -> None:
        """Apply an override `key.sub=value`, whose value is read as YAML, to the tree; missing mappings are made, and a
        name in the way becomes `{use: NAME}`:

            training.steps=500            training: {steps: 500}
            data.dataset.held_out=theo    data: {dataset: {use: fsdd, held_out: theo}}, from data: {dataset: fsdd}

        `inputs.NAME=null` and `tasks.NAME=null` delete an input (and its entry in `training.input_dropout`) or a task,
        for ablations. What cannot be applied is noted as a problem."""
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals:
            self.lines[(text,)] = None
            self.problems.append(Problem((text,), "an override is written key.sub=value"))
        elif (here := self._mapping_at(path)) is not None:
            was_there = path in self.lines
            for known in [known for known in self.lines if known[: len(path)] == path]:
                del self.lines[known]
            self.lines[path], problems = None, []
            try:
                here[path[-1]] = read_yaml(value, {}, problems)
            except yaml.YAMLError as error:
                problems = [yaml_problem(error)]
            self.problems += [Problem(path, each.message) for each in problems]
            if len(path) == 2 and path[0] in ("inputs", "tasks") and here.get(path[1], path) is None:
                self._take_out(path, here, was_there)

    def _mapping_at(self, path: tuple[str, ...]) -> dict[str, Any] | None:
        """The mapping that holds the last key of a path; None, with a problem noted, where it is no mapping."""
        here = self.tree
        for depth, name in enumerate(path[:-1], start=1):
            below = here.get(name)
            if below is None:
                below, self.lines[path[:depth]] = {}, None
            here[name] = {"use": below} if isinstance(below, str) else below
            if not isinstance(here[name], dict):
                self.lines[path] = None
                self.problems.append(Problem(path, f"{dotted(path[:depth])} is {shown(below)}, which has no keys"))
                return None
            here = here[name]
        return here

    def _take_out(self, path: tuple[str, ...], here: dict[str, Any], was_there: bool) -> None:
        section, name = path
        del here[name]
        training = self.tree.get("training")
        shares = training.get("input_dropout") if isinstance(training, dict) else None
        if section == "inputs" and isinstance(shares, dict):
            shares.pop(name, None)
        if not was_there:
            self.problems.append(Problem(path, f"there is nothing of that name to take out{nearest(name, here)}"))


def text_of(path: Path) -> str:
    """The text of a YAML file. Raises ConfigError where it cannot be read, for a missing file with the nearest name."""
    if os.path.isdir(path):
        files = ", ".join(sorted(file.name for file in path.glob("*.yaml"))) or "none"
        raise ConfigError(str(path), [Problem((), f"is a folder, not a file; YAML files in it: {files}")])
    try:
        return read_text(path)
    except DataError as error:
        if not str(error).endswith("does not exist"):
            raise ConfigError(str(path), [Problem((), f"cannot be read: {error}")]) from None
    folder = path.parent
    names = sorted(file.name for file in folder.glob("*.yaml")) if os.path.isdir(folder) else []
    where = "there is no YAML file in" if os.path.isdir(folder) else "there is no folder"
    hint = nearest(path.name, names) if names else f"; {where} {str(folder.resolve())!r}"
    raise ConfigError(str(path), [Problem((), f"there is no such file{hint}")])


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses anchors, aliases, tags and more than DEEPEST levels."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor or event.tag:
            what = "tags (!) are" if getattr(event, "tag", None) else "anchors (&) and aliases (*) are"
            raise yaml.MarkedYAMLError(problem=f"{what} not allowed in a configuration", problem_mark=event.start_mark)
        if self.depth >= DEEPEST:
            problem = f"more than {DEEPEST} mappings and lists inside each other"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self.depth += 1
        found = super().compose_node(parent, index)
        self.depth -= 1
        return found


def read_yaml(text: str, lines: dict[Where, int | None], problems: list[Problem]) -> Any:
    """The plain value of a YAML text. Writes the line of every path into `lines`, and keys given twice into `problems`.

    Keys are always text (`1:` is "1"), dates too. Raises yaml.YAMLError where the text is not valid YAML, longer than
    LONGEST or deeper than DEEPEST."""
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"{len(text):,} characters; a configuration has at most {LONGEST:,}")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, (), lines, problems)
    finally:
        loader.dispose()


def _value(loader: _Loader, node: yaml.Node, path: Where, lines: dict, problems: list[Problem]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, index), lines, problems) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, item in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            below = (*path, name)
            if name in found:
                problems.append(Problem(below, f"stands here a second time; first at line {lines[below]}"))
            lines[below] = key.start_mark.line + 1
            found[name] = _value(loader, item, below, lines, problems)
        return found
    if node.tag.rpartition(":")[2] in ("null", "bool", "int", "float"):
        try:
            return loader.construct_object(node)
        except (ValueError, OverflowError):  # it looks like a number to PyYAML and is none, such as 0b_
            pass
    return node.value


def yaml_problem(error: yaml.YAMLError) -> Problem:
    """An error of PyYAML as a problem of the whole file."""
    said = [getattr(error, name, None) for name in ("context", "problem")]
    return Problem((), f"no valid YAML: {', '.join(part for part in said if part) or ' '.join(str(error).split())}")


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper without anchors, which the reader does not allow."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dumped(tree: Any) -> str:
    """A tree of plain values as YAML text, keys in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)
