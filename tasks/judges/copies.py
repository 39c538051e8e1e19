"""A judge that measures whether generated items are copies of training items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files.reading import DataError, read_bytes
from ...files.writing import write_bytes
from ...tokenizers.base import RunPart
from ...tokenizers.encoding.base import Vocabulary
from ..judging import Figure, Generated, Judge, TrainingItems


class Copies(Judge):
    """Measures whether generated items are copies of training items. All items must have the same number of ids.

    The distance of an item is the number of ids in which it differs from the nearest training item. The figure with the
    name of the judge is a probability: that a random complete generated item has a smaller distance than a random true
    item of the split (equal distances count half). It is 0.5 if generated items are as near to the training items as
    true items are, and 1 if all of them are copies and no true item is. `_exact`: the share of generated items that
    equal a training item. `_exact_real`: the share of true items that equal a training item. If no generated item is
    complete, only `_exact_real` is returned.
    """

    encoded = True

    def __init__(self):
        self.training = np.zeros((0, 0), np.uint16)

    @property
    def figures(self) -> Mapping[str, Figure]:
        share = Figure("share of items")
        return {"": share, "_exact": share, "_exact_real": share}

    def fit(self, open_run: Callable[[str | Path], RunPart], data: TrainingItems) -> None:
        ids = [*data.items()]
        if not ids:
            raise ValueError("copies: the training data has no complete item")
        if len({len(item_ids) for item_ids in ids}) != 1:
            raise ValueError("copies: the items of the training data differ in length; all must have the same length")
        self.training = np.array(ids, np.uint16)

    def save(self, folder: Path) -> None:
        write_bytes(folder / f"training-{self.training.shape[1]}.u16", self.training.astype("<u2").tobytes())

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        files = sorted(folder.glob("training-*.u16"))
        length = files[0].stem.rpartition("-")[2] if files else ""
        content = read_bytes(files[0]) if length.isdecimal() and int(length) else b"-"
        if not content or len(content) % (2 * int(length or 1)):
            raise DataError(f"{folder}: the ids of training items are missing or damaged; copy complete run folders")
        self.training = np.frombuffer(content, "<u2").reshape(-1, int(length))

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary) -> dict[str, float]:
        fake = self.distances([sample.item for sample in generated if sample.item is not None], vocabulary)
        true = self.distances([sample.true for sample in generated], vocabulary)
        figures = {"_exact_real": float((true == 0).mean())}
        if len(fake):
            nearer = (fake[:, None] < true).mean() + (fake[:, None] == true).mean() / 2
            figures |= {"": float(nearer), "_exact": float((fake == 0).mean())}
        return figures

    def distances(self, items: Sequence[Any], vocabulary: Vocabulary) -> np.ndarray:
        """Returns the distances (n): the number of ids in which each item differs from its nearest training item."""
        ids = [np.array(vocabulary.encode(item), np.uint16) for item in items]
        return np.array([(self.training != item_ids).sum(1).min() for item_ids in ids])
