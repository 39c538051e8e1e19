"""The Audio Spectrogram Transformer's weights under our names. Reference: transformers' `ASTForAudioClassification`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from .renaming import renamed, require

EXACT = {"hidden_act": "gelu", "qkv_bias": True}
"""Options of `config.json` that must have these values for us to reproduce the model."""
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


def ast_experiment(described: Mapping[str, Any], features: Mapping[str, Any], statistics: tuple[float, float]) -> dict:
    """The `inputs`, `model` and `tasks` of our YAML for an AST's `config.json` and `preprocessor_config.json`.

    Raises ValueError naming an option that we do not reproduce exactly; nothing is approximated.
    """
    known = DEFAULTS | dict(described)
    require(known, EXACT)
    if known["frequency_stride"] != known["time_stride"]:
        raise ValueError(
            f"frequency_stride {known['frequency_stride']} and time_stride {known['time_stride']} differ; not reproduced"
        )
    if not features.get("do_normalize", True):
        raise ValueError("do_normalize is false; only normalised spectrograms are reproduced")
    norm = {"use": "layer_norm", "epsilon": known["layer_norm_eps"]}
    sound = {
        "use": "audio_patches", "rate": features.get("sampling_rate", 16_000), "mels": known["num_mel_bins"],
        "patch_size": known["patch_size"], "stride": known["time_stride"], "length": known["max_length"],
        "longest": known["max_length"] * 0.01 + 0.03, "statistics": list(statistics),
    }  # fmt: skip
    rows, columns = (
        (known[name] - known["patch_size"]) // known["time_stride"] + 1 for name in ("num_mel_bins", "max_length")
    )
    return {
        "inputs": {"sound": sound},
        "model": {
            "width": known["hidden_size"], "depth": known["num_hidden_layers"], "heads": known["num_attention_heads"],
            "context": rows * columns + 2, "own_tokens": 2, "attention": "same_sample",
            "block": {
                "norm": norm, "bias": True,
                "feed_forward": {"use": "gelu", "approximate": "none", "ratio": known["intermediate_size"] / known["hidden_size"]},
            },
        },
        "tasks": {"label": {"use": "classification", "target": "label", "pooling": {"use": "own_tokens", "norm": norm}}},
    }  # fmt: skip


DEFAULTS = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12, "patch_size": 16, "qkv_bias": True, "frequency_stride": 10, "time_stride": 10,
    "max_length": 1024, "num_mel_bins": 128,
}  # fmt: skip
"""transformers' values for what a `config.json` leaves out."""


def ast_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors under the keys of our `Mixture`. What has no place here stays under its own name.

    The class and the distillation token are the core's two own tokens, with their positions added; the patches'
    convolution is a matrix.
    """
    layers = {f"{BASE}encoder.layer.": ("cores.main.blocks.", NAMES)}
    found = renamed(theirs, OUTSIDE, layers, ignored=tuple(f"{BASE}embeddings.{name}" for name in ADDED))
    try:
        position, *tokens = (theirs[f"{BASE}embeddings.{name}"][0] for name in ADDED)
    except KeyError as error:
        raise ValueError(f"there is no tensor {error}") from None
    patches = "tokenizers.sound.embedding.weight"
    if patches in found:
        found[patches] = rearrange(found[patches], "d c p q -> d (c p q)")
    found["tokenizers.sound.position.table.weight"] = position[2:]
    found["own.weight"] = position[:2] + torch.cat(tokens)
    return found
