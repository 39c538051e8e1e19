"""The Audio Spectrogram Transformer's weights under our names. Reference: transformers' `ASTForAudioClassification`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from torch import Tensor

EXACT = {"hidden_act": "gelu", "qkv_bias": True}
"""Options of `config.json` that must have these values for us to reproduce the model."""
NAMES = {
    "layernorm_before": "add_attention.norm", "layernorm_after": "add_feed_forward.norm",
    "attention.attention.query": "attention.query", "attention.attention.key": "attention.key",
    "attention.attention.value": "attention.value", "attention.output.dense": "attention.out",
    "intermediate.dense": "feed_forward.up", "output.dense": "feed_forward.down",
}  # fmt: skip
OUTSIDE = {
    "audio_spectrogram_transformer.layernorm": "cores.main.norm",
    "audio_spectrogram_transformer.embeddings.patch_embeddings.projection": "tokenizers.sound.embedding",
    "classifier.layernorm": "heads.label.pooling.norm", "classifier.dense": "heads.label.linear",
}  # fmt: skip


def ast_experiment(described: Mapping[str, Any], features: Mapping[str, Any], statistics: tuple[float, float]) -> dict:
    """The `inputs`, `model` and `tasks` of our YAML for an AST's `config.json` and `preprocessor_config.json`.

    Raises ValueError naming an option that we do not reproduce exactly; nothing is approximated.
    """
    known = DEFAULTS | dict(described)
    for name, value in EXACT.items():
        if known[name] != value:
            raise ValueError(f"{name} is {known[name]!r}; only {value!r} is reproduced exactly")
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
    base = "audio_spectrogram_transformer."
    found: dict[str, Tensor] = {}
    for name, value in theirs.items():
        stem, _, leaf = name.rpartition(".")
        if name == f"{base}embeddings.position_embeddings":
            found["tokenizers.sound.position.table.weight"] = value[0, 2:]
        elif stem in OUTSIDE:
            matrix = rearrange(value, "d c p q -> d (c p q)") if value.dim() == 4 else value
            found[f"{OUTSIDE[stem]}.{leaf}"] = matrix
        elif stem.startswith(f"{base}encoder.layer."):
            layer, part = stem.removeprefix(f"{base}encoder.layer.").split(".", 1)
            found[f"cores.main.blocks.{layer}.{NAMES[part]}.{leaf}" if part in NAMES else name] = value
        elif leaf not in ("cls_token", "distillation_token"):
            found[name] = value
    try:
        first, second, position = (
            theirs[f"{base}embeddings.{name}"][0] for name in ("cls_token", "distillation_token", "position_embeddings")
        )
    except KeyError as error:
        raise ValueError(f"there is no tensor {error}") from None
    found["own.weight"] = position[:2].clone()
    found["own.weight"][:1] += first
    found["own.weight"][1:] += second
    return found
