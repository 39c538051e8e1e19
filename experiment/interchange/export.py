"""`chopmix export RUN DIR`: a run becomes a model directory that transformers, or timm, loads to equal outputs.

A run can be exported where its configuration is that of a published architecture, whether it was imported, fine-tuned,
or trained from scratch. Of an imported run the directory's files come back as they were, its tensors bit for bit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ...files.records import Record, read_json, read_record, read_tensors, write_tensors
from ...models.pretrained.base import Architecture, Legend, translate
from ..run import Run
from ..run_folder import RunError, listed
from .directory import KEPT, ORIGINALS, RECORD, Directory, architectures, config_of
from .tokenizers import tokenizer_files

LABEL = "label"
"""The task whose classes a published architecture has a place for."""
COMPUTES = re.compile(r"(inputs\.|model\.|tasks\.\w+\.(use|target|head|pooling)\b).*")
"""The dotted keys of a configuration that decide what a model computes."""
USES = re.compile(r"(inputs|tasks)\.\w+\.(use|same_as)")
"""The keys that decide which inputs and tasks a model has; where one differs, it is another kind of model."""
PASSED = re.compile(
    r"model\.(dropout|initialization|context|encoder\.context)\b.*"
    r"|.*\.(length|ratio|multiple_of|layer_scale)"  # the tensors have these
    r"|inputs\.\w+\.(encoding|vocabulary|pad_vocabulary_to|augment\w*|most_tokens|longest|size|mean|std)\b.*"
)
"""The keys among COMPUTES that are not compared: they change no output, or follow from the tensors' shapes."""


class Kept(Record):
    """`RUN/imported/record.json`: the architecture of an imported directory, and its tensors' names and types.

        {"kind": "Gpt2", "config": {"n_embd": 768, ...},
         "tensors": {"transformer.wte.weight": ["wte.weight", "float32"], ...}}

    The keys of `tensors` are names in the architecture's table, the first value is the name in the directory."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, tuple[str, Literal["float64", "float32", "float16", "bfloat16"]]]


def export_directory(run: Run, directory: Path) -> str:
    """Write `config.json`, `model.safetensors` and the tokenizer's files; gives a sentence that says what was written.

    Raises RunError for a run that is none of the published architectures, saying how it differs from the nearest, for
    an encoding that no `tokenizer.json` reproduces, and for a directory that is not empty, OSError where it cannot be
    written.
    """
    if os.path.exists(directory) and (not os.path.isdir(directory) or any(directory.iterdir())):
        raise RunError(f"{directory} is not empty; choose another directory")
    folder = run.folder / KEPT
    if os.path.isfile(folder / RECORD):  # the run was imported
        kept = read_record(folder / RECORD, Kept)
        named = {each.__name__: each for each in architectures()}
        if kept.kind not in named:
            raise RunError(f"{folder / RECORD}: kind is {kept.kind!r}; possible: {', '.join(named)}")
        architecture = named[kept.kind].read(kept.config)
        files, tensors = Directory(folder).beside(), as_they_were(folder, kept, their_tensors(run, architecture))
    else:
        architecture = architecture_of(run)
        tensors = their_tensors(run, architecture)
        files = {name: json.dumps(value, indent=1).encode() for name, value in described(run, architecture).items()}
    for name, task in run.tasks.items():
        if task.learned is not None and name != LABEL:
            place = f"a {type(architecture).__name__} has no place for what task {name!r} learned of its data"
            raise RunError(f"{run.folder} cannot be exported: {place}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
        write_tensors(directory / "model.safetensors", tensors, {"format": "pt"})
    except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
        number, why = getattr(error, "errno", None), getattr(error, "strerror", None) or error
        with suppress(ValueError):
            shutil.rmtree(directory, ignore_errors=True)
        raise OSError(number, f"{directory} cannot be written: {why}; nothing of it is kept") from error
    said = f"exported {run.name} into {directory}: {architecture.reference}, {len(tensors)} tensors, {', '.join(files)}"
    return f"{said}; not written, since it is as initialised: {listed(run.missing)}" if run.missing else said


def architecture_of(run: Run) -> Architecture:
    """The published architecture that a run is. Each is tried: its options are read off the run's YAML and tensors, a
    YAML is made of them again, and the two YAMLs must agree in everything that decides what a model computes. Raises
    RunError where none does, naming a difference from the nearest."""
    tensors, legend, nearest = run.model.state_dict(), legend_of(run), []
    for kind in architectures():
        try:
            found = kind.from_tree(run.config.tree, tensors, legend)
            theirs = resolved(found, run)
        except (LookupError, TypeError, ValueError):  # a model of another kind
            continue
        different = list(differences(run.config.tree, theirs))
        if any(USES.fullmatch(name) for name, _, _ in different):
            continue
        if not different:
            return found
        name, ours, other = different[0]
        nearest.append((len(different), kind.__name__, f"{name} is {ours!r}, not {other!r}"))
    if nearest:
        _, name, what = min(nearest)
        raise RunError(f"{run.folder} cannot be exported: it is no {name}, to which it is nearest, since {what}")
    known = ", ".join(each.__name__ for each in architectures())
    raise RunError(f"{run.folder} cannot be exported: its inputs, tasks and sizes are those of none of {known}")


def resolved(architecture: Architecture, run: Run) -> Mapping[str, Any]:
    """An architecture's YAML with all defaults filled in, and with the run's encodings."""
    tree = architecture.tree()
    for name, options in tree["inputs"].items():
        encoding = {key: run.config.tree["inputs"][name].get(key) for key in ("encoding", "vocabulary")}
        options |= encoding if options.get("use") == "text" else {}
    return config_of(tree, run.folder).tree


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, ours, theirs) for every difference between two resolved YAMLs that changes what a model computes;
    keys that end in `.use` first."""
    first, second = dict(flat(ours)), dict(flat(theirs))
    for name in sorted(first.keys() | second.keys(), key=lambda name: (not name.endswith(".use"), name)):
        if first.get(name) != second.get(name) and COMPUTES.fullmatch(name) and not PASSED.fullmatch(name):
            yield name, first.get(name), second.get(name)


def flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree by dotted keys: `{"model": {"depth": 2}}` gives `("model.depth", 2)`."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", list(value) if isinstance(value, tuple) else value


def legend_of(run: Run) -> Legend:
    """The special ids of a run's text, and its classes."""
    labels = run.folder / "assets" / f"task-{LABEL}" / "classes.json"
    known = Legend(labels=read_json(labels) if os.path.isfile(labels) else ())
    for chopper in run.choppers.values():
        if chopper.kind == "text":
            text, named = chopper.vocabulary, {name: id for id, name in chopper.vocabulary.specials.items()}
            ends, opening = text.frame.get("ends", [text.end]), text.specials.get(text.start, "")
            return known._replace(start=text.start, ends=ends, padding=named.get("<pad>"), opening=opening)
    return known


def their_tensors(run: Run, architecture: Architecture) -> dict[str, Tensor]:
    """The run's tensors under the architecture's names, without those that the imported directory lacked. Raises
    RunError for tensors that the architecture has no name for."""
    own = {name: value.cpu() for name, value in run.model.state_dict().items() if name not in run.missing}
    try:
        found = translate(architecture.names(), own, back=True)
    except ValueError as error:
        raise RunError(f"{run.folder} cannot be exported: {error}") from None
    if found.unknown:
        what = type(architecture).__name__
        raise RunError(f"{run.folder} cannot be exported: a {what} has no place for {listed(found.unknown)}")
    return found.tensors


def as_they_were(folder: Path, kept: Kept, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an imported run under the names and in the types of its directory; those that cannot be computed
    back exactly (see `write_run.originals`) come from the copies that the import kept."""
    found = {}
    for name, value in tensors.items():
        called, kind = kept.tensors.get(name, (name, "float32"))
        found[called] = value.to(getattr(torch, kind))
    return found | read_tensors(folder / ORIGINALS)


def described(run: Run, architecture: Architecture) -> dict[str, Any]:
    """The JSON files of a run that was not imported, by name: the architecture's, and those of its first text."""
    for name, chopper in run.choppers.items():
        if chopper.kind == "text":
            files = architecture.files(chopper.vocabulary.frame)
            return files | tokenizer_files(chopper.vocabulary, run.folder / "assets" / name)
    return architecture.files({})
