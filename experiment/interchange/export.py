"""`chopmix export RUN DIR`: writes a run as a model directory that transformers or timm loads with equal outputs.

A run can be exported if its configuration is that of a published architecture. The run may be imported, fine-tuned or
trained from scratch. For an imported run the directory's small files are written unchanged, and unchanged weights bit
for bit."""

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

from ...files.errors import RunError
from ...files.printing import listed
from ...files.records import Record, read_json, read_record, read_tensors, write_tensors
from ...models.pretrained.base import Architecture, Legend, translate
from ..run import Run
from .directory import KEPT, ORIGINALS, RECORD, Directory, architectures, config_of
from .tokenizers import tokenizer_files

LABEL = "label"
"""The name of the task whose classes a published architecture can store."""
COMPUTES = re.compile(r"(inputs\.|model\.|tasks\.\w+\.(use|target|head|pooling)\b).*")
"""The keys of a configuration, with dots, that determine what a model computes."""
USES = re.compile(r"(inputs|tasks)\.\w+\.(use|same_as)")
"""The keys that determine the inputs and tasks of a model. If one of them differs, the architecture is not
considered."""
IGNORED = re.compile(
    r"model\.(dropout|initialization|context|encoder\.context)\b.*"
    r"|.*\.(length|ratio|multiple_of|layer_scale)"  # visible in the tensors' shapes
    r"|inputs\.\w+\.(encoding|vocabulary|pad_vocabulary_to|augment\w*|most_tokens|longest|size|mean|std)\b.*"
)
"""Keys that match COMPUTES but are not compared, since they change no output, or follow from the shapes of the
tensors."""


class Kept(Record):
    """The content of `RUN/imported/record.json`: the architecture of an imported directory, and the names and types of
    its tensors.

        {"kind": "Gpt2", "config": {"n_embd": 768, ...},
         "tensors": {"transformer.wte.weight": ["wte.weight", "float32"], ...}}

    The keys of `tensors` are names in the architecture's table. The values are the tensor's name and type in the
    directory."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, tuple[str, Literal["float64", "float32", "float16", "bfloat16"]]]


def export_directory(run: Run, directory: Path) -> str:
    """Write `config.json`, `model.safetensors` and the tokenizer's files. Returns a sentence about what was written.

    Raises RunError if no published architecture fits the run (the message has a difference from the nearest
    architecture), if a `tokenizer.json` cannot reproduce the run's encoding, if a task other than `label` learned
    something from the data, or if the directory is not empty. Raises OSError if the directory cannot be written; it is
    then removed."""
    if os.path.exists(directory) and (not os.path.isdir(directory) or any(directory.iterdir())):
        raise RunError(f"{directory} is not empty; choose another directory")
    folder = run.folder / KEPT
    if os.path.isfile(folder / RECORD):  # the run was imported
        record = read_record(folder / RECORD, Kept)
        by_name = {kind.__name__: kind for kind in architectures()}
        if record.kind not in by_name:
            raise RunError(f"{folder / RECORD}: kind is {record.kind!r}; possible: {', '.join(by_name)}")
        architecture = by_name[record.kind].read(record.config)
        files, tensors = (
            Directory(folder).small_files(),
            original_tensors(folder, record, renamed_tensors(run, architecture)),
        )
    else:
        architecture = architecture_of(run)
        tensors = renamed_tensors(run, architecture)
        files = {
            name: json.dumps(value, indent=1).encode() for name, value in published_config(run, architecture).items()
        }
    for name, task in run.tasks.items():
        if task.learned is not None and name != LABEL:
            reason = f"a {type(architecture).__name__} cannot store what task {name!r} learned from its data"
            raise RunError(f"{run.folder} cannot be exported: {reason}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
        write_tensors(directory / "model.safetensors", tensors, {"format": "pt"})
    except (OSError, ValueError) as error:  # ValueError: an invalid folder name
        number, why = getattr(error, "errno", None), getattr(error, "strerror", None) or error
        with suppress(ValueError):
            shutil.rmtree(directory, ignore_errors=True)
        raise OSError(number, f"{directory} cannot be written: {why}; the directory was removed") from error
    message = (
        f"exported {run.name} into {directory}: {architecture.reference}, {len(tensors)} tensors, {', '.join(files)}"
    )
    return f"{message}; not written, since untrained: {listed(run.missing)}" if run.missing else message


def architecture_of(run: Run) -> Architecture:
    """Returns the published architecture of a run. Every architecture is tried: its options are derived from the run's
    YAML and tensors, and a YAML is generated from these options. The architecture fits if this YAML and the run's YAML
    agree in all keys that determine what a model computes. Raises RunError if no architecture fits; the message has a
    difference from the nearest architecture."""
    tensors, legend, nearest = run.model.state_dict(), legend_of(run), []
    for kind in architectures():
        try:
            architecture = kind.from_tree(run.config.tree, tensors, legend)
            expected = resolved(architecture, run)
        except (LookupError, TypeError, ValueError):  # another kind of model
            continue
        different = list(differences(run.config.tree, expected))
        if any(USES.fullmatch(name) for name, _, _ in different):
            continue
        if not different:
            return architecture
        name, value, required = different[0]
        nearest.append((len(different), kind.__name__, f"{name} is {value!r}, not {required!r}"))
    if nearest:
        _, name, difference = min(nearest)
        raise RunError(f"{run.folder} cannot be exported: the nearest architecture is {name}, but {difference}")
    possible = ", ".join(kind.__name__ for kind in architectures())
    raise RunError(f"{run.folder} cannot be exported: its inputs, tasks and sizes fit none of {possible}")


def resolved(architecture: Architecture, run: Run) -> Mapping[str, Any]:
    """Returns the YAML tree of an architecture with all defaults. The options `encoding` and `vocabulary` of its text
    inputs are those of the run."""
    tree = architecture.tree()
    for name, options in tree["inputs"].items():
        encoding = {key: run.config.tree["inputs"][name].get(key) for key in ("encoding", "vocabulary")}
        options |= encoding if options.get("use") == "text" else {}
    return config_of(tree, run.folder).tree


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yields (key, ours, theirs) for every difference between two YAML trees that changes what a model computes. The
    key has dots, such as `model.depth`. Keys that end in `.use` come first."""
    first, second = dict(flat_keys(ours)), dict(flat_keys(theirs))
    for name in sorted(first.keys() | second.keys(), key=lambda name: (not name.endswith(".use"), name)):
        if first.get(name) != second.get(name) and COMPUTES.fullmatch(name) and not IGNORED.fullmatch(name):
            yield name, first.get(name), second.get(name)


