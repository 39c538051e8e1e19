"""Llama. The reference is `LlamaForCausalLM` of transformers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import (  # isort: skip
    BLOCK, HEADS, Architecture, At, Count, Depth, Epsilon, Heads, Id, Published, Rename, Share, Width, put, renames,
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
    """The options of the rotary embedding: the value of `rope_parameters` in newer versions of transformers."""

    rope_type: Literal["default"] = "default"
    rope_theta: Base | None = None


class Llama(Architecture):
    """The `config.json` of a Llama."""

    kinds = ("llama",)
    reference = "LlamaForCausalLM"

    yaml = {
        "inputs.text": {"use": "text", "position": None}, "model.attention": "causal & same_sample",
        "model.position.use": "rotary", "model.block": {"norm": {"use": "rms_norm"}, "bias": False},
        "model.block.feed_forward": {"use": "swiglu", "multiple_of": 1},
        "tasks.lm": {"use": "language_modeling", "target": "text"},
    }  # fmt: skip

    vocab_size: Annotated[Count, At("sizes.rows")] = 32000
    hidden_size: Annotated[Width, At("model.width")] = 4096
    intermediate_size: Annotated[Width, At("sizes.inner")] = 11008
    num_hidden_layers: Annotated[Depth, At("model.depth")] = 32
    num_attention_heads: Annotated[Heads, At("model.heads")] = 32
    num_key_value_heads: Annotated[Heads | None, At("model.block.key_value_heads")] = None
    head_dim: Annotated[Width | None, At("model.block.head_width")] = None
    hidden_act: Literal["silu"] = "silu"
    max_position_embeddings: Annotated[Count, At("model.context")] = 2048
    rms_norm_eps: Annotated[Epsilon, At("model.block.norm.epsilon")] = 1e-6
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    attention_dropout: Annotated[Share, At("model.dropout.attention")] = 0.0
    rope_theta: Annotated[Base | None, At("model.position.base")] = None
    rope_parameters: Rope | None = None
    rope_scaling: None = None
    tie_word_embeddings: Annotated[bool, At("tasks.lm.head.use", values=HEADS)] = False
    bos_token_id: Annotated[Id | None, At("legend.start")] = 1
    eos_token_id: Annotated[Id | list[Id] | None, At("legend.end")] = 2

    def tree(self):
        tree, rope = super().tree(), self.rope_parameters or Rope()
        put(tree, "model.position.base", rope.rope_theta or self.rope_theta or 10_000.0)
        return tree

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        rope = Rope(rope_theta=tree["model"]["position"]["base"])  # the format of newer versions of transformers
        return super().from_tree(tree, tensors, legend, {"rope_parameters": rope})

    def names(self):
        return [
            Rename("model.embed_tokens.weight", TABLE),
            Rename("lm_head.weight", TABLE if self.tie_word_embeddings else "heads.lm.linear.weight"),
            *renames("model.", "cores.main.", {"norm": "norm"}),
            *renames("model.layers.{layer}.", BLOCK, LAYER),
            Rename("model.layers.{layer}.self_attn.rotary_emb.inv_freq", ()),
        ]
