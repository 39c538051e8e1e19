"""`from: RUN` in a configuration: copies weights from another run (the source run), and reports which tensors were
copied and which were not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..files.errors import RunError
from ..files.printing import listed
from ..models.layers.positions import Learned, LearnedGrid, interpolated
from ..models.model import Model
from ..tokenizers.base import Part, Role
from ..training import checkpoints as checkpoint
from ..training.adapters import PART
from .build import build_choppers, load_learned, save_learned
from .run import open_part
from .run_folder import chosen_step, read_config
from .run_names import folder_of_run, name_of
from .settings.config import Config
from .stored_weights import merged_run


def take_assets(config: Config, source: Path, assets: Path) -> list[str]:
    """Copy what the source run has fitted into `assets`. Returns the names of the copied inputs and tasks. Vocabularies
    and statistics are copied for inputs with the same name and the same `kind`. What tasks learned is copied only if
    both runs use the same data set and the task has the same options; other tasks are fitted again. Nothing is copied
    if the run has a checkpoint, or for a folder that `assets` already contains."""
    if checkpoint.steps(Path(config.out)):  # a resumed run does not need its source
        return []
    source_config, copied = read_config(source, config.nested), []
    for name, part in config.inputs.items():
        same = name in source_config.inputs and kind(source_config.inputs[name]) == kind(part)
        if same and (source / "assets" / name).exists() and not (assets / name).exists():
            role = Role(open_run=partial(open_part, trust=config.nested), trust=config.nested)
            part.of(part.target.Chopper)().load(source / "assets" / name, role).save(assets / name)
            copied.append(name)
    for name, part in config.tasks.items() if source_config.data.dataset == config.data.dataset else ():
        folder_name, same = f"task-{name}", name in source_config.tasks and source_config.tasks[name] == part
        has_learned = part().Learned is not None and (source / "assets" / folder_name).exists()
        if same and has_learned and not (assets / folder_name).exists():
            save_learned(load_learned(part(), source / "assets" / folder_name), assets / folder_name)
            copied.append(name)
    return copied


def kind(part: Part) -> tuple:
    """Returns the settings that must be equal for two inputs to use the same fitted chopper: `use`, `encoding`,
    `vocabulary` and `channels`, such as `("text", "bpe", 512, None)`."""
    return part.use, *(part.options.get(option) for option in ("encoding", "vocabulary", "channels"))


@torch.no_grad()
def take_weights(model: Model, config: Config) -> str:
    """Copy into the model every tensor that has the same name and shape in the best checkpoint of the source run.
    Averaged weights are used if the checkpoint has them. Learned positions of grids are first interpolated to the new
    grid size. Of tables of learned positions with another length, the rows that both runs have are copied.

    Returns a sentence that lists the copied tensors, the tensors with another shape, those that only this model has,
    those that only the source run has, and the settings with which the same weights compute something else. Raises
    RunError or CheckpointError if the source run has no undamaged checkpoint, or if no matrix of the cores fits."""
    source = folder_of_run(config.from_run)
    step, source_config = chosen_step(source, "best"), read_config(source, config.nested)
    stored = merged_run(source, step)
    weights = model.state_dict()
    resized = resize_positions(model, source, source_config, stored)
    extended = fit_positions(model, stored)
    copied = [name for name, value in weights.items() if name in stored and stored[name].shape == value.shape]
    matrices = [name for name in weights if name in stored and name.startswith("cores.") and weights[name].dim() == 2]
    if matrices and not set(matrices) & set(copied):
        old, new = (tuple(tensors[matrices[0]].shape) for tensors in (stored, weights))
        sizes = f"{matrices[0]} is {old} in the source run, {new} in this one"
        raise RunError(f"from: {name_of(source)} has a core of other sizes, so that none of its matrices fits: {sizes}")
    for name in copied:
        weights[name].copy_(stored[name])
    changed = [name for name in weights if name in stored and name not in copied]
    if config.training.adapters:
        check_trained(model, source, [name for name in weights if PART not in name and name not in copied])
    reshaped = [f"{name} {tuple(stored[name].shape)} is {tuple(weights[name].shape)} in this run" for name in changed]
    groups = {
        "interpolated to another size": resized,
        "copied in part": extended,
        "differ in shape (keep their initial values)": reshaped,
        "new (keep their initial values)": [name for name in weights if name not in stored and PART not in name],
        "not used": [name for name in stored if name not in weights],
    }
    sentences = [f"{len(names)} {label}: {listed(names)}" for label, names in groups.items() if names]
    conflicts = functions_that_differ(source_config, config)
    sentences += [f"the same weights compute something else: {'; '.join(conflicts)}"] if conflicts else []
    count = sum(weights[name].numel() for name in copied)
    summary = f"from {name_of(source)}, step {step}: copied {len(copied)} tensors ({count:,} values)"
    return "; ".join([summary, *sentences])


def check_trained(model: Model, source: Path, names: Sequence[str]) -> None:
    """Raises RunError if one of the tensors `names`, which were not copied from the source run, is a parameter that is
    not trained."""
    for name, parameter in model.named_parameters():
        if name in names and not parameter.requires_grad:
            part = ".".join(name.split(".")[:2])
            raise RunError(
                f"from: {name_of(source)} has no {name} of this shape, and with training.adapters it would keep its "
                f"initial values; train it too: training.train_only=[{part}]"
            )


FUNCTIONS = "heads", "attention", "position", "block", "final_norm"
"""The settings of a core that, if they differ, make the same weights compute something else."""
DATA_ONLY = "augment", "augment_wave", "size", "longest", "pad_vocabulary_to"
"""The options of an input that do not change what its weights compute, or that change the shapes of the weights."""


def functions_that_differ(source: Config, target: Config) -> list[str]:
    """Returns sentences about the settings that differ between two configurations and make the same weights compute
    something else: `["model.heads is 4 in the source run, 8 in this one"]`. It compares the cores, and the inputs that
    both configurations have with the same `use`."""
    pairs = [("model", source.tree["model"], target.tree["model"], FUNCTIONS)]
    encoders = [config.tree["model"].get("encoder") for config in (source, target)]
    if all(encoders):
        pairs.append(("model.encoder", *encoders, FUNCTIONS))
    for name, part in target.inputs.items():
        if name in source.inputs and source.inputs[name].use == part.use:
            old, new = dict(source.inputs[name].options), dict(part.options)
            pairs.append((f"inputs.{name}", old, new, [o for o in {**old, **new} if o not in DATA_ONLY]))
    return [
        sentence
        for path, *options, names in pairs
        for name in names
        for sentence in differing(f"{path}.{name}", name, *options)
    ]


def differing(path: str, name: str, source: Mapping, target: Mapping) -> list[str]:
    """Returns sentences about the difference in the setting `name` between two mappings of options; empty if the values
    are equal. If the value is a mapping in both, options that `target` does not have, and options that `source` does
    not have, are ignored. `path` is the name of the setting in the sentences."""
    old, new = source.get(name), target.get(name)
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in new if not same_value(old.get(key, new[key]), new[key])]
        return [f"{path}.{key} is {old[key]!r} in the source run, {new[key]!r} in this one" for key in keys]
    texts = [repr(getattr(value, "use", value)) for value in (old, new)]
    return [] if same_value(old, new) else [f"{path} is {texts[0]} in the source run, {texts[1]} in this one"]


def same_value(old: Any, new: Any) -> bool:
    """Returns whether two settings have the same meaning. A number is equal to a list in which every value is this
    number (a mean per channel)."""
    for values, number in (old, new), (new, old):
        if isinstance(values, list | tuple) and isinstance(number, int | float):
            return all(value == number for value in values)
    return old == new


def fit_positions(model: Model, source_weights: dict[str, torch.Tensor]) -> list[str]:
    """Fit the source run's tables of learned positions to the lengths of this model: of a longer table the first rows
    are used, a shorter one is extended by the initial values of this model. Changes `source_weights` in place. Returns
    a line for each changed tensor: `<tensor> 64 of 128 rows`."""
    changed = []
    for name, module in model.named_modules():
        stored = source_weights.get(key := f"{name}.table.weight")
        if not isinstance(module, Learned) or stored is None or stored.dim() != 2:
            continue
        table = module.table.weight
        if stored.shape[1] == table.shape[1] and len(stored) != len(table):
            rows = min(len(stored), len(table))
            source_weights[key] = torch.cat([stored[:rows].to(table), table[rows:]])
            changed.append(f"{key} {rows:,} of {len(table):,} rows")
    return changed


def resize_positions(model: Model, source: Path, config: Config, source_weights: dict[str, torch.Tensor]) -> list[str]:
    """Interpolate the source run's learned positions (rows * columns, d) of images and spectrograms if the grid has
    another size in this run. Changes `source_weights` in place. Returns a line for each interpolated tensor:
    `<tensor> from 14 x 14 to 16 x 16`."""
    resized = []
    for name, tokenizer in model.tokenizers.items():
        key, position = f"tokenizers.{name}.position.table.weight", getattr(tokenizer, "position", None)
        if not isinstance(position, LearnedGrid) or key not in source_weights:
            continue
        open_run = partial(open_part, trust=config.nested)
        grid = build_choppers(config, source / "assets", open_run=open_run)[name].grid
        if grid and grid != position.grid:
            source_weights[key] = interpolated(source_weights[key], grid, position.grid)
            resized.append(f"{key} from {grid[0]} x {grid[1]} to {position.grid[0]} x {position.grid[1]}")
    return resized
