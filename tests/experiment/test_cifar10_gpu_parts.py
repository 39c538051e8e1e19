"""The configurations `cifar10_gpu`, which generate photographs from codes and judge them with a classifier: small
versions are trained on random pictures, and the full versions are dry-run."""

import numpy as np
import pytest
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.sample_dataset import SampleDataset
from chopmix.data.samples import Listed
from chopmix.experiment.run import load_run
from PIL import Image

SMALL = [
    "model.width=24", "model.depth=1", "model.heads=2", "training.steps=2", "training.samples_per_step=8",
    "training.precision=float32", "evaluation.every=2", "evaluation.rows=8", "logging.tensorboard=false",
]  # fmt: skip


class Photographs(SampleDataset):
    """Random pictures of the ten classes."""

    splits = ("train", "val", "test")
    columns = ("image", "label")

    def open(self, split):
        random = np.random.default_rng(len(split))
        rows = [{"image": random.integers(0, 256, (32, 32, 3), np.uint8), "label": n % 10} for n in range(20)]
        return Listed([f"{split} {n}" for n in range(20)], rows)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A function that trains a configuration on the random pictures, by default with small sizes."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    data = ['data.dataset={use: "test_cifar10_gpu_parts:Photographs"}']

    def run(name, *more, small=True):
        changes = [*data, *(SMALL if small else []), *more, f"out={tmp_path / name}"]
        return main(["train", str(ROOT / "configs" / f"{name}.yaml"), *changes])

    return run


@pytest.mark.system
def test_photographs_are_generated_from_codes_and_judged(trained, tmp_path, capsys):
    head = ["tasks.codes.depth=1", "tasks.codes.heads=2"]
    parts = [
        f"inputs.image.run={tmp_path / 'generate/cifar10_codes_gpu'}",
        f"tasks.picture.metrics.accepted.run={tmp_path / 'vision/cifar10_gpu'}",
    ]
    assert trained("generate/cifar10_gpu", *parts) == 2  # its parts are not there yet
    assert "cifar10_codes_gpu is not a run: it has no config.yaml" in capsys.readouterr().err
    assert trained("vision/cifar10_gpu") == 0 == trained("generate/cifar10_codes_gpu", *head)
    assert trained("generate/cifar10_gpu", *parts, "evaluation.generated=4") == 0
    run = load_run(tmp_path / "generate/cifar10_gpu", trust=["test_cifar10_gpu_parts"])
    metrics = run.evaluate("test")
    assert {"test/accepted", "test/accepted_real", "test/accepted_decoded", "test/copies"} <= metrics.keys()
    more = ["--input", "thing=8", "--guidance", "2", "--count", "2", "--output", str(tmp_path / "ship.png")]
    trust = ["--trust", "test_cifar10_gpu_parts"]
    assert main(["generate", str(tmp_path / "generate/cifar10_gpu"), *more, *trust]) == 0
    with Image.open(tmp_path / "ship-2.png") as picture:
        assert picture.size == (32, 32)
    capsys.readouterr()
    sizes = ["training.samples_per_step=4", "evaluation.rows=4"]
    for name, extra in (
        ("vision/cifar10_gpu", []),
        ("generate/cifar10_codes_gpu", []),
        ("generate/cifar10_gpu", parts),
    ):
        where = f"out={tmp_path / 'dry' / name}"
        file = str(ROOT / "configs" / f"{name}.yaml")
        data = 'data.dataset={use: "test_cifar10_gpu_parts:Photographs"}'
        assert main(["train", file, "--dry-run", data, *sizes, *extra, where]) == 0
        assert "one step: loss" in capsys.readouterr().out
