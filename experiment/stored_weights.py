"""The weights of a stored run, with its own adapters or with those of other runs (`training/adapters.py`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ..files.errors import RunError
from ..files.printing import listed, say_aside
from ..models.model import Model
from ..tokenizers.base import Chopper
from ..training import checkpoints as checkpoint
from ..training.adapters import PART, merged_weights
from ..training.checkpoints import CheckpointError, State
from .run_folder import fingerprints, valid_step
from .run_names import folder_of_run


def load_weights(
    model: Model, folder: Path, step: int, choppers: Mapping[str, Chopper], averaged: bool = True,
    adapters: Sequence[str | Path] | None = None,
) -> State:  # fmt: skip
    """Load the weights of a checkpoint into a model, after a check of its files and vocabularies. Returns the
    checkpoint's state. If `averaged`, loads the averaged weights if the checkpoint has them. Adapters are merged,
    unless the model has adapters itself. `adapters` are the runs whose adapters are loaded; None: the run itself.

    Raises CheckpointError if a file is damaged, or if the names or shapes of the tensors differ from those of the
    model. Raises RunError if a vocabulary, or a run that is used as a part, is not the one with which the weights were
    trained, or if adapters do not belong to the weights."""
    state = checkpoint.read_state(folder, step)
    for name, fingerprint in state.vocabularies.items():
        if fingerprints(choppers).get(name) != fingerprint:
            reason = f"changed since the checkpoint of step {step} was written"
            advice = "restore the old one, or start again with another out="
            raise RunError(f"{folder}/assets/{name} (a vocabulary, or a run used as a part) {reason}; {advice}")
    weights = read_weights(folder, step, averaged)
    if state.base or adapters is not None:
        weights = adapted_weights(model, folder, state, weights, adapters)
    ours, stored = ({(name, value.shape) for name, value in part.items()} for part in (model.state_dict(), weights))
    if different := sorted({name for name, _ in ours ^ stored}):
        file = checkpoint.folder_of(folder, step)
        raise CheckpointError(f"{file}: its tensors do not fit this configuration: {listed(different)}")
    model.load_state_dict(weights)
    return state


def read_weights(folder: Path, step: int, averaged: bool = True) -> dict[str, Tensor]:
    """Returns the weights in a checkpoint by name, with the averaged weights if there are any and `averaged` is
    true."""
    weights = checkpoint.read_part(folder, step, "model")
    return weights | checkpoint.read_part(folder, step, "ema") if averaged else weights


def adapted_weights(
    model: Model, folder: Path, state: State, stored: dict[str, Tensor], adapters: Sequence[str | Path] | None
) -> dict[str, Tensor]:
    """Returns the weights for `model` from the tensors of a checkpoint. They have adapters if the model has some. Other
    models get the sums of weights and adapters."""
    if adapters is not None:
        others = [adapters] if isinstance(adapters, str | Path) else adapters
        return with_adapters(folder, state, stored, [folder_of_run(other) for other in others])
    weights = checkpoint.read_base(folder, state.base) | stored
    return weights if any(PART in name for name in model.state_dict()) else merged_weights(weights)


def merged_run(folder: Path, step: int) -> dict[str, Tensor]:
    """Returns the weights of a checkpoint by name, with averaged weights and merged adapters if there are any. Raises
    CheckpointError if a file is missing or damaged."""
    state, stored = checkpoint.read_state(folder, step), read_weights(folder, step)
    return merged_weights(checkpoint.read_base(folder, state.base) | stored) if state.base else stored


def base_bytes(folder: Path) -> int:
    """Returns the size of the file with the weights to which a run adds adapters. Raises RunError if it is missing."""
    base = folder / checkpoint.BASE
    if not os.path.isfile(base):
        contains = "It contains the weights to which the adapters of this run are added"
        raise RunError(f"{base} is missing. {contains}; copy complete run folders")
    return base.stat().st_size


def with_adapters(
    folder: Path, state: State, stored: dict[str, Tensor], others: Sequence[Path]
) -> dict[str, Tensor]:  # fmt: skip
    """Returns the weights of a run, whose checkpoint has the tensors `stored`, with the adapters of `others` (of their
    best checkpoints) instead of its own; all of them are added. `others` may contain the run itself. Raises RunError if
    a run in `others` has no adapters, or adapters of another base, or if two of them have trained the same tensor
    completely."""
    weights = checkpoint.read_base(folder, state.base) if state.base else stored
    base, replaced = state.base or checkpoint.content_of(weights), dict[str, Path]()
    for other in others:
        of_other = checkpoint.read_state(other, valid_step(other, "best", say_aside))
        if not of_other.base:
            raise RunError(f"{other} has no adapters: it was trained without training.adapters")
        if of_other.base != base:
            raise RunError(
                f"the adapters of {other} belong to other weights than those of {folder}: the hash of their base is "
                f"{of_other.base[:8]}, not {base[:8]}"
            )
        trained = read_weights(other, of_other.step)
        if twice := sorted(name for name in trained if name in replaced):
            raise RunError(f"{replaced[twice[0]]} and {other} have both replaced {twice[0]}; select one of them")
        replaced |= dict.fromkeys((name for name in trained if PART not in name), other)
        weights = merged_weights(weights | trained)
    return weights
