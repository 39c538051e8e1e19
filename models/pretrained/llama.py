"""Llama. Reference: transformers' `LlamaForCausalLM`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import (
    BLOCK,
    Architecture,
    Count,
    Depth,
    Epsilon,
    Heads,
    Id,
    Published,
    Rename,
    Share,
    Width,
    renames,
)  # fmt: skip

Base = Annotated[float, Field(gt=1, lt=1e12)]
TABLE = "tokenizers.text.embedding.weight"
LAYER = {
    "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key", "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out", "mlp.gate_proj": "feed_forward.gate", "mlp.up_proj": "feed_forward.up",
    "mlp.down_proj": "feed_forward.down", "input_layernorm": "add_attention.norm",
    "post_attention_layernorm": "add_feed_forward.norm",
}  # fmt: skip


class Rope(Published):
    """How positions turn queries and keys, where it stands in a record of its own."""

    rope_type: Literal["default"] = "default"
    rope_theta: Base | None = None


class Llama(Architecture):
    """A Llama's `config.json`."""

    kinds = ("llama",)
    reference = "LlamaForCausalLM"

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

    def tree(self):
        rope = self.rope_parameters or Rope()
        return {
            "inputs": {"text": {"use": "text", "position": None}},
            "model": {
                "width": self.hidden_size, "depth": self.num_hidden_layers, "heads": self.num_attention_heads,
                "context": self.max_position_embeddings, "attention": "causal & same_sample",
                "position": {"use": "rotary", "base": rope.rope_theta or self.rope_theta or 10_000.0},
                "block": {
                    "norm": {"use": "rms_norm", "epsilon": self.rms_norm_eps}, "bias": False,
                    "feed_forward": {"use": "swiglu", "ratio": self.intermediate_size / self.hidden_size, "multiple_of": 1},
                    "key_value_heads": self.num_key_value_heads, "head_width": self.head_dim,
                },
                "dropout": {"attention": self.attention_dropout},
            },
            "tasks": {"lm": {"use": "language_modeling", "target": "text",
                             "head": "tied" if self.tie_word_embeddings else "unembedding"}},
        }  # fmt: skip

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        model, block = tree["model"], tree["model"]["block"]
        base = model["position"]["base"]
        return cls(
            vocab_size=len(tensors[TABLE]), hidden_size=model["width"], num_hidden_layers=model["depth"],
            intermediate_size=len(tensors[f"{BLOCK}feed_forward.up.weight".format(layer=0)]),
            num_attention_heads=model["heads"], num_key_value_heads=block["key_value_heads"], head_dim=block["head_width"],
            max_position_embeddings=model["context"], rms_norm_eps=block["norm"]["epsilon"],
            attention_dropout=model["dropout"]["attention"], rope_theta=base, rope_parameters=Rope(rope_theta=base),
            tie_word_embeddings=tree["tasks"]["lm"]["head"]["use"] == "tied", bos_token_id=legend.start, eos_token_id=legend.end,
        )  # fmt: skip

    def names(self):
        return [
            Rename("model.embed_tokens.weight", TABLE),
            Rename("lm_head.weight", TABLE if self.tie_word_embeddings else "heads.lm.linear.weight"),
            *renames("model.", "cores.main.", {"norm": "norm"}),
            *renames("model.layers.{layer}.", BLOCK, LAYER),
            Rename("model.layers.{layer}.self_attn.rotary_emb.inv_freq", ()),
        ]
