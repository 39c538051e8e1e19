"""WebDataset shards: tar files in which `key.png`, `key.cls`, `key.json` together are one sample.

A shard is read once to note where every member lies (the index, kept in the cache folder), after that each sample is read
by its place: in any order, and the same order after a resume. A compressed shard is unpacked once into the cache folder.
Remote shards (`s3://...`, `https://...`) are read through fsspec, member by member.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ...tokenizers.files.reading import LARGE, PACKED, SMALL, DataError, matching, regular, unpacked_most, utf8
from ...tokenizers.files.records import Record, parse_json, read_record
from ...tokenizers.files.writing import partial_name, sweep_partials, write_text
from ..fingerprint import Fingerprint, file_fingerprint
from ..root import cache_folder, data_root
from ..samples import Columns, Renamed, SampleDataset, Samples, share

DAMAGED = "damaged"
"""In place of a sample's members: why neither it nor what follows in its shard can be read."""
PART = 2**20
MOST_SHARDS = 100_000

Natural = Annotated[int, Field(ge=0, lt=2**63)]


class ShardIndex(Record):
    """Where the samples of a shard lie: a file of the cache folder."""

    path: str
    """The tar file that is read: the shard, or, where that is packed, what was unpacked."""
    samples: list[tuple[str, dict[str, tuple[Natural, Natural]] | dict[Literal["damaged"], str]]]
    """(key, {extension: (offset, size)}); {DAMAGED: why} in place of a sample that cannot be read, nor what follows it."""

    def fits(self) -> bool:
        """Whether its tar file is there and long enough for all members; of a remote one that is not asked."""
        if "://" in self.path:
            return True
        places = (place for _, members in self.samples for place in members.values() if not isinstance(place, str))
        return os.path.isfile(self.path) and max(map(sum, places), default=0) <= os.path.getsize(self.path)


@dataclass(frozen=True)
class Shards(Samples):
    """The samples of some tar files, one after another. Columns carry the members' extensions: `png`, `cls`, `json`.

    `cls` is read as a whole number where it is one, `txt` as text, `json` as its value; all else stays bytes. A shard that is
    damaged or cut short has its samples up to there, and one more that cannot be read. Raises DataError for a shard that is
    missing or no shard at all.
    """

    paths: tuple[str, ...]

    @cached_property
    def index(self) -> list[ShardIndex]:
        """One for each shard."""
        return [shard_index(path) for path in self.paths]

    @cached_property
    def _places(self) -> list[tuple[int, str, dict]]:
        return [(shard, key, members) for shard, found in enumerate(self.index) for key, members in found.samples]

    @cached_property
    def keys(self) -> Sequence[str]:
        """The members' names up to the first dot; with the shard's name (or path) before, where two shards share some."""
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

    def __getitem__(self, number: int) -> Columns:
        shard, key, members = self._places[number]
        if DAMAGED in members:
            raise DataError(members[DAMAGED])
        return {extension: self._read(shard, key, extension, *place) for extension, place in members.items()}

    def damaged(self) -> Iterator[tuple[int, str]]:
        return ((number, found[DAMAGED]) for number, (*_, found) in enumerate(self._places) if DAMAGED in found)

    def numbered(self, name: str) -> Iterator[tuple[int, Any]]:
        for number, (shard, key, members) in enumerate(self._places):
            if name in members:
                with suppress(ValueError, OSError):
                    yield number, self._read(shard, key, name, *members[name])

    def _read(self, shard: int, key: str, extension: str, offset: int, size: int) -> Any:
        with open_file(self.index[shard].path) as file:
            file.seek(offset)
            found = file.read(size)
        if len(found) != size:
            raise DataError(f"{self.paths[shard]}: {key}.{extension} is cut short ({len(found)} of {size} bytes)")
        return decoded(found, extension, f"{self.paths[shard]}: {key}.{extension}")


def decoded(found: bytes, extension: str, where: str) -> Any:
    """A member's value by its extension. Raises DataError naming the member."""
    if extension == "cls":
        text = utf8(found, where).strip()
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    if extension == "txt":
        return utf8(found, where)
    return parse_json(found, where) if extension == "json" else found


def expand(pattern: str) -> list[str]:
    """The shards behind `train-{000..009}.tar`, `train-*.tar` or one path, in order. Raises DataError when there is none."""
    if found := re.fullmatch(r"([^{}]*)\{([^{}]*)\.\.([^{}]*)\}([^{}]*)", pattern):
        start, first, last, end = found.groups()
        if not re.fullmatch(r"[0-9]{1,9}", first) or not re.fullmatch(r"[0-9]{1,9}", last):
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must be two whole numbers, such as {{000..009}}")
        if not 0 <= int(last) - int(first) < MOST_SHARDS:
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must rise, over {MOST_SHARDS:,} shards at most")
        return [f"{start}{n:0{len(first)}}{end}" for n in range(int(first), int(last) + 1)]
    if "://" in pattern:
        return [pattern]
    found = matching(os.path.expanduser(pattern))
    if not found:
        raise DataError(f"no shard at {pattern!r} (from the folder {os.getcwd()})")
    return found


def open_file(path: str) -> Any:
    """A local or remote file, for reading bytes at any place. Raises DataError where fsspec lacks the protocol or a part of it,
    and for a remote file that is not there."""
    if "://" not in path:
        return open(path, "rb")
    import fsspec

    try:
        return fsspec.open(path, "rb").open()
    except (ImportError, ValueError) as error:  # "Install s3fs to access S3", "Protocol not known"
        raise DataError(f"{path}: {error}") from error
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None


