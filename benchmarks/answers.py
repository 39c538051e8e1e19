"""Measures how fast `chopmix predict --data FOLDER --output x.csv` is, compared with the model alone.

    python benchmarks/answers.py mnist    # configs/vision/mnist.yaml, images of 28 x 28 pixels
    python benchmarks/answers.py vit      # ViT-S/16 at 224 pixels

Both sides have the same weights, batches and precision. The peer runs the forward pass on batches that were read and
planned before; ours also finds, reads, decodes, chops, packs and plans, and writes the table. Start-up is not counted.
They run alternately, and each is first equally often. Peak memory is measured with 1 and with 4 times the images.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from chopmix.experiment.answers import ahead_rows, questions_for
from chopmix.experiment.run import Run, load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.files.rows import row_file
from chopmix.inference.predict import planned
from feeding import cpu_seconds
from PIL import Image
from results import write_results

VIT = {
    "inputs": {"image": {"use": "image", "patch_size": 16, "size": 224}},
    "model": {"width": 384, "depth": 12, "heads": 6, "context": 200, "attention": "same_sample"},
    "tasks": {"kind": {"use": "classification", "target": "label"}},
    "training": {"steps": 1, "samples_per_step": 2}, "evaluation": {"report": False},
}  # fmt: skip


def write_images(folder: Path, count: int, size: int) -> None:
    """Writes PNG (28 pixels) or JPEG files (larger ones) in ten class folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        small = random.integers(0, 255, (7, 7) if size == 28 else (16, 16, 3), dtype=np.uint8)
        file = folder / str(number % 10) / f"{number:05}.{'png' if size == 28 else 'jpg'}"
        file.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC).save(file)


def trained(what: str, folder: Path) -> Run:
    """Returns a run that was trained for one step."""
    if what == "mnist":
        config = load_config("configs/vision/mnist.yaml", [f"out={folder / 'run'}", "training.steps=1",
                                                           "evaluation.report=false"])  # fmt: skip
    else:
        tree = VIT | {"data": {"dataset": {"use": "image_folder", "train": str(folder / "few"),
                                           "val": str(folder / "few")}}, "out": str(folder / "run")}  # fmt: skip
        (folder / "vit.yaml").write_text(yaml.safe_dump(tree))
        config = load_config(folder / "vit.yaml")
    train(config)
    return load_run(folder / "run")


def timed(call: Callable[[], object]) -> float:
    started = cpu_seconds()
    call()
    return cpu_seconds() - started


def compare(what: str, run: Run, folder: Path, count: int, pairs: int) -> dict:
    """Returns images per CPU second of both sides, and their ratio (the median over pairs)."""
    questions = questions_for(run, str(folder / "images"), "test")
    parts = [questions.split.first(count)[first : first + run.rows] for first in range(0, count, run.rows)]
    batches = [planned(run.model, questions.split.batch(part)) for part in parts]

    @torch.inference_mode()
    def bare() -> None:
        with run.arithmetic():
            for batch in batches:
                run.model(batch)

    def ours() -> None:
        with row_file(folder / "answers.csv") as write:
            for rows in ahead_rows(questions_for(run, str(folder / "images"), "test"), run):
                write(rows)

    ratios, rates = [], []
    bare(), ours()
    for number in range(pairs):
        first, second = (ours, bare) if number % 2 else (bare, ours)
        one, other = timed(first), timed(second)
        mine, peer = (one, other) if number % 2 else (other, one)
        ratios.append(peer / mine)
        rates.append((count / mine, count / peer))
    mine, peer = np.median(rates, axis=0)
    return {"what": what, "images": count, "ours_per_cpu_second": round(mine, 1),
            "model_per_cpu_second": round(peer, 1), "ratio": round(float(np.median(ratios)), 3),
            "lowest": round(min(ratios), 3), "highest": round(max(ratios), 3)}  # fmt: skip


def peak_memory(run: Path, data: Path, output: Path) -> int:
    """Returns the peak memory in bytes of `chopmix predict` on a folder, in a process of its own."""
    code = "import resource, sys; from chopmix.commands.cli import main; main(sys.argv[1:]); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    command = [sys.executable, "-c", code, "predict", str(run), "--data", str(data), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=("mnist", "vit"))
    options.add_argument("--count", type=int)
    options.add_argument("--pairs", type=int, default=4)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    count = chosen.count or (10_000 if chosen.what == "mnist" else 256)
    with tempfile.TemporaryDirectory() as name:
        folder, size = Path(name), 28 if chosen.what == "mnist" else 224
        write_images(folder / "images", count, size)
        write_images(folder / "few", 20, size)
        write_images(folder / "quarter", count // 4, size)
        run = trained(chosen.what, folder)
        row = compare(chosen.what, run, folder, count, chosen.pairs)
        peaks = [peak_memory(folder / "run", folder / part, folder / f"{part}.csv") for part in ("quarter", "images")]
        row |= {"peak_bytes_quarter": peaks[0], "peak_bytes": peaks[1]}
    print(row)
    write_results("answers", [row])


if __name__ == "__main__":
    main()
