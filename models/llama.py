"""Llama's weights under our names. Reference: transformers' `LlamaForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .renaming import renamed, require

EXACT = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "rope_scaling": None}
LAYER = {
    "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key", "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out", "mlp.gate_proj": "feed_forward.gate", "mlp.up_proj": "feed_forward.up",
    "mlp.down_proj": "feed_forward.down", "input_layernorm": "add_attention.norm",
    "post_attention_layernorm": "add_feed_forward.norm",
}  # fmt: skip


def llama_experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a Llama `config.json`.

    Raises ValueError naming an option that we do not reproduce exactly; nothing is approximated.
    """
    require(config, EXACT)
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"config.json: rope_type is {rope['rope_type']!r}; only 'default' is reproduced exactly")
    width, heads = config["hidden_size"], config["num_attention_heads"]
    base = rope.get("rope_theta", config.get("rope_theta", 10_000.0))
    return {
        "inputs": {"text": {"use": "text", "position": None}},
        "model": {
            "width": width, "depth": config["num_hidden_layers"], "heads": heads,
            "context": config.get("max_position_embeddings", 2048), "attention": "causal & same_sample",
            "position": {"use": "rotary", "base": base},
            "block": {
                "norm": {"use": "rms_norm", "epsilon": config.get("rms_norm_eps", 1e-6)}, "bias": False,
                "feed_forward": {"use": "swiglu", "ratio": config["intermediate_size"] / width, "multiple_of": 1},
                "key_value_heads": config.get("num_key_value_heads") or heads, "head_width": config.get("head_dim"),
            },
            "dropout": {"attention": config.get("attention_dropout", 0.0)},
        },
        "tasks": {"lm": {"use": "language_modeling", "target": "text",
                         "head": "tied" if config.get("tie_word_embeddings", False) else "unembedding"}},
    }  # fmt: skip


def llama_weights(theirs: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """transformers' tensors under the keys of our `Mixture`. What has no place here stays under its own name."""
    theirs = {key: value for key, value in theirs.items() if not key.endswith(".rotary_emb.inv_freq")}  # computed here
    outside = {"model.embed_tokens": "tokenizers.text.embedding", "model.norm": "cores.main.norm"}
    tied = config.get("tie_word_embeddings", False)
    outside |= {} if tied else {"lm_head": "heads.lm.linear"}
    ignored = ("lm_head.",) if tied else ()
    return renamed(theirs, outside, {"model.layers.": ("cores.main.blocks.", LAYER)}, ignored)
