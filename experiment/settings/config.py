"""One YAML file to one checked `Config`: every problem of the file at once, each with its line and what is possible.

A signature is its own schema (schema.py); checks between the sections stand in checks.py. A YAML states only what differs
from the defaults; it has no tags, anchors, inheritance or interpolation, and nothing in it is evaluated.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import ValidationError
from torch import nn

from ...data.base import Dataset
from ...models.attention.grammar import own_graphs
from ...models.model import Model
from ...models.transformer import Transformer
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ...tokenizers.files.reading import DataError, read_text
from ...tokenizers.files.writing import write_text
from .checks import cross_problems
from .registry import ROOT, Folder, code_from, code_from_anywhere, folder_of, registry_of
from .scalars import nearest, shown
from .schema import Choice, Keys, Part, Record, check, model_of, plain
from .sections import Checkpoints, Data, Evaluation, Logging, Training

Where = tuple[str | int, ...]
"""A path in the YAML, such as ("inputs", "image", "patch_size")."""


class Problem(NamedTuple):
    """One thing to correct: where it stands in the YAML, and what is given and possible there."""

    path: Where
    message: str


class ConfigError(Exception):
    """Everything that is wrong with a configuration; `str` gives one line for each problem.

    `lines` tells where each path of the YAML stands (None: on the command line); a path that is not there stands where
    its parent does.
    """

    def __init__(self, file: str, problems: Sequence[Problem], lines: Mapping[Where, int | None] | None = None):
        self.file, self.lines = file, dict(lines or {})
        self.problems = sorted(problems, key=lambda each: self.line(each.path) or (float("inf") if self.lines else 0))
        super().__init__("\n".join(map(self._shown, self.problems)))

    def line(self, path: Where) -> int | None:
        """The line of the file in which a path stands, counted from 1."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def _shown(self, each: Problem) -> str:
        line = self.line(each.path)
        place = f"{self.file}:{line}" if line else "command line" if self.lines else self.file
        return f"{place}  {f'{dotted(each.path)}: ' if each.path else ''}{each.message}"


def dotted(path: Where) -> str:
    """A path as it is written on the command line."""
    return ".".join(map(str, path))


@dataclass(frozen=True)
class Config:
    """A checked configuration. What it names is not built yet: parts are called with what only code knows."""

    path: Path
    tree: dict[str, Any]
    """Everything, defaults included, as YAML would write it: what a run keeps as `config.yaml`."""
    inputs: dict[str, Part]
    model: Part
    """`model.build(Transformer, inputs, axes)` and `model.build(Model, tokenizers, cores, heads)` take their own keys."""
    tasks: dict[str, Part]
    data: Data
    training: Training
    evaluation: Evaluation
    checkpoints: Checkpoints
    logging: Logging
    from_run: str | None
    """The run whose weights this one starts from."""
    out: Path
    shares: Mapping[str, str] = field(default_factory=dict)
    """Which other input's tokenizer an input uses: `{target: {same_as: source}}` gives `{"target": "source"}`."""

    @property
    def modules(self) -> set[str]:
        """The modules outside chopmix that it names, those of its attention expressions too."""
        cores = [self.tree["model"], self.tree["model"]["encoder"] or {}]
        graphs = [own_graphs(text) for core in cores for text in as_list(core.get("attention", []))]
        return {*named_modules(self.tree), *(each.partition(":")[0] for found in graphs for each in found)}


def as_list(written: str | list[str]) -> list[str]:
    """The attention expressions of a core: one, or one for each of several layers."""
    return [written] if isinstance(written, str) else written


def named_modules(tree: Any) -> Iterator[str]:
    """The modules of every `package.module:Class` in a tree."""
    if isinstance(tree, Mapping | list):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from named_modules(value)
    elif isinstance(tree, str) and re.fullmatch(r"[\w.]+:\w+", tree):
        yield tree.partition(":")[0]


def _record(target: type) -> Any:
    return Annotated[Any, Record(target.__name__, (target,), target)]


