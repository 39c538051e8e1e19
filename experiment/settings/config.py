"""Reads a YAML file into a checked `Config`. All problems of the file are reported at once, each with its line and the
possible values.

`document.py` reads the file. `schema.py` checks the keys of each section against the parameters of the classes in
`use`. `checks.py` checks the sections against each other. A YAML needs only the settings that differ from the
defaults."""

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
from ...inference.answers import RESERVED
from ...models.attention.grammar import user_defined_graphs
from ...tasks.base import Wiring
from ...tokenizers.base import Part
from ...training.checkpoints import FORMAT, other_format
from .checks import Share, cross_problems, holds_samples, shares_have_an_effect
from .document import ConfigError, Document, Problem, Where, dumped
from .hints import nearest, shown
from .locations import locate
from .registry import refusal, registry_of, trusting
from .schema import check, model_of, plain
from .sections import Checkpoints, Data, Evaluation, Logging, Training, sections


@dataclass(frozen=True)
class Config:
    """A checked configuration. The objects that the configuration names are not built yet: each is a `Part`, a class
    with its options. Calling a `Part` with the arguments that only code can provide builds the object."""

    path: Path
    """The YAML file."""
    tree: dict[str, Any]
    """All sections as plain YAML values, including defaults. `config.yaml` of a run contains this tree."""
    inputs: dict[str, Part]
    model: Part
    """The options of `Transformer` and of `Model` together. `model.of(Transformer)()` and
    `model.of(Model)(tokenizers, cores, heads)` each use the options that the class accepts."""
    tasks: dict[str, Part]
    data: Data
    training: Training
    evaluation: Evaluation
    checkpoints: Checkpoints
    logging: Logging
    from_run: str | None
    """The folder of the run whose weights initialize this run (`from:`); None: random initial weights."""
    out: Path
    """The folder of the run."""
    trust: Trust
    """The modules and hosts that this configuration may use. For a YAML file that the user wrote: the modules that the
    file names, and every host."""
    wiring: Wiring
    """Facts that follow from the configuration alone, such as the column of each input."""
    nested: Trust
    """The modules and hosts that the runs named by this configuration may use: the modules of `trust`, and what the
    user allows with `--trust` and `--remote`."""
    run_folder: Path | None = None
    """The folder of the run whose `config.yaml` was read; None if the configuration was read from any other file."""

    @property
    def on_samples(self) -> bool:
        """Whether the data set holds samples (True) or is a text corpus (False). For an imported run, which has no data
        set: whether `training.samples_per_step` is set."""
        return holds_samples(self.data) if self.data.dataset else self.training.samples_per_step is not None

    @property
    def in_run(self) -> bool:
        """Whether the configuration was read from the folder of a run."""
        return self.run_folder is not None

    def dataset(self) -> Dataset:
        """Returns the data set of the configuration. Raises DataError if the data set has a remote address that `trust`
        does not allow."""
        assert self.data.dataset is not None
        dataset = self.data.dataset()
        for address in dataset.addresses():
            self.trust.check_address(address)
        if joined := {name: columns for name, columns in self.data.columns.items() if not isinstance(columns, str)}:
            dataset = dataset.with_channels(joined)
        return dataset.divided(self.data.split) if self.data.split else dataset


def plain_tree(value: Any, path: Where, problems: list[Problem]) -> Any:
    """Returns a value from Python as the value that a YAML would have: tuples become lists, paths become texts. Any
    other object is a problem."""
    if isinstance(value, Mapping):
        return {key: plain_tree(each, (*path, key), problems) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_tree(each, (*path, number), problems) for number, each in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is not None and not isinstance(value, str | int | float | bool):
        reason = f"must be a number, a text, a list or a mapping, not {type(value).__name__}"
        problems.append(Problem(path, reason))
    return value


IN_PYTHON = "the configuration"
"""The name of a configuration that is a mapping, in messages."""


def load_config(path: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), trust: Trust = NOTHING) -> Config:
    """Read a configuration from a YAML file that the user wrote, or from a run (`RUN` or `RUN/config.yaml`). A mapping
    with the structure of a YAML counts as a file that the user wrote; it must name `out`. `overrides` are texts such as
    `training.steps=500` (see `Document.override`). A YAML file of the user may name any module and any address. A run,
    and any file with the name `config.yaml`, may name only the modules and hosts that `trust` allows. Paths of data in
    a YAML file of the user are relative to its folder (see `locate`); those in overrides, in a run and in a mapping are
    relative to the working directory. Raises ConfigError with all problems of the file and the overrides."""
    if isinstance(path, Mapping):
        return load_mapping(path, overrides, trust)
    folder = Path(path) if os.path.isdir(path) else Path(path).parent
    file = folder / "config.yaml" if os.path.isfile(Path(path) / "config.yaml") else Path(path)
    document = Document.read(file)
    tree = document.tree
    if not isinstance(tree, dict):
        raise no_mapping(file, tree)
    is_run_file = file.name == "config.yaml"  # the folder of a run from elsewhere may lack all other files
    in_run = (
        is_run_file and any(map(os.path.isdir, (path, folder / "checkpoints", folder / "assets")))
    ) or "format" in tree
    if in_run:
        _begin_run_config(document, folder)
    elif is_run_file and tree.pop("out", None) and not any(override.startswith("out=") for override in overrides):
        reason = "a file named config.yaml may belong to a run that is not trusted"
        document.problems.append(Problem((), f"out: {reason}: rename it, or set out=FOLDER on the command line"))
    allowed = trust if in_run or is_run_file else EVERYTHING
    if not in_run:
        with trusting(allowed):
            locate(tree, file.parent)
    config = _overridden(document, overrides, trust, in_run, allowed)
    return replace(config, run_folder=folder if in_run and is_run_file else None)


