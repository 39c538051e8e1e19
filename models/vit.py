"""Vision Transformers' weights under our names. Reference: timm's `VisionTransformer` (`vit_*`, `deit_*`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .renaming import renamed

PLAIN = {"patch_drop", "norm_pre", "attn_pool"}
"""Parts of a timm model that must be the identity (or absent) for us to reproduce it."""
NAMES = {
    "norm1": "add_attention.norm", "norm2": "add_feed_forward.norm", "ls1": "add_attention", "ls2": "add_feed_forward",
    "attn.query": "attention.query", "attn.key": "attention.key", "attn.value": "attention.value",
    "attn.q_norm": "attention.query_norm", "attn.k_norm": "attention.key_norm", "attn.proj": "attention.out",
    "mlp.fc1": "feed_forward.up", "mlp.fc2": "feed_forward.down",
}  # fmt: skip
OUTSIDE = {
    "patch_embed.proj": "tokenizers.image.embedding", "norm": "cores.main.norm", "fc_norm": "heads.label.pooling.norm",
    "head": "heads.label.linear",
}  # fmt: skip


def vit_experiment(
    model: nn.Module, mean: Sequence[float], deviation: Sequence[float], scale: Tensor | None = None
) -> dict[str, Any]:  # fmt: skip
    """The `inputs`, `model` and `tasks` of our YAML for a timm `VisionTransformer` (its weights do not matter, but for a
    layer scale's first value).

    Raises ValueError naming a part that we do not reproduce exactly; nothing is approximated.
    """
    for name in PLAIN:
        part = getattr(model, name, None)
        if part is not None and not isinstance(part, nn.Identity):
            raise ValueError(f"{name} is {type(part).__name__}; only models without it are reproduced exactly")
    if model.num_prefix_tokens != int(model.has_class_token) or model.global_pool not in ("token", "avg"):
        raise ValueError(
            f"global_pool {model.global_pool!r} with {model.num_prefix_tokens} prefix tokens is not reproduced"
        )
    block, patch = model.blocks[0], model.patch_embed
    if type(block).__name__ != "Block" or type(block.mlp.act) is not nn.GELU or patch.proj.bias is None:
        raise ValueError(
            f"blocks of {type(block).__name__} with {type(block.mlp.act).__name__} are not reproduced exactly"
        )
    if block.attn.qkv.bias is None:
        raise ValueError("queries without a bias are not reproduced where other matrices have one")
    norm = {"use": "layer_norm", "epsilon": block.norm1.eps}
    scaled = hasattr(block.ls1, "gamma")
    after = isinstance(model.fc_norm, nn.LayerNorm)
    pooling: Any = (
        "class_token" if model.global_pool == "token" else {"use": "mean_pooling"} | ({"norm": norm} if after else {})
    )
    size = list(patch.img_size)
    options = {
        "norm": norm, "bias": True,
        "feed_forward": {"use": "gelu", "approximate": "none", "ratio": block.mlp.fc1.out_features / model.embed_dim},
        "query_key_norm": norm if isinstance(block.attn.q_norm, nn.LayerNorm) else None,
        "residual": {"use": "pre_norm", "layer_scale": (1.0 if scale is None else float(scale[0])) if scaled else None},
    }  # fmt: skip
    tokens = patch.num_patches + model.num_prefix_tokens
    return {
        "inputs": {"image": {"use": "image", "patch_size": patch.patch_size[0], "size": size, "channels": patch.proj.in_channels,
                             "mean": list(mean), "deviation": list(deviation)}},
        "model": {
            "width": model.embed_dim, "depth": len(model.blocks), "heads": block.attn.num_heads, "context": tokens,
            "own_tokens": model.num_prefix_tokens, "attention": "same_sample", "block": options,
            "final_norm": isinstance(model.norm, nn.LayerNorm),
        },
        "tasks": {"label": {"use": "classification", "target": "label", "pooling": pooling}},
    }  # fmt: skip


def vit_weights(theirs: Mapping[str, Tensor], class_has_position: bool = True) -> dict[str, Tensor]:
    """timm's tensors under the keys of our `Mixture`. What has no place here stays under its own name.

    The class token and its position (DeiT III gives it none) are one vector of ours; a patch's convolution is a matrix;
    queries, keys and values are three.
    """
    position, parts = theirs["pos_embed"][0], {}
    for name, value in theirs.items():
        stem, _, leaf = name.rpartition(".")
        if stem.endswith(".qkv"):
            pieces = zip(("query", "key", "value"), torch.chunk(value, 3))
            parts |= {f"{stem.removesuffix('qkv')}{each}.{leaf}": piece for each, piece in pieces}
        else:
            parts[f"{stem}.scale" if leaf == "gamma" else name] = value
    found = renamed(parts, OUTSIDE, {"blocks.": ("cores.main.blocks.", NAMES)}, ignored=("cls_token", "pos_embed"))
    patches = "tokenizers.image.embedding.weight"
    if patches in found:
        found[patches] = rearrange(found[patches], "d c p q -> d (c p q)")
    prefix = int("cls_token" in theirs and class_has_position)
    if "cls_token" in theirs:
        found["own.weight"] = theirs["cls_token"][0] + position[:prefix].sum(0)
    found["tokenizers.image.position.table.weight"] = position[prefix:]
    return found
