"""GPT-2. Reference: the `GPT2LMHeadModel` of Hugging Face transformers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .base import BLOCK, Architecture, Count, Depth, Epsilon, Heads, Id, Rename, Share, Width, renames

ACTIVATIONS = {
    "gelu_new": {"use": "gelu", "approximate": "tanh"},
    "gelu_pytorch_tanh": {"use": "gelu", "approximate": "tanh"},
    "gelu": {"use": "gelu", "approximate": "none"},
    "relu": {"use": "relu"},
}
BASE = "[transformer.]"
TABLE, POSITIONS = "tokenizers.text.embedding.weight", "tokenizers.text.position.table.weight"


def turned(value: Tensor) -> Tensor:
    """A matrix as (in, out), as GPT-2 keeps it, or as (out, in); a bias as it is."""
    return value.T if value.dim() == 2 else value


class Gpt2(Architecture):
    """A GPT-2's `config.json`."""

    kinds = ("gpt2",)
    reference = "GPT2LMHeadModel"

    vocab_size: Count = 50257
    n_positions: Count = 1024
    n_embd: Width = 768
    n_layer: Depth = 12
    n_head: Heads = 12
    n_inner: Width | None = None
    activation_function: Literal["gelu_new", "gelu_pytorch_tanh", "gelu", "relu"] = "gelu_new"
    resid_pdrop: Share = 0.1
    embd_pdrop: Share = 0.1
    attn_pdrop: Share = 0.1
    layer_norm_epsilon: Epsilon = 1e-5
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    add_cross_attention: Literal[False] = False
    tie_word_embeddings: bool = True
    bos_token_id: Id | None = 50256
    eos_token_id: Id | list[Id] | None = 50256

    def tree(self):
        inner = self.n_inner or 4 * self.n_embd
        return {
            "inputs": {"text": {"use": "text", "position": {"use": "learned", "length": self.n_positions}}},
            "model": {
                "width": self.n_embd, "depth": self.n_layer, "heads": self.n_head, "context": self.n_positions,
                "attention": "causal & same_sample",
                "block": {
                    "norm": {"use": "layer_norm", "epsilon": self.layer_norm_epsilon},
                    "feed_forward": ACTIVATIONS[self.activation_function] | {"ratio": inner / self.n_embd},
                },
                "dropout": {"embedding": self.embd_pdrop, "attention": self.attn_pdrop, "residual": self.resid_pdrop},
            },
            "tasks": {"lm": {"use": "language_modeling", "target": "text",
                             "head": "tied" if self.tie_word_embeddings else "unembedding"}},
        }  # fmt: skip

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        model, dropout, block = tree["model"], tree["model"]["dropout"], tree["model"]["block"]
        used = block["feed_forward"].items()
        return cls(
            vocab_size=len(tensors[TABLE]), n_positions=len(tensors[POSITIONS]), n_embd=model["width"], n_layer=model["depth"],
            n_head=model["heads"], n_inner=len(tensors[f"{BLOCK}feed_forward.up.weight".format(layer=0)]),
            activation_function=next((name for name, each in ACTIVATIONS.items() if each.items() <= used), "gelu_new"),
            resid_pdrop=dropout["residual"], embd_pdrop=dropout["embedding"], attn_pdrop=dropout["attention"],
            layer_norm_epsilon=block["norm"]["epsilon"], tie_word_embeddings=tree["tasks"]["lm"]["head"]["use"] == "tied",
            bos_token_id=legend.start, eos_token_id=legend.end,
        )  # fmt: skip

    def names(self):
        theirs, parts = BASE + "h.{layer}.", ("query", "key", "value")
        return [
            Rename(f"{BASE}wte.weight", TABLE),
            Rename(f"{BASE}wpe.weight", POSITIONS),
            Rename("lm_head.weight", TABLE if self.tie_word_embeddings else "heads.lm.linear.weight"),
            *renames(BASE, "cores.main.", {"ln_f": "norm"}),
            *renames(theirs, BLOCK, {"ln_1": "add_attention.norm", "ln_2": "add_feed_forward.norm"}),
            *renames(theirs, BLOCK, {"attn.c_proj": "attention.out", "mlp.c_fc": "feed_forward.up",
                                     "mlp.c_proj": "feed_forward.down"}, turned, turned),
            Rename(theirs + "attn.c_attn.{leaf}", tuple(f"{BLOCK}attention.{part}.{{leaf}}" for part in parts),
                   lambda fused: turned(fused).chunk(3), lambda *three: turned(torch.cat(three))),
            Rename(theirs + "attn.bias", ()),  # the causal mask as a buffer
            Rename(theirs + "attn.masked_bias", ()),
        ]  # fmt: skip
