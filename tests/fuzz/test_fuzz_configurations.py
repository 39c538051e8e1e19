"""Fuzz tests of configurations: odd YAML files, odd overrides on the command line, and dry runs of odd experiments."""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from checkout import every_yaml
from chopmix.experiment.settings.config import json_schema, load_config
from chopmix.experiment.settings.registry import registry_of
from chopmix.experiment.settings.schema import halves, keys_of
from chopmix.experiment.settings.sections import Checkpoints, Data, Evaluation, Training, sections
from chopmix.models.model import Model
from chopmix.models.transformer import Transformer
from fuzzed import (
    SURROGATES,
    at,
    changed_bytes,
    changed_text,
    changed_tree,
    fuzzed,
    odd_numbers,
    odd_texts,
    odd_values,
    paths_of,
)
from hypothesis import strategies as st
from judged import command, in_its_home
from tiny import SCENES, dumped

CONFIGS = every_yaml()
TEXTS = ["".join(line for line in file.read_text().splitlines(True) if line[0] != "#") for file in CONFIGS]
TREES = [yaml.safe_load(text) for text in TEXTS]


@pytest.fixture(scope="module")
@in_its_home
def used(whole_judge) -> None:
    """Import modules that are loaded at their first use, so that no input takes time for it."""
    json_schema()
    whole_judge.folder()
    Path("fine.yaml").write_text(dumped(SCENES["lm"]))
    command("train", "fine.yaml", "--dry-run")


# ------------------------------------------------------------------------------------------------------ configurations


ENCODINGS = st.sampled_from(("utf-8",) * 8 + ("utf-16", "latin-1"))
of_trees, of_texts = changed_tree(TREES).map(dumped), changed_text(TEXTS)
of_bytes = changed_bytes([text.encode() for text in TEXTS])
configurations = (
    st.builds(lambda text, encoding: text.encode(encoding, errors="replace"), of_trees | of_texts, ENCODINGS)
    | of_trees.map(lambda text: text.encode(errors="replace"))
    | of_bytes
)
"""The bytes of a file: a configuration of this repository, changed as a tree, as a text or as bytes."""


@fuzzed(content=configurations)
def test_configurations(judge, used, content):
    file = judge.folder() / "odd.yaml"
    file.write_bytes(content)
    judge.check("configurations", lambda: load_config(file), repr(content))


# ----------------------------------------------------------------------------------------------------------- overrides

BASES = {str(file.relative_to(CONFIGS[0].parent.parent)): tree for file, tree in zip(CONFIGS, TREES)}
"""Configurations by the paths of their files."""
KEYS = [".".join(map(str, path)) for tree in TREES for path in paths_of(tree)]
KEYS += [
    "model.block.key_value_heads",
    "model.position",
    "model.position.base",
    "model.block.feed_forward.ratio",
    "model.encoder.depth",
    "model.dropout",
    "model.initialization.std",
    "training.schedule",
    "training.mixup.mixup",
    "training.input_dropout",
    "training.freeze",
    "data.columns",
    "data.dataset.train",
    "inputs.text",
    "inputs.text.pad_vocabulary_to",
    "inputs.image.size",
    "tasks.lm.metrics",
    "evaluation.every",
    "checkpoints.average",
    "from",
    "out",
]
VALID_OVERRIDES = [
    "training.steps=5",
    "model.depth=1",
    "model.dropout=0.1",
    "training.seed=3",
    "logging.every=1",
    "evaluation.every=7",
    "out=runs/x",
    "from=null",
    "data.bad_share=0.5",
    "training.clip=null",
    "training.learning_rate=1e-3",
    "training.optimizer=adamw",
    "model.block.norm=rms_norm",
    "training.schedule=constant",
    "checkpoints.keep=1",
]
"""Overrides that are valid for every configuration."""


def in_line(value: Any) -> str:
    """A value as YAML in one line, as it is written after `=`."""
    return dumped(value).removesuffix("...\n").strip()


KEYS_OF_BASE = {name: [".".join(map(str, path)) for path in paths_of(tree)] for name, tree in BASES.items()}
keys = st.sampled_from(KEYS) | st.lists(odd_texts, max_size=4).map(".".join)
equals = st.sampled_from(("=",) * 9 + ("", "==", " = ", ".use="))
override_values = (
    odd_values.map(in_line) | odd_texts | st.sampled_from([*SURROGATES, "1", "0.5", "rotary", "causal", "null"])
)


@st.composite
def command_lines(draw) -> tuple[str, list[str]]:
    """A configuration and some overrides, in the form `key=value` or similar."""
    base = draw(st.sampled_from(sorted(BASES)))
    odd = st.builds(lambda *parts: "".join(parts), st.sampled_from(KEYS_OF_BASE[base]) | keys, equals, override_values)
    return base, draw(st.lists(st.sampled_from(VALID_OVERRIDES) | odd, min_size=1, max_size=3))


