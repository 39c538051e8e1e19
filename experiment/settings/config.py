"""One YAML file to one checked `Config`: all problems of the file at once, each with its line and what is possible.

document.py reads the file, schema.py checks each section against the signatures of the classes that it names, checks/
checks the sections against each other. A YAML states only what differs from the defaults."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...data.base import Dataset
from ...models.attention.grammar import own_graphs
from ...tokenizers.files.writing import write_text
from ...training.checkpoints.run_format import FORMAT, other_format
from .checks.between import cross_problems, holds_samples
from .document import ConfigError, Document, Problem, Where, dumped
from .registry import ANYWHERE, code_from, code_refused, environments_in, registry_of
from .scalars import nearest, shown
from .schema import Part, check, model_of, plain
from .top_level import Checkpoints, Data, Evaluation, Logging, Training, sections


@dataclass(frozen=True)
class Config:
    """A checked configuration. The objects that it names are not built yet: a `Part` is a class with its options,
    called with the arguments that only code has."""

    path: Path
    """The YAML file."""
    tree: dict[str, Any]
    """All sections as plain YAML values, defaults included: the `config.yaml` of a run."""
    inputs: dict[str, Part]
    model: Part
    """The options of `Transformer` and `Model` together: `model.build(Transformer)` and
    `model.build(Model, tokenizers, cores, heads)` each take theirs."""
    tasks: dict[str, Part]
    data: Data
    training: Training
    evaluation: Evaluation
    checkpoints: Checkpoints
    logging: Logging
    from_run: str | None
    """The folder of the run whose weights this one starts from (`from:`)."""
    out: Path
    """The folder of the run."""
    shares: Mapping[str, str] = field(default_factory=dict)
    """Which other input's tokenizer an input uses: `{target: {same_as: source}}` gives `{"target": "source"}`."""

    @property
    def on_samples(self) -> bool:
        """Whether the data set holds samples, else it is a text corpus; of an imported run, which has none, whether its
        batches are counted in samples."""
        return holds_samples(self.data) if self.data.dataset else self.training.samples_per_step is not None

    @property
    def modules(self) -> set[str]:
        """The modules that it names by `package.module:Class`, also in attention expressions: of `mylab.lidar:Lidar`
        `mylab.lidar`."""
        cores = [self.tree["model"], self.tree["model"]["encoder"] or {}]
        graphs = [own for core in cores for own in own_graphs(core.get("attention", ""))]
        return {*named_modules(self.tree), *(own.partition(":")[0] for own in graphs)}


def named_modules(tree: Any) -> Iterator[str]:
    """The `package.module` of every value `package.module:Class`, or `package.module:Environment-v0`, in a tree."""
    if isinstance(tree, Mapping | list):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from named_modules(value)
    elif isinstance(tree, str) and re.fullmatch(r"[\w.]+:[\w-]+", tree):
        yield tree.partition(":")[0]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, with overrides such as `training.steps=500` (see `Document.override`). It may name classes of
    any module. Raises ConfigError with all problems of file and overrides."""
    document = Document.read(Path(path))
    tree = document.tree
    if not isinstance(tree, dict):
        given = "is empty" if tree is None else f"is {shown(tree)}"
        message = f"the file {given}; it must be a mapping with {', '.join(sections())}"
        raise ConfigError(str(path), [Problem((), message)], {(): 1})
    document.rename()
    if wrong := other_format(tree.pop("format", FORMAT), Path(path).parent):  # a run's config.yaml has one
        document.problems.append(Problem(("format",), wrong))
    for override in overrides:
        document.override(override)
    document.rename()
    if isinstance(tree.get("data"), dict) and tree["data"].get("dataset") is None:
        possible = f"possible: {', '.join(registry_of((Dataset,)).names())}, or package.module:Class"
        document.problems.append(Problem(("data",), f"Data needs 'dataset': a name or {{use: NAME, ...}} ({possible})"))
    with code_from(ANYWHERE):
        return _resolve(document)


def load_run_config(folder: Path, trust: Collection[str] = ()) -> Config:
    """The configuration in a run's `config.yaml`. Since a stranger may have written it, it may name classes of chopmix
    and of the modules in `trust` alone. Raises ConfigError, also for a run of another format."""
    document = Document.read(folder / "config.yaml")
    if isinstance(document.tree, dict) and (wrong := other_format(document.tree.pop("format", 1), folder)):
        raise ConfigError(document.file, [Problem((), wrong)])
    return _checked(document, trust)


def write_config(folder: Path, config: Config) -> None:
    """Write a configuration as the `config.yaml` of a run, whole or not at all, with `format` before its sections."""
    write_text(folder / "config.yaml", dumped({"format": FORMAT, **config.tree}))


def config_from_tree(tree: Any, path: str | Path = "config.yaml", trust: Collection[str] = ()) -> Config:
    """The configuration in a nested dict, of the shape of a YAML; `path` names it in messages. It may name classes of
    chopmix and of the modules in `trust` alone. Raises ConfigError with all its problems."""
    return _checked(Document(str(path), copy.deepcopy(dict(tree)) if isinstance(tree, Mapping) else tree), trust)


def _checked(document: Document, trust: Collection[str]) -> Config:
    if not isinstance(document.tree, dict):
        message = f"must be a mapping with {', '.join(sections())}, not {shown(document.tree)}"
        raise ConfigError(document.file, [Problem((), message)])
    document.rename()
    with code_from(trust):
        return _resolve(document)


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of the whole YAML, for editors."""
    found = model_of("chopmix", sections(), "A chopmix experiment.").model_json_schema()
    same = {"type": "object", "properties": {"same_as": {"type": "string"}}, "required": ["same_as"]}
    same |= {"additionalProperties": False, "description": "The tokenizer of another input, by that input's name."}
    found["properties"]["inputs"]["additionalProperties"]["anyOf"].append(same)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _resolve(document: Document) -> Config:
    tree, path, problems = document.tree, Path(document.file), document.problems
    unknown = [name for name in tree if name not in sections()]
    problems += [Problem((name,), f"there is no such section{nearest(name, sections())}") for name in unknown]
    shares = _shared(tree, problems)
    values: dict[str, Any] = {}
    for name in sections():
        problems += _section(name, tree, values)
    wrong = {each.path[:depth] for each in problems for depth in range(len(each.path) + 1)}
    problems += [Problem(*each) for each in cross_problems(values) if each[0] not in wrong]
    problems += [Problem(where, refused) for where, name in environments_in(tree) if (refused := code_refused(name))]
    if problems:
        raise ConfigError(document.file, problems, document.lines)
    values["out"] = values["out"] or str(_default_out(path))
    resolved = {name: plain(value) for name, value in values.items()}
    resolved["inputs"] |= {name: {"same_as": owner} for name, owner in shares.items()}
    from_run, out = values.pop("from"), Path(values.pop("out"))
    return Config(path=path, tree=resolved, from_run=from_run, out=out, shares=shares, **values)


