"""The model of a configuration with its initial values, and its optimizer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ...models.model import Cores, Model
from ...tasks.base import Task
from ...tokenizers.base import Chopper, axes_of
from ...training.optimizers import Optimizer
from ..data.columns import encoded_inputs, sharing
from ..settings.config import Config
from ..settings.sections import Training
from .cores import build_core


def build_model(config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]) -> Model:
    """The model with its initial values, drawn by the seed of torch's global generator and each parameter's name.
    Inputs that share a tokenizer (`same_as`) share one embedder. Raises MemoryError for a model that is too large."""
    try:
        return _build_model(config, choppers, tasks)
    except RuntimeError as error:
        if "allocate" in str(error):  # torch has no class for it
            raise MemoryError(str(error)) from None
        raise


def _build_model(config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]) -> Model:
    width, context, encoder = (config.model.options[name] for name in ("width", "context", "encoder"))
    encoded = encoded_inputs(config)
    tokenizers: dict[str, nn.Module | str] = {}
    for name, part in config.inputs.items():
        users = sharing(config, name)
        longest = max((encoder.context if each in encoded else context for each in users), default=context)
        tokenizers[name] = config.shares.get(name) or part(choppers[name], width, longest)
    axes = axes_of(choppers.values())
    second = build_core(config, axes, encoder) if encoder else None
    cores = Cores(build_core(config, axes), second, encoded)
    modules = {name: tokenizers[config.shares.get(name, name)] for name in config.inputs}
    heads = {name: task.head(modules, width) for name, task in tasks.items()}
    return config.model.build(Model, tokenizers, cores, heads)


def build_optimizer(training: Training, model: Model) -> Optimizer:
    """The optimizer of the section `training:`; without a `learning_rate`, at the optimizer's own default."""
    target = getattr(training.optimizer, "target", training.optimizer)
    rate = target.default_rate if training.learning_rate is None else training.learning_rate
    return training.optimizer(model, rate)
