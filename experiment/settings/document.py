"""Reads YAML files of configurations within limits of size and depth, and applies overrides. Every problem has the line
of its key.

Tags, anchors, inheritance and interpolation are not supported; nothing in the file is evaluated."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ...files.plain_yaml import PlainLoader
from ...files.reading import DataError, read_text
from .hints import nearest, shown

Where = tuple[str | int, ...]
"""A path of keys and list indices in the YAML, such as ("inputs", "image", "patch_size")."""


class Problem(NamedTuple):
    """One problem: its path in the YAML, and a message that contains the invalid value and the possible values."""

    path: Where
    message: str


class ConfigError(Exception):
    """All problems of a configuration. `str` returns one line per problem, sorted by line number:

        configs/x.yaml:7  model.depth: must be at least 1, not 0

    `lines` maps a path such as `("model", "depth")` to its line number in the file; None means that the setting is from
    the command line. A path that is not in `lines` has the line of its parent."""

    def __init__(self, file: str, problems: Sequence[Problem], lines: Mapping[Where, int | None] | None = None):
        self.file, self.lines = file, dict(lines or {})
        self.problems = sorted(
            problems, key=lambda problem: self.line(problem.path) or (float("inf") if self.lines else 0)
        )
        super().__init__("\n".join(map(self._shown, self.problems)))

    def line(self, path: Where) -> int | None:
        """Returns the line number of a path in the file, counted from 1. Returns None if the setting is from the
        command line, or if neither the path nor a parent of the path is in `lines`."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def _shown(self, problem: Problem) -> str:
        line = self.line(problem.path)
        location = f"{self.file}:{line}" if line else "command line" if self.lines else self.file
        return f"{location}  {f'{dotted(problem.path)}: ' if problem.path else ''}{problem.message}"


def dotted(path: Where) -> str:
    """Returns a path as it is written on the command line: `inputs.image.patch_size`."""
    return ".".join(map(str, path))


