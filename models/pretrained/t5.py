"""T5's weights (versions 1.0 and 1.1) under our names. Reference: transformers' `T5ForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from .described import Count, Depth, Described, Epsilon, Heads, Id, Share, Width
from .renaming import Weights, renamed

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


class T5(Described):
    """A T5's `config.json`."""

    model_type: Literal["t5"] = "t5"
    vocab_size: Count = 32128
    d_model: Width = 512
    d_kv: Width = 64
    d_ff: Width = 2048
    num_layers: Depth = 6
    num_decoder_layers: Depth | None = None
    num_heads: Heads = 8
    relative_attention_num_buckets: Count = 32
    relative_attention_max_distance: Count = 128
    dropout_rate: Share = 0.1
    layer_norm_epsilon: Epsilon = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu"] = "relu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None
    pad_token_id: Id | None = 0
    decoder_start_token_id: Id | None = None
    eos_token_id: Id | list[Id] | None = 1


def t5_experiment(config: T5, tied: bool, context: int = 512) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a T5; `tied` says whether the weights hold no head of their own. A T5 has
    no longest text: `context` is how many tokens are read, and written, at most.

    Raises ValueError for scaled outputs with a head of their own.
    """
    scaled = config.tie_word_embeddings if config.scale_decoder_outputs is None else config.scale_decoder_outputs
    if scaled and not tied:
        raise ValueError("config.json: scaled outputs with a head of its own are not reproduced")
    width, rate = config.d_model, config.dropout_rate
    position = {"use": "relative_bias", "buckets": config.relative_attention_num_buckets,
                "longest": config.relative_attention_max_distance}  # fmt: skip
    gated = {"use": "geglu", "multiple_of": 1} if config.feed_forward_proj == "gated-gelu" else {"use": "relu"}
    return {
        "inputs": {"source": {"use": "text", "position": None}, "target": {"same_as": "source"}},
        "model": {
            "width": width, "depth": config.num_decoder_layers or config.num_layers,
            "heads": config.num_heads, "context": context, "attention": "causal & same_sample",
            "position": position | {"bidirectional": False},
            "encoder": {"depth": config.num_layers, "context": context, "position": position},
            "block": {
                "norm": {"use": "rms_norm", "epsilon": config.layer_norm_epsilon}, "bias": False,
                "feed_forward": gated | {"ratio": config.d_ff / width}, "head_width": config.d_kv, "scaled": False,
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


def t5_weights(theirs: Mapping[str, Tensor]) -> Weights:
    """transformers' tensors under the keys of our `Model`."""
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias"
    outside = {
        "shared": "tokenizers.source.embedding", "encoder.final_layer_norm": "cores.encoder.norm",
        "decoder.final_layer_norm": "cores.main.norm", f"encoder.{bias}": "cores.encoder.position.table",
        f"decoder.{bias}": "cores.main.position.table",
    }  # fmt: skip
    copies = {"encoder.embed_tokens.weight": "shared.weight", "decoder.embed_tokens.weight": "shared.weight"}
    copies |= {"lm_head.weight": "shared.weight"} if head_is_tied(theirs) else {}
    outside |= {} if head_is_tied(theirs) else {"lm_head": "heads.answer.linear"}
    layers = {
        "encoder.block.": ("cores.encoder.blocks.", SELF | _feed_forward(1)),
        "decoder.block.": ("cores.main.blocks.", SELF | CROSS | _feed_forward(2)),
    }
    old = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias."  # in the first checkpoints; read by nobody
    return renamed(theirs, outside, layers, copies=copies, unread=(old,))
