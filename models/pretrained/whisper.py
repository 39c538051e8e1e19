"""Whisper's weights under our names. Reference: transformers' `WhisperForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..layers.positions import SinesThenCosines
from .described import Count, Depth, Described, Heads, Id, Share, Width
from .renaming import Weights, renamed

ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
LAYER = {
    **{f"self_attn.{theirs}": f"attention.{ours}" for theirs, ours in ATTENTION.items()},
    "self_attn_layer_norm": "add_attention.norm", "fc1": "feed_forward.up", "fc2": "feed_forward.down",
    "final_layer_norm": "add_feed_forward.norm",
}  # fmt: skip
CROSS = {
    **{f"encoder_attn.{theirs}": f"cross_attention.{ours}" for theirs, ours in ATTENTION.items()},
    "encoder_attn_layer_norm": "add_cross_attention.norm",
}
OUTSIDE = {
    "model.encoder.conv1": "tokenizers.sound.first", "model.encoder.conv2": "tokenizers.sound.second",
    "model.encoder.layer_norm": "cores.encoder.norm", "model.encoder.embed_positions": "waves",
    "model.decoder.embed_tokens": "tokenizers.text.embedding", "model.decoder.layer_norm": "cores.main.norm",
    "model.decoder.embed_positions": "tokenizers.text.position.table",
}  # fmt: skip


class Whisper(Described):
    """A Whisper's `config.json`."""

    vocab_size: Count = 51865
    num_mel_bins: Annotated[int, Field(ge=1, le=512)] = 80
    d_model: Width = 384
    encoder_layers: Depth = 4
    decoder_layers: Depth = 4
    encoder_attention_heads: Heads = 6
    decoder_attention_heads: Heads = 6
    encoder_ffn_dim: Width = 1536
    decoder_ffn_dim: Width = 1536
    max_source_positions: Count = 1500
    max_target_positions: Count = 448
    activation_function: Literal["gelu"] = "gelu"
    scale_embedding: Literal[False] = False
    tie_word_embeddings: Literal[True] = True
    dropout: Share = 0.0
    attention_dropout: Share = 0.0
    suppress_tokens: list[Id] | None = None
    begin_suppress_tokens: list[Id] | None = None


def whisper_experiment(config: Whisper) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a Whisper. Raises ValueError where its two sides differ in what they must
    have in common."""
    for name in ("attention_heads", "ffn_dim"):
        if getattr(config, f"encoder_{name}") != getattr(config, f"decoder_{name}"):
            raise ValueError(f"config.json: encoder_{name} and decoder_{name} differ; not reproduced")
    seconds = config.max_source_positions * 0.02
    return {
        "inputs": {
            "sound": {"use": "audio_stem", "mels": config.num_mel_bins, "fill": seconds, "longest": seconds},
            "text": {"use": "text"},
        },
        "model": {
            "width": config.d_model, "depth": config.decoder_layers, "heads": config.decoder_attention_heads,
            "context": config.max_target_positions, "attention": "causal & same_sample",
            "encoder": {"depth": config.encoder_layers, "context": config.max_source_positions},
            "block": {"feed_forward": {"use": "gelu", "approximate": "none", "ratio": config.decoder_ffn_dim / config.d_model}},
            "dropout": {"embedding": config.dropout, "attention": config.attention_dropout, "residual": config.dropout},
        },
        "tasks": {"text": {"use": "sequence_to_sequence", "target": "text", "metrics": ["wer"]}},
    }  # fmt: skip


def whisper_weights(theirs: Mapping[str, Tensor]) -> Weights:
    """transformers' tensors under the keys of our `Model`.

    Whisper's keys have no bias; ours is zero (it would add the same to all of a query's scores, and change nothing). Raises
    ValueError for encoder positions that are not the fixed waves.
    """
    layers = {
        "model.encoder.layers.": ("cores.encoder.blocks.", LAYER),
        "model.decoder.layers.": ("cores.main.blocks.", LAYER | CROSS),
    }
    found, unread = renamed(theirs, OUTSIDE, layers, copies={"proj_out.weight": "model.decoder.embed_tokens.weight"})
    waves = found.pop("waves.weight", None)
    if waves is not None:
        expected = SinesThenCosines(waves.shape[1], len(waves)).table
        tolerance = max(1e-3, torch.finfo(waves.dtype).eps)  # bfloat16 rounds them to 0.004
        if not torch.allclose(waves.float(), expected, atol=tolerance):
            raise ValueError("model.encoder.embed_positions are not the fixed sines and cosines; not reproduced")
    for name in [name for name in found if name.endswith(".key.weight")]:
        found[name.replace(".key.weight", ".key.bias")] = found[name].new_zeros(len(found[name]))
    return Weights(found, unread)
