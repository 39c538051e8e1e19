"""`from: RUN` in a configuration: start from another run's weights, and report what was taken and what was not."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..models.layers.positions import LearnedGrid, interpolated
from ..models.model import Model
from ..tokenizers.base import Part, Role
from ..training import checkpoints as checkpoint
from .build import build_choppers, load_learned, save_learned
from .run import open_part
from .run_folder import RunError, chosen_step, listed, read_config
from .settings.config import Config


def take_assets(config: Config, source: Path, assets: Path) -> list[str]:
    """Copy what the source run has fitted into `assets`: vocabularies and statistics of inputs of the same name and
    kind, and, where both name the same data set, of tasks with the same options (never of an imported run, which has no
    data set; other tasks are fitted anew); gives the names of these inputs and tasks. Nothing is taken once the run has
    a checkpoint, nor where `assets` has the folder already."""
    if checkpoint.steps(Path(config.out)):  # a resumed run does not need its source
        return []
    theirs, taken = read_config(source, config.nested), []
    for name, part in config.inputs.items():
        same = name in theirs.inputs and kind(theirs.inputs[name]) == kind(part)
        if same and (source / "assets" / name).exists() and not (assets / name).exists():
            role = Role(open_run=partial(open_part, trust=config.nested), trust=config.nested)
            part.of(part.target.Chopper)().load(source / "assets" / name, role).save(assets / name)
            taken.append(name)
    for name, part in config.tasks.items() if theirs.data.dataset == config.data.dataset else ():
        kept, same = f"task-{name}", name in theirs.tasks and theirs.tasks[name] == part
        has_learned = part().Learned is not None and (source / "assets" / kept).exists()
        if same and has_learned and not (assets / kept).exists():
            save_learned(load_learned(part(), source / "assets" / kept), assets / kept)
            taken.append(name)
    return taken


def kind(part: Part) -> tuple:
    """What must agree for an input to take over another's fitted chopper: `("text", "bpe", 512, None)`."""
    return part.use, *(part.options.get(option) for option in ("encoding", "vocabulary", "channels"))


@torch.no_grad()
def take_weights(model: Model, config: Config) -> str:
    """Copy every tensor that has the same name and shape in the source's best checkpoint (its averaged weights, where
    it has some); learned positions of grids are interpolated to another size first.

    Gives a sentence that lists what was taken, what differs in shape, what only the model has, what only the source
    has, and which settings make the same weights compute something else. Raises RunError or CheckpointError where the
    source has no sound checkpoint, or none of the core's matrices fits.
    """
    source = Path(config.from_run)
    step, there = chosen_step(source, "best"), read_config(source, config.nested)
    checkpoint.read_state(source, step)
    theirs = checkpoint.read_part(source, step, "model") | checkpoint.read_part(source, step, "ema")
    own = model.state_dict()
    resized = resize_positions(model, source, there, theirs)
    taken = [name for name, value in own.items() if name in theirs and theirs[name].shape == value.shape]
    matrices = [name for name in own if name in theirs and name.startswith("cores.") and own[name].dim() == 2]
    if matrices and not set(matrices) & set(taken):
        there, here = (tuple(each[matrices[0]].shape) for each in (theirs, own))
        sizes = f"{matrices[0]} is {there} there, {here} here"
        raise RunError(f"from: {source} has a core of other sizes, of which nothing fits: {sizes}")
    for name in taken:
        own[name].copy_(theirs[name])
    others = [name for name in own if name in theirs and name not in taken]
    reshaped = [f"{name} {tuple(theirs[name].shape)} is {tuple(own[name].shape)} here" for name in others]
    groups = {
        "interpolated for another size": resized,
        "differ in shape, so left as initialised": reshaped,
        "new here, so left as initialised": [name for name in own if name not in theirs],
        "left behind": [name for name in theirs if name not in own],
    }
    said = [f"{len(names)} {what}: {listed(names)}" for what, names in groups.items() if names]
    other = functions_that_differ(there, config)
    said += [f"not the same function: {'; '.join(other)}"] if other else []
    count = sum(own[name].numel() for name in taken)
    return f"from {source}, step {step}: took {len(taken)} tensors ({count:,} values)" + "".join(f"; {s}" for s in said)


FUNCTIONS = "heads", "attention", "position", "block", "final_norm"
"""The settings of a core with which the same weights would compute something else."""
DATA_ONLY = "augment", "augment_wave", "size", "longest", "pad_vocabulary_to"
"""The options of an input that do not change what its weights compute, or that show in their shapes."""


def functions_that_differ(theirs: Config, ours: Config) -> list[str]:
    """The differences between two configurations with which the same weights would compute something else:
    `["model.heads is 4 there, 8 here"]`. Compared are the cores and the inputs that both have."""
    pairs = [("model", theirs.tree["model"], ours.tree["model"], FUNCTIONS)]
    encoders = [config.tree["model"].get("encoder") for config in (theirs, ours)]
    if all(encoders):
        pairs.append(("model.encoder", *encoders, FUNCTIONS))
    for name, part in ours.inputs.items():
        if name in theirs.inputs and theirs.inputs[name].use == part.use:
            there, here = dict(theirs.inputs[name].options), dict(part.options)
            pairs.append((f"inputs.{name}", there, here, [o for o in {**there, **here} if o not in DATA_ONLY]))
    return [
        said for where, *both, names in pairs for name in names for said in differing(f"{where}.{name}", name, *both)
    ]


def differing(where: str, name: str, theirs: Mapping, ours: Mapping) -> list[str]:
    """Sentences about one setting's difference. Where its value is a mapping of options on both sides, options that
    only one side names are passed over."""
    there, here = theirs.get(name), ours.get(name)
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [key for key in here if not same_value(there.get(key, here[key]), here[key])]
        return [f"{where}.{key} is {there[key]!r} there, {here[key]!r} here" for key in keys]
    shown = [repr(getattr(value, "use", value)) for value in (there, here)]
    return [] if same_value(there, here) else [f"{where} is {shown[0]} there, {shown[1]} here"]


def same_value(there: Any, here: Any) -> bool:
    """Whether two settings mean the same; a number equals a list that repeats it (a mean per channel)."""
    for several, one in (there, here), (here, there):
        if isinstance(several, list | tuple) and isinstance(one, int | float):
            return all(value == one for value in several)
    return there == here


def resize_positions(model: Model, source: Path, config: Config, theirs: dict[str, torch.Tensor]) -> list[str]:
    """Interpolate, in place in `theirs`, the source's learned positions (rows * columns, d) of images and spectrograms
    whose grid has another size here; gives a line for each: `<tensor> from 14 x 14 to 16 x 16`."""
    resized = []
    for name, tokenizer in model.tokenizers.items():
        key, position = f"tokenizers.{name}.position.table.weight", getattr(tokenizer, "position", None)
        if not isinstance(position, LearnedGrid) or key not in theirs:
            continue
        door = partial(open_part, trust=config.nested)
        grid = build_choppers(config, source / "assets", open_run=door)[name].grid
        if grid and grid != position.grid:
            theirs[key] = interpolated(theirs[key], grid, position.grid)
            resized.append(f"{key} from {grid[0]} x {grid[1]} to {position.grid[0]} x {position.grid[1]}")
    return resized
