"""WebDataset shards: tar files in which `key.png`, `key.cls`, `key.json` together are one sample.

    a/7.png  a/7.cls  a/8.png  a/8.seg.png      members
    a/7: png, cls     a/8: png, seg.png         samples and their columns

A shard is read once to note where every member lies (the index, kept in the cache folder), after that each sample is
read by its place: in any order, and the same order after a resume. A compressed shard is unpacked once into the cache
folder. Remote shards (`s3://...`, `https://...`) are read through fsspec, member by member.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...tokenizers.files.reading import DataError, utf8
from ...tokenizers.files.records import parse_json
from ..fingerprint import Fingerprint
from ..root import data_root
from ..samples.dataset import ByColumn, Columns, Renamed, SampleDataset, Samples, picked, share
from .files import DAMAGED, open_file
from .index import ShardIndex, shard_index, shard_version


@dataclass(frozen=True)
class Shards(ByColumn):
    """The samples of some tar files, one after another. Columns are named by the members' extensions: `png`, `cls`,
    `json`.

    `cls` is read as a whole number where it is one, `txt` as text, `json` as its value; all else stays bytes. A shard
    that is damaged or cut short has its samples up to there, and one more that cannot be read. Raises DataError, when
    it is first read, for a shard that is missing or no shard at all.
    """

    paths: tuple[str, ...]

    @cached_property
    def index(self) -> list[ShardIndex]:
        """The index of each shard."""
        return [shard_index(path) for path in self.paths]

    @cached_property
    def _places(self) -> list[tuple[int, str, dict]]:
        return [(shard, key, members) for shard, found in enumerate(self.index) for key, members in found.samples]

    @cached_property
    def keys(self) -> Sequence[str]:
        """The members' paths up to the first dot in their names, after the shard's name (or path) where shards share
        some. Raises DataError where one shard has a key twice."""
        keys = [key for _, key, _ in self._places]
        names = [Path(path).name for path in self.paths]
        for shards in (names, self.paths):
            if len(set(keys)) < len(keys):
                keys = [f"{shards[shard]}/{key}" for shard, key, _ in self._places]
        if len(set(keys)) < len(keys):
            raise DataError(f"{Counter(keys).most_common(1)[0][0]} stands twice: a sample's members must be neighbours")
        return keys

    def __len__(self) -> int:
        return len(self._places)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint(list(map(shard_version, self.paths)), list(self.keys)).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        shard, key, members = self._places[number]
        if DAMAGED in members:
            raise DataError(members[DAMAGED])
        return {
            extension: self._read(shard, key, extension, *place) for extension, place in picked(members, names).items()
        }

    def damaged(self) -> Iterator[tuple[int, str]]:
        return ((number, found[DAMAGED]) for number, (*_, found) in enumerate(self._places) if DAMAGED in found)

    def _read(self, shard: int, key: str, extension: str, offset: int, size: int) -> Any:
        with open_file(self.index[shard].path) as file:
            file.seek(offset)
            found = file.read(size)
        if len(found) != size:
            raise DataError(f"{self.paths[shard]}: {key}.{extension} is cut short ({len(found)} of {size} bytes)")
        return decoded(found, extension, f"{self.paths[shard]}: {key}.{extension}")


def decoded(found: bytes, extension: str, where: str) -> Any:
    """A member's value: `cls` as a whole number (or text), `txt` as text, `json` parsed, any other as bytes. Raises
    DataError naming the member (`where`)."""
    if extension == "cls":
        text = utf8(found, where).strip()
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    if extension == "txt":
        return utf8(found, where)
    return parse_json(found, where) if extension == "json" else found


class ShardDataset(SampleDataset):
    """Base of the datasets that are one `folder` of the data root, with one shard per split: `train.tar.gz`,
    `test.tar.gz`. Where there is no `val.tar.gz`, a tenth of train validates, by hash of the key."""

    folder: str
    ending = ".tar.gz"
    splits = ("train", "val", "test")
    sources: Mapping[str, str]
    """The member behind each column: its extension, or `json.key` for a value inside a JSON member."""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.sources)

    def open(self, split: str) -> Samples:
        self.check_split(split)
        own = split == "test" or (data_root() / self.folder / f"val{self.ending}").exists()
        return self.read(split) if own else share(self.read("train"), split)

    def read(self, *files: str) -> Samples:
        """The samples of these files, named without their ending. Raises DataError naming one that is missing."""
        paths = [data_root() / self.folder / f"{name}{self.ending}" for name in files]
        missing = [path for path in paths if not path.exists()]
        if missing:
            members = ", ".join(sorted({f"key.{source.split('.')[0]}" for source in self.sources.values()}))
            needed = f"a tar file in WebDataset layout ({members} for each sample)"
            raise DataError(f"{missing[0]} is missing: put {needed} there, or set CHOPMIX_DATA")
        return renamed(Shards(tuple(map(str, paths))), self.sources)


def renamed(shards: Shards, sources: Mapping[str, str]) -> Samples:
    """The samples of shards with the columns `sources`, each read off the member of that extension, or as a value
    inside a JSON member: `{"image": "png", "speaker": "json.speaker"}`."""
    return Renamed(shards, {name: reader(source) for name, source in sources.items()}, dict(sources))


def reader(source: str) -> Callable[[Columns], Any]:
    """The function that reads a column off a sample's members: `png`, or `json.text.fr` for a value inside a JSON
    member. It gives None where there is none."""
    first, *inner = source.split(".")

    def read(row: Columns) -> Any:
        value = row.get(first)
        for key in inner:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    return read
