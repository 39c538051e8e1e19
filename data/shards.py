"""Samples in tar shards, which are local or remote tar files, and a base class of data sets."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..files.reading import DataError
from ..files.trust import is_remote
from .base import data_root
from .sample_dataset import SampleDataset, share
from .samples import ByColumn, Columns, Renamed, Samples, picked
from .shard_index import ShardIndex, decoded, is_packed, local_version, shard_index
from .tar_files import open_file


@dataclass(frozen=True)
class Shards(ByColumn):
    """The samples of tar files, concatenated. The columns are the extensions of the members: `png`, `cls`, `json`.

    `cls` is converted to an integer if it is a number of at most 18 digits, otherwise to text; `txt` is converted to
    text, and `json` to the value that it contains. All other members remain bytes. A damaged shard has the samples
    before the damage, and one more sample that cannot be read. The first access raises DataError if a shard does not
    exist or its first member cannot be read.
    """

    paths: tuple[str, ...]

    @cached_property
    def index(self) -> ShardIndex:
        """The positions of all samples."""
        return shard_index(self.paths)

    @property
    def keys(self) -> Sequence[str]:
        """The path of each sample's members up to the first dot of the file name. If two shards have a key in common,
        the name of the shard precedes all keys; if keys are then still equal, its path. Raises DataError if a shard
        contains a key twice."""
        return self.index.keys

    def __len__(self) -> int:
        return self.index.count

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return self.index.fingerprint

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        if number in self.index.damage:
            raise DataError(self.index.damage[number])
        label = self.index.label(number) if names is None or "cls" in names else None
        if label is not None and names is not None and len(names) == 1:
            return {"cls": label}
        spans = picked(self.index.spans(number), names).items()
        return {
            name: label if name == "cls" and label is not None else self._read(number, name, *span)
            for name, span in spans
        }

    def damaged(self) -> Iterator[tuple[int, str]]:
        return iter(self.index.damage.items())

    def _read(self, number: int, extension: str, offset: int, size: int) -> Any:
        shard = self.index.shard(number)
        path, source = self.paths[shard], self.index.sources[shard]
        with open_file(source) as file:
            is_original = not is_remote(path) and not is_packed(path)
            if is_original and local_version(os.fstat(file.fileno())) != self.index.versions[shard]:
                raise DataError(f"{path} changed after its samples were counted; start again")
            file.seek(offset)
            content = file.read(size)
        key = self.index.key(number)
        if len(content) != size:
            raise DataError(f"{path}: {key}.{extension} is cut short ({len(content)} of {size} bytes)")
        return decoded(content, extension, f"{path}: {key}.{extension}")


class ShardDataset(SampleDataset):
    """Base class of data sets in a `folder` of the data root with one shard per split: `train.tar.gz`, `test.tar.gz`,
    and optionally `val.tar.gz`. Without `val.tar.gz`, a tenth of train is used for validation (selected by the hash of
    the key)."""

    folder: str
    ending = ".tar.gz"
    splits = ("train", "val", "test")
    sources: Mapping[str, str]
    """By column, the member that contains the value: its extension, or `json.key` for a value inside a JSON member."""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.sources)

    def open(self, split: str) -> Samples:
        self.check_split(split)
        divided = split == "test" or (data_root() / self.folder / f"val{self.ending}").exists()
        return self.read(split) if divided else share(self.read("train"), split)

    def read(self, *files: str) -> Samples:
        """Returns the samples of shards in the folder. `files` contains the names of the shards without the ending.
        Raises DataError if a shard is missing."""
        paths = [data_root() / self.folder / f"{name}{self.ending}" for name in files]
        missing = [path for path in paths if not path.exists()]
        if missing:
            members = ", ".join(sorted({f"key.{source.split('.')[0]}" for source in self.sources.values()}))
            needed = f"a tar file in WebDataset layout ({members} for each sample)"
            raise DataError(f"{missing[0]} is missing: put {needed} there, or set CHOPMIX_DATA")
        return renamed(Shards(tuple(map(str, paths))), self.sources)


def renamed(shards: Shards, sources: Mapping[str, str]) -> Samples:
    """Returns the samples of shards with new columns. `sources` maps each column to the extension of its member, or to
    a value inside a JSON member: `{"image": "png", "speaker": "json.speaker"}`."""
    return Renamed(shards, {name: Member(source) for name, source in sources.items()}, dict(sources))


@dataclass(frozen=True)
class Member:
    """Receives the members of a sample and returns the value of a column. `source` is an extension such as `png`, or
    `json.text.fr` for a value inside a JSON member. Returns None if the sample has no such value."""

    source: str

    def __call__(self, row: Columns) -> Any:
        first, *inner = self.source.split(".")
        value = row.get(first)
        for key in inner:
            value = value.get(key) if isinstance(value, dict) else None
        return value
