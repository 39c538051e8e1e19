"""Your own WebDataset shards, local or remote."""

from __future__ import annotations

from ...tokenizers.files.reading import DataError
from ..samples import SampleDataset, Samples, share
from ..shards.dataset import Shards, expand, renamed


class Webdataset(SampleDataset):
    """`train`, `val` and `test` name tar files: `shards/train-{000..009}.tar`, `shards/*.tar`, `s3://...`; without `val` a
    tenth of train validates, by hash of the key. `columns` says which member each column is: `{image: jpg, label: cls,
    speaker: json.speaker}`."""

    def __init__(
        self, *, train: str | list[str], val: str | list[str] | None = None, test: str | list[str] | None = None,
        columns: dict[str, str],
    ):  # fmt: skip
        self.train, self.val, self.test, self.sources = train, val, test, columns
        self.columns = tuple(columns)
        self.splits = ("train", "val") if test is None else ("train", "val", "test")

    @property
    def options(self) -> dict[str, object]:
        return {"train": self.train, "val": self.val, "test": self.test, "columns": self.sources}

    def open(self, split: str) -> Samples:
        self.check_split(split)
        named = getattr(self, split) or self.train
        paths = [path for pattern in ([named] if isinstance(named, str) else named) for path in expand(pattern)]
        found = renamed(Shards(tuple(paths)), self.sources)
        if not len(found):
            raise DataError(f"{paths[0]} holds no samples")
        return share(found, split) if self.val is None and split != "test" else found
