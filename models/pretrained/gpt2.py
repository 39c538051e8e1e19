"""GPT-2's weights under our names. Reference: the `GPT2LMHeadModel` of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from .described import Count, Depth, Described, Epsilon, Heads, Id, Share, Width
from .renaming import Weights

ACTIVATIONS = {
    "gelu_new": {"use": "gelu", "approximate": "tanh"},
    "gelu_pytorch_tanh": {"use": "gelu", "approximate": "tanh"},
    "gelu": {"use": "gelu", "approximate": "none"},
    "relu": {"use": "relu"},
}


class Gpt2(Described):
    """A GPT-2's `config.json`."""

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


def gpt2_experiment(config: Gpt2) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a GPT-2."""
    inner = config.n_inner or 4 * config.n_embd
    return {
        "inputs": {"text": {"use": "text", "position": {"use": "learned", "length": config.n_positions}}},
        "model": {
            "width": config.n_embd, "depth": config.n_layer, "heads": config.n_head, "context": config.n_positions,
            "attention": "causal & same_sample",
            "block": {
                "norm": {"use": "layer_norm", "epsilon": config.layer_norm_epsilon},
                "feed_forward": ACTIVATIONS[config.activation_function] | {"ratio": inner / config.n_embd},
            },
            "dropout": {"embedding": config.embd_pdrop, "attention": config.attn_pdrop, "residual": config.resid_pdrop},
        },
        "tasks": {"lm": {"use": "language_modeling", "target": "text",
                         "head": "tied" if config.tie_word_embeddings else "unembedding"}},
    }  # fmt: skip


def gpt2_weights(theirs: Mapping[str, Tensor], tied: bool = True) -> Weights:
    """GPT-2's tensors (with or without the `transformer.` prefix) under the keys of our `Model`.

    GPT-2 keeps matrices as (in, out) and queries, keys and values as one; ours are (out, in) and three. Raises ValueError for a
    tied head that differs from the table.
    """
    plain = {key.removeprefix("transformer."): value for key, value in theirs.items()}
    table, head = plain.get("wte.weight"), plain.pop("lm_head.weight", None) if tied else None
    if table is not None and head is not None and not torch.equal(table, head):
        raise ValueError("lm_head.weight differs from wte.weight, of which it should be a copy; not reproduced")
    found = {}
    for key, value in plain.items():
        if not key.endswith((".attn.bias", ".attn.masked_bias")):  # the causal mask as a buffer
            found |= _renamed(key, value) or {key: value}
    return Weights(found)


OUTER = {
    "wte.weight": "tokenizers.text.embedding.weight",
    "wpe.weight": "tokenizers.text.position.table.weight",
    "ln_f.weight": "cores.main.norm.weight",
    "ln_f.bias": "cores.main.norm.bias",
    "lm_head.weight": "heads.lm.linear.weight",
}
NORMS = {"ln_1": "add_attention.norm", "ln_2": "add_feed_forward.norm"}
MATRICES = {"attn.c_proj": "attention.out", "mlp.c_fc": "feed_forward.up", "mlp.c_proj": "feed_forward.down"}


def _renamed(short: str, value: Tensor) -> dict[str, Tensor]:
    """One GPT-2 tensor under our name, or as three; nothing when it is not known."""
    if short in OUTER:
        return {OUTER[short]: value}
    if not short.startswith("h."):
        return {}
    _, layer, rest = short.split(".", 2)
    inner, _, leaf = rest.rpartition(".")
    block = f"cores.main.blocks.{layer}"
    if inner in NORMS:
        return {f"{block}.{NORMS[inner]}.{leaf}": value}
    turned = value.T if value.dim() == 2 else value
    if inner in MATRICES:
        return {f"{block}.{MATRICES[inner]}.{leaf}": turned}
    if inner == "attn.c_attn":
        return {f"{block}.attention.{name}.{leaf}": t for name, t in zip(("query", "key", "value"), turned.chunk(3))}
    return {}
