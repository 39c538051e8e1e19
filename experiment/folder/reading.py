"""Reading a run's folder: its configuration, the step of the wanted checkpoint, weights, assets."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ...models.model import Model
from ...tokenizers.base import Chopper
from ...tokenizers.files.printing import printable
from ...tokenizers.files.trust import NOTHING, Trust
from ...training.checkpoints import files as checkpoint
from ...training.checkpoints.state import State
from ..settings.config import Config, load_run_config


class RunError(ValueError):
    """A run's folder, or a request to a run, that cannot be used; the message says why and what is possible."""


MOST_NAMES = 50
"""How many names one sentence lists."""


def listed(names: Sequence[str]) -> str:
    """Names with commas between, at most MOST_NAMES of them, then ` and 12 more`; `nothing` for none."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else "nothing"


def read_config(folder: Path, trust: Trust = NOTHING) -> Config:
    """A run's `config.yaml`, with all defaults. It may name code of chopmix and of the modules that `trust` allows.
    Raises RunError if the folder is not a run, ConfigError if the file is damaged, has another format, or names other
    code."""
    if not os.path.exists(folder / "config.yaml"):
        raise RunError(f"{folder} is not a run: it has no config.yaml. Train it with `{training_of(folder)}`")
    return load_run_config(folder, trust)


def training_of(folder: Path) -> str:
    """The command that trains a run: `chopmix train configs/a/b.yaml` for `runs/a/b`, if there is such a file."""
    *above, name = folder.parts or ("",)
    files = [Path("configs", *above[at + 1 :], f"{name}.yaml") for at, each in enumerate(above) if each == "runs"]
    return f"chopmix train {next(filter(os.path.isfile, files), 'CONFIG')}"


def chosen_step(folder: Path, which: str, say: Callable[[str], None] = lambda text: None) -> int:
    """The step of the checkpoint that is `which`, `best` or `last`; where there is none, of the last, else of the
    newest, and `say` gets a sentence. Raises RunError where the run has no checkpoint."""
    found = checkpoint.steps(folder)
    if not found:
        raise RunError(
            f"{folder} has no checkpoint yet: its training failed, or did not reach the first one. Train it with "
            f"`{training_of(folder)}`"
        )
    wanted, last = checkpoint.read_step(folder, which), checkpoint.read_step(folder, "last")
    if wanted in found:
        return wanted
    step = last if last in found else found[-1]
    say(f"{folder} has no checkpoint that is its {which}; that of step {step:,} is read")
    return step


def sound_step(folder: Path, which: str, say: Callable[[str], None]) -> int:
    """As `chosen_step`, but where that checkpoint is damaged, the step of the newest whole one, and `say` gets a
    sentence. Raises CheckpointError where none is whole."""
    step = chosen_step(folder, which, say)
    try:
        checkpoint.read_state(folder, step)
        return step
    except checkpoint.CheckpointError as error:
        for other in reversed(checkpoint.steps(folder)):
            with suppress(checkpoint.CheckpointError):
                checkpoint.read_state(folder, other)
                say(f"{error}; the checkpoint of step {other} is used instead")
                return other
        raise


def say_aside(text: str) -> None:
    """Print a line on standard error, beside the results on standard output."""
    print(printable(text), file=sys.stderr)


def check_assets(config: Config, assets: Path) -> None:
    """Raises RunError where `assets` lacks the folder of an input or a task that learned something from the data."""
    kept = {name: part.target.Chopper for name, part in config.inputs.items() if config.wiring.owners[name] == name}
    learned = {name: kind for name, kind in kept.items() if kind.learns and kind.load is not Chopper.load}
    learned |= {f"task-{name}": part.target for name, part in config.tasks.items() if part.target.Learned}
    for name in learned:
        if not os.path.exists(assets / name):
            raise RunError(
                f"{assets}/{name} is missing: what this run learned of its data stands there; copy whole runs"
            )


def fingerprints(choppers: Mapping[str, Chopper]) -> dict[str, str]:
    """The fingerprint of every input's vocabulary, or of the run that it took in, by input."""
    return {name: known for name, chopper in choppers.items() if (known := chopper.fingerprint) is not None}


def load_weights(
    model: Model, folder: Path, step: int, choppers: Mapping[str, Chopper], averaged: bool = True
) -> State:
    """Load a checkpoint's weights into a model, after checking its files and vocabularies; gives its state. `averaged`:
    the averaged weights, where it has some.

    Raises CheckpointError for damage and for tensors of other names or shapes than the model's, RunError where a
    vocabulary, or a run that was taken in, is not the one that the weights were trained with.
    """
    state = checkpoint.read_state(folder, step)
    for name, known in state.vocabularies.items():
        if fingerprints(choppers).get(name) != known:
            raise RunError(
                f"{folder}/assets/{name} (a vocabulary, or a run that was taken in) changed since the checkpoint of "
                f"step {step} was written; put the old one back, or start again with another out="
            )
    weights = checkpoint.read_part(folder, step, "model")
    if averaged:
        weights |= checkpoint.read_part(folder, step, "ema")
    own, there = ({(name, value.shape) for name, value in each.items()} for each in (model.state_dict(), weights))
    if wrong := sorted({name for name, _ in own ^ there}):
        where = checkpoint.folder_of(folder, step)
        raise checkpoint.CheckpointError(f"{where}: its tensors are not those of this configuration: {listed(wrong)}")
    model.load_state_dict(weights)
    return state
