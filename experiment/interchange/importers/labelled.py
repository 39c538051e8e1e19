"""`chopmix import` of models without text: timm's Vision Transformers and transformers' Audio Spectrogram
Transformer."""

from __future__ import annotations

from torch import device, nn

from ....files.errors import RunError
from ....files.records import read_json
from ....models.pretrained.ast_audio import FEATURES, Ast, AstFeatures
from ....models.pretrained.base import PublishedError
from ....models.pretrained.vit import Vit, VitArguments, VitData
from ..directory import TIMM, Directory, Imported

PLAIN = "patch_drop", "norm_pre", "attn_pool"
"""Parts of a timm model that must be missing or the identity, since chopmix does not reproduce them."""


def import_vit(source: Directory) -> Imported:
    """Returns the import of a timm directory. Its `config.json` has `architecture`, `num_classes`, `global_pool`,
    `model_args` and `pretrained_cfg`. Raises RunError for fewer than two classes; PublishedError if the number of class
    names is not the number of classes, or if timm's model is not reproduced exactly."""
    config = Vit.read(source.config)
    check_classes(source, config.classes)
    check_size(source, config)
    config = completed(config)
    names = config.labels or list(range(config.classes))
    if len(names) != config.classes:
        raise PublishedError(f"config.json: label_names names {len(names)} classes, but the model has {config.classes}")
    return Imported(what=config.architecture, architecture=config, labels=names)


def import_ast(source: Directory) -> Imported:
    """Returns the import of a transformers AST directory: `config.json`, and `preprocessor_config.json` if mean and
    standard deviation are not those of AudioSet. Raises RunError for fewer than two classes, PublishedError if
    `id2label` does not name every class."""
    features = AstFeatures.read(read_json(source.path / FEATURES) if source.has(FEATURES) else {}, FEATURES)
    config = Ast.read(source.config).model_copy(update={"features": features})
    count = len(source.tensors.get("classifier.dense.bias", ()))
    check_classes(source, count)
    labels = config.id2label or {str(number): number for number in range(count)}
    if sorted(labels) != sorted(map(str, range(count))):
        raise PublishedError(f"config.json: id2label does not name the {count} classes 0 to {count - 1}")
    return Imported(what="AST", architecture=config, labels=[labels[str(number)] for number in range(count)])


def check_classes(source: Directory, count: int) -> None:
    """Raises RunError for fewer than two classes."""
    if count < 2:
        raise RunError(f"{source.path}: a classifier needs at least two classes, but this model has {count}")


def check_size(source: Directory, config: Vit) -> None:
    """Raises RunError if `config.json` has more layers than there are tensors, or more classes than the largest number
    of rows of a tensor. Without this check a wrong `config.json` could make the import create a huge model or a huge
    list of class names, with minutes of time and gigabytes of memory."""
    layers, rows = config.model_args.depth or 0, max(len(value) for value in source.tensors.values() if value.dim())
    if layers > len(source.tensors):
        raise RunError(f"{source.path}: {layers:,} layers, but the weights have only {len(source.tensors):,} tensors")
    if config.classes > rows:
        raise RunError(
            f"{source.path}: {config.classes:,} classes, but no tensor of its weights has more than {rows:,} rows"
        )


# ------------------------------------------------------------------- the arguments of timm's architecture names


def completed(config: Vit) -> Vit:
    """Returns the record with all arguments that timm's architecture name implies. They are read from timm's model.
    Raises PublishedError if timm cannot create the model, or if a part of the model is not reproduced exactly."""
    model = timm_model(config)
    check(model)
    block, patch = model.blocks[0], model.patch_embed
    args = {
        "img_size": list(patch.img_size), "patch_size": patch.patch_size[0], "in_chans": patch.proj.in_channels,
        "embed_dim": model.embed_dim, "depth": len(model.blocks), "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
        "qk_norm": normalises(block.attn.q_norm),
        "class_token": model.has_class_token, "no_embed_class": model.no_embed_class,
        "init_values": (config.model_args.init_values or 1.0) if hasattr(block.ls1, "gamma") else None,
        "final_norm": normalises(model.norm), "fc_norm": normalises(model.fc_norm),
        "global_pool": model.global_pool,
    }  # fmt: skip
    timm_config = {
        name: list(value) if isinstance(value, tuple) else value for name, value in model.pretrained_cfg.items()
    }
    data = config.pretrained_cfg or VitData.read(timm_config)
    update = {"model_args": VitArguments.read(args), "pretrained_cfg": data, "epsilon": block.norm1.eps}
    return config.model_copy(update=update)


def timm_model(config: Vit) -> nn.Module:
    """Returns timm's model on the `meta` device, where weights take no memory. Raises PublishedError if timm has no
    `VisionTransformer` with this name and these arguments."""
    import timm

    name = config.architecture
    if name not in timm.list_models(module="vision_transformer") + timm.list_models(module="deit"):
        raise PublishedError(f"config.json: {name!r} is not one of timm's vision transformers; possible: vit_*, deit_*")
    try:
        with device("meta"):
            model = timm.create_model(name, pretrained=False, **config.arguments())
    except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, ZeroDivisionError) as error:
        raise PublishedError(f"config.json: timm cannot create {name!r}: {error}") from None
    if type(model).__name__ != "VisionTransformer":
        raise PublishedError(
            f"config.json: {name!r} is a {type(model).__name__}; only the vit_* and deit_* models of the class "
            "VisionTransformer are supported"
        )
    return model


def check(model: nn.Module) -> None:
    """Raises PublishedError if a part of a timm model is not reproduced exactly."""
    block, prefix = model.blocks[0], model.num_prefix_tokens
    for name in PLAIN:
        part = getattr(model, name, None)
        if part is not None and not isinstance(part, nn.Identity):
            raise PublishedError(
                f"config.json: the model has the part {name} ({type(part).__name__}), which chopmix does not support"
            )
    if prefix != int(model.has_class_token) or model.global_pool not in ("token", "avg"):
        raise PublishedError(
            f"config.json: global_pool {model.global_pool!r} with {prefix} prefix tokens cannot be imported, because "
            "its outputs cannot be reproduced exactly"
        )
    if type(block).__name__ != "Block" or type(block.mlp.act) is not nn.GELU or model.patch_embed.proj.bias is None:
        kind = f"blocks of {type(block).__name__} with {type(block.mlp.act).__name__}"
        raise PublishedError(f"config.json: {kind} are not reproduced exactly")
    if block.attn.qkv.bias is None:
        raise PublishedError(
            "config.json: attention without biases of queries, keys and values cannot be imported if other layers "
            "have biases"
        )


IMPORTERS = {TIMM: import_vit, "audio-spectrogram-transformer": import_ast}
"""The importer for each `model_type` in `config.json`."""


def normalises(module: nn.Module) -> bool:
    """Returns whether a module of timm's model is a layer norm; otherwise it is an identity."""
    return isinstance(module, nn.LayerNorm)
