"""`chopmix import DIR RUN`: a Hugging Face directory becomes a run that can be generated from, evaluated and
fine-tuned."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ...models.pretrained.base import PublishedError
from ..folder.reading import RunError
from .files import Directory, Imported
from .labelled import import_ast, import_vit
from .text import import_bert, import_gpt2, import_llama, import_t5
from .whisper import import_whisper
from .write_run import write_run

IMPORTERS: dict[str, Callable[[Directory], Imported]] = {
    "gpt2": import_gpt2, "llama": import_llama, "bert": import_bert, "roberta": import_bert, "t5": import_t5,
    "whisper": import_whisper, "audio-spectrogram-transformer": import_ast,
}  # fmt: skip
"""By `model_type`. A timm directory has none."""


def import_directory(source: Path, folder: Path, partly: bool = False) -> str:
    """Read `config.json` and `model.safetensors` (sharded or not) into a run's folder; gives what was done in a
    sentence.

    Raises RunError for a missing file, an architecture or option that we do not reproduce exactly, tensors that are
    missing or left over (unless it may be read `partly`) or of another shape, or a run folder that is not empty.
    Nothing in the files is executed.
    """
    if os.path.exists(folder) and (not os.path.isdir(folder) or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; choose another folder for the run")
    directory = Directory(source)
    try:
        return write_run(directory, folder, importer_of(directory)(directory), partly)
    except PublishedError as error:
        raise RunError(f"{source}/{error}") from None


def importer_of(source: Directory) -> Callable[[Directory], Imported]:
    """What imports a directory of this kind. Raises RunError where nothing does."""
    if "architecture" in source.config:
        return import_vit
    kind = source.config.get("model_type")
    if not isinstance(kind, str) or kind not in IMPORTERS:
        possible = ", ".join(map(repr, IMPORTERS))
        raise RunError(
            f"{source.path}/config.json: model_type is {kind!r}; possible: {possible}, or a timm 'architecture'"
        )
    return IMPORTERS[kind]
