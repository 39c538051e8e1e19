"""Series of the UCR and UEA archives for classification, from the package aeon (Dau et al. 2019, arXiv:1810.07758;
Bagnall et al. 2018, arXiv:1811.00075)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ...files.reading import DataError
from ..sample_dataset import SampleDataset, share
from ..samples import Listed, Samples


class Archive(SampleDataset):
    """Columns: `series` (times, channels) and `label` (a text). `name`: one of the data sets that aeon contains, such
    as GunPoint; nothing is downloaded. The splits train and test are those of the archive; about a tenth of train (with
    `data.split` another share) becomes val. Series of different lengths keep their lengths. Raises DataError if aeon is
    not installed or does not contain the data set."""

    splits = ("train", "val", "test")
    columns = ("series", "label")

    def __init__(self, *, name: str):
        self.series = name

    @property
    def provided(self) -> tuple[str, ...]:
        return ("test",)

    def undivided(self) -> Samples:
        return self.read("train")

    def open(self, split: str) -> Samples:
        self.check_split(split)
        return self.read("test") if split == "test" else share(self.read("train"), split)

    def read(self, part: str) -> Samples:
        """Returns the samples of the archive's split train or test."""
        series, labels = loaded(self.series, part)
        rows = [{"series": each, "label": label} for each, label in zip(series, labels, strict=True)]
        return Listed([f"{part} {number}" for number in range(len(rows))], rows)


@cache
def loaded(name: str, part: str) -> tuple[list[Float[np.ndarray, "t c"]], list[str]]:
    """Returns the series and labels of a split of the archive."""
    try:
        import aeon.datasets
    except ImportError:
        raise DataError("archive needs aeon: pip install 'chopmix[archive]'") from None
    folder = Path(aeon.datasets.__file__).parent / "data"
    possible = sorted(path.name for path in folder.iterdir() if (path / f"{path.name}_TRAIN.ts").exists())
    if name not in possible:
        raise DataError(f"aeon does not contain {name!r}; possible: {', '.join(possible)}")
    series, labels = aeon.datasets.load_classification(name, split=part, extract_path=str(folder))
    return [without_padding(np.asarray(each, dtype=np.float32).T) for each in series], [str(label) for label in labels]


def without_padding(series: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "t c"]:
    """Returns a series without the measurements at its end of which all channels are missing."""
    known = np.flatnonzero(~np.isnan(series).all(1))
    return series[: known[-1] + 1 if len(known) else 1]