def _model(**options: Any) -> Part:
    return Part(Transformer, options)


def is_tokenizer(found: Any) -> bool:
    """Whether a class is the embedder of an input, with the chopper that belongs to it."""
    chopper = getattr(found, "Chopper", None)
    both = inspect.isclass(found) and inspect.isclass(chopper)
    return both and issubclass(found, nn.Module) and issubclass(chopper, Chopper)


@functools.cache
def sections() -> Keys:
    """The top level of a YAML: annotation and default of every section."""
    tokenizers = Folder(f"{ROOT}.tokenizers", "tokenizer: a torch module with a Chopper", is_tokenizer)
    return {
        "inputs": (dict[str, Annotated[Any, Choice(tokenizers)]], ...),
        "model": (Annotated[Any, Record("model", (Transformer, Model), _model)], ...),
        "tasks": (dict[str, Annotated[Any, Choice(folder_of(f"{ROOT}.tasks", Task))]], ...),
        "data": (_record(Data), ...),
        "training": (_record(Training), ...),
        "evaluation": (_record(Evaluation), {}),
        "checkpoints": (_record(Checkpoints), {}),
        "logging": (_record(Logging), {}),
        "from": (str | None, None),
        "out": (str | None, None),
    }


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, with `key.sub=value` overrides. Raises ConfigError with all problems of file and overrides."""
    text = _read(Path(path), str(path))
    lines: dict[Where, int | None] = {}
    problems: list[Problem] = []
    try:
        tree = read_yaml(text, lines, problems)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(str(path), [_yaml_problem(error)], {(): mark.line + 1} if mark else None) from error
    if not isinstance(tree, dict):
        given = "is empty" if tree is None else f"is {shown(tree)}"
        message = f"the file {given}; it must be a mapping with {', '.join(sections())}"
        raise ConfigError(str(path), [Problem((), message)], {(): 1})
    for override in overrides:
        problems += _override(tree, lines, override)
    if isinstance(tree.get("data"), dict) and tree["data"].get("dataset") is None:
        possible = f"possible: {', '.join(registry_of((Dataset,)).names())}, or package.module:Class"
        problems.append(Problem(("data",), f"Data needs 'dataset': a name or {{use: NAME, ...}} ({possible})"))
    with code_from_anywhere():
        return _resolve(tree, Path(path), problems, lines)


def load_run_config(folder: Path, trust: Collection[str] = ()) -> Config:
    """The configuration that a run was made with, from its `config.yaml`, which somebody else may have written: it names code of
    chopmix alone, or of the modules that the user trusts. Raises ConfigError."""
    file = folder / "config.yaml"
    try:
        text = read_text(file)
        problems: list[Problem] = []
        tree = read_yaml(text, {}, problems)
    except DataError as error:
        raise ConfigError(str(file), [Problem((), f"cannot be read: {error}")]) from None
    except yaml.YAMLError as error:
        raise ConfigError(str(file), [_yaml_problem(error)]) from None
    if problems:
        raise ConfigError(str(file), problems)
    return config_from_tree(tree, file, trust)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper without anchors, which its reader here does not allow."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dumped(tree: Any) -> str:
    """A tree as YAML, keys in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def write_config(folder: Path, config: Config) -> None:
    """Keep a configuration as a run's `config.yaml`, whole or not at all."""
    write_text(folder / "config.yaml", dumped(config.tree))


