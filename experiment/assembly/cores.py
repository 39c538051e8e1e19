"""From a checked configuration to the cores (transformers) of its model, with names of inputs and position axes
resolved to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ...models.attention.grammar import parse_graph
from ...models.layers.relative import RelativePosition
from ...models.model import Encoder
from ...models.transformer import Transformer
from ..settings.config import Config
from ..settings.registry import imported, trusting


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
