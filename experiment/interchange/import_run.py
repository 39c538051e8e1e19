"""`chopmix import DIR RUN`: writes a Hugging Face model directory as a run. The run can generate, be evaluated and be
fine-tuned."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from pathlib import Path

from ...files.errors import RunError
from ...files.plugins import modules_of
from ...files.trust import NOTHING, Trust
from ...models.pretrained.base import PublishedError
from ..settings.hints import missing_project
from .directory import TIMM, Directory, Imported, architectures, write_run
from .importers.text import import_masked


@functools.cache
def importers() -> dict[str, Callable[[Directory], Imported]]:
    """Returns the importers by the `model_type` in `config.json`: those in `importers/` and in the projects, and the
    importer of each masked language model in `models/pretrained/`."""
    modules = modules_of("experiment.interchange.importers").values()
    masked = [architecture for architecture in architectures() if architecture.special_tokens]
    return {
        kind: functools.partial(import_masked, kind=architecture)
        for architecture in masked
        for kind in vars(architecture).get("kinds", ())
    } | {kind: importer for module in modules for kind, importer in importlib.import_module(module).IMPORTERS.items()}


def import_directory(source: Path, folder: Path, partly: bool = False, trust: Trust = NOTHING) -> str:
    """Import a model directory (`config.json`, `model.safetensors` or its shards, the tokenizer's files) as a run in
    `folder`. Returns a sentence about what was imported.

    Raises RunError for a missing file; for an architecture or option that is not reproduced exactly; for a tensor of
    another shape; for missing or unexpected tensors, unless `partly`; and if `folder` is a file or is not empty. Raises
    DataError for a damaged file. No code in the directory is executed. Missing files are downloaded only from hosts
    that `trust` allows."""
    if os.path.exists(folder) and (not os.path.isdir(folder) or any(folder.iterdir())):
        raise RunError(f"{folder} is a file, or a folder that is not empty; choose another folder for the run")
    directory = Directory(source, trust)
    try:
        return write_run(directory, folder, importer_of(directory)(directory), partly)
    except PublishedError as error:
        raise RunError(f"{source}/{error}") from None


def importer_of(source: Directory) -> Callable[[Directory], Imported]:
    """Returns the importer of a directory. Raises PublishedError if there is no importer for its `model_type`."""
    available = importers()
    kind = TIMM if "architecture" in source.config else source.config.get("model_type")
    if not isinstance(kind, str) or kind not in available:
        possible = ", ".join(repr(name) for name in sorted(available) if name != TIMM)
        hint = f"; {missing}" if (missing := missing_project(kind)) else ""
        raise PublishedError(
            f"config.json: model_type is {kind!r}; possible: {possible}, or a timm 'architecture'{hint}"
        )
    return available[kind]
