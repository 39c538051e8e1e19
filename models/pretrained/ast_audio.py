"""The Audio Spectrogram Transformer's weights under our names. Reference: transformers' `ASTForAudioClassification`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from einops import rearrange
from pydantic import Field, FiniteFloat
from torch import Tensor

from .described import Count, Depth, Described, Epsilon, Heads, Width
from .renaming import Weights, renamed

BASE = "audio_spectrogram_transformer."
ADDED = ("position_embeddings", "cls_token", "distillation_token")
NAMES = {
    "layernorm_before": "add_attention.norm", "layernorm_after": "add_feed_forward.norm",
    "attention.attention.query": "attention.query", "attention.attention.key": "attention.key",
    "attention.attention.value": "attention.value", "attention.output.dense": "attention.out",
    "intermediate.dense": "feed_forward.up", "output.dense": "feed_forward.down",
}  # fmt: skip
OUTSIDE = {
    f"{BASE}layernorm": "cores.main.norm",
    f"{BASE}embeddings.patch_embeddings.projection": "tokenizers.sound.embedding",
    "classifier.layernorm": "heads.label.pooling.norm", "classifier.dense": "heads.label.linear",
}  # fmt: skip


class Ast(Described):
    """An AST's `config.json`."""

    hidden_size: Width = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: Heads = 12
    intermediate_size: Width = 3072
    hidden_act: Literal["gelu"] = "gelu"
    layer_norm_eps: Epsilon = 1e-12
    qkv_bias: Literal[True] = True
    patch_size: Annotated[int, Field(ge=1, le=512)] = 16
    frequency_stride: Annotated[int, Field(ge=1, le=512)] = 10
    time_stride: Annotated[int, Field(ge=1, le=512)] = 10
    max_length: Count = 1024
    num_mel_bins: Annotated[int, Field(ge=1, le=512)] = 128
    id2label: dict[str, str | int] | None = None


class AstFeatures(Described):
    """Its `preprocessor_config.json`."""

    sampling_rate: Annotated[int, Field(ge=1, le=10_000_000)] = 16_000
    do_normalize: Literal[True] = True
    mean: FiniteFloat | None = None
    std: Annotated[FiniteFloat, Field(gt=0)] | None = None


def ast_experiment(config: Ast, features: AstFeatures, statistics: tuple[float, float]) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for an AST. Raises ValueError for strides that differ."""
    if config.frequency_stride != config.time_stride:
        raise ValueError(
            f"frequency_stride {config.frequency_stride} and time_stride {config.time_stride} differ; not reproduced"
        )
    norm = {"use": "layer_norm", "epsilon": config.layer_norm_eps}
    sound = {
        "use": "audio_patches", "rate": features.sampling_rate, "mels": config.num_mel_bins,
        "patch_size": config.patch_size, "stride": config.time_stride, "length": config.max_length,
        "longest": config.max_length * 0.01 + 0.03, "statistics": list(statistics),
    }  # fmt: skip
    rows, columns = (
        (size - config.patch_size) // config.time_stride + 1 for size in (config.num_mel_bins, config.max_length)
    )
    return {
        "inputs": {"sound": sound},
        "model": {
            "width": config.hidden_size, "depth": config.num_hidden_layers, "heads": config.num_attention_heads,
            "context": max(rows * columns, 0) + 2, "core_tokens": 2, "attention": "same_sample",
            "block": {
                "norm": norm, "bias": True,
                "feed_forward": {"use": "gelu", "approximate": "none", "ratio": config.intermediate_size / config.hidden_size},
            },
        },
        "tasks": {"label": {"use": "classification", "target": "label", "pooling": {"use": "core_tokens", "norm": norm}}},
    }  # fmt: skip


def ast_weights(theirs: Mapping[str, Tensor]) -> Weights:
    """transformers' tensors under the keys of our `Model`.

    The class and the distillation token are the core's two own tokens, with their positions added; the patches'
    convolution is a matrix.
    """
    layers = {f"{BASE}encoder.layer.": ("cores.main.blocks.", NAMES)}
    added = tuple(f"{BASE}embeddings.{name}" for name in ADDED)
    found, _ = renamed({key: value for key, value in theirs.items() if key not in added}, OUTSIDE, layers)
    try:
        position, *tokens = (theirs[f"{BASE}embeddings.{name}"][0] for name in ADDED)
    except KeyError as error:
        raise ValueError(f"there is no tensor {error}") from None
    patches = "tokenizers.sound.embedding.weight"
    if patches in found:
        found[patches] = rearrange(found[patches], "d c p q -> d (c p q)")
    found["tokenizers.sound.position.table.weight"] = position[2:]
    found["own.weight"] = position[:2] + torch.cat(tokens)
    return Weights(found)
