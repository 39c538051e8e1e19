"""`chopmix export RUN DIR`: a run becomes a Hugging Face directory that transformers, or timm, loads to equal outputs.

A run is exported where its YAML is that of a published architecture, whether it was imported, fine-tuned, or trained
from the start. An imported run gives the files of its directory back, and their tensors bit for bit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...inference.whisper_decoding import Protocol
from ...models.pretrained.base import Architecture, Legend, translate
from ...tokenizers.files.records import Record, read_json, read_record, read_tensors
from ..folder.reading import RunError, listed
from ..run import Run
from .architectures import ARCHITECTURES
from .configuration import config_of
from .files import KEPT, ORIGINALS, RECORD, Directory
from .tokenizer_json import tokenizer_files
from .whisper import generation_config

NAMED = {kind.__name__: kind for kind in ARCHITECTURES}
COMPUTES = re.compile(r"(inputs\.|model\.|tasks\.\w+\.(use|target|head|pooling)\b).*")
"""What of a configuration tells what a model computes."""
USES = re.compile(r"(inputs|tasks)\.\w+\.(use|same_as)")
"""What makes it a model of other things, with another name."""
PASSED = re.compile(
    r"model\.(dropout|initialization|context|encoder\.context)\b.*"
    r"|.*\.(length|ratio|multiple_of|layer_scale)"  # the tensors have these
    r"|inputs\.\w+\.(encoding|vocabulary|pad_vocabulary_to|augment\w*|most_tokens|longest|size|mean|std)\b.*"
)
"""What of it does not, or follows from the rest."""


class Kept(Record):
    """What `write_run` keeps of an imported directory's tensors: the architecture by its name, as it was settled,
    and the tensors' names and types."""

    kind: Literal[tuple(NAMED)]
    config: dict[str, Any]
    tensors: dict[str, tuple[str, Literal["float64", "float32", "float16", "bfloat16"]]]

    @property
    def architecture(self) -> Architecture:
        """The architecture."""
        return NAMED[self.kind].read(self.config)


def export_directory(run: Run, directory: Path) -> str:
    """Write `config.json`, `model.safetensors` and the tokenizer's files; gives what was done in a sentence.

    Raises RunError for a run that is none of the published architectures, saying in what it differs, for an
    encoding that has no `tokenizer.json`, and for a directory that is not empty.
    """
    if os.path.exists(directory) and (not os.path.isdir(directory) or any(directory.iterdir())):
        raise RunError(f"{directory} is not empty; choose another directory")
    folder = run.folder / KEPT
    if os.path.isfile(folder / RECORD):  # it was imported
        kept = read_record(folder / RECORD, Kept)
        architecture = kept.architecture
        files, tensors = Directory(folder).beside(), as_they_were(folder, kept, their_tensors(run, architecture))
    else:
        architecture = architecture_of(run)
        tensors = their_tensors(run, architecture)
        files = {name: json.dumps(value, indent=1).encode() for name, value in described(run, architecture).items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
        save_file(
            {name: each.contiguous() for name, each in tensors.items()},
            directory / "model.safetensors",
            {"format": "pt"},
        )
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise OSError(error.errno, f"{directory} cannot be written: {error.strerror}; nothing of it is kept") from error
    said = f"exported {run.name} into {directory}: {architecture.reference}, {len(tensors)} tensors, {', '.join(files)}"
    return f"{said}; not written, since it is as initialised: {listed(run.missing)}" if run.missing else said


def architecture_of(run: Run) -> Architecture:
    """What a run is: the architecture whose YAML, made of the configuration that is made of the run's YAML, is
    the run's. Raises RunError where there is none, naming what differs from the nearest."""
    tensors, legend, nearest = run.model.state_dict(), legend_of(run), []
    for kind in ARCHITECTURES:
        try:
            found = kind.from_tree(run.config.tree, tensors, legend)
            theirs = resolved(found, run)
        except (LookupError, TypeError, ValueError):  # it is another kind of model
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
    known = ", ".join(NAMED)
    raise RunError(f"{run.folder} cannot be exported: its inputs, tasks and sizes are those of none of {known}")


def resolved(architecture: Architecture, run: Run) -> Mapping[str, Any]:
    """An architecture's YAML with all defaults, and with the run's encodings."""
    tree = architecture.tree()
    for name, options in tree["inputs"].items():
        encoding = {key: run.config.tree["inputs"][name].get(key) for key in ("encoding", "vocabulary")}
        options |= encoding if options.get("use") == "text" else {}
    return config_of(tree, run.folder).tree


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What of two resolved YAMLs differs in what a model computes: the place, and both values."""
    first, second = dict(flat(ours)), dict(flat(theirs))
    for name in sorted(first.keys() | second.keys(), key=lambda name: (not name.endswith(".use"), name)):
        if first.get(name) != second.get(name) and COMPUTES.fullmatch(name) and not PASSED.fullmatch(name):
            yield name, first.get(name), second.get(name)


def flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a tree by their dotted paths."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", list(value) if isinstance(value, tuple) else value


def legend_of(run: Run) -> Legend:
    """What a run's special ids and classes are."""
    labels = run.folder / "assets" / "task-label" / "classes.json"
    known = Legend(labels=read_json(labels) if os.path.isfile(labels) else ())
    for chopper in run.choppers.values():
        if chopper.kind == "text":
            text, named = chopper.text, {name: id for id, name in chopper.text.specials.items()}
            ends = text.frame.get("ends", [text.end])
            return known._replace(
                start=text.start, ends=ends, padding=named.get("<pad>"), opening=text.specials.get(text.start, "")
            )
    return known


def their_tensors(run: Run, architecture: Architecture) -> dict[str, Tensor]:
    """The run's tensors under their names. What the run's directory lacked is not written. Raises RunError for
    what has no place."""
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
    """The tensors of an imported run as its directory had them: in their types, where positions were added, apart."""
    found = {}
    for name, value in tensors.items():
        called, kind = kept.tensors.get(name, (name, "float32"))
        found[called] = value.to(getattr(torch, kind))
    return found | read_tensors(folder / ORIGINALS)


def described(run: Run, architecture: Architecture) -> dict[str, Any]:
    """The JSON files of a run that was trained here."""
    files = architecture.files()
    for name, chopper in run.choppers.items():
        if chopper.kind == "text":
            frame = chopper.text.frame.get("whisper")
            files |= (
                {"generation_config.json": generation_config(Protocol.read(frame, "encoding.json"))} if frame else {}
            )
            return files | tokenizer_files(chopper.text, run.folder / "assets" / name)
    return files
