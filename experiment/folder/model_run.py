"""A model written as a run without training: by an import, and for a run that is a part of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...models.model import Model
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ...tokenizers.files.writing import make_folder, write_json
from ...training.checkpoints import files as checkpoint
from ..data.tasks import save_learned
from ..settings.config import Config, write_config
from .reading import fingerprints


def write_model_run(
    folder: Path, config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], model: Model,
    told: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a run with one checkpoint, at step 0.

        config.yaml
        assets/text/encoding.json, assets/task-label/classes.json, ...      what choppers and tasks learned
        checkpoints/step-00000000/{model.safetensors,state.json}
        best.json, last.json                                                both {"step": 0}

    `told`: further entries of `state.json`, such as `missing`. Raises OSError where it cannot be written."""
    make_folder(folder)
    for name, chopper in choppers.items():
        if config.wiring.owners[name] == name:
            chopper.save(folder / "assets" / name)
    for name, task in tasks.items():
        save_learned(task, folder / "assets" / f"task-{name}")
    write_config(folder, config)
    state = {"seconds": 0.0, "vocabularies": fingerprints(choppers), "data": {}, **told}
    checkpoint.save(folder, 0, {"model": model.state_dict()}, state)
    write_json(folder / "best.json", {"step": 0})
