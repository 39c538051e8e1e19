"""torchvision's data sets of images and classes, read from `torchvision/` in the data root."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...files.reading import DataError
from ..base import data_root
from ..sample_dataset import SampleDataset, share
from ..samples import ByColumn, Columns, Samples, picked

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
"""By class of torchvision and split, the arguments with which the class opens the split. None of these classes
unpickles files."""
OXFORD, OPENAI = ("www.robots.ox.ac.uk",), ("openaipublic.azureedge.net",)
HOSTS: Mapping[str, tuple[str, ...]] = {
    "MNIST": ("ossci-datasets.s3.amazonaws.com", "yann.lecun.com"),
    "FashionMNIST": ("fashion-mnist.s3-website.eu-central-1.amazonaws.com",), "KMNIST": ("codh.rois.ac.jp",),
    "USPS": ("www.csie.ntu.edu.tw",), "SVHN": ("ufldl.stanford.edu",), "STL10": ("ai.stanford.edu",),
    "GTSRB": ("sid.erda.dk",), "Food101": ("data.vision.ee.ethz.ch",), "DTD": OXFORD, "FGVCAircraft": OXFORD,
    "Flowers102": OXFORD, "OxfordIIITPet": OXFORD, "RenderedSST2": OPENAI, "Country211": OPENAI,
    "Imagenette": ("s3.amazonaws.com",),
}  # fmt: skip
"""By class of torchvision, the hosts from which torchvision downloads the data."""
REFUSED = {"CIFAR10": "cifar10_full", "CIFAR100": "hugging_face, with path: uoft-cs/cifar100"}
"""Data sets that are refused, because torchvision unpickles them, which can execute code; and for each the data set to
use instead."""


class TorchvisionData(SampleDataset):
    """Columns: `image` and `label` (the number of the class). `dataset` is the name of a class in torchvision.datasets,
    such as `FashionMNIST`.

    If torchvision has no validation split, a tenth of train is used for validation (selected by the hash of the key).
    With `download: true`, torchvision downloads missing files. Raises ValueError if the class is not supported. CIFAR10
    and CIFAR100 are not supported, because torchvision unpickles them.
    """

    splits = ("train", "val", "test")
    columns = ("image", "label")

    def __init__(self, *, dataset: str, download: bool = False):
        if dataset in REFUSED:
            reason = f"torchvision unpickles {dataset}, which can execute code"
            raise ValueError(f"dataset: {reason}; use the data set {REFUSED[dataset]}")
        if dataset not in KNOWN:
            raise ValueError(f"dataset: {dataset!r} is not supported; possible: {', '.join(KNOWN)}")
        self.dataset, self.download = dataset, download

    def addresses(self) -> list[str]:
        return [f"https://{host}/" for host in HOSTS[self.dataset]] if self.download else []

    def open(self, split: str) -> Samples:
        self.check_split(split)
        name = split if split in KNOWN[self.dataset] else "train"
        pairs = Pairs(self.read(name), f"{self.dataset} {name}")
        return pairs if (name == split and "val" in KNOWN[self.dataset]) or split == "test" else share(pairs, split)

    def read(self, split: str) -> Any:
        """Returns torchvision's data set object of a split. Raises DataError if files are missing or cannot be
        downloaded."""
        from torchvision import datasets

        dataset_class, root = getattr(datasets, self.dataset), data_root() / "torchvision"
        undecoded = {"loader": str} if "loader" in inspect.signature(dataset_class).parameters else {}
        try:
            return dataset_class(str(root), download=self.download, **KNOWN[self.dataset][split], **undecoded)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            hint = "it cannot be downloaded" if self.download else "set data.dataset.download=true to download it"
            raise DataError(f"torchvision's {self.dataset} cannot be loaded from {root}; {hint}: {error}") from error


@dataclass(frozen=True)
class Pairs(ByColumn):
    """The samples of a torchvision data set, which contains pairs (image, class number). The keys begin with `name`."""

    pairs: Any
    name: str

    @cached_property
    def keys(self) -> Sequence[str]:
        return [f"{self.name} {number}" for number in range(len(self.pairs))]

    @cached_property
    def labels(self) -> list[int] | None:
        """The class numbers of all samples. None if torchvision's object does not store them separately from the
        images. The name of the attribute that stores them depends on the class of the object."""
        pairs = getattr(self.pairs, "samples", getattr(self.pairs, "_samples", ()))
        ids = next((getattr(self.pairs, n) for n in ("targets", "labels", "_labels") if hasattr(self.pairs, n)), None)
        return [int(label) for label in ([pair[1] for pair in pairs] if ids is None else ids)] or None

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        if names is not None and "image" not in names and self.labels:
            return picked({"label": self.labels[number]}, names)
        image, label = self.pairs[number]
        return picked({"image": image, "label": int(label)}, names)
