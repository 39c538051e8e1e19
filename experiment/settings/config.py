"""One YAML file to one checked `Config`: all problems of the file at once, each with its line and what is possible.

document.py reads the file, schema.py checks each section against the signatures of the classes that it names, checks/
checks the sections against each other. A YAML states only what differs from the defaults."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...data.base import Dataset
from ...files.trust import EVERY, EVERYTHING, NOTHING, Trust, code_named_in
from ...files.writing import write_text
from ...models.attention.grammar import user_defined_graphs
from ...tasks.base import Wiring
from ...tokenizers.base import Part
from ...training.checkpoints import FORMAT, other_format
from .checks import cross_problems, holds_samples
from .document import ConfigError, Document, Problem, Where, dumped
from .hints import nearest, shown
from .registry import refusal, registry_of, trusting
from .schema import check, model_of, plain
from .sections import Checkpoints, Data, Evaluation, Logging, Training, sections


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
    """The options of `Transformer` and `Model` together: `model.of(Transformer)()` and
    `model.of(Model)(tokenizers, cores, heads)` each take theirs."""
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
    trust: Trust
    """The modules and hosts that this configuration may use. If the user wrote the YAML file: the modules that its
    parts name, and any host."""
    wiring: Wiring
    """What follows from inputs and tasks."""
    nested: Trust
    """The modules and hosts for the runs that this configuration names: the same modules, the hosts of `--remote`."""
    run_folder: Path | None = None
    """The folder of the run from which it was read; None: it was read from another file."""

    @property
    def on_samples(self) -> bool:
        """Whether the data set holds samples, else it is a text corpus; of an imported run, which has none, whether its
        batches are counted in samples."""
        return holds_samples(self.data) if self.data.dataset else self.training.samples_per_step is not None

    @property
    def in_run(self) -> bool:
        """Whether it was read from the folder of a run."""
        return self.run_folder is not None

    def dataset(self) -> Dataset:
        """The data set that the configuration names. Raises DataError for a remote address that `trust` does not
        allow."""
        assert self.data.dataset is not None
        dataset = self.data.dataset()
        for address in dataset.addresses():
            self.trust.check_address(address)
        return dataset


def load_config(path: str | Path, overrides: Sequence[str] = (), trust: Trust = NOTHING) -> Config:
    """Read a YAML file that the user wrote, or the configuration of a run (`RUN` or `RUN/config.yaml`), with overrides
    such as `training.steps=500` (see `Document.override`). A YAML file may name any module and any address; a run, and
    any file named `config.yaml`, those that `trust` allows. Raises ConfigError with all problems of file and
    overrides."""
    folder = Path(path) if os.path.isdir(path) else Path(path).parent
    file = folder / "config.yaml" if os.path.isfile(Path(path) / "config.yaml") else Path(path)
    document = Document.read(file)
    tree = document.tree
    if not isinstance(tree, dict):
        given = "is empty" if tree is None else f"is {shown(tree)}"
        message = f"the file {given}; it must be a mapping with {', '.join(sections())}"
        raise ConfigError(str(file), [Problem((), message)], {(): 1})
    named = file.name == "config.yaml"  # a folder from someone else may lack all else that a run has
    in_run = (named and any(map(os.path.isdir, (path, folder / "checkpoints", folder / "assets")))) or "format" in tree
    if in_run:
        _begin_run_config(document, folder)
    elif named and tree.pop("out", None) and not any(override.startswith("out=") for override in overrides):
        why = "a file named config.yaml may belong to a run from someone else"
        document.problems.append(Problem((), f"out: {why}: rename it, or give out=FOLDER on the command line"))
    document.rename()
    for override in overrides:
        document.override(override)
    document.rename()
    if isinstance(tree.get("data"), dict) and tree["data"].get("dataset") is None:
        possible = f"possible: {', '.join(registry_of((Dataset,)).names())}, or package.module:Class"
        needed = "the imported run has no data; set data.dataset" if in_run else "Data needs 'dataset'"
        document.problems.append(Problem(("data",), f"{needed}: a name or {{use: NAME, ...}} ({possible})"))
    config = _resolve(document, trust if in_run or named else EVERYTHING, trust.hosts)
    return replace(config, run_folder=folder if in_run and named else None)


def load_run_config(folder: Path, trust: Trust = NOTHING) -> Config:
    """The configuration in a run's `config.yaml`. It may name classes of chopmix and of the modules that `trust`
    allows, and its `out` is the folder itself. Raises ConfigError, also for a run of another format."""
    document = Document.read(folder / "config.yaml")
    if isinstance(document.tree, dict):
        _begin_run_config(document, folder)
    return _checked(document, trust)


def _begin_run_config(document: Document, folder: Path) -> None:
    """Check and remove the format number in the configuration of a run, and set `out` to the run's folder, wherever the
    file says that it was trained. Raises ConfigError for another format."""
    if wrong := other_format(document.tree.pop("format", 1)):
        raise ConfigError(document.file, [Problem((), wrong)])
    document.tree["out"] = str(folder) if Path(document.file).name == "config.yaml" else None


def write_config(folder: Path, config: Config) -> None:
    """Write a configuration as the `config.yaml` of a run, whole or not at all, with `format` before its sections."""
    write_text(folder / "config.yaml", dumped({"format": FORMAT, **config.tree}))


def config_from_tree(tree: Any, path: str | Path = "config.yaml", trust: Trust = NOTHING) -> Config:
    """The configuration in a nested dict, of the shape of a YAML; `path` names it in messages. It may name classes of
    chopmix and of the modules that `trust` allows. Raises ConfigError with all its problems."""
    return _checked(Document(str(path), copy.deepcopy(dict(tree)) if isinstance(tree, Mapping) else tree), trust)


def _checked(document: Document, trust: Trust) -> Config:
    if not isinstance(document.tree, dict):
        message = f"must be a mapping with {', '.join(sections())}, not {shown(document.tree)}"
        raise ConfigError(document.file, [Problem((), message)])
    document.rename()
    return _resolve(document, trust)


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of the whole YAML, for editors."""
    found = model_of("chopmix", sections(), "A chopmix experiment.").model_json_schema()
    same = {"type": "object", "properties": {"same_as": {"type": "string"}}, "required": ["same_as"]}
    same |= {"additionalProperties": False, "description": "The tokenizer of another input, by that input's name."}
    found["properties"]["inputs"]["additionalProperties"]["anyOf"].append(same)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _resolve(document: Document, trust: Trust, hosts: frozenset[str] = frozenset()) -> Config:
    """The configuration of a document, which may name what `trust` allows. If the user wrote the YAML file (`trust` is
    EVERYTHING), the runs that it names may use the modules that the file names, and `hosts`."""
    with trusting(trust):
        values, shares, wiring = _values(document)
    path = Path(document.file)
    values["out"] = values["out"] or str(_default_out(path))
    resolved = {name: plain(value) for name, value in values.items()}
    resolved["inputs"] |= {name: {"same_as": owner} for name, owner in shares.items()}
    from_run, out = values.pop("from"), Path(values.pop("out"))
    nested = trust
    if trust == EVERYTHING:
        modules = frozenset(_modules_in(resolved))
        trust, nested = Trust(modules, EVERY), Trust(modules, hosts)
    return Config(
        path=path, tree=resolved, from_run=from_run, out=out, wiring=wiring, trust=trust, nested=nested, **values
    )  # fmt: skip


