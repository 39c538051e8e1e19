"""The weights of a stored run, with its own adapters or with those of other runs (`training/adapters.py`)."""

from __future__ import annotations

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


def load_weights(
    model: Model, folder: Path, step: int, choppers: Mapping[str, Chopper], averaged: bool = True,
    adapters: Sequence[Path] | None = None,
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
    own = model.state_dict()
    weights = complete_weights(folder, state, averaged) if adapters is None else with_adapters(folder, state, adapters)
    if state.base and not any(PART in name for name in own):
        weights = merged_weights(weights)
    ours, stored = ({(name, value.shape) for name, value in part.items()} for part in (own, weights))
    if different := sorted({name for name, _ in ours ^ stored}):
        file = checkpoint.folder_of(folder, step)
        raise CheckpointError(f"{file}: its tensors do not fit this configuration: {listed(different)}")
    model.load_state_dict(weights)
    return state


def complete_weights(folder: Path, state: State, averaged: bool = True) -> dict[str, Tensor]:
    """Returns all weights of a checkpoint by name, with averaged weights if there are any and `averaged` is true. The
    adapters of a run that has some are separate tensors. Raises CheckpointError if a file cannot be read, or if the
    base of the adapters was replaced."""
    weights = checkpoint.read_part(folder, state.step, "model")
    if averaged:
        weights |= checkpoint.read_part(folder, state.step, "ema")
    return checkpoint.read_base(folder, state.base) | weights if state.base else weights


def with_adapters(folder: Path, state: State, others: Sequence[Path]) -> dict[str, Tensor]:
    """Returns the weights of a run with the adapters of the best checkpoints of `others` instead of its own; all of
    them are added. `others` may contain the run itself. Raises RunError if a run in `others` has no adapters, or
    adapters of another base, or if two of them have trained the same tensor completely."""
    weights = checkpoint.read_base(folder, state.base) if state.base else complete_weights(folder, state)
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
        parts = (checkpoint.read_part(other, of_other.step, part) for part in ("model", "ema"))
        trained = {name: value for part in parts for name, value in part.items()}
        if twice := sorted(name for name in trained if name in replaced):
            raise RunError(f"{replaced[twice[0]]} and {other} have both replaced {twice[0]}; select one of them")
        replaced |= dict.fromkeys((name for name in trained if PART not in name), other)
        weights = merged_weights(weights | trained)
    return weights
