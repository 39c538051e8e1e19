"""`chopmix import DIR RUN`: a Hugging Face directory becomes a run that can be generated from, evaluated and fine-tuned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..models.ast import ast_experiment, ast_weights
from ..models.gpt2 import gpt2_experiment, gpt2_weights
from ..models.vit import vit_experiment, vit_weights
from ..tokenizers.audio_patches import AUDIOSET
from ..tokenizers.encodings import Encoding, NumberEncoding, bpe_from_vocabulary, make_encoding
from . import checkpoint
from .accounting import parameters_by_part
from .build import build_choppers, build_model, build_tasks
from .config import Config, config_from_tree
from .run import RunError, fingerprints

GPT2_VOCABULARY = 50257


def import_directory(source: Path, folder: Path) -> str:
    """Read `config.json` and `model.safetensors` (sharded or not) into a run's folder; gives what was done in a sentence.

    Raises RunError for a missing file, an architecture or option that we do not reproduce exactly, tensors that are
    missing, left over or of another shape, or a run folder that is not empty. Nothing in the files is executed.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty; choose another folder for the run")
    described = _read_json(source, "config.json")
    if "architecture" in described:
        return _import_vit(source, folder, described)
    kind = described.get("model_type")
    known = {"gpt2": _import_gpt2, "audio-spectrogram-transformer": _import_ast}
    if kind not in known:
        possible = ", ".join(map(repr, known))
        raise RunError(f"{source}/config.json: model_type is {kind!r}; possible: {possible}, or a timm 'architecture'")
    return known[kind](source, folder, described)


def _import_gpt2(source: Path, folder: Path, described: Mapping[str, Any]) -> str:
    encoding = encoding_of(source, described)
    experiment = gpt2_experiment(described)
    text = {"encoding": encoding.name if isinstance(encoding, NumberEncoding) else "gpt2"}
    if isinstance(encoding, NumberEncoding):
        text["vocabulary"] = encoding.vocabulary
    elif encoding.vocabulary != described["vocab_size"]:
        text["pad_vocabulary_to"] = described["vocab_size"]
    experiment["inputs"]["text"] |= text
    training = {"steps": 1, "tokens_per_step": experiment["model"]["context"]}
    config = config_from_tree(
        experiment | {"data": {"card": "tiny_shakespeare"}, "training": training}, folder / "config.yaml"
    )
    choppers = {"text": replace(build_choppers(config, folder / "assets")["text"], fitted=encoding)}
    weights = gpt2_weights(read_weights(source), described.get("tie_word_embeddings", True))
    return _write(source, folder, config, choppers, build_tasks(config), weights, "GPT-2")


def _import_vit(source: Path, folder: Path, described: Mapping[str, Any]) -> str:
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
    choppers, tasks = build_choppers(config, folder / "assets"), build_tasks(config)
    classes = own.get("label_names") or list(range(arguments["num_classes"]))
    tasks["label"].with_classes(classes)
    return _write(source, folder, config, choppers, tasks, vit_weights(read_weights(source)), name)


def _import_ast(source: Path, folder: Path, described: Mapping[str, Any]) -> str:
    """A transformers AST directory: `config.json`, and `preprocessor_config.json` where the statistics are not AudioSet's."""
    features = _read_json(source, "preprocessor_config.json") if (source / "preprocessor_config.json").exists() else {}
    statistics = (features.get("mean", AUDIOSET[0]), features.get("std", AUDIOSET[1]))
    experiment = ast_experiment(described, features, statistics)
    tree = experiment | {"data": {"card": "speech_commands"}, "training": {"steps": 1, "samples_per_step": 8}}
    config = config_from_tree(tree, folder / "config.yaml")
    weights = ast_weights(read_weights(source))
    choppers, tasks = build_choppers(config, folder / "assets"), build_tasks(config)
    choppers["sound"] = replace(choppers["sound"], fitted=statistics)
    names = described.get("id2label") or {str(n): n for n in range(len(weights["heads.label.linear.bias"]))}
    tasks["label"].with_classes([names[str(number)] for number in range(len(names))])
    return _write(source, folder, config, choppers, tasks, weights, "AST")


def _write(
    source: Path, folder: Path, config: Config, choppers: dict, tasks: dict, weights: dict[str, Tensor], what: str
) -> str:
    """Fill a model with the weights and write it as a run; gives what was done in a sentence."""
    model = build_model(config, choppers, tasks)
    _fill(model, weights, source)
    folder.mkdir(parents=True, exist_ok=True)
    for name, chopper in choppers.items():
        chopper.save(folder / "assets" / name)
    for name, task in tasks.items():
        task.save(folder / "assets" / f"task-{name}")
    (folder / "config.yaml").write_text(yaml.safe_dump(config.tree, sort_keys=False))
    state = {"seconds": 0.0, "best": 1e300, "vocabularies": fingerprints(choppers), "data": {}, "imported": source.name}
    checkpoint.save(folder, 0, {"model": model.state_dict()}, state)
    checkpoint.write_json(folder / "best.json", {"step": 0})
    count = sum(parameters_by_part(model).values())
    return f"imported {source} into {folder}: {what}, {count:,} parameters, context {model.context}"


def encoding_of(source: Path, described: Mapping[str, Any]) -> Encoding:
    """The encoding of a GPT-2 directory: its own `vocab.json`, else GPT-2's by name, else its ids as numbers.

    Raises ValueError when the directory's vocabulary does not fit its model.
    """
    size = described["vocab_size"]
    if (source / "vocab.json").exists():
        found = bpe_from_vocabulary(_read_json(source, "vocab.json"))
        if found.vocabulary > size:
            raise RunError(
                f"{source}/vocab.json has {found.vocabulary} ids, more than config.json's vocab_size ({size})"
            )
        return found
    if size >= GPT2_VOCABULARY:
        return make_encoding("gpt2", None, tuple)
    start = described.get("eos_token_id")
    return NumberEncoding(size, start if isinstance(start, int) and 0 <= start < size else None)


def _read_json(source: Path, name: str) -> dict:
    try:
        return json.loads((source / name).read_text())
    except FileNotFoundError:
        raise RunError(f"{source} has no {name}; a Hugging Face model directory has one") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{source}/{name} is not JSON: {error}") from None


def read_weights(source: Path) -> dict[str, Tensor]:
    """All tensors of a directory: of `model.safetensors`, or of the shards that its index names."""
    if (source / "model.safetensors").exists():
        names = ["model.safetensors"]
    elif (source / "model.safetensors.index.json").exists():
        names = sorted(set(_read_json(source, "model.safetensors.index.json")["weight_map"].values()))
    else:
        raise RunError(f"{source} has no model.safetensors and no model.safetensors.index.json")
    found: dict[str, Tensor] = {}
    for name in names:
        try:
            found |= load_file(source / name)
        except FileNotFoundError:
            raise RunError(f"{source} lacks the shard {name} that its index names") from None
        except SafetensorError as error:
            raise RunError(f"{source}/{name} is damaged or cut short: {error}") from None
    return found


@torch.no_grad()
def _fill(model, weights: dict[str, Tensor], source: Path) -> None:
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    if missing or extra:
        raise RunError(f"{source}: missing {missing[:4] or 'nothing'}, left over {extra[:4] or 'nothing'}")
    for name, value in weights.items():
        if own[name].shape != value.shape:
            raise RunError(f"{source}: {name} has shape {tuple(value.shape)}, expected {tuple(own[name].shape)}")
        own[name].copy_(value)