def no_mapping(file: Path, tree: Any) -> ConfigError:
    """Returns the error about a file that contains no mapping."""
    state = "is empty" if tree is None else f"is {shown(tree)}"
    message = f"the file {state}; it must be a mapping with {', '.join(sections())}"
    return ConfigError(str(file), [Problem((), message)], {(): 1})


def load_mapping(tree: Mapping[str, Any], overrides: Sequence[str] = (), trust: Trust = NOTHING) -> Config:
    """Returns the configuration of a mapping that the user wrote in Python; see `load_config`."""
    document = Document(IN_PYTHON, None)
    document.tree = plain_tree(tree, (), document.problems)
    if not document.tree.get("out") and not any(override.startswith("out=") for override in overrides):
        reason = "a configuration from Python needs the folder of its run, such as 'runs/name'"
        document.problems.append(Problem(("out",), reason))
    return _overridden(document, overrides, trust, False, EVERYTHING)


def _overridden(document: Document, overrides: Sequence[str], trust: Trust, in_run: bool, allowed: Trust) -> Config:
    """Returns the configuration of a document with overrides. `trust`: what the user allows for runs that it names;
    `allowed`: what the document itself may name."""
    tree = document.tree
    for override in overrides:
        document.override(override)
    if isinstance(tree.get("data"), dict) and tree["data"].get("dataset") is None:
        document.problems.append(no_dataset(in_run))
    for name in tree["tasks"] if not in_run and isinstance(tree.get("tasks"), dict) else ():
        if name in RESERVED:
            reason = f"{name!r} is the name of a column of the predictions ({', '.join(RESERVED)}); rename the task"
            document.problems.append(Problem(("tasks", name), reason))
    config = _resolve(document, allowed, trust)
    if not in_run and (problems := [Problem(*each) for each in shares_have_an_effect(config.wiring, config.training)]):
        raise ConfigError(document.file, problems, document.lines)
    return config


def no_dataset(in_run: bool) -> Problem:
    """Returns the problem of a configuration without a data set."""
    possible = f"possible: {', '.join(registry_of((Dataset,)).names())}, or package.module:Class"
    needed = "the imported run has no data; set data.dataset" if in_run else "Data needs 'dataset'"
    return Problem(("data",), f"{needed}: a name or {{use: NAME, ...}} ({possible})")


def load_run_config(folder: Path, trust: Trust = NOTHING) -> Config:
    """Returns the configuration in a run's `config.yaml`, with `folder` as `out`. The configuration may name classes of
    chopmix and of the modules that `trust` allows. Raises ConfigError for any problem, including another format
    number."""
    document = Document.read(folder / "config.yaml")
    if isinstance(document.tree, dict):
        _begin_run_config(document, folder)
    return _checked(document, trust)


def _begin_run_config(document: Document, folder: Path) -> None:
    """Check and remove the format number in the configuration of a run. Set `out` to the run's folder, since the run
    may have been moved, or to None if the configuration was read from a file that is not named `config.yaml`. Raises
    ConfigError if this version of chopmix does not read the format."""
    if problem := other_format(number := document.tree.pop("format", 1)):
        raise ConfigError(document.file, [Problem((), problem)])
    inputs = document.tree.get("inputs")
    for part in inputs.values() if number == 2 and isinstance(inputs, dict) else ():
        if isinstance(part, dict) and part.get("use") == "sensor" and part.get("rate") == 1:
            del part["rate"]  # the default of format 2
    document.tree["out"] = str(folder) if Path(document.file).name == "config.yaml" else None


def write_config(folder: Path, config: Config) -> None:
    """Write a configuration atomically as `config.yaml` of a run. The first key of the file is `format`."""
    write_text(folder / "config.yaml", dumped({"format": FORMAT, **config.tree}))


