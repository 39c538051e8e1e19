"""Bach's chorales for four voices, in steps of sixteenth notes, read from `jsb_chorales/Jsb16thSeparated.json` in the
data root (the split of Boulanger-Lewandowski et al. 2012, arXiv:1206.6392)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...files.reading import DataError
from ...files.records import Record, read_record
from ..base import data_root
from ..sample_dataset import SampleDataset
from ..samples import Listed, Samples

ADDRESS = "https://github.com/czhuang/JSB-Chorales-dataset"
Chorale = list[Annotated[list[Annotated[int, Field(ge=-1, le=127)]], Field(min_length=4, max_length=4)]]
"""A list of time steps. Each time step has four MIDI pitches, soprano first; -1 is silence."""


class Chorales(Record):
    """The content of the JSON file: the chorales of each split."""

    train: list[Chorale]
    valid: list[Chorale]
    test: list[Chorale]


class JsbChorales(SampleDataset):
    """Column: `score`, an array (number of sixteenths, 4 voices) of MIDI pitches, soprano first; -1 is silence. There
    are 229 chorales in train, 76 in val and 77 in test."""

    splits = ("train", "val", "test")
    columns = ("score",)

    def open(self, split: str) -> Samples:
        self.check_split(split)
        file = data_root() / "jsb_chorales" / "Jsb16thSeparated.json"
        if not file.exists():
            raise DataError(f"{file} is missing. Download {file.name} from {ADDRESS} to this path, or set CHOPMIX_DATA")
        scores = getattr(read_record(file, Chorales), {"val": "valid"}.get(split, split))
        return Listed([f"chorale {split} {number}" for number in range(len(scores))], [{"score": s} for s in scores])
