"""The rival of `configs/flow/digits.yaml`: images that are drawn from a Gaussian of the pixels of each class, or copied
from the training images, scored by the judge of the run on the same samples.

    python benchmarks/gaussian_digits.py runs/flow/digits --split val
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from chopmix.experiment.run import load_run
from chopmix.tasks.judging import Generated


def drawn(of_class: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns an image from the normal distribution with the mean and covariance of images (s, height, width)."""
    pixels = of_class.reshape(len(of_class), -1)
    image = random.multivariate_normal(pixels.mean(0), np.cov(pixels.T))
    return image.reshape(of_class.shape[1:]).round().clip(0, 255)


def copied(of_class: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns one of the images."""
    return of_class[random.integers(len(of_class))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("run")
    parser.add_argument("--split", default="val")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    run = load_run(options.run)
    judge = next(judge for task in run.tasks.values() for judge in task.judges.values())
    train, samples = run.samples("train"), run.samples(options.split)
    images, digits = (np.array([np.squeeze(row[name]) for row in train]) for name in ("image", "digit"))
    for method in (drawn, copied):
        for seed in range(options.seeds):
            random, pairs = np.random.default_rng(seed), []
            for row in samples:
                image = method(images[digits == row["digit"]].astype(float), random)
                made, true = (torch.tensor(np.squeeze(each).astype(np.uint8))[None] for each in (image, row["image"]))
                pairs.append(Generated(made, true, {judge.columns[0]: row["digit"]}))
            figures = judge.judge(pairs, None)
            print(method.__name__, seed, {name: round(value, 4) for name, value in figures.items()})


if __name__ == "__main__":
    main()