def config_from_tree(tree: Any, path: str | Path = "config.yaml", trust: Trust = NOTHING) -> Config:
    """Returns the configuration in a nested dict that has the structure of a YAML. `path` is the file name in messages.
    The configuration may name classes of chopmix and of the modules that `trust` allows. Raises ConfigError with all
    problems."""
    return _checked(Document(str(path), copy.deepcopy(dict(tree)) if isinstance(tree, Mapping) else tree), trust)


def _checked(document: Document, trust: Trust) -> Config:
    if not isinstance(document.tree, dict):
        message = f"must be a mapping with {', '.join(sections())}, not {shown(document.tree)}"
        raise ConfigError(document.file, [Problem((), message)])
    return _resolve(document, trust)


def json_schema() -> dict[str, Any]:
    """Returns a JSON Schema (draft 2020-12) of all sections of the YAML, for editors."""
    schema = model_of("chopmix", sections(), "A chopmix experiment.").model_json_schema()
    properties = {
        "same_as": {"type": "string", "description": "The input whose tokenizer is used."},
        "type": {"type": "string", "description": "The input whose type embedding is used; default: its own."},
    }
    same_as = {"type": "object", "properties": properties, "required": ["same_as"], "additionalProperties": False}
    same_as |= {"description": "The tokenizer of another input, by that input's name."}
    schema["properties"]["inputs"]["additionalProperties"]["anyOf"].append(same_as)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _resolve(document: Document, trust: Trust, of_runs: Trust = NOTHING) -> Config:
    """Returns the configuration of a document, which may name the modules and hosts that `trust` allows. If the user
    wrote the YAML file, `trust` is EVERYTHING; the runs that the file names may then use the modules that the file
    names, and the modules and hosts that `of_runs` allows."""
    with trusting(trust):
        values, shares, wiring = _values(document)
    path = Path(document.file)
    values["out"] = values["out"] or str(_default_out(path))
    resolved = {name: plain(value) for name, value in values.items()}
    resolved["inputs"] |= {name: share.tree for name, share in shares.items()}
    from_run, out = values.pop("from"), Path(values.pop("out"))
    nested = trust
    if trust == EVERYTHING:
        modules = frozenset(modules_in(resolved))
        trust, nested = Trust(modules, EVERY), Trust(modules | of_runs.modules, of_runs.hosts)
    return Config(
        path=path, tree=resolved, from_run=from_run, out=out, wiring=wiring, trust=trust, nested=nested, **values
    )  # fmt: skip


