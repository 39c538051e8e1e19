"""`chopmix import DIR RUN`: a Hugging Face directory becomes a run that can be generated from, evaluated and fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..models.ast_audio import ast_experiment, ast_weights
from ..models.vit import vit_experiment, vit_weights
from ..tokenizers.audio_patches import AUDIOSET
from .build import build_choppers, build_tasks
from .config import config_from_tree
from .import_files import read_json, read_weights, write_run
from .import_text import import_bert, import_gpt2, import_llama, import_t5
from .import_whisper import import_whisper
from .run import RunError


def import_directory(source: Path, folder: Path, partly: bool = False) -> str:
    """Read `config.json` and `model.safetensors` (sharded or not) into a run's folder; gives what was done in a sentence.

    Raises RunError for a missing file, an architecture or option that we do not reproduce exactly, tensors that are
    missing or left over (unless it may be read `partly`) or of another shape, or a run folder that is not empty. Nothing in the
    files is executed.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty; choose another folder for the run")
    described = read_json(source, "config.json")
    if "architecture" in described:
        return _import_vit(source, folder, described, partly)
    kind = described.get("model_type")
    known = {
        "gpt2": import_gpt2, "llama": import_llama, "bert": import_bert, "roberta": import_bert, "t5": import_t5,
        "whisper": import_whisper, "audio-spectrogram-transformer": _import_ast,
    }  # fmt: skip
    if kind not in known:
        possible = ", ".join(map(repr, known))
        raise RunError(f"{source}/config.json: model_type is {kind!r}; possible: {possible}, or a timm 'architecture'")
    return known[kind](source, folder, described, partly)


def _import_vit(source: Path, folder: Path, described: Mapping[str, Any], partly: bool = False) -> str:
    """A timm directory: `config.json` with `architecture`, `num_classes`, `global_pool`, `model_args`, `pretrained_cfg`."""
    import timm

    own, name = described.get("pretrained_cfg", {}), described["architecture"]
    arguments = {
        "num_classes": described.get("num_classes", own.get("num_classes", 1000)),
        **described.get("model_args", {}),
    }
    if "global_pool" in described:
        arguments["global_pool"] = described["global_pool"]
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, **arguments)
    except (RuntimeError, TypeError) as error:
        raise RunError(f"{source}/config.json: timm cannot make {name!r}: {error}") from None
    if type(model).__name__ != "VisionTransformer":
        raise RunError(
            f"{source}/config.json: {name!r} is a {type(model).__name__}; possible: VisionTransformer (vit_*, deit_*)"
        )
    if not arguments["num_classes"]:
        raise RunError(f"{source}: the model has no classifier (num_classes 0)")
    scale = next((value for key, value in read_weights(source).items() if key.endswith("ls1.gamma")), None)
    experiment = vit_experiment(model, own.get("mean", (0.5,) * 3), own.get("std", (0.5,) * 3), scale)
    tree = experiment | {"data": {"card": "cifar10"}, "training": {"steps": 1, "samples_per_step": 32}}
    config = config_from_tree(tree, folder / "config.yaml")
    choppers = build_choppers(config, folder / "assets")
    tasks = build_tasks(config, choppers)
    classes = own.get("label_names") or list(range(arguments["num_classes"]))
    tasks["label"].with_classes(classes)
    weights = vit_weights(read_weights(source), not model.no_embed_class)
    return write_run(source, folder, config, choppers, tasks, weights, name, partly)


def _import_ast(source: Path, folder: Path, described: Mapping[str, Any], partly: bool = False) -> str:
    """A transformers AST directory: `config.json`, and `preprocessor_config.json` where the statistics are not AudioSet's."""
    features = read_json(source, "preprocessor_config.json") if (source / "preprocessor_config.json").exists() else {}
    statistics = (features.get("mean", AUDIOSET[0]), features.get("std", AUDIOSET[1]))
    experiment = ast_experiment(described, features, statistics)
    tree = experiment | {"data": {"card": "speech_commands"}, "training": {"steps": 1, "samples_per_step": 8}}
    config = config_from_tree(tree, folder / "config.yaml")
    weights = ast_weights(read_weights(source))
    choppers = build_choppers(config, folder / "assets")
    tasks = build_tasks(config, choppers)
    choppers["sound"] = replace(choppers["sound"], fitted=statistics)
    names = described.get("id2label") or {str(n): n for n in range(len(weights["heads.label.linear.bias"]))}
    tasks["label"].with_classes([names[str(number)] for number in range(len(names))])
    return write_run(source, folder, config, choppers, tasks, weights, "AST", partly)