def _modules_in(tree: Mapping[str, Any]) -> Iterator[str]:
    """The modules outside chopmix that the parts, attention graphs, environments and policies of a checked
    configuration name: `mylab.lidar` of `use: mylab.lidar:Lidar`."""
    cores = [tree["model"], tree["model"]["encoder"] or {}]
    graphs = [reference for core in cores for reference in user_defined_graphs(core.get("attention", ""))]
    for reference in (*_parts_in(tree), *graphs, *(name for _, name in code_named_in(tree))):
        yield reference.partition(":")[0]


def _parts_in(tree: Any) -> Iterator[str]:
    """Every `package.module:Class` of a checked configuration that names a part by `use`."""
    inner = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ()
    if isinstance(tree, Mapping) and isinstance(tree.get("use"), str) and ":" in tree["use"]:
        yield tree["use"]
    for value in inner:
        yield from _parts_in(value)


def _values(document: Document) -> tuple[dict[str, Any], dict[str, str], Wiring]:
    """The checked values of all sections, which input uses the tokenizer of which other one, and the wiring.
    Raises ConfigError with all problems."""
    tree, problems = document.tree, document.problems
    unknown = [name for name in tree if name not in sections()]
    problems += [Problem((name,), f"there is no such section{nearest(name, sections())}") for name in unknown]
    shares = _shared(tree, problems)
    values: dict[str, Any] = {}
    for name in sections():
        problems += _section(name, tree, values)
    wrong = {each.path[:depth] for each in problems for depth in range(len(each.path) + 1)}
    found, wiring = cross_problems(values, shares)
    problems += [each for each in found if each.path not in wrong]
    problems += [Problem(where, refused) for where, name in code_named_in(tree) if (refused := refusal(name))]
    if problems:
        raise ConfigError(document.file, problems, document.lines)
    assert wiring is not None  # there are no problems
    return values, shares, wiring


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
