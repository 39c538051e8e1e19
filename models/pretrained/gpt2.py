"""GPT-2. Reference: the `GPT2LMHeadModel` of Hugging Face transformers."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from .base import BLOCK, HEADS, Architecture, At, Count, Depth, Epsilon, Heads, Id, Rename, Share, Width, renames

ACTIVATIONS = {
    "gelu_new": {"use": "gelu", "approximate": "tanh"},
    "gelu_pytorch_tanh": {"use": "gelu", "approximate": "tanh"},
    "gelu": {"use": "gelu", "approximate": "none"},
    "relu": {"use": "relu"},
}
BASE = "[transformer.]"
TABLE, POSITIONS = "tokenizers.text.embedding.weight", "tokenizers.text.position.table.weight"


def transposed(value: Tensor) -> Tensor:
    """Returns a matrix transposed: GPT-2 stores (in, out), our model (out, in). Returns a bias unchanged."""
    return value.T if value.dim() == 2 else value


class Gpt2Blocks(Architecture):
    """The fields of `config.json` that describe the transformer blocks of GPT-2. Base class of the architectures with
    these blocks: GPT-2 and the Decision Transformer."""

    n_layer: Annotated[Depth, At("model.depth")] = 12
    n_head: Annotated[Heads, At("model.heads")] = 12
    n_inner: Annotated[Width | None, At("sizes.inner")] = None
    activation_function: Annotated[
        Literal["gelu_new", "gelu_pytorch_tanh", "gelu", "relu"], At("model.block.feed_forward", values=ACTIVATIONS)
    ] = "gelu_new"
    resid_pdrop: Annotated[Share, At("model.dropout.residual")] = 0.1
    embd_pdrop: Annotated[Share, At("model.dropout.embedding")] = 0.1
    attn_pdrop: Annotated[Share, At("model.dropout.attention")] = 0.1
    layer_norm_epsilon: Annotated[Epsilon, At("model.block.norm.epsilon")] = 1e-5
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    add_cross_attention: Literal[False] = False


class Gpt2(Gpt2Blocks):
    """The `config.json` of a GPT-2."""

    kinds = ("gpt2",)
    reference = "GPT2LMHeadModel"

    yaml = {
        "inputs.text": {"use": "text", "position": {"use": "learned"}}, "model.attention": "causal & same_sample",
        "model.block.norm.use": "layer_norm", "tasks.lm": {"use": "language_modeling", "target": "text"},
    }  # fmt: skip

    vocab_size: Annotated[Count, At("sizes.rows")] = 50257
    n_positions: Annotated[Count, At("sizes.places", "inputs.text.position.length", "model.context")] = 1024
    n_embd: Annotated[Width, At("model.width")] = 768
    tie_word_embeddings: Annotated[bool, At("tasks.lm.head.use", values=HEADS)] = True
    bos_token_id: Annotated[Id | None, At("legend.start")] = 50256
    eos_token_id: Annotated[Id | list[Id] | None, At("legend.end")] = 50256

    def names(self):
        return [
            Rename(f"{BASE}wte.weight", TABLE),
            Rename(f"{BASE}wpe.weight", POSITIONS),
            Rename("lm_head.weight", TABLE if self.tie_word_embeddings else "heads.lm.linear.weight"),
            *gpt2_blocks(BASE),
        ]


def gpt2_blocks(base: str) -> list[Rename]:
    """Returns the lines of the table for the blocks and the final norm. `base` is the prefix of their names."""
    theirs, parts = base + "h.{layer}.", ("query", "key", "value")
    return [
        *renames(base, "cores.main.", {"ln_f": "norm"}),
        *renames(theirs, BLOCK, {"ln_1": "add_attention.norm", "ln_2": "add_feed_forward.norm"}),
        *renames(theirs, BLOCK, {"attn.c_proj": "attention.out", "mlp.c_fc": "feed_forward.up",
                                 "mlp.c_proj": "feed_forward.down"}, transposed, transposed),
        Rename(theirs + "attn.c_attn.{leaf}", tuple(f"{BLOCK}attention.{part}.{{leaf}}" for part in parts),
               lambda fused: transposed(fused).chunk(3), lambda *three: transposed(torch.cat(three))),
        Rename(theirs + "attn.bias", ()),  # the causal mask as a buffer
        Rename(theirs + "attn.masked_bias", ()),
    ]  # fmt: skip
