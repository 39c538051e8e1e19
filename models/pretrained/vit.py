"""Vision Transformers. The models give the outputs of `VisionTransformer` of timm (`vit_*`, `deit_*`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, FiniteFloat

from .base import BLOCK, Architecture, Depth, Epsilon, Heads, Published, Rename, Share, Width, patches, renames

LAYER = {
    "norm1": "add_attention.norm", "norm2": "add_feed_forward.norm", "attn.q_norm": "attention.query_norm",
    "attn.k_norm": "attention.key_norm", "attn.proj": "attention.out", "mlp.fc1": "feed_forward.up",
    "mlp.fc2": "feed_forward.down",
}  # fmt: skip
ENDS = {"norm": "cores.main.norm", "fc_norm": "heads.label.pooling.norm", "head": "heads.label.linear"}
POSITIONS, PREFIX = "tokenizers.image.position.table.weight", "own.weight"
PLAIN = "vit_base_patch16_224"
"""The architecture name of exported models. Their `model_args` contain all differences from this architecture."""
Side = Annotated[int, Field(ge=1, le=2**14)]
PerChannel = Field(min_length=1, max_length=16)


class VitArguments(Published):
    """The arguments that `model_args` in a `config.json` of timm can change. Any other argument raises an error. None:
    not changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    img_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    patch_size: Side | None = None
    in_chans: Annotated[int, Field(ge=1, le=16)] | None = None
    num_classes: Annotated[int, Field(ge=0, le=2**24)] | None = None
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


class VitData(Published):
    """The preparation of images: the value of `pretrained_cfg`, with the defaults of `PretrainedCfg` in timm."""

    mean: Annotated[list[FiniteFloat], PerChannel] = [0.485, 0.456, 0.406]
    std: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], PerChannel] = [0.229, 0.224, 0.225]
    crop_pct: Annotated[float, Field(ge=0.01, le=1)] = 0.875
    crop_mode: Literal["center", "squash"] = "center"
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bicubic"
    num_classes: Annotated[int, Field(ge=0, le=2**24)] | None = None
    label_names: list[str] | None = None