def modules_in(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yields the modules outside chopmix that the parts, attention graphs, environments and policies of a checked
    configuration name: `mylab.lidar` for `use: mylab.lidar:Lidar`."""
    cores = [tree["model"], tree["model"]["encoder"] or {}]
    expressions = [core.get("attention", "") for core in cores]
    expressions += [graphs_of_position(core.get("position")) for core in cores]
    graphs = [reference for setting in expressions for reference in user_defined_graphs(setting)]
    for reference in (*_parts_in(tree), *graphs, *(name for _, name in code_named_in(tree))):
        yield reference.partition(":")[0]


def graphs_of_position(position: Any) -> list[str]:
    """Returns the attention expressions in the option `graphs` of a setting `position`."""
    graphs = position.get("graphs") if isinstance(position, Mapping) else None
    return [graph for graph in graphs if isinstance(graph, str)] if isinstance(graphs, list) else []


def _parts_in(tree: Any) -> Iterator[str]:
    """Yields every `package.module:Class` that is the value of a key `use` in a checked configuration."""
    children = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ()
    if isinstance(tree, Mapping) and isinstance(tree.get("use"), str) and ":" in tree["use"]:
        yield tree["use"]
    for value in children:
        yield from _parts_in(value)


def _values(document: Document) -> tuple[dict[str, Any], dict[str, Share], Wiring]:
    """Returns (values, shares, wiring): the checked value of each section, by section name; for each input with
    `same_as`, what it shares; and the wiring. Raises ConfigError with all problems."""
    tree, problems = document.tree, document.problems
    unknown = [name for name in tree if name not in sections()]
    problems += [Problem((name,), f"there is no such section{nearest(name, sections())}") for name in unknown]
    shares = _shared(tree, problems)
    values: dict[str, Any] = {}
    for name in sections():
        problems += _section(name, tree, values)
    reported = {problem.path[:depth] for problem in problems for depth in range(len(problem.path) + 1)}
    cross_section, wiring = cross_problems(values, shares)
    problems += [problem for problem in cross_section if problem.path not in reported]
    problems += [Problem(path, reason) for path, name in code_named_in(tree) if (reason := refusal(name))]
    if problems:
        raise ConfigError(document.file, problems, document.lines)
    assert wiring is not None  # there are no problems
    return values, shares, wiring


def _shared(tree: dict, problems: list[Problem]) -> dict[str, Share]:
    """Returns a mapping from each input that is written `{same_as: OTHER}` to what it shares. In the tree, such an
    input is replaced by a copy of OTHER, or by `text` if there is no input OTHER. Problems are appended to
    `problems`."""
    inputs = tree.get("inputs")
    shares = {name: Share(options["same_as"], options.get("type")) for name, options in inputs.items()
              if isinstance(options, dict) and "same_as" in options} if isinstance(inputs, dict) else {}  # fmt: skip
    if shares:
        _copy_inputs(inputs, shares, problems)
    return {name: share for name, share in shares.items() if isinstance(name, str) and isinstance(share.owner, str)}


def _copy_inputs(inputs: dict, shares: Mapping[str, Share], problems: list[Problem]) -> None:
    """Replace the inputs that are written `{same_as: OTHER}`; see `_shared`."""
    for name, (owner, type_of) in shares.items():
        owners = [other for other in inputs if other not in shares]
        typed = [other for other in inputs if other != name and (other not in shares or shares[other].type is None)]
        if inputs[name].keys() - {"same_as", "type"}:
            problems.append(
                Problem(("inputs", name), "same_as copies all options of the other input; only `type` is allowed")
            )
        elif type_of is not None and type_of not in typed:
            message = f"no other input with its own type is named {type_of!r}{nearest(type_of, typed)}"
            problems.append(Problem(("inputs", name, "type"), message))
        elif owner not in owners:
            message = f"no input is named {owner!r}{nearest(owner, owners)}"
            problems.append(Problem(("inputs", name, "same_as"), message))
        inputs[name] = copy.deepcopy(inputs[owner]) if owner in owners else "text"


STAND_INS = {
    ("model", "width"): 2_882_880, ("model", "depth"): 1, ("model", "heads"): 1, ("model", "context"): 1,
    ("training", "steps"): 2**40, ("training", "minutes"): None, ("training", "epochs"): None,
}  # fmt: skip
"""Replacements for required numbers that are invalid, so that the checks across sections can still run. The
replacements pass these checks: for example, every usual number of heads divides this width."""


@functools.cache
def _section_model(name: str) -> Any:
    return model_of("the configuration", {name: sections()[name]})


def _section(name: str, tree: Mapping[str, Any], values: dict[str, Any]) -> list[Problem]:
    """Put the value of a section into `values`, and return the problems of the section.

    If keys are invalid, they are removed (or replaced by STAND_INS) and the rest of the section is read again.
    Therefore the checks across sections can run, and one mistake does not hide another."""
    mapping = {name: tree[name]} if name in tree else {}
    try:
        values.update(check(_section_model(name), mapping))
        return []
    except ValidationError as error:
        return _read_again(name, mapping, values, error.errors(include_url=False))


def _read_again(name: str, mapping: Mapping[str, Any], values: dict[str, Any], errors: Sequence[Any]) -> list[Problem]:
    """Put the valid rest of a section into `values`, and return the problems of the section."""
    if invalid := [problem["loc"] for problem in errors if _is_droppable(problem)]:
        valid = _without(mapping, invalid)
        for section, *key in invalid:
            if (section, *key) in STAND_INS:
                valid[section][key[0]] = STAND_INS[section, key[0]]
        _section(name, valid, values)
    return [Problem(tuple(problem["loc"]), problem["msg"]) for problem in errors]


def _is_droppable(error: Any) -> bool:
    """Returns whether the invalid value alone can be removed: in `inputs` and `tasks` only if it is an unknown key, in
    other sections if it is not the section itself."""
    return error["type"] == "unknown_key" or (len(error["loc"]) > 1 and error["loc"][0] not in ("inputs", "tasks"))


def _without(tree: Mapping[str, Any], paths: Sequence[Where]) -> dict[str, Any]:
    """Returns a copy of the tree without the values at these paths. A path to an element of a list removes the whole
    list."""
    copied: Any = copy.deepcopy(tree)
    for path in sorted(paths, key=len, reverse=True):
        node, keys = copied, [*takewhile(lambda key: isinstance(key, str), path)]
        while len(keys) > 1 and isinstance(node.get(keys[0]), dict):
            node = node[keys.pop(0)]
        node.pop(keys[0], None)
    return copied


def _default_out(path: Path) -> Path:
    """Returns the default of `out`: `runs/a/b` for `configs/a/b.yaml`, and `runs/NAME` for `NAME.yaml` if no parent
    folder is called `configs`."""
    parents = path.parts[:-1]
    start = len(parents) - parents[::-1].index("configs") if "configs" in parents else len(parents)
    return Path("runs", *parents[start:], path.stem)
