"""What an importer has made of a directory, written as a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import EinopsError
from safetensors.torch import save_file
from torch import Tensor

from ...models.model import Model
from ...models.pretrained.base import Translated, translate
from ...tokenizers.base import Chopper
from ...tokenizers.encoding.base import Encoding, NumberEncoding
from ...tokenizers.files.writing import write_json
from ...tokenizers.text import TextChopper
from ...training.accounting import parameters_by_part
from ...training.checkpoints import files as checkpoint
from ..build import build_model, build_tasks, roles_of
from ..folder.reading import RunError, fingerprints, listed
from ..settings.config import Config, config_from_tree, write_config
from .files import Directory, Imported

KEPT, RECORD, ORIGINALS = "imported", "record.json", "originals.safetensors"
"""The folder of a run in which its directory's own small files are, so that it can be exported as it was; and two
files there."""


def imported_choppers(config: Config, encoding: Encoding | None) -> dict[str, Chopper]:
    """The choppers of an imported run: of its texts with the directory's encoding, the others by what its YAML
    says alone."""
    found, roles = {}, roles_of(config)
    for name, part in config.inputs.items():
        preprocessor = part.build(part.target.Chopper)
        reads_text = preprocessor.kind == "text" and encoding is not None
        found[name] = TextChopper.of(encoding, roles[name]) if reads_text else preprocessor.fit(tuple, roles[name])
    return found


def write_run(source: Directory, folder: Path, made: Imported, partly: bool = False) -> str:
    """Fill a model with the weights and write it as a run; gives what was done in a sentence. Raises RunError for
    tensors that are missing or left over, unless it may be read `partly`, and for one of another shape."""
    tree = with_encoding(made.architecture.tree(), made.encoding, made.rows)
    config = config_of(tree, folder)
    choppers = imported_choppers(config, made.encoding)
    tasks = build_tasks(config, choppers)
    if made.labels:
        tasks["label"].with_classes(made.labels)
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
            task.save(folder / "assets" / f"task-{name}")
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


def config_of(tree: Mapping[str, Any], out: Path) -> Config:
    """The configuration of a run with these `inputs`, `model` and `tasks`, and without data of its own."""
    training = {"steps": 1, "samples_per_step": 1}
    return config_from_tree({**tree, "data": {}, "training": training, "out": str(out)}, out / "config.yaml")


def with_encoding(tree: Mapping[str, Any], encoding: Encoding | None, rows: int) -> Mapping[str, Any]:
    """The tree whose first input of text names its encoding, and how many `rows` its table of embeddings has,
    which may be more than there are ids."""
    if encoding is None:
        return tree
    name = next(name for name, options in tree["inputs"].items() if options.get("use") == "text")
    options = {**tree["inputs"][name], "encoding": encoding.name}
    if isinstance(encoding, NumberEncoding):
        options["vocabulary"] = encoding.vocabulary
    elif encoding.vocabulary != rows:
        options["pad_vocabulary_to"] = rows
    return {**tree, "inputs": {**tree["inputs"], name: options}}


def our_weights(source: Directory, made: Imported) -> Translated:
    """The directory's tensors under our names. Raises RunError where they are not those of the architecture."""
    try:
        return translate(made.architecture.names(), source.tensors)
    except (RuntimeError, IndexError, TypeError, KeyError) as error:  # shapes that are not the architecture's
        raise RunError(f"{source.path}: its tensors are not those of a {made.what}: {error}") from None
    except (EinopsError, ValueError) as error:
        raise RunError(f"{source.path}: {error}") from None


@torch.no_grad()
def fill(
    model: Model, weights: Translated, source: Path, partly: bool, headless: str | None
) -> tuple[list[str], list[str]]:
    """Copy the weights into the model; gives the names of what was missing and of what was left over. The head of
    the task `headless` may be missing altogether."""
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
        own[name].copy_(given[name])
    return missing, extra


def originals(
    made: Imported, model: Model, theirs: Mapping[str, Tensor], called: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What gives the directory's tensors back bit for bit: how they were read, with the name and the type of
    each; and those that our weights do not give (positions to which something was added)."""
    back = translate(made.architecture.names(), model.state_dict(), back=True).tensors
    known = {name: theirs[called[name]] for name in back.keys() & called.keys()}
    record = {
        "kind": type(made.architecture).__name__,
        "config": made.architecture.model_dump(exclude_none=True),
        "tensors": {
            name: (called[name], str(value.dtype).removeprefix("torch.")) for name, value in sorted(known.items())
        },
    }
    return record, {
        called[name]: value for name, value in known.items() if not torch.equal(back[name].to(value.dtype), value)
    }


def keep(folder: Path, files: Mapping[str, bytes], record: Mapping, tensors: Mapping[str, Tensor]) -> None:
    """Write what an export needs to give the directory back."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / RECORD, record)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / ORIGINALS)


def told(made: Imported, missing: Sequence[str], extra: Sequence[str], unread: Sequence[str]) -> list[str]:
    """What a user should know of an import."""
    said = [f"tokenizer: {made.tokenizer}"] if made.tokenizer else []
    if made.headless and missing and all(name.startswith(f"heads.{made.headless}.") for name in missing):
        said += [
            f"the directory has no head for {made.headless!r}: `chopmix embed` gives vectors, nothing can be predicted"
        ]
    elif missing:
        said += [f"missing {listed(missing)}: as initialised"]
    said += [f"left over {listed(extra)}: not read"] if extra else []
    return said + ([f"not read, since nothing here has a use for it: {listed(unread)}"] if unread else [])
