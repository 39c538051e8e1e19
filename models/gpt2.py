"""GPT-2's weights under our names. Reference: the `GPT2LMHeadModel` of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

UNSUPPORTED = {
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "scale_attn_weights": True,
}
"""Options of a GPT-2 `config.json` that we reproduce only with this value."""
ACTIVATIONS = {
    "gelu_new": {"use": "gelu", "approximate": "tanh"},
    "gelu_pytorch_tanh": {"use": "gelu", "approximate": "tanh"},
    "gelu": {"use": "gelu", "approximate": "none"},
    "relu": {"use": "relu"},
}


def gpt2_experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `inputs`, `model` and `tasks` of our YAML for a GPT-2 `config.json`.

    Raises ValueError naming an option that we do not reproduce exactly; nothing is approximated.
    """
    for name, only in UNSUPPORTED.items():
        if config.get(name, only) != only:
            raise ValueError(f"config.json: {name} is {config[name]!r}; only {only!r} is reproduced exactly")
    activation = config.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise ValueError(f"config.json: activation_function is {activation!r}; possible: {', '.join(ACTIVATIONS)}")
    width, inner = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    tied = config.get("tie_word_embeddings", True)
    return {
        "inputs": {"text": {"use": "text", "encoding": "gpt2", "position": {"use": "learned", "length": config["n_positions"]}}},
        "model": {
            "width": width, "depth": config["n_layer"], "heads": config["n_head"], "context": config["n_positions"],
            "attention": "causal & same_sample",
            "block": {
                "norm": {"use": "layer_norm", "epsilon": config.get("layer_norm_epsilon", 1e-5)},
                "feed_forward": ACTIVATIONS[activation] | {"ratio": inner / width},
            },
            "dropout": {
                "embedding": config.get("embd_pdrop", 0.1), "attention": config.get("attn_pdrop", 0.1),
                "residual": config.get("resid_pdrop", 0.1),
            },
        },
        "tasks": {"lm": {"use": "language_modeling", "target": "text", "head": "tied" if tied else "unembedding"}},
    }  # fmt: skip


def gpt2_weights(theirs: Mapping[str, Tensor], tied: bool = True) -> dict[str, Tensor]:
    """GPT-2's tensors (with or without the `transformer.` prefix) under the keys of our `Mixture`.

    GPT-2 keeps matrices as (in, out) and queries, keys and values as one; ours are (out, in) and three. What has no place
    here stays under its own name.
    """
    found = {}
    for key, value in theirs.items():
        short = key.removeprefix("transformer.")
        if short.endswith((".attn.bias", ".attn.masked_bias")) or (short == "lm_head.weight" and tied):
            continue  # the causal mask as a buffer, and the tied head
        found |= _renamed(short, value) or {key: value}
    return found


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
