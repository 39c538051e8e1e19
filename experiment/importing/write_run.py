"""What an importer has made of a directory, written as a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from ...tokenizers.files.writing import write_json
from ...training.accounting import parameters_by_part
from ...training.checkpoints import files as checkpoint
from ..assembly.model import build_model
from ..assembly.tasks import save_learned
from ..folder.reading import fingerprints
from ..settings.config import write_config
from .files import KEPT, ORIGINALS, RECORD, Directory, Imported
from .filling import fill, originals, our_weights, told
from .preparing import prepared


def write_run(source: Directory, folder: Path, made: Imported, partly: bool = False) -> str:
    """Fill a model with the weights and write it as a run; gives what was done in a sentence. Raises RunError for
    tensors that are missing or left over, unless it may be read `partly`, and for one of another shape."""
    config, choppers, tasks = prepared(made, folder)
    weights, model = our_weights(source, made), build_model(config, choppers, tasks)
    missing, extra = fill(model, weights, source.path, partly, made.headless)
    kept = source.beside(), *originals(made, model, source.tensors, weights.called)
    state = {
        "seconds": 0.0, "vocabularies": fingerprints(choppers), "data": {}, "imported": source.path.name,
        "tokenizer": made.tokenizer, "missing": missing,
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, chopper in choppers.items():
            if name not in config.shares:
                chopper.save(folder / "assets" / name)
        for name, task in tasks.items():
            save_learned(task, folder / "assets" / f"task-{name}")
        keep(folder / KEPT, *kept)
        write_config(folder, config)
        checkpoint.save(folder, 0, {"model": model.state_dict()}, state)
        write_json(folder / "best.json", {"step": 0})
    except OSError as error:  # a full disk: half a run is worse than none
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(error.errno, f"{folder} cannot be written: {error.strerror}; nothing of it is kept") from error
    size = f"{sum(parameters_by_part(model).values()):,} parameters, context {model.context}"
    return "; ".join(
        [f"imported {source.path} into {folder}: {made.what}, {size}", *told(made, missing, extra, weights.unread)]
    )


def keep(folder: Path, files: Mapping[str, bytes], record: Mapping, tensors: Mapping[str, Tensor]) -> None:
    """Write what an export needs to give the directory back."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / RECORD, record)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / ORIGINALS)