@dataclass
class Document:
    """A configuration while it is read: the tree of plain values, the line number of each path, and the problems found
    so far."""

    file: str
    tree: Any
    lines: dict[Where, int | None] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a YAML file. Raises ConfigError if the file cannot be read, or is not YAML that `read_yaml` accepts."""
        document, text = cls(str(path), None), text_of(path)
        try:
            document.tree = read_yaml(text, document.lines, document.problems)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise ConfigError(document.file, [yaml_problem(error)], {(): mark.line + 1} if mark else None) from error
        return document

    def override(self, text: str) -> None:
        """Apply an override `key.sub=value` to the tree. The value is read as YAML. Missing mappings on the path are
        created. A name on the path becomes `{use: NAME}`:

            training.steps=500            training: {steps: 500}
            data.dataset.held_out=theo    data: {dataset: {use: fsdd, held_out: theo}}, from data: {dataset: fsdd}

        `inputs.NAME=null` removes an input and its entry in `training.input_dropout`; `tasks.NAME=null` removes a task.
        An override that cannot be applied is recorded as a problem."""
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals:
            self.lines[(text,)] = None
            self.problems.append(Problem((text,), "an override has the form key.sub=value"))
        elif (mapping := self._mapping_at(path)) is not None:
            existed = path in self.lines
            for line_path in [line_path for line_path in self.lines if line_path[: len(path)] == path]:
                del self.lines[line_path]
            self.lines[path], problems = None, []
            try:
                mapping[path[-1]] = read_yaml(value, {}, problems)
            except yaml.YAMLError as error:
                problems = [yaml_problem(error)]
            self.problems += [Problem(path, problem.message) for problem in problems]
            if len(path) == 2 and path[0] in ("inputs", "tasks") and mapping.get(path[1], path) is None:
                self._remove(path, mapping, existed)

    def _mapping_at(self, path: tuple[str, ...]) -> dict[str, Any] | None:
        """Returns the mapping that contains the last key of a path. Creates missing mappings on the path. If a value on
        the path is neither a mapping nor a text, records a problem and returns None."""
        mapping = self.tree
        for depth, name in enumerate(path[:-1], start=1):
            child = mapping.get(name)
            if child is None:
                child, self.lines[path[:depth]] = {}, None
            mapping[name] = {"use": child} if isinstance(child, str) else child
            if not isinstance(mapping[name], dict):
                self.lines[path] = None
                self.problems.append(Problem(path, f"{dotted(path[:depth])} is {shown(child)}, which has no keys"))
                return None
            mapping = mapping[name]
        return mapping

    def _remove(self, path: tuple[str, ...], mapping: dict[str, Any], existed: bool) -> None:
        section, name = path
        del mapping[name]
        for parent, key in (("training", "input_dropout"), ("data", "columns")) if section == "inputs" else ():
            values = self.tree.get(parent)
            by_input = values.get(key) if isinstance(values, dict) else None
            if isinstance(by_input, dict):
                by_input.pop(name, None)
        if not existed:
            self.problems.append(Problem(path, f"does not exist, so it cannot be removed{nearest(name, mapping)}"))


def text_of(path: Path) -> str:
    """Returns the text of a YAML file. Raises ConfigError if the file cannot be read. If the file does not exist, the
    message has the most similar name in the folder."""
    if os.path.isdir(path):
        files = ", ".join(sorted(file.name for file in path.glob("*.yaml"))) or "none"
        raise ConfigError(str(path), [Problem((), f"is a folder, not a file; YAML files in it: {files}")])
    try:
        return read_text(path)
    except DataError as error:
        if not str(error).endswith("does not exist"):
            raise ConfigError(str(path), [Problem((), f"cannot be read: {error}")]) from None
    raise no_file(path)


def no_file(path: Path) -> ConfigError:
    """Returns the error that a file does not exist, with the most similar name in its folder."""
    folder = path.parent
    names = sorted(file.name for file in folder.glob("*.yaml")) if os.path.isdir(folder) else []
    reason = "there is no YAML file in" if os.path.isdir(folder) else "there is no folder"
    hint = nearest(path.name, names) if names else f"; {reason} {str(folder.resolve())!r}"
    return ConfigError(str(path), [Problem((), f"there is no such file{hint}")])


def read_yaml(text: str, lines: dict[Where, int | None], problems: list[Problem]) -> Any:
    """Returns the plain value of a YAML text. Puts the line number of every path into `lines`, and a problem for each
    repeated key into `problems`.

    Keys are always read as text (`1:` becomes "1"), and dates too. Raises yaml.YAMLError if the text is not YAML, has
    more than LONGEST characters, more than DEEPEST nested levels, or an anchor, alias or tag."""
    loader = PlainLoader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, (), lines, problems)
    finally:
        loader.dispose()


def _value(loader: PlainLoader, node: yaml.Node, path: Where, lines: dict, problems: list[Problem]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, index), lines, problems) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key, item in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            child_path = (*path, name)
            if name in mapping:
                problems.append(Problem(child_path, f"is a repeated key; first at line {lines[child_path]}"))
            lines[child_path] = key.start_mark.line + 1
            mapping[name] = _value(loader, item, child_path, lines, problems)
        return mapping
    if node.tag.rpartition(":")[2] in ("null", "bool", "int", "float"):
        try:
            return loader.construct_object(node)
        except (ValueError, OverflowError):  # PyYAML's pattern of numbers also matches texts such as 0b_
            pass
    return node.value


def yaml_problem(error: yaml.YAMLError) -> Problem:
    """Returns a PyYAML error as a problem without a path, that is, a problem of the whole file."""
    parts = [getattr(error, name, None) for name in ("context", "problem")]
    return Problem((), f"invalid YAML: {', '.join(part for part in parts if part) or ' '.join(str(error).split())}")


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, but without anchors, since `PlainLoader` does not accept them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dumped(tree: Any) -> str:
    """Returns a tree of plain values as YAML text. The order of the keys does not change. If a text has a character
    that cannot be printed, only ASCII is written."""
    texts = (yaml.dump(tree, allow_unicode=shows, Dumper=_Dumper, sort_keys=False) for shows in (True, False))
    return next(text for text in texts if text.replace("\n", "").isprintable())


class _LineDumper(_Dumper):
    """Writes texts with characters that cannot be printed in quotation marks, with escapes instead of line breaks."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_LineDumper.add_representer(str, _LineDumper.represent_text)


def dumped_line(value: Any) -> str:
    """Returns a plain value as YAML in one line. Characters that cannot be printed are escaped."""
    style = {"Dumper": _LineDumper, "default_flow_style": True, "width": 10**9, "sort_keys": False}
    texts = (yaml.dump(value, allow_unicode=shows, **style) for shows in (True, False))
    lines = (text.removesuffix("\n").removesuffix("\n...") for text in texts)
    return next(line for line in lines if line.isprintable())