class Vit(Architecture):
    """The `config.json` of a ViT, in the format of timm.

    The file contains the name of an architecture, and only timm knows the arguments of this architecture. `tree` and
    `names` need a record whose `model_args` contain all arguments; `experiment/interchange/importers/labelled.py` adds
    them.
    """

    kinds = ()
    reference = "VisionTransformer"

    architecture: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    num_classes: Annotated[int, Field(ge=0, le=2**24)] | None = None
    global_pool: Literal["", "token", "avg"] | None = None
    model_args: VitArguments = VitArguments()
    pretrained_cfg: VitData | None = None
    """The preparation of images. None: the preparation that timm uses for this architecture."""
    label_names: list[str] | None = None
    epsilon: Epsilon = Field(1e-6, exclude=True)
    """The epsilon of the layer norms. It follows from the name of the architecture and is not in the file."""

    @property
    def classes(self) -> int:
        """The number of classes; 1000 if the file contains none."""
        counts = self.model_args.num_classes, self.num_classes, self.pretrained_cfg and self.pretrained_cfg.num_classes
        return next((count for count in counts if count is not None), 1000)

    @property
    def labels(self) -> list[str] | None:
        """The names of the classes; None if the file contains no names."""
        return self.label_names or (self.pretrained_cfg.label_names if self.pretrained_cfg else None)

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments with which timm creates the model."""
        model_args = self.model_args.model_dump(exclude_none=True)
        pool = {} if self.global_pool is None else {"global_pool": self.global_pool}
        return {"num_classes": self.classes, **model_args, **pool}

    def tree(self):
        args, data = self.model_args, self.pretrained_cfg or VitData()
        norm = {"use": "layer_norm", "epsilon": self.epsilon}
        (rows, columns), prefix = (side // args.patch_size for side in args.img_size), int(args.class_token)
        mean = {"use": "mean_pooling"} | ({"norm": norm} if args.fc_norm else {})
        pooling = "class_token" if args.global_pool == "token" else mean
        return {
            "inputs": {"image": {
                "use": "image", "patch_size": args.patch_size, "size": args.img_size, "channels": args.in_chans,
                "mean": data.mean, "std": data.std, "crop": data.crop_pct, "interpolation": data.interpolation,
                "fit_size": "crop" if data.crop_mode == "center" else "resize",
            }},
            "model": {
                "width": args.embed_dim, "depth": args.depth, "heads": args.num_heads,
                "context": rows * columns + prefix, "core_tokens": prefix, "attention": "same_sample",
                "block": {
                    "norm": norm, "bias": True, "query_key_norm": norm if args.qk_norm else None,
                    "feed_forward": {"use": "gelu", "approximate": "none", "ratio": args.mlp_ratio},
                    "residual": {"use": "pre_norm", "layer_scale": args.init_values},
                },
                "final_norm": args.final_norm,
            },
            "tasks": {"label": {"use": "classification", "target": "label", "pooling": pooling}},
        }  # fmt: skip

    @classmethod
    def from_tree(cls, tree, tensors, legend):
        image, model, block = tree["inputs"]["image"], tree["model"], tree["model"]["block"]
        pooling = tree["tasks"]["label"]["pooling"]
        inner = len(tensors[f"{BLOCK}feed_forward.up.weight".format(layer=0)])
        args = VitArguments(
            img_size=repeated(image["size"], 2), patch_size=image["patch_size"], in_chans=image["channels"],
            embed_dim=model["width"], depth=model["depth"], num_heads=model["heads"], qkv_bias=True,
            qk_norm=block["query_key_norm"] is not None, mlp_ratio=ratio_of(inner, model["width"]),
            init_values=block["residual"]["layer_scale"], class_token=model["core_tokens"] == 1, reg_tokens=0,
            pre_norm=False, no_embed_class=True, final_norm=model["final_norm"], fc_norm=bool(pooling.get("norm")),
            global_pool="token" if pooling["use"] == "class_token" else "avg",
        )  # fmt: skip
        mean, std = (repeated(image[name], image["channels"]) for name in ("mean", "std"))
        crop_mode = "center" if image["fit_size"] == "crop" else "squash"
        return cls(
            architecture=PLAIN, num_classes=len(tensors["heads.label.linear.weight"]), global_pool=args.global_pool,
            model_args=args, epsilon=block["norm"]["epsilon"],
            pretrained_cfg=VitData(mean=mean, std=std, crop_pct=image["crop"], interpolation=image["interpolation"],
                                   crop_mode=crop_mode),
            label_names=[label for label in legend.labels if isinstance(label, str)] or None,
        )  # fmt: skip

    def names(self):
        """The names of all parameters. Two differences from timm are converted: our model embeds patches with a matrix,
        timm with a convolution; our class token (`own.weight`) is the sum of timm's class token and its position
        embedding. In DeiT III the class token has no position embedding, so both are equal."""
        args, theirs, parts = self.model_args, "blocks.{layer}.", ("query", "key", "value")
        prefix = int(args.class_token and not args.no_embed_class)
        if prefix:
            embeddings = [Rename(
                ("pos_embed", "cls_token"), (POSITIONS, PREFIX), lambda p, c: (p[0][1:], c[0] + p[0][:1]),
                lambda table, core: (torch.cat([core, table])[None], torch.zeros_like(core)[None]),
            )]  # fmt: skip
        else:
            embeddings = [Rename(name, ours, lambda v: v[0], lambda v: v[None])
                          for name, ours in (("pos_embed", POSITIONS), ("cls_token", PREFIX))]  # fmt: skip
        return [
            *embeddings,
            *patches("patch_embed.proj", "tokenizers.image.embedding", args.in_chans, args.patch_size),
            *renames("", "", ENDS),
            *renames(theirs, BLOCK, LAYER),
            Rename(theirs + "ls1.gamma", BLOCK + "add_attention.scale"),
            Rename(theirs + "ls2.gamma", BLOCK + "add_feed_forward.scale"),
            Rename(theirs + "attn.qkv.{leaf}", tuple(f"{BLOCK}attention.{part}.{{leaf}}" for part in parts),
                   lambda fused: fused.chunk(3), lambda *three: torch.cat(three)),
        ]  # fmt: skip

    def files(self, frame):
        return {"config.json": self.model_dump(exclude_none=True)}


def repeated(value: float | Sequence[float], count: int) -> list[float]:
    """Returns a list of numbers (sides or channels). If `value` is a single number, it is repeated `count` times."""
    return [value] * count if isinstance(value, int | float) else list(value)


def ratio_of(inner: int, width: int) -> float:
    """Returns the `mlp_ratio` from which timm computes exactly the hidden width `inner`: timm rounds `width` times this
    ratio down."""
    ratio = inner / width
    return ratio if int(width * ratio) == inner else math.nextafter(ratio, math.inf)
