"""The model of a configuration with its initial values, and its optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from ..models.attention.grammar import parse_graph
from ..models.layers.relative import RelativePosition
from ..models.model import Cores, Encoder, Model
from ..models.transformer import Transformer
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from ..training.optimizers import Optimizer
from .settings.config import Config
from .settings.registry import imported, trusting
from .settings.sections import Training


def build_core(config: Config, axes: Sequence[str], encoder: Encoder | None = None) -> Transformer:
    """The main core, or, where `encoder` is given, the encoder to which the main core has cross-attention.

    `axes` are the position axes in order, such as `["order", "row", "column"]`: attention expressions
    (`causal | from(image)`) and the relative position name inputs and axes, the modules take their numbers."""
    options = dict(config.model.options)
    crosses = options["encoder"] is not None and encoder is None
    if encoder is not None:
        options |= {"depth": encoder.depth, "attention": encoder.attention, "position": encoder.position}
    written = [options["attention"]] if isinstance(options["attention"], str) else options["attention"]
    with trusting(config.trust):
        options["attention"] = [parse_graph(each, list(config.inputs), axes, imported) for each in written]
    options["position"] = partial(options["position"] or RelativePosition, axes=tuple(axes))
    options["block"] = partial(options["block"], crosses=crosses)
    core = replace(config.model, options=options).build(Transformer)
    core.name_inputs(list(config.inputs))
    return core


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
    wiring = config.wiring
    tokenizers: dict[str, nn.Module | str] = {}
    for name, part in config.inputs.items():
        users = wiring.sharing(name)
        longest = max((encoder.context if each in wiring.encoded else context for each in users), default=context)
        shared = wiring.owners[name] != name
        tokenizers[name] = wiring.owners[name] if shared else part(choppers[name], width, longest)
    second = build_core(config, wiring.axes, encoder) if encoder else None
    cores = Cores(build_core(config, wiring.axes), second, list(wiring.encoded))
    modules = {name: tokenizers[owner] for name, owner in wiring.owners.items()}
    heads = {name: task.head(modules, width) for name, task in tasks.items()}
    return config.model.build(Model, tokenizers, cores, heads)


def build_optimizer(training: Training, model: Model) -> Optimizer:
    """The optimizer of the section `training:`; without a `learning_rate`, at the optimizer's own default."""
    target = getattr(training.optimizer, "target", training.optimizer)
    rate = target.default_rate if training.learning_rate is None else training.learning_rate
    return training.optimizer(model, rate)