def config_from_tree(tree: Any, path: str | Path = "config.yaml", trust: Collection[str] = ()) -> Config:
    """The configuration from a nested dict, which names code of chopmix alone, or of the modules in `trust`. Raises ConfigError."""
    if not isinstance(tree, Mapping):
        message = f"must be a mapping with {', '.join(sections())}, not {shown(tree)}"
        raise ConfigError(str(path), [Problem((), message)])
    with code_from(trust):
        return _resolve(copy.deepcopy(dict(tree)), Path(path), [], {})


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of the whole YAML, for editors."""
    found = model_of("chopmix", sections(), "A chopmix experiment.").model_json_schema()
    same = {"type": "object", "properties": {"same_as": {"type": "string"}}, "required": ["same_as"]}
    same |= {"additionalProperties": False, "description": "The tokenizer of another input, by that input's name."}
    found["properties"]["inputs"]["additionalProperties"]["anyOf"].append(same)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _resolve(tree: dict, path: Path, problems: list[Problem], lines: Mapping[Where, int | None]) -> Config:
    unknown = [name for name in tree if name not in sections()]
    problems += [Problem((name,), f"there is no such section{nearest(name, sections())}") for name in unknown]
    shares = _shared(tree, problems)
    values: dict[str, Any] = {}
    for name in sections():
        problems += _section(name, tree, values)
    wrong = {each.path[:depth] for each in problems for depth in range(len(each.path) + 1)}
    problems += [Problem(*each) for each in cross_problems(values) if each[0] not in wrong]
    if problems:
        raise ConfigError(str(path), problems, lines)
    values["out"] = values["out"] or str(_default_out(path))
    resolved = {name: plain(value) for name, value in values.items()}
    resolved["inputs"] |= {name: {"same_as": owner} for name, owner in shares.items()}
    from_run, out = values.pop("from"), Path(values.pop("out"))
    return Config(path=path, tree=resolved, from_run=from_run, out=out, shares=shares, **values)


def _shared(tree: dict, problems: list[Problem]) -> dict[str, str]:
    """The inputs written `{same_as: OTHER}`, and OTHER; in the tree each becomes a copy of that input."""
    inputs = tree.get("inputs")
    found = {name: each["same_as"] for name, each in inputs.items()
             if isinstance(each, dict) and "same_as" in each} if isinstance(inputs, dict) else {}  # fmt: skip
    for name, owner in found.items():
        possible = [other for other in inputs if other not in found]
        if len(inputs[name]) > 1:
            problems.append(Problem(("inputs", name), "same_as takes everything from the other input: no more keys"))
        elif owner not in possible:
            problems.append(
                Problem(("inputs", name, "same_as"), f"no input is named {owner!r}{nearest(owner, possible)}")
            )
        inputs[name] = copy.deepcopy(inputs[owner]) if owner in possible else "text"
    return {name: owner for name, owner in found.items() if isinstance(name, str) and isinstance(owner, str)}


STAND_INS = {
    ("model", "width"): 2_882_880, ("model", "depth"): 1, ("model", "heads"): 1, ("model", "context"): 1,
    ("training", "steps"): 2**40,
}  # fmt: skip
"""What stands in for required numbers that are wrong, so that the checks between sections can look at everything else: values
with which no other is at odds (the width is divided by any likely number of heads)."""


@functools.cache
def _section_model(name: str) -> Any:
    return model_of("the configuration", {name: sections()[name]})


def _section(name: str, tree: Mapping[str, Any], values: dict[str, Any]) -> list[Problem]:
    """Put the value of a section into `values`, and return its problems.

    What is wrong is left out for the checks between sections, so that one mistake does not hide another.
    """
    given = {name: tree[name]} if name in tree else {}
    try:
        values.update(check(_section_model(name), given))
        return []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    if wrong := [each["loc"] for each in errors if _may_go(each)]:
        sound = _without(given, wrong)
        for section, *key in wrong:
            if (section, *key) in STAND_INS:
                sound[section][key[0]] = STAND_INS[section, key[0]]
        _section(name, sound, values)
    return [Problem(tuple(each["loc"]), each["msg"]) for each in errors]


def _may_go(error: Any) -> bool:
    """Whether the checks make sense without this value: an input or a task is looked at whole or not at all."""
    return error["type"] == "unknown_key" or (len(error["loc"]) > 1 and error["loc"][0] not in ("inputs", "tasks"))


def _without(tree: Mapping[str, Any], paths: Sequence[Where]) -> dict[str, Any]:
    """A copy of the tree that lacks these paths; of a list, nothing is kept."""
    found: Any = copy.deepcopy(tree)
    for path in sorted(paths, key=len, reverse=True):
        *parents, last = takewhile(lambda key: isinstance(key, str), path)
        functools.reduce(lambda node, key: node[key], parents, found).pop(last, None)
    return found


def _default_out(path: Path) -> Path:
    """`configs/a/b.yaml` runs in runs/a/b, a file elsewhere in runs/<its name>."""
    parents = path.parts[:-1]
    after = len(parents) - parents[::-1].index("configs") if "configs" in parents else len(parents)
    return Path("runs", *parents[after:], path.stem)


def _read(path: Path, given: str) -> str:
    if os.path.isdir(path):
        files = ", ".join(sorted(file.name for file in path.glob("*.yaml"))) or "none"
        raise ConfigError(given, [Problem((), f"is a folder, not a file; YAML files in it: {files}")])
    try:
        return read_text(path)
    except DataError as error:
        if not str(error).endswith("does not exist"):
            raise ConfigError(given, [Problem((), f"cannot be read: {error}")]) from None
    folder = path.parent
    names = sorted(file.name for file in folder.glob("*.yaml")) if os.path.isdir(folder) else []
    where = "there is no YAML file in" if os.path.isdir(folder) else "there is no folder"
    hint = nearest(path.name, names) if names else f"; {where} {str(folder.resolve())!r}"
    raise ConfigError(given, [Problem((), f"there is no such file{hint}")])


LONGEST, DEEPEST = 2**18, 40
"""Characters that a configuration has at most, and how many mappings and lists may stand inside each other."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without anchors, aliases and tags: what stands in the file is what is meant. Bounded in depth."""

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
    """The plain value of a YAML text. Notes the line of every path, and keys that stand twice as problems.

    Raises yaml.YAMLError where the text is no YAML, too long or too deep. Keys are always text; dates are not a type here.
    """
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


