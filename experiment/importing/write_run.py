"""The result of an importer, written as a run: a `Model` with the directory's tensors, and what must be kept to export
them unchanged."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import EinopsError
from torch import Tensor

from ...files.records import write_tensors
from ...files.writing import make_folder, write_json
from ...models.model import Model
from ...models.pretrained.base import Translated, translate
from ...training.accounting import parameters_by_part
from ..build import build_model
from ..run_folder import RunError, listed, write_model_run
from .configuration import prepared
from .files import KEPT, ORIGINALS, RECORD, Directory, Imported


def write_run(source: Directory, folder: Path, made: Imported, partly: bool = False) -> str:
    """Load the weights into a model and write it as a run; gives a sentence that says what was read. Raises RunError
    for tensors that are missing or left over, unless `partly`, and for one of another shape, OSError where the run
    cannot be written (nothing of it is kept then)."""
    config, choppers, tasks = prepared(made, folder)
    weights = our_weights(source, made)
    sizes = config.model.options
    layers = sizes["depth"] + (sizes["encoder"].depth if sizes["encoder"] else 0)
    if layers > len(weights.tensors) and not partly:  # told before so many layers are made
        raise RunError(f"{source.path}: {layers:,} layers, but weights of {len(weights.tensors):,} tensors alone")
    with torch.device("meta"):  # without memory: a config.json may claim any size
        missing, extra = compare(build_model(config, choppers, tasks), weights, source.path, partly, made.headless)
    model = build_model(config, choppers, tasks)
    fill(model, weights)
    kept = source.beside(), *originals(made, model, source.tensors, weights.called)
    said = {"imported": source.path.name, "tokenizer": made.tokenizer, "missing": missing}
    make_folder(folder)
    try:
        write_model_run(folder, config, choppers, tasks, model, said)
        keep(folder / KEPT, *kept)
    except OSError as error:  # such as a full disk: half a run is worse than none
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(error.errno, f"{folder} cannot be written: {error.strerror}; nothing of it is kept") from error
    size = f"{sum(parameters_by_part(model).values()):,} parameters, context {model.context}"
    done = f"imported {source.path} into {folder}: {made.what}, {size}"
    return "; ".join([done, *told(made, missing, extra, weights.unread)])


def keep(folder: Path, files: Mapping[str, bytes], record: Mapping, tensors: Mapping[str, Tensor]) -> None:
    """Write the files from which an export gives the directory back (see `files.KEPT`)."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / RECORD, record)
    write_tensors(folder / ORIGINALS, tensors)


def our_weights(source: Directory, made: Imported) -> Translated:
    """The directory's tensors under the names of `Model`. Raises RunError where they are not the architecture's."""
    try:
        return translate(made.architecture.names(), source.tensors)
    except (RuntimeError, IndexError, TypeError, KeyError) as error:  # shapes that are not the architecture's
        raise RunError(f"{source.path}: its tensors are not those of a {made.what}: {error}") from None
    except (EinopsError, ValueError) as error:
        raise RunError(f"{source.path}: {error}") from None


def compare(
    model: Model, weights: Translated, source: Path, partly: bool, headless: str | None
) -> tuple[list[str], list[str]]:
    """The names of the model's tensors that the weights lack, and of those left over. The whole head of the task
    `headless` may be missing. Raises RunError for other missing or left-over tensors, unless `partly`, and for a tensor
    of another shape."""
    own, given = model.state_dict(), weights.tensors
    missing, extra = sorted(own.keys() - given.keys()), sorted([*(given.keys() - own.keys()), *weights.unknown])
    without = missing == sorted(name for name in own if name.startswith(f"heads.{headless}."))
    if ((missing and not without) or extra) and not partly:
        raise RunError(
            f"{source}: missing {listed(missing)}, left over {listed(extra)} (--partly imports what there is)"
        )
    for name in own.keys() & given.keys():
        if own[name].shape != given[name].shape:
            shape = f"has shape {tuple(given[name].shape)}, expected {tuple(own[name].shape)}"
            raise RunError(f"{source}: {name} {shape}")
    return missing, extra


@torch.no_grad()
def fill(model: Model, weights: Translated) -> None:
    """Copy the weights, which were compared with it, into the model."""
    for name, own in model.state_dict().items():
        if name in weights.tensors:
            own.copy_(weights.tensors[name])


def originals(
    made: Imported, model: Model, theirs: Mapping[str, Tensor], called: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What an export needs to give the directory's tensors back bit for bit: the record (see `export.Kept`), and copies
    of the tensors that cannot be computed back exactly, such as positions to which something was added.

    `theirs` are the directory's tensors, `called` maps names in the architecture's table to names in the directory."""
    back = translate(made.architecture.names(), model.state_dict(), back=True).tensors
    known = {name: theirs[called[name]] for name in back.keys() & called.keys()}
    kinds = {name: (called[name], str(value.dtype).removeprefix("torch.")) for name, value in sorted(known.items())}
    config = made.architecture.model_dump(exclude_none=True)
    record = {"kind": type(made.architecture).__name__, "config": config, "tensors": kinds}
    changed = [name for name, value in known.items() if not torch.equal(back[name].to(value.dtype), value)]
    return record, {called[name]: known[name] for name in changed}


def told(made: Imported, missing: Sequence[str], extra: Sequence[str], unread: Sequence[str]) -> list[str]:
    """Sentences about an import: its tokenizer, missing and left-over tensors, and tensors without a use here."""
    said = [f"tokenizer: {made.tokenizer}"] if made.tokenizer else []
    if made.headless and missing and all(name.startswith(f"heads.{made.headless}.") for name in missing):
        said += [
            f"the directory has no head for {made.headless!r}: `chopmix embed` gives vectors, nothing can be predicted"
        ]
    elif missing:
        said += [f"missing {listed(missing)}: as initialised"]
    said += [f"left over {listed(extra)}: not read"] if extra else []
    return said + ([f"not read, since nothing here has a use for it: {listed(unread)}"] if unread else [])