def _shared(tree: dict, problems: list[Problem]) -> dict[str, str]:
    """The inputs written `{same_as: OTHER}`, mapped to OTHER; in the tree each is replaced by a copy of that input."""
    inputs = tree.get("inputs")
    found = {name: each["same_as"] for name, each in inputs.items()
             if isinstance(each, dict) and "same_as" in each} if isinstance(inputs, dict) else {}  # fmt: skip
    for name, owner in found.items():
        possible = [other for other in inputs if other not in found]
        if len(inputs[name]) > 1:
            problems.append(Problem(("inputs", name), "same_as takes everything from the other input: no more keys"))
        elif owner not in possible:
            message = f"no input is named {owner!r}{nearest(owner, possible)}"
            problems.append(Problem(("inputs", name, "same_as"), message))
        inputs[name] = copy.deepcopy(inputs[owner]) if owner in possible else "text"
    return {name: owner for name, owner in found.items() if isinstance(name, str) and isinstance(owner, str)}


STAND_INS = {
    ("model", "width"): 2_882_880, ("model", "depth"): 1, ("model", "heads"): 1, ("model", "context"): 1,
    ("training", "steps"): 2**40, ("training", "minutes"): None,
}  # fmt: skip
"""Replacements for required numbers that are wrong, so that the checks between sections can look at everything else:
values that agree with all others (any likely number of heads divides this width)."""


@functools.cache
def _section_model(name: str) -> Any:
    return model_of("the configuration", {name: sections()[name]})


def _section(name: str, tree: Mapping[str, Any], values: dict[str, Any]) -> list[Problem]:
    """Put the value of a section into `values`, and return its problems.

    Keys that are wrong are dropped (or replaced by STAND_INS) and the rest is read again, so that the checks between
    sections run and one mistake does not hide another.
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
    """Whether a wrong value may be dropped alone: within inputs and tasks only an unknown key."""
    return error["type"] == "unknown_key" or (len(error["loc"]) > 1 and error["loc"][0] not in ("inputs", "tasks"))


def _without(tree: Mapping[str, Any], paths: Sequence[Where]) -> dict[str, Any]:
    """A copy of the tree without these paths; one that leads into a list takes the whole list out."""
    found: Any = copy.deepcopy(tree)
    for path in sorted(paths, key=len, reverse=True):
        *parents, last = takewhile(lambda key: isinstance(key, str), path)
        functools.reduce(lambda node, key: node[key], parents, found).pop(last, None)
    return found


def _default_out(path: Path) -> Path:
    """The default of `out`: runs/a/b for `configs/a/b.yaml`, runs/NAME for NAME.yaml elsewhere."""
    parents = path.parts[:-1]
    after = len(parents) - parents[::-1].index("configs") if "configs" in parents else len(parents)
    return Path("runs", *parents[after:], path.stem)
