"""`chopmix import DIR RUN`: a Hugging Face directory becomes a run that can be generated from, evaluated and fine-tuned."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from ...models.pretrained.ast_audio import Ast, AstFeatures, ast_experiment, ast_weights
from ...models.pretrained.described import described
from ...models.pretrained.vit import Vit, VitData, vit_experiment, vit_weights
from ...tokenizers.audio_patches import AUDIOSET
from ...tokenizers.files.records import read_json
from ..folder.reading import RunError
from .files import Directory, Imported, write_run
from .text import import_bert, import_gpt2, import_llama, import_t5
from .whisper import import_whisper


def import_directory(source: Path, folder: Path, partly: bool = False) -> str:
    """Read `config.json` and `model.safetensors` (sharded or not) into a run's folder; gives what was done in a sentence.

    Raises RunError for a missing file, an architecture or option that we do not reproduce exactly, tensors that are
    missing or left over (unless it may be read `partly`) or of another shape, or a run folder that is not empty. Nothing in the
    files is executed.
    """
    if os.path.exists(folder) and (not os.path.isdir(folder) or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; choose another folder for the run")
    directory = Directory(source)
    return write_run(source, folder, importer_of(directory)(directory), partly)


def importer_of(source: Directory) -> Callable[[Directory], Imported]:
    """What imports a directory of this kind. Raises RunError where nothing does."""
    if "architecture" in source.config:
        return import_vit
    kind = source.config.get("model_type")
    known = {
        "gpt2": import_gpt2, "llama": import_llama, "bert": import_bert, "roberta": import_bert, "t5": import_t5,
        "whisper": import_whisper, "audio-spectrogram-transformer": import_ast,
    }  # fmt: skip
    if not isinstance(kind, str) or kind not in known:
        possible = ", ".join(map(repr, known))
        raise RunError(
            f"{source.path}/config.json: model_type is {kind!r}; possible: {possible}, or a timm 'architecture'"
        )
    return known[kind]


def import_vit(source: Directory) -> Imported:
    """A timm directory: `config.json` with `architecture`, `num_classes`, `global_pool`, `model_args`, `pretrained_cfg`."""
    import timm

    config = source.described(Vit)
    name, file = config.architecture, source.path / "config.json"
    if name not in timm.list_models(module="vision_transformer") + timm.list_models(module="deit"):
        raise RunError(f"{file}: {name!r} is none of timm's vision transformers (vit_*, deit_*), which alone are read")
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, **config.arguments())
    except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, ZeroDivisionError) as error:
        raise RunError(f"{file}: timm cannot make {name!r}: {error}") from None
    if type(model).__name__ != "VisionTransformer":
        raise RunError(f"{file}: {name!r} is a {type(model).__name__}; possible: VisionTransformer (vit_*, deit_*)")
    if not config.classes:
        raise RunError(f"{source.path}: the model has no classifier (num_classes 0)")
    scale = next((value for key, value in source.tensors.items() if key.endswith("ls1.gamma")), None)
    try:
        data = config.pretrained_cfg or described(VitData, {name: list(value) if isinstance(value, tuple) else value
                                                            for name, value in model.pretrained_cfg.items()})  # fmt: skip
        tree = vit_experiment(model, data, scale)
    except ValueError as error:
        raise RunError(f"{file}: {error}") from None
    names = config.label_names or data.label_names or list(range(config.classes))
    if len(names) != config.classes:
        raise RunError(f"{file}: label_names names {len(names)} classes, but the model has {config.classes}")
    return Imported(what=name, tree=tree, classes={"label": names},
                    weights=lambda: vit_weights(source.tensors, not model.no_embed_class))  # fmt: skip


def import_ast(source: Directory) -> Imported:
    """A transformers AST directory: `config.json`, and `preprocessor_config.json` where the statistics are not AudioSet's."""
    config = source.described(Ast)
    file = "preprocessor_config.json"
    values = read_json(source.path / file) if source.has(file) else {}
    try:
        features = described(AstFeatures, values)
        mean, std = (AUDIOSET[n] if each is None else each for n, each in enumerate((features.mean, features.std)))
        tree = ast_experiment(config, features, (mean, std))
    except ValueError as error:
        raise RunError(f"{source.path}: {error}") from None
    count = len(source.tensors.get("classifier.dense.bias", ()))
    labels = config.id2label or {str(number): number for number in range(count)}
    if sorted(labels) != sorted(map(str, range(count))):
        raise RunError(f"{source.path}/config.json: id2label does not name the {count} classes 0 to {count - 1}")
    return Imported(what="AST", tree=tree, fitted={"sound": (mean, std)},
                    classes={"label": [labels[str(number)] for number in range(count)]},
                    weights=lambda: ast_weights(source.tensors))  # fmt: skip