def shard_index(path: str) -> ShardIndex:
    """Where every sample of a shard lies; from the cache folder when the shard has not changed since."""
    remote = "://" in path
    changed = version(path) if remote else "{0.st_size} {0.st_mtime_ns}".format(regular(path))
    name = hashlib.sha256(f"{path if remote else os.path.abspath(path)} {changed}".encode()).hexdigest()[:32]
    folder = cache_folder() / "shards"
    file = folder / f"{name}.json"
    with suppress(DataError):  # what is missing or damaged is made anew
        known = read_record(file, ShardIndex, LARGE)
        if known.fits():
            return known
    folder.mkdir(parents=True, exist_ok=True)
    source = unpacked(path, folder / f"{name}.tar") if Path(path).suffix in PACKED else path
    found = ShardIndex(path=source, samples=list(members(source, path)))
    sweep_partials(file)
    write_text(file, found.model_dump_json())
    return found


def shard_version(path: str) -> str:
    """What changes when a shard's content does, as far as can be told without reading a remote one."""
    return f"{path} {version(path)}" if "://" in path else file_fingerprint(Path(path))


def version(path: str) -> str:
    """What changes when a remote file is replaced, as far as its storage tells: its size, date, tag, checksum."""
    with open_file(path) as file:
        told = file.fs.info(path) if hasattr(file, "fs") else {}
    kept = {key: str(value) for key, value in told.items() if key.lower().replace("-", "").replace("_", "") in TOLD}
    return json.dumps(kept, sort_keys=True)


TOLD = {"size", "etag", "mtime", "created", "lastmodified", "updated", "md5hash", "versionid"}


def unpacked(path: str, target: Path) -> str:
    """A compressed shard as a plain tar in the cache folder, up to where it is cut short. Raises DataError when it is damaged."""
    partial, most, size = partial_name(target), sys.maxsize if "://" in path else unpacked_most(path), 0
    sweep_partials(target)
    try:
        with (
            open_file(path) as raw,
            PACKED[Path(path).suffix](raw) as source,
            open(partial, "wb") as file,
            suppress(EOFError),  # cut short: what is there is kept, and the index finds the end missing
        ):
            while part := source.read1(PART):
                size += file.write(part)
                if size > most:
                    raise OSError(f"it unpacks to more than {most:,} bytes; unpack it yourself if that is meant")
        if not partial.stat().st_size:
            raise EOFError("it is empty")
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be unpacked, it is damaged or cut short: {error}") from error
    os.replace(partial, target)
    return str(target)


class Headers:
    """A tar file from which only headers are read, so never much at once, whatever sizes stand in it."""

    def __init__(self, file: Any):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer at the end. Raises ReadError for more than any header has."""
        if size > SMALL:
            raise tarfile.ReadError(f"a header says that it has {size:,} bytes")
        return self.file.read(size)


def members(source: str, path: str):
    """(key, {extension: (offset, size)}) of each sample: neighbouring members with one name up to the first dot."""
    key, found = None, {}
    try:
        with open_file(source) as file, tarfile.open(fileobj=Headers(file), mode="r:") as tar:
            size = file.seek(0, os.SEEK_END)
            for member in tar:
                if not member.isfile():
                    continue
                named = member.name.encode(errors="backslashreplace").decode()  # in some bytes that are no UTF-8
                folder, _, name = named.rpartition("/")
                stem, _, extension = name.partition(".")
                own = f"{folder}/{stem}" if folder else stem
                if own != key and found:
                    yield key, found
                    found = {}
                key = own
                if member.offset_data + member.size > size:
                    break
                found[extension.lower()] = (member.offset_data, member.size)
            file.seek(tar.offset)  # tarfile takes a header that is damaged or cut off for the end
            whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
        wrong = None if whole else "its end is missing"
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:  # tarfile's of sizes below 0
        if key is None:
            raise DataError(f"{path} is damaged or cut short: {error}") from error
        wrong = str(error)
    if wrong is None and found:
        yield key, found
    elif wrong is not None:  # the last sample may lack members
        yield f"{key} and what follows", {DAMAGED: f"{path} is damaged or cut short after {key!r}: {wrong}"}


class ShardDataset(SampleDataset):
    """Base of the datasets that are one folder of the data root, with one shard per split: `train.tar.gz`, `test.tar.gz`."""

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
        """The samples of these files. Raises DataError when one is missing, saying which it is."""
        paths = [data_root() / self.folder / f"{name}{self.ending}" for name in files]
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise DataError(f"{missing[0]} is missing: put {self.about_files()} there, or set CHOPMIX_DATA")
        return renamed(Shards(tuple(map(str, paths))), self.sources)

    def about_files(self) -> str:
        """Which files belong there, in words."""
        members = ", ".join(sorted({f"key.{source.split('.')[0]}" for source in self.sources.values()}))
        return f"a tar file in WebDataset layout ({members} for each sample)"


def renamed(shards: Shards, sources: Mapping[str, str]) -> Samples:
    """The samples of shards, each column read off the member that `sources` names: its extension, or `json.key`."""
    return Renamed(shards, {name: reader(source) for name, source in sources.items()}, dict(sources))


def reader(source: str) -> Callable[[Columns], Any]:
    """What a column reads off a sample's members: `png`, or `json.text.fr` for a value inside a JSON member."""
    first, *inner = source.split(".")

    def read(row: Columns) -> Any:
        value = row.get(first)
        for key in inner:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    return read
