"""T5's weights (versions 1.0 and 1.1) under our names. Reference: transformers' `T5ForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .renaming import renamed, require

EXACT = {"model_type": "t5", "feed_forward_proj": ("relu", "gated-gelu")}
FEED_FORWARD = {"DenseReluDense.wi": "feed_forward.up", "DenseReluDense.wi_0": "feed_forward.gate",
                "DenseReluDense.wi_1": "feed_forward.up", "DenseReluDense.wo": "feed_forward.down"}  # fmt: skip
SELF = {
    "layer.0.layer_norm": "add_attention.norm",
    **{f"layer.0.SelfAttention.{a}": f"attention.{b}" for a, b in zip("qkvo", ("query", "key", "value", "out"))},
}
CROSS = {"layer.1.layer_norm": "add_cross_attention.norm",
         **{f"layer.1.EncDecAttention.{a}": f"cross_attention.{b}" for a, b in zip("qkvo", ("query", "key", "value", "out"))}}  # fmt: skip


def _feed_forward(layer: int) -> dict[str, str]:
    return {f"layer.{layer}.layer_norm": "add_feed_forward.norm",
            **{f"layer.{layer}.{theirs}": ours for theirs, ours in FEED_FORWARD.items()}}  # fmt: skip


def t5_experiment(config: Mapping[str, Any], tied: bool, context: int = 512) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a T5 `config.json`; `tied` says whether the weights hold no head of
    their own. A T5 has no longest text: `context` is how many tokens are read, and written, at most.

    Raises ValueError naming an option that we do not reproduce exactly; nothing is approximated.
    """
    require(config, EXACT)
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    if scaled and not tied:
        raise ValueError("config.json: scaled outputs with a head of its own are not reproduced")
    width, kind = config["d_model"], config.get("feed_forward_proj", "relu")
    position = {"use": "relative_bias", "buckets": config.get("relative_attention_num_buckets", 32),
                "longest": config.get("relative_attention_max_distance", 128)}  # fmt: skip
    gated = {"use": "geglu", "multiple_of": 1} if kind == "gated-gelu" else {"use": "relu"}
    rate = config.get("dropout_rate", 0.1)
    return {
        "inputs": {"source": {"use": "text", "position": None}, "target": {"same_as": "source"}},
        "model": {
            "width": width, "depth": config.get("num_decoder_layers") or config["num_layers"],
            "heads": config["num_heads"], "context": context, "attention": "causal & same_sample",
            "position": position | {"bidirectional": False},
            "encoder": {"depth": config["num_layers"], "context": context, "position": position},
            "block": {
                "norm": {"use": "rms_norm", "epsilon": config.get("layer_norm_epsilon", 1e-6)}, "bias": False,
                "feed_forward": gated | {"ratio": config["d_ff"] / width}, "head_width": config["d_kv"], "scaled": False,
            },
            "dropout": {"embedding": rate, "attention": rate, "residual": rate},
        },
        "tasks": {"answer": {"use": "sequence_to_sequence", "target": "target",
                             "head": {"use": "tied", "scaled": scaled} if tied else "unembedding"}},
    }  # fmt: skip


def head_is_tied(theirs: Mapping[str, Tensor]) -> bool:
    """Whether the weights hold no head besides the embedding table."""
    return "lm_head.weight" not in theirs or torch.equal(
        theirs["lm_head.weight"], theirs.get("shared.weight", torch.zeros(0))
    )


def t5_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors under the keys of our `Mixture`. What has no place here stays under its own name."""
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias"
    outside = {
        "shared": "tokenizers.source.embedding", "encoder.final_layer_norm": "cores.encoder.norm",
        "decoder.final_layer_norm": "cores.main.norm", f"encoder.{bias}": "cores.encoder.position.table",
        f"decoder.{bias}": "cores.main.position.table",
    }  # fmt: skip
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias."  # in old checkpoints; read by nobody
    ignored = (
        "encoder.embed_tokens.",
        "decoder.embed_tokens.",
        unused,
        *(("lm_head.",) if head_is_tied(theirs) else ()),
    )
    outside |= {} if head_is_tied(theirs) else {"lm_head": "heads.answer.linear"}
    layers = {
        "encoder.block.": ("cores.encoder.blocks.", SELF | _feed_forward(1)),
        "decoder.block.": ("cores.main.blocks.", SELF | CROSS | _feed_forward(2)),
    }
    return renamed(theirs, outside, layers, ignored)
