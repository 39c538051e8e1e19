"""User data in WebDataset shards, which are local or remote tar files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...files.reading import DataError
from ...files.trust import is_remote
from ..sample_dataset import OwnFiles
from ..samples import Samples
from ..shards import Shards, renamed
from ..tar_files import expand


class Webdataset(OwnFiles):
    """`train`, `val` and `test` are tar files, patterns of tar files, or lists of these: `shards/train-{000..009}.tar`,
    `shards/*.tar`, `s3://...`. Without `val`, a tenth of train is used for validation (selected by the hash of the
    key). `columns` maps each column to the extension of its member (the files of a sample in the tar file), or to a
    value inside a JSON member: `{image: jpg, label: cls, speaker: json.speaker}`."""

    def __init__(
        self, *, train: str | list[str], val: str | list[str] | None = None, test: str | list[str] | None = None,
        columns: dict[str, str],
    ):  # fmt: skip
        super().__init__(train, val, test)
        self.sources, self.columns = columns, tuple(columns)

    @property
    def options(self) -> dict[str, object]:
        return {"train": self.train, "val": self.val, "test": self.test, "columns": self.sources}

    def addresses(self) -> Iterator[str]:
        patterns = [pattern for where in (self.train, self.val, self.test) for pattern in listed(where)]
        return (path for pattern in patterns if is_remote(pattern) for path in expand(pattern))

    def read(self, where: str | list[str]) -> Samples:
        paths = [path for pattern in listed(where) for path in expand(pattern)]
        samples = renamed(Shards(tuple(paths)), self.sources)
        if not len(samples):
            raise DataError(f"{paths[0]} holds no samples")
        return samples


def listed(where: str | list[str] | None) -> Sequence[str]:
    """Returns the patterns as a list: one pattern, several patterns, or an empty list for None."""
    return [where] if isinstance(where, str) else where or []