@fuzzed(line=command_lines())
def test_overrides(judge, used, line):
    base, overrides = line
    judge.folder()
    judge.check(
        "overrides",
        lambda: load_config(CONFIGS[0].parent.parent / base, overrides),
        f"load_config('configs/{base}', {overrides!r})",
    )


# ------------------------------------------------------------------------------------------------------------ dry runs

NOT_DRAWN = {"compile", "dataset", "target", "source", "same_as"}
"""Keys that are not drawn: compiling takes too long for one input, and every scene needs its data and targets."""
WHOLE, REAL = st.sampled_from((1, 2, 3, 4, 8, 16)), st.sampled_from((0.0, 0.1, 0.5, 1.0, 1.5, 3.0, 1e-3))


def values(annotation: Any) -> st.SearchStrategy:
    """Values that an annotation allows."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of(map(values, inner))
    if origin is collections.abc.Callable:
        members = get_args(inner[1]) if get_origin(inner[1]) in (Union, types.UnionType) else (inner[1],)
        return parts(registry_of(members))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is Annotated:
        return values(inner[0])
    if origin is tuple and ... not in inner:
        return st.tuples(*map(values, inner)).map(list)
    if origin in (list, tuple):
        return st.lists(values(inner[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(st.sampled_from(("text", "image", "sound", "0", "a")), values(inner[1]), max_size=2)
    if inspect.isclass(annotation) and is_dataclass(annotation):
        return options((annotation,))
    simple = {
        int: WHOLE,
        float: REAL,
        bool: st.booleans(),
        str: st.sampled_from(("a", "text", "causal", "bytes", "loss")),
        types.NoneType: st.none(),
    }
    return simple.get(annotation, st.none() | WHOLE | REAL)


@st.composite
def options(draw, targets: Sequence[Any]) -> dict:
    """Up to two keys of some classes, with values."""
    keys = keys_of(*targets)
    names = draw(st.lists(st.sampled_from(sorted(keys)), max_size=2, unique=True)) if keys else []
    return {name: draw(values(keys[name][0])) for name in names}


@st.composite
def parts(draw, registry: Any) -> Any:
    """The name of a part, or a part with options."""
    name = draw(st.sampled_from(registry.names()))
    return {"use": name, **draw(options(halves(registry.find(name)[1])))} if draw(st.booleans()) else name


def targets_of(path: tuple[str, ...], part: Any) -> tuple[Any, ...]:
    """The classes whose keys are allowed at a path of a scene."""
    plain = {
        "model": (Transformer, Model),
        "training": (Training,),
        "data": (Data,),
        "evaluation": (Evaluation,),
        "checkpoints": (Checkpoints,),
    }
    if len(path) == 1:
        return plain[path[0]]
    (choice,) = [each for each in get_args(get_args(sections()[path[0]][0])[1]) if hasattr(each, "registry")]
    return halves(choice.registry.find(part["use"])[1])


@st.composite
def experiments(draw, scenes: Mapping[str, dict] = SCENES) -> dict:
    """A scene with up to three options drawn from the signatures; one in ten has an odd value."""
    tree = yaml.safe_load(dumped(scenes[draw(st.sampled_from(sorted(scenes)))]))
    places = [("model",), ("model",), ("training",), ("training",), ("data",), ("evaluation",), ("checkpoints",)]
    places += [
        (section, name) for section in ("inputs", "tasks") for name, part in tree[section].items() if "use" in part
    ]
    for path in draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        tree.setdefault(path[0], {})
        here = at(tree, path)
        possible = keys_of(*targets_of(path, here))
        name = draw(st.sampled_from(sorted(set(possible) - NOT_DRAWN)))
        is_odd = draw(st.integers(0, 9)) == 9
        here[name] = draw(odd_numbers | odd_values if is_odd else values(possible[name][0]))
    return tree


def has_quick_steps(tree: dict) -> bool:
    """Whether a step has at most 1,000 samples, or more than are allowed: a step of 65,536 samples takes longer than
    SECONDS."""
    training = tree.get("training")
    samples = training.get("samples_per_step") if isinstance(training, dict) else None
    return not isinstance(samples, int | float) or not 1000 < samples <= 2**20


@fuzzed(15, tree=experiments().filter(has_quick_steps))
def test_dry_runs(judge, used, tree):
    judge.folder()
    text = dumped(tree)
    Path("odd.yaml").write_text(text)
    judge.check("dry runs", lambda: command("train", "odd.yaml", "--dry-run"), text)


def test_the_scenes_run(judge, used):
    """The scenes and configurations run before they are changed."""
    for tree in SCENES.values():
        judge.folder()
        Path("fine.yaml").write_text(dumped(tree))
        assert "one step: loss" in command("train", "fine.yaml", "--dry-run")
    for file in CONFIGS:
        assert load_config(file).inputs
