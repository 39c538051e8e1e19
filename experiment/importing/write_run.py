"""The result of an importer, written as a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...tokenizers.files.records import write_tensors
from ...tokenizers.files.writing import write_json
from ...training.accounting import parameters_by_part
from ..assembly.model import build_model
from ..folder.model_run import write_model_run
from .configuration import prepared
from .files import KEPT, ORIGINALS, RECORD, Directory, Imported
from .weights import compare, fill, originals, our_weights, told


def write_run(source: Directory, folder: Path, made: Imported, partly: bool = False) -> str:
    """Load the weights into a model and write it as a run; gives a sentence that says what was read. Raises RunError
    for tensors that are missing or left over, unless `partly`, and for one of another shape, OSError where the run
    cannot be written (nothing of it is kept then)."""
    config, choppers, tasks = prepared(made, folder)
    weights = our_weights(source, made)
    with torch.device("meta"):  # without memory: a config.json may claim any size
        missing, extra = compare(build_model(config, choppers, tasks), weights, source.path, partly, made.headless)
    model = build_model(config, choppers, tasks)
    fill(model, weights)
    kept = source.beside(), *originals(made, model, source.tensors, weights.called)
    said = {"imported": source.path.name, "tokenizer": made.tokenizer, "missing": missing}
    try:
        write_model_run(folder, config, choppers, tasks, model, said)
        keep(folder / KEPT, *kept)
    except OSError as error:  # such as a full disk: half a run is worse than none
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(error.errno, f"{folder} cannot be written: {error.strerror}; nothing of it is kept") from error
    size = f"{sum(parameters_by_part(model).values()):,} parameters, context {model.context}"
    return "; ".join(
        [f"imported {source.path} into {folder}: {made.what}, {size}", *told(made, missing, extra, weights.unread)]
    )


def keep(folder: Path, files: Mapping[str, bytes], record: Mapping, tensors: Mapping[str, Tensor]) -> None:
    """Write the files from which an export gives the directory back (see `files.KEPT`)."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / RECORD, record)
    write_tensors(folder / ORIGINALS, tensors)
