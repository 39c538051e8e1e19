"""How near generated items are to the training data: are they copies?"""

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
    """Whether generated items of one length are copies of training items.

    The distance of an item is the number of ids in which it differs from the nearest training item. The figure (named
    as in the YAML) is the share of complete generated items with a smaller distance than a true item of the split, both
    drawn at random, ties counting half: 0.5 if they are as near as true ones, 1 if all are copies. `_exact`: the share
    that equals a training item; `_exact_real`: the same of the true items. Where no generated item is complete, there
    is only `_exact_real`.
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
        if len({len(each) for each in ids}) != 1:
            raise ValueError("copies: the items of the training data are not all of one length")
        self.training = np.array(ids, np.uint16)

    def save(self, folder: Path) -> None:
        write_bytes(folder / f"training-{self.training.shape[1]}.u16", self.training.astype("<u2").tobytes())

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        found = sorted(folder.glob("training-*.u16"))
        length = found[0].stem.rpartition("-")[2] if found else ""
        content = read_bytes(found[0]) if length.isdecimal() and int(length) else b"-"
        if not content or len(content) % (2 * int(length or 1)):
            raise DataError(f"{folder} is missing or damaged: the training items' ids stand there; copy whole runs")
        self.training = np.frombuffer(content, "<u2").reshape(-1, int(length))

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary) -> dict[str, float]:
        made = self.distances([each.item for each in generated if each.item is not None], vocabulary)
        true = self.distances([each.true for each in generated], vocabulary)
        found = {"_exact_real": float((true == 0).mean())}
        if len(made):
            nearer = (made[:, None] < true).mean() + (made[:, None] == true).mean() / 2
            found |= {"": float(nearer), "_exact": float((made == 0).mean())}
        return found

    def distances(self, items: Sequence[Any], vocabulary: Vocabulary) -> np.ndarray:
        """In how many ids each item differs from its nearest training item, (n)."""
        ids = [np.array(vocabulary.encode(item), np.uint16) for item in items]
        return np.array([(self.training != each).sum(1).min() for each in ids])
