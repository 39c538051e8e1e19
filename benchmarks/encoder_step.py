"""A training step of an encoder beside its reference: same inputs, float32, both eager, fused AdamW, in turns.

    python benchmarks/encoder_step.py vit --pairs 9
    python benchmarks/encoder_step.py ast --pairs 9

`vit`: timm's `vit_small_patch16_224` (12 layers, 6 heads, 384 wide, 197 tokens) on batches of 4 images. `ast`: transformers'
AST of that width and depth on sounds of 1.28 seconds (146 tokens). Ours is `chopmix import` of a randomly initialised one; it
reads raw images and sounds and makes its own patches and spectrograms, the others get theirs ready made.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from chopmix.training.build import make_batch
from chopmix.training.imports import import_directory
from chopmix.training.run import Run, load_run
from results import write_results
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

VIT = "vit_small_patch16_224"


def vit(folder: Path, batch: int) -> tuple[nn.Module, Callable[[], Tensor], list[dict]]:
    """timm's model, its logits for a batch of images, and the same images as samples of ours."""
    theirs = timm.create_model(VIT, pretrained=False).train()
    save_file({name: value.contiguous() for name, value in theirs.state_dict().items()}, folder / "model.safetensors")
    described = {"architecture": VIT, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "config.json").write_text(json.dumps(described))
    images = torch.randint(256, (batch, 3, 224, 224), dtype=torch.uint8)
    floats = (images.float() / 255 - 0.5) / 0.5
    return theirs, lambda: theirs(floats), [{"image": image} for image in images]


def ast(folder: Path, batch: int) -> tuple[nn.Module, Callable[[], Tensor], list[dict]]:
    """transformers' model, its logits for a batch of sounds, and the same sounds as samples of ours."""
    shape = {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "max_length": 128,
        "num_labels": 35,
    }
    theirs = ASTForAudioClassification(ASTConfig(**shape)).train()
    theirs.save_pretrained(folder)
    features = ASTFeatureExtractor(max_length=128)
    features.save_pretrained(folder)
    sounds = [(torch.randn(20_480) * 0.1).numpy() for _ in range(batch)]
    values = features(sounds, sampling_rate=16_000, return_tensors="pt")["input_values"]
    return theirs, lambda: theirs(values).logits, [{"sound": (sound, 16_000)} for sound in sounds]


REFERENCES = {"vit": (vit, "timm"), "ast": (ast, "transformers")}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model", choices=REFERENCES)
    options.add_argument("--pairs", type=int, default=9)
    options.add_argument("--batch", type=int, default=4)
    chosen = options.parse_args()
    make, name = REFERENCES[chosen.model]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "theirs"
        source.mkdir()
        theirs, logits, samples = make(source, chosen.batch)
        import_directory(source, Path(place) / "run")
        run = load_run(Path(place) / "run", device="cpu")
    labels = torch.arange(chosen.batch)
    ours = stepper(run.model.train(), our_loss(run, samples, labels))
    others = stepper(theirs, lambda: torch.nn.functional.cross_entropy(logits(), labels))
    for step in (ours, others):
        step()
    pairs = []
    for number in range(chosen.pairs):  # who comes first changes from pair to pair
        first, second = (ours, others) if number % 2 else (others, ours)
        seconds = {first: first(), second: second()}
        pairs.append((seconds[ours], seconds[others]))
    ratios = sorted(other / own for own, other in pairs)
    rows = [
        {"what": "chopmix", "ms_per_step": 1000 * statistics.median(own for own, _ in pairs)},
        {"what": name, "ms_per_step": 1000 * statistics.median(other for _, other in pairs)},
        {"what": f"ratio {name} / chopmix", "median": statistics.median(ratios), "min": ratios[0], "max": ratios[-1]},
    ]
    write_results(f"training_step_{chosen.model}_small", rows)


def our_loss(run: Run, samples: list[dict], labels: Tensor) -> Callable[[], Tensor]:
    """The loss of our model on the samples, from raw values on: they are planned, chopped and embedded every time."""
    task, split = run.tasks["label"], run.given(samples)

    def loss() -> Tensor:
        batch = run.model.plan(make_batch(split, split.all(), run.tasks, training=True))
        targets = batch.targets["label"]
        targets.values.copy_(labels)
        return task.terms(run.model(batch)["label"], targets)["loss"].sum / len(samples)

    return loss


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], float]:
    """One training step, as a function that gives its seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> float:
        start = time.perf_counter()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    return step


if __name__ == "__main__":
    main()
