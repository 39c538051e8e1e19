"""Llama's weights under our names. Reference: transformers' `LlamaForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from .described import Count, Depth, Described, Epsilon, Heads, Id, Share, Width
from .renaming import Weights, renamed

Base = Annotated[float, Field(gt=1, lt=1e12)]
LAYER = {
    "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key", "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out", "mlp.gate_proj": "feed_forward.gate", "mlp.up_proj": "feed_forward.up",
    "mlp.down_proj": "feed_forward.down", "input_layernorm": "add_attention.norm",
    "post_attention_layernorm": "add_feed_forward.norm",
}  # fmt: skip


class Rope(Described):
    """How positions turn queries and keys, where it stands in a record of its own."""

    rope_type: Literal["default"] = "default"
    rope_theta: Base | None = None


class Llama(Described):
    """A Llama's `config.json`."""

    vocab_size: Count = 32000
    hidden_size: Width = 4096
    intermediate_size: Width = 11008
    num_hidden_layers: Depth = 32
    num_attention_heads: Heads = 32
    num_key_value_heads: Heads | None = None
    head_dim: Width | None = None
    hidden_act: Literal["silu"] = "silu"
    max_position_embeddings: Count = 2048
    rms_norm_eps: Epsilon = 1e-6
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    attention_dropout: Share = 0.0
    rope_theta: Base | None = None
    rope_parameters: Rope | None = None
    rope_scaling: None = None
    tie_word_embeddings: bool = False
    bos_token_id: Id | None = 1
    eos_token_id: Id | list[Id] | None = 2


def llama_experiment(config: Llama) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a Llama."""
    rope = config.rope_parameters or Rope()
    return {
        "inputs": {"text": {"use": "text", "position": None}},
        "model": {
            "width": config.hidden_size, "depth": config.num_hidden_layers, "heads": config.num_attention_heads,
            "context": config.max_position_embeddings, "attention": "causal & same_sample",
            "position": {"use": "rotary", "base": rope.rope_theta or config.rope_theta or 10_000.0},
            "block": {
                "norm": {"use": "rms_norm", "epsilon": config.rms_norm_eps}, "bias": False,
                "feed_forward": {"use": "swiglu", "ratio": config.intermediate_size / config.hidden_size, "multiple_of": 1},
                "key_value_heads": config.num_key_value_heads or config.num_attention_heads, "head_width": config.head_dim,
            },
            "dropout": {"attention": config.attention_dropout},
        },
        "tasks": {"lm": {"use": "language_modeling", "target": "text",
                         "head": "tied" if config.tie_word_embeddings else "unembedding"}},
    }  # fmt: skip


def llama_weights(theirs: Mapping[str, Tensor], config: Llama) -> Weights:
    """transformers' tensors under the keys of our `Model`."""
    outside = {"model.embed_tokens": "tokenizers.text.embedding", "model.norm": "cores.main.norm"}
    copies = {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {}
    outside |= {} if copies else {"lm_head": "heads.lm.linear"}
    layers = {"model.layers.": ("cores.main.blocks.", LAYER)}
    return renamed(theirs, outside, layers, copies=copies, computed=(".rotary_emb.inv_freq",))
