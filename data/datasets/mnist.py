"""MNIST: handwritten digits of 28 x 28 pixels, from `mnist/` in the data root; a tenth of train validates, by hash."""

from __future__ import annotations

from ..shards.dataset import ShardDataset


class Mnist(ShardDataset):
    """Columns: `image` (28 x 28, grey) and `label` 0 to 9."""

    folder = "mnist"
    sources = {"image": "png", "label": "cls"}
