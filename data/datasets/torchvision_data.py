"""torchvision's data sets of images and classes by name, from `torchvision/` in the data root."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...files.reading import DataError
from ..base import data_root
from ..samples import ByColumn, Columns, SampleDataset, Samples, picked, share

FLAG = {"train": {"train": True}, "test": {"train": False}}
NAMED = {"train": {"split": "train"}, "test": {"split": "test"}}
THREE = NAMED | {"val": {"split": "val"}}
KNOWN: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "MNIST": FLAG, "FashionMNIST": FLAG, "KMNIST": FLAG, "USPS": FLAG,
    "SVHN": NAMED, "STL10": NAMED, "GTSRB": NAMED, "Food101": NAMED,
    "DTD": THREE, "FGVCAircraft": THREE, "Flowers102": THREE, "RenderedSST2": THREE,
    "Country211": NAMED | {"val": {"split": "valid"}},
    "Imagenette": {"train": {"split": "train"}, "test": {"split": "val"}},
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
}  # fmt: skip
"""The arguments by which each class of torchvision opens a split. None of these unpickles anything."""
OXFORD, OPENAI = ("www.robots.ox.ac.uk",), ("openaipublic.azureedge.net",)
HOSTS: Mapping[str, tuple[str, ...]] = {
    "MNIST": ("ossci-datasets.s3.amazonaws.com", "yann.lecun.com"),
    "FashionMNIST": ("fashion-mnist.s3-website.eu-central-1.amazonaws.com",), "KMNIST": ("codh.rois.ac.jp",),
    "USPS": ("www.csie.ntu.edu.tw",), "SVHN": ("ufldl.stanford.edu",), "STL10": ("ai.stanford.edu",),
    "GTSRB": ("sid.erda.dk",), "Food101": ("data.vision.ee.ethz.ch",), "DTD": OXFORD, "FGVCAircraft": OXFORD,
    "Flowers102": OXFORD, "OxfordIIITPet": OXFORD, "RenderedSST2": OPENAI, "Country211": OPENAI,
    "Imagenette": ("s3.amazonaws.com",),
}  # fmt: skip
"""The hosts from which torchvision downloads each class."""
REFUSED = {"CIFAR10": "cifar10_full", "CIFAR100": "hugging_face, with path: uoft-cs/cifar100"}
"""Data sets that torchvision unpickles, which can execute code, and the dataset to use instead."""


class TorchvisionData(SampleDataset):
    """Columns: `image` and `label` (a number). `dataset` is a class of torchvision.datasets, such as `FashionMNIST`.

    Where torchvision has no validation split, a tenth of train validates, by hash of the key. `download: true` lets
    torchvision fetch what is not there. Raises ValueError for a class that is not read (CIFAR10, which is unpickled).
    """

    splits = ("train", "val", "test")
    columns = ("image", "label")

    def __init__(self, *, dataset: str, download: bool = False):
        if dataset in REFUSED:
            why = "loading never executes code from a file"
            raise ValueError(f"dataset: torchvision unpickles {dataset}, and {why}; use the dataset {REFUSED[dataset]}")
        if dataset not in KNOWN:
            raise ValueError(f"dataset: {dataset!r} is none that this dataset reads; possible: {', '.join(KNOWN)}")
        self.dataset, self.download = dataset, download

    def addresses(self) -> list[str]:
        return [f"https://{host}/" for host in HOSTS[self.dataset]] if self.download else []

    def open(self, split: str) -> Samples:
        self.check_split(split)
        own = split if split in KNOWN[self.dataset] else "train"
        found = Pairs(self.read(own), f"{self.dataset} {own}")
        return found if (own == split and "val" in KNOWN[self.dataset]) or split == "test" else share(found, split)

    def read(self, split: str) -> Any:
        """torchvision's own data set of a split. Raises DataError where it is neither there nor downloaded."""
        from torchvision import datasets

        made, root = getattr(datasets, self.dataset), data_root() / "torchvision"
        decoded_by_us = {"loader": str} if "loader" in inspect.signature(made).parameters else {}
        try:
            return made(str(root), download=self.download, **KNOWN[self.dataset][split], **decoded_by_us)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            how = "it cannot be downloaded" if self.download else "set data.dataset.download=true to fetch it"
            raise DataError(f"torchvision's {self.dataset} is not to be had from {root}; {how}: {error}") from error


@dataclass(frozen=True)
class Pairs(ByColumn):
    """The samples of a torchvision data set of (image, class number) pairs; `name` begins their keys."""

    pairs: Any
    name: str

    @cached_property
    def keys(self) -> Sequence[str]:
        return [f"{self.name} {number}" for number in range(len(self.pairs))]

    @cached_property
    def labels(self) -> list[int] | None:
        """All class numbers, if torchvision's object holds them apart from the images: the attribute depends on its
        class."""
        pairs = getattr(self.pairs, "samples", getattr(self.pairs, "_samples", ()))
        found = next((getattr(self.pairs, n) for n in ("targets", "labels", "_labels") if hasattr(self.pairs, n)), None)
        return [int(label) for label in ([pair[1] for pair in pairs] if found is None else found)] or None

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        if names is not None and "image" not in names and self.labels:
            return picked({"label": self.labels[number]}, names)
        image, label = self.pairs[number]
        return picked({"image": image, "label": int(label)}, names)
