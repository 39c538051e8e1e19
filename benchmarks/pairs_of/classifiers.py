"""Classifiers compared with timm and transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import transformers
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import load_run
from pairs_of.common import Loss, Pair, peer_precision, planned, precision_of, training
from safetensors.torch import save_file
from torch import Tensor, nn


def classified(folder: Path, setting: str, theirs: nn.Module, logits: Loss, samples: list[dict], peer: str) -> Pair:
    """Returns training steps of the classifier that is imported from `folder` and of its original."""
    import_directory(folder, folder.parent / "run")
    run = load_run(folder.parent / "run", device="cpu")
    task, labels = run.tasks["label"], torch.arange(len(samples))
    split = replace(run.as_split(samples), tasks=run.tasks)

    def loss() -> Tensor:
        batch = planned(run, split.batch(split.all(), training=True))
        targets = batch.targets["label"]
        targets.values.copy_(labels)
        return task.terms(run.model(batch)["label"], targets)["loss"] / len(samples)

    other = training(theirs, lambda: F.cross_entropy(logits(), labels), peer_precision(setting))
    return training(run.model, loss, precision_of(run.config, setting)), other, peer


def vit(folder: Path, setting: str, file: None) -> Pair:
    """timm's `vit_small_patch16_224` (12 layers, 6 heads, width 384, 197 tokens) on four images."""
    name, source = "vit_small_patch16_224", folder / "theirs"
    source.mkdir()
    theirs = timm.create_model(name, pretrained=False)
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, source / "model.safetensors")
    data = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    (source / "config.json").write_text(json.dumps({"architecture": name, "pretrained_cfg": data}))
    images = torch.randint(256, (4, 3, 224, 224), dtype=torch.uint8)
    floats = (images.float() / 255 - 0.5) / 0.5
    return classified(source, setting, theirs, lambda: theirs(floats), [{"image": image} for image in images], "timm")


def ast(folder: Path, setting: str, file: None) -> Pair:
    """An AST with the same width and depth on four sounds of 1.28 seconds (146 tokens)."""
    shape = {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "max_length": 128,
        "num_labels": 35,
    }
    theirs, source = transformers.ASTForAudioClassification(transformers.ASTConfig(**shape)), folder / "theirs"
    theirs.save_pretrained(source)
    features = transformers.ASTFeatureExtractor(max_length=128)
    features.save_pretrained(source)
    sounds = [(torch.randn(20_480) * 0.1).numpy() for _ in range(4)]
    values = features(sounds, sampling_rate=16_000, return_tensors="pt")["input_values"]
    samples = [{"sound": (sound, 16_000)} for sound in sounds]
    return classified(source, setting, theirs, lambda: theirs(values).logits, samples, "transformers")
