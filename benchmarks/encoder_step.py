"""A ViT training step beside timm's model of that shape: same images, float32, both eager, fused AdamW, in turns.

    python benchmarks/vit_step.py --pairs 9

The model is timm's `vit_small_patch16_224` (12 layers, 6 heads, 384 wide, 197 tokens) on batches of 4 images; ours has its
weights (`chopmix import` of a randomly initialised one). Ours reads uint8 images and normalises them, timm's gets floats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
from chopmix.training.build import make_batch
from chopmix.training.imports import import_directory
from chopmix.training.run import load_run
from results import write_results
from safetensors.torch import save_file

NAME = "vit_small_patch16_224"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=9)
    options.add_argument("--batch", type=int, default=4)
    chosen = options.parse_args()
    torch.manual_seed(0)
    theirs = timm.create_model(NAME, pretrained=False).train()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "timm"
        source.mkdir()
        save_file(
            {name: value.contiguous() for name, value in theirs.state_dict().items()}, source / "model.safetensors"
        )
        described = {"architecture": NAME, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
        (source / "config.json").write_text(json.dumps(described))
        import_directory(source, Path(folder) / "run")
        run = load_run(Path(folder) / "run")
    model, task = run.model.train(), run.tasks["label"]
    images = torch.randint(256, (chosen.batch, 3, 224, 224), dtype=torch.uint8)
    labels = list(range(chosen.batch))
    split = run._given([{"image": image} for image in images])
    floats = (images.float() / 255 - 0.5) / 0.5

    def our_loss():
        batch = model.plan(make_batch(split, split.all(), run.tasks, training=True))
        targets = batch.targets["label"]
        targets.values.copy_(torch.tensor(labels))
        return task.terms(model(batch)["label"], targets)["loss"].sum / chosen.batch

    def their_loss():
        return torch.nn.functional.cross_entropy(theirs(floats), torch.tensor(labels))

    def stepper(module, loss):
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)

        def step() -> float:
            start = time.perf_counter()
            loss().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return time.perf_counter() - start

        return step

    ours, others = stepper(model, our_loss), stepper(theirs, their_loss)
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
        {"what": "timm", "ms_per_step": 1000 * statistics.median(other for _, other in pairs)},
        {"what": "ratio timm / chopmix", "median": statistics.median(ratios), "min": ratios[0], "max": ratios[-1]},
    ]
    write_results("training_step_vit_small", rows)


if __name__ == "__main__":
    main()
