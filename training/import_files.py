"""The files of a Hugging Face directory, and the run that is made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from . import checkpoint
from .accounting import parameters_by_part
from .build import build_model
from .config import Config
from .run import RunError, fingerprints, listed


def read_json(source: Path, name: str) -> dict:
    """A JSON file of a directory. Raises RunError when it is missing or damaged."""
    try:
        return json.loads((source / name).read_text())
    except FileNotFoundError:
        raise RunError(f"{source} has no {name}; a Hugging Face model directory has one") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{source}/{name} is not JSON: {error}") from None


def read_weights(source: Path) -> dict[str, Tensor]:
    """All tensors of a directory: of `model.safetensors`, or of the shards that its index names."""
    if (source / "model.safetensors").exists():
        names = ["model.safetensors"]
    elif (source / "model.safetensors.index.json").exists():
        names = sorted(set(read_json(source, "model.safetensors.index.json")["weight_map"].values()))
    else:
        raise RunError(f"{source} has no model.safetensors and no model.safetensors.index.json{other_weights(source)}")
    found: dict[str, Tensor] = {}
    for name in names:
        try:
            found |= load_file(source / name)
        except FileNotFoundError:
            raise RunError(f"{source} lacks the shard {name} that its index names") from None
        except SafetensorError as error:
            why = (
                "a pointer of Git LFS: run `git lfs pull` there"
                if is_pointer(source / name)
                else "damaged or cut short"
            )
            raise RunError(f"{source}/{name} is {why}: {error}") from None
    return found


def other_weights(source: Path) -> str:
    """What to do where the weights lie in a file that could execute code."""
    pickled = next(
        (name for name in ("pytorch_model.bin", "pytorch_model.bin.index.json") if (source / name).exists()), None
    )
    if pickled is None:
        return ""
    return (
        f"; {pickled} is not read, since it can execute code: save it once with transformers "
        "(`from_pretrained(DIR).save_pretrained(NEW)`), and copy the tokenizer's files beside it"
    )


def is_pointer(file: Path) -> bool:
    """Whether a file only says where Git LFS keeps its content."""
    with open(file, "rb") as opened:
        return opened.read(64).startswith(b"version https://git-lfs")


@torch.no_grad()
def _fill(model, weights: dict[str, Tensor], source: Path, partly: bool) -> str:
    """Copy the weights into the model; gives what was missing and what was left over. Raises RunError for that, unless it is
    allowed (`partly`), and for a tensor of another shape."""
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    told = f"missing {listed(missing)}, left over {listed(extra)}" if missing or extra else ""
    if told and not partly:
        raise RunError(f"{source}: {told} (--partly imports what there is)")
    for name in own.keys() & weights.keys():
        if own[name].shape != weights[name].shape:
            raise RunError(
                f"{source}: {name} has shape {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
            )
        own[name].copy_(weights[name])
    return told


def write_run(
    source: Path, folder: Path, config: Config, choppers: dict, tasks: dict, weights: dict[str, Tensor], what: str,
    partly: bool = False,
) -> str:  # fmt: skip
    """Fill a model with the weights and write it as a run; gives what was done in a sentence."""
    model = build_model(config, choppers, tasks)
    told = _fill(model, weights, source, partly)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, chopper in choppers.items():
            if name not in config.shares:
                chopper.save(folder / "assets" / name)
        for name, task in tasks.items():
            task.save(folder / "assets" / f"task-{name}")
        (folder / "config.yaml").write_text(yaml.safe_dump(config.tree, sort_keys=False))
        state = {
            "seconds": 0.0,
            "best": 1e300,
            "vocabularies": fingerprints(choppers),
            "data": {},
            "imported": source.name,
        }
        checkpoint.save(folder, 0, {"model": model.state_dict()}, state)
        checkpoint.write_json(folder / "best.json", {"step": 0})
    except OSError as error:  # a full disk: half a run is worse than none
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(error.errno, f"{folder} cannot be written: {error.strerror}; nothing of it is kept") from error
    count = sum(parameters_by_part(model).values())
    return f"imported {source} into {folder}: {what}, {count:,} parameters, context {model.context}" + (
        f"; {told}: what was missing is as initialised" if told else ""
    )
