"""Vision Transformers' weights under our names. Reference: timm's `VisionTransformer` (`vit_*`, `deit_*`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from einops import rearrange
from pydantic import ConfigDict, Field, FiniteFloat
from torch import Tensor, nn

from .described import Depth, Described, Heads, Share, Width
from .renaming import Weights, renamed

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


Side = Annotated[int, Field(ge=1, le=2**14)]


class VitArguments(Described):
    """What a timm directory's `model_args` may change of an architecture; anything else is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    img_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    patch_size: Side | None = None
    in_chans: Annotated[int, Field(ge=1, le=16)] | None = None
    embed_dim: Width | None = None
    depth: Depth | None = None
    num_heads: Heads | None = None
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] | None = None
    qkv_bias: bool | None = None
    qk_norm: bool | None = None
    init_values: FiniteFloat | None = None
    class_token: bool | None = None
    no_embed_class: bool | None = None
    reg_tokens: Annotated[int, Field(ge=0, le=4096)] | None = None
    pre_norm: bool | None = None
    final_norm: bool | None = None
    fc_norm: bool | None = None
    global_pool: Literal["", "token", "avg"] | None = None
    drop_rate: Share | None = None
    pos_drop_rate: Share | None = None
    patch_drop_rate: Share | None = None
    proj_drop_rate: Share | None = None
    attn_drop_rate: Share | None = None
    drop_path_rate: Share | None = None
    dynamic_img_size: bool | None = None


class VitData(Described):
    """How its images are prepared: `pretrained_cfg`. What it does not say is as timm's `PretrainedCfg` has it."""

    mean: Annotated[list[FiniteFloat], Field(min_length=1, max_length=16)] = [0.485, 0.456, 0.406]
    std: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=1, max_length=16)] = [
        0.229,
        0.224,
        0.225,
    ]
    crop_pct: Annotated[float, Field(ge=0.01, le=1)] = 0.875
    crop_mode: Literal["center", "squash"] = "center"
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bicubic"
    num_classes: Annotated[int, Field(ge=0, le=2**24)] | None = None
    label_names: list[str] | None = None


class Vit(Described):
    """A timm directory's `config.json`."""

    architecture: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    num_classes: Annotated[int, Field(ge=0, le=2**24)] | None = None
    global_pool: Literal["", "token", "avg"] | None = None
    model_args: VitArguments = VitArguments()
    pretrained_cfg: VitData | None = None
    """None: as timm prepares images for this architecture."""
    label_names: list[str] | None = None

    @property
    def classes(self) -> int:
        """How many classes there are."""
        own = self.num_classes
        if own is None and self.pretrained_cfg is not None:
            own = self.pretrained_cfg.num_classes
        return 1000 if own is None else own

    def arguments(self) -> dict[str, Any]:
        """What timm is given to make the model."""
        given = {name: value for name, value in self.model_args.model_dump().items() if value is not None}
        pool = {} if self.global_pool is None else {"global_pool": self.global_pool}
        return {"num_classes": self.classes, **given, **pool}


def vit_experiment(model: nn.Module, data: VitData, scale: Tensor | None = None) -> dict[str, Any]:
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
                             "mean": data.mean, "std": data.std, "crop": data.crop_pct, "interpolation": data.interpolation,
                             "fit_size": "crop" if data.crop_mode == "center" else "resize"}},
        "model": {
            "width": model.embed_dim, "depth": len(model.blocks), "heads": block.attn.num_heads, "context": tokens,
            "core_tokens": model.num_prefix_tokens, "attention": "same_sample", "block": options,
            "final_norm": isinstance(model.norm, nn.LayerNorm),
        },
        "tasks": {"label": {"use": "classification", "target": "label", "pooling": pooling}},
    }  # fmt: skip


def vit_weights(theirs: Mapping[str, Tensor], class_has_position: bool = True) -> Weights:
    """timm's tensors under the keys of our `Model`. What has no place here stays under its own name.

    The class token and its position (DeiT III gives it none) are one vector of ours; a patch's convolution is a matrix;
    queries, keys and values are three.
    """
    if "pos_embed" not in theirs:
        raise ValueError("there is no tensor 'pos_embed'")
    position, parts = theirs["pos_embed"][0], {}
    for name, value in theirs.items():
        stem, _, leaf = name.rpartition(".")
        if stem.endswith(".qkv"):
            pieces = zip(("query", "key", "value"), torch.chunk(value, 3))
            parts |= {f"{stem.removesuffix('qkv')}{each}.{leaf}": piece for each, piece in pieces}
        else:
            parts[f"{stem}.scale" if leaf == "gamma" else name] = value
    parts = {name: value for name, value in parts.items() if name not in ("cls_token", "pos_embed")}
    found, _ = renamed(parts, OUTSIDE, {"blocks.": ("cores.main.blocks.", NAMES)})
    patches = "tokenizers.image.embedding.weight"
    if patches in found:
        found[patches] = rearrange(found[patches], "d c p q -> d (c p q)")
    prefix = int("cls_token" in theirs and class_has_position)
    if "cls_token" in theirs:
        found["own.weight"] = theirs["cls_token"][0] + position[:prefix].sum(0)
    found["tokenizers.image.position.table.weight"] = position[prefix:]
    return Weights(found)