def _yaml_problem(error: yaml.YAMLError) -> Problem:
    said = [getattr(error, name, None) for name in ("context", "problem")]
    return Problem((), f"no valid YAML: {', '.join(part for part in said if part) or ' '.join(str(error).split())}")


def _override(tree: dict[str, Any], lines: dict[Where, int | None], override: str) -> list[Problem]:
    """Write `key.sub=value` into the tree; sections and entries that are not there yet are made. `inputs.NAME=null` and
    `tasks.NAME=null` take an input (with its share of `training.input_dropout`) or a task out, for an ablation."""
    key, equals, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    problems: list[Problem] = []
    if not equals:
        lines[(override,)] = None
        return [Problem((override,), "an override is written key.sub=value")]
    here = tree
    for depth, name in enumerate(path[:-1], start=1):
        below = here.get(name)
        if below is None:
            below, lines[path[:depth]] = {}, None
        here[name] = {"use": below} if isinstance(below, str) else below
        if not isinstance(here[name], dict):
            lines[path] = None
            return [Problem(path, f"{dotted(path[:depth])} is {shown(below)}, which has no keys")]
        here = here[name]
    known_before = [known for known in lines if known[: len(path)] == path]
    for known in known_before:
        del lines[known]
    lines[path] = None
    try:
        here[path[-1]] = read_yaml(text, {}, problems)
    except yaml.YAMLError as error:
        problems = [_yaml_problem(error)]
    if len(path) == 2 and path[0] in ("inputs", "tasks") and here.get(path[1], path) is None:
        del here[path[1]]
        training = tree.get("training")
        shares = training.get("input_dropout") if isinstance(training, dict) else None
        if path[0] == "inputs" and isinstance(shares, dict):
            shares.pop(path[1], None)
        if path not in known_before:
            problems.append(Problem(path, f"there is nothing of that name to take out{nearest(path[1], here)}"))
    return [Problem(path, each.message) for each in problems]