def flat_keys(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (key, value) for every value of a tree that is not a mapping: `{"model": {"depth": 2}}` yields
    `("model.depth", 2)`."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat_keys(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", list(value) if isinstance(value, tuple) else value


def legend_of(run: Run) -> Legend:
    """Returns the special ids of the first text of a run, and the classes of its task `label`."""
    labels = run.folder / "assets" / f"task-{LABEL}" / "classes.json"
    legend = Legend(labels=read_json(labels) if os.path.isfile(labels) else ())
    for chopper in run.choppers.values():
        if chopper.kind == "text":
            vocabulary, ids_by_name = chopper.vocabulary, {name: id for id, name in chopper.vocabulary.specials.items()}
            ends, start_text = (
                vocabulary.frame.get("ends", [vocabulary.end]),
                vocabulary.specials.get(vocabulary.start, ""),
            )
            return legend._replace(
                start=vocabulary.start, ends=ends, padding=ids_by_name.get("<pad>"), opening=start_text
            )
    return legend


def renamed_tensors(run: Run, architecture: Architecture) -> dict[str, Tensor]:
    """Returns the run's tensors with the names of the architecture, without the tensors that the imported directory
    lacked. Raises RunError if the architecture has no name for a tensor."""
    tensors = {name: value.cpu() for name, value in run.model.state_dict().items() if name not in run.missing}
    try:
        renamed = translate(architecture.names(), tensors, back=True)
    except ValueError as error:
        raise RunError(f"{run.folder} cannot be exported: {error}") from None
    if renamed.unknown:
        kind = type(architecture).__name__
        raise RunError(f"{run.folder} cannot be exported: a {kind} has no tensor for {listed(renamed.unknown)}")
    return renamed.tensors


def original_tensors(folder: Path, record: Kept, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of an imported run with the names and types of its directory. Tensors that cannot be computed
    exactly from the weights (see `directory.originals`) are read from the copies that the import stored."""
    originals = {}
    for name, value in tensors.items():
        original_name, kind = record.tensors.get(name, (name, "float32"))
        originals[original_name] = value.to(getattr(torch, kind))
    return originals | read_tensors(folder / ORIGINALS)


def published_config(run: Run, architecture: Architecture) -> dict[str, Any]:
    """Returns the JSON files of a run that was not imported, by file name: the files of the architecture, and those of
    the tokenizer of its first text."""
    for name, chopper in run.choppers.items():
        if chopper.kind == "text":
            files = architecture.files(chopper.vocabulary.frame)
            return files | tokenizer_files(chopper.vocabulary, run.folder / "assets" / name)
    return architecture.files({})
