"""A run's folder read and built into model, choppers and tasks: to be used, or as a part of another run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...models.model import Model
from ...tasks.base import Task
from ...tokenizers.base import Chopper, RunPart
from ...tokenizers.files.trust import NOTHING, Trust
from ...training.checkpoints import files as checkpoint
from ..assembly.model import build_model
from ..data.tasks import choppers_and_tasks
from ..folder.model_run import write_model_run
from ..folder.reading import RunError, check_assets, listed, load_weights, read_config, say_aside, sound_step
from ..settings.config import Config
from ..settings.resolved import precision_of
from .predictor import pooler, predictor


def opened_parts(folder: Path, which: str, device: str, trust: Trust) -> dict[str, Any]:
    """The fields of an `Opened` run, by name; see `load_run`."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("device 'cuda' was asked for, but torch sees no GPU here; possible: auto, cpu")
    if which not in ("best", "last"):
        raise RunError(f"no checkpoint {which!r}; possible: best, last")
    config, step = read_config(folder, trust), sound_step(folder, which, say_aside)
    check_assets(config, folder / "assets")
    choppers, tasks = choppers_and_tasks(config, folder / "assets", partial(open_part, trust=config.nested))
    check_size(config, folder, step, choppers)
    model = build_model(config, choppers, tasks)
    state = load_weights(model, folder, step, choppers)
    inner = [name for name in state.missing if not name.startswith("heads.")]
    if inner:
        say_aside(
            f"{folder}: {listed(inner)} were missing when it was imported and are as initialised: what depends on "
            "them means nothing before it is trained"
        )
    kind = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    return {
        "folder": folder, "config": config, "step": step, "model": model.to(kind).eval(), "tasks": tasks,
        "choppers": choppers, "which": which, "precision": precision_of(folder, torch.device(kind)),
        "missing": tuple(state.missing),
    }  # fmt: skip


def check_size(config: Config, folder: Path, step: int, choppers: Mapping[str, Chopper]) -> None:
    """Raises RunError if the configuration describes a model that is far larger than the checkpoint: it would be built
    before its weights are compared. The estimate is a lower bound: two matrices per block and the embedding tables,
    one byte per parameter."""
    encoder, width = config.model.options["encoder"], config.model.options["width"]
    depth = config.model.options["depth"] + (encoder.depth if encoder else 0)
    vocabularies = [choppers[name].vocabulary for name, owner in config.wiring.owners.items() if name == owner]
    table_rows = sum(vocabulary.size for vocabulary in vocabularies if vocabulary is not None)
    weight_bytes = (checkpoint.folder_of(folder, step) / "model.safetensors").stat().st_size
    parameters = width * (2 * width * depth + table_rows)
    if parameters > weight_bytes:
        described = f"{folder / 'config.yaml'} describes a model of at least {parameters:,} parameters"
        raise RunError(f"{described}, but the weights of step {step} have {weight_bytes:,} bytes")


def open_part(folder: str | Path, trust: Trust = NOTHING) -> RunPart:
    """The best checkpoint of a trained run, on the CPU, as a part of another run (a frozen encoder, say). Only code
    of chopmix and of the modules that `trust` allows is executed. Raises RunError, ConfigError or CheckpointError if
    the run cannot be opened."""
    folder = Path(folder)
    own = opened_parts(folder, "best", "cpu", trust)
    config, model = own["config"], own["model"]
    encoder = config.model.options["encoder"]
    return RunPart(
        name=str(folder), model=model, choppers=own["choppers"], context=encoder.context if encoder else model.context,
        core_tokens=config.model.options["core_tokens"],
        write=partial(write_model_run, config=config, choppers=own["choppers"], tasks=own["tasks"], model=model,
                      told={"missing": list(own["missing"])}),
        tasks=tuple(own["tasks"]), check_answer=partial(check_answer, own["tasks"]),
        predict=predictor(config, model, own["choppers"], own["tasks"]),
        pooled=pooler(config, model, own["choppers"], own["tasks"]),
        content=content_of(model),
    )  # fmt: skip


def check_answer(tasks: Mapping[str, Task], name: str, text: str) -> None:
    """Raises ValueError for a text that a task can never answer."""
    tasks[name].check_answer(text)


def content_of(model: Model) -> str:
    """A hash of all weights and their names: the same for a run and for its copy in another run."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy() if value.numel() else b"")
    return found.hexdigest()
