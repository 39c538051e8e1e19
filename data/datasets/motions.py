"""Basic motions: 80 recordings of four activities, with six axes (accelerometer and gyroscope, 10 Hz, 10 s), from
sktime."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ...files.reading import DataError
from ..sample_dataset import SampleDataset
from ..samples import Listed, Samples


class Motions(SampleDataset):
    """Columns: `motion` (100, 6) and `label` (standing, walking, running, badminton). The recordings of each activity
    are numbered from 0. Those whose number modulo 5 is `fold` (0 to 4) are in test, those with the next remainder,
    (`fold` + 1) modulo 5, in val, and all others in train. Raises ValueError if `fold` is not from 0 to 4."""

    splits = ("train", "val", "test")
    columns = ("motion", "label")

    def __init__(self, *, fold: int = 0):
        if not 0 <= fold < 5:
            raise ValueError(f"fold must be 0 to 4, not {fold}")
        self.fold = fold

    @cached_property
    def recordings(self) -> tuple[np.ndarray, list[str]]:
        """(all recordings as float32 (80, 100, 6), their 80 labels). Raises DataError if sktime is not installed."""
        try:
            from sktime.datasets import load_basic_motions
        except ImportError:
            raise DataError("motions needs sktime: pip install 'chopmix[motions]'") from None
        x, y = load_basic_motions(return_type="numpy3d")
        return x.transpose(0, 2, 1).astype(np.float32), [str(label) for label in y]

    def open(self, split: str) -> Samples:
        self.check_split(split)
        values, labels = self.recordings
        folds = [labels[:number].count(label) % 5 for number, label in enumerate(labels)]
        held_out = {self.fold: "test", (self.fold + 1) % 5: "val"}
        chosen = [number for number, fold in enumerate(folds) if held_out.get(fold, "train") == split]
        rows = [{"motion": values[n], "label": labels[n]} for n in chosen]
        return Listed([f"motion {n}" for n in chosen], rows)
