"""CIFAR-10: colour photographs of 32 x 32 pixels in ten classes, read from `cifar10/` in the data root."""

from __future__ import annotations

from ..shards import ShardDataset


class Cifar10(ShardDataset):
    """Columns: `image` (32 x 32, colour) and `label` 0 to 9, the number of the class in alphabetical order (airplane,
    automobile, ...). If there is no `val.tar.gz`, a tenth of train is used for validation (selected by the hash of the
    key)."""

    folder = "cifar10"
    sources = {"image": "jpg", "label": "cls"}
