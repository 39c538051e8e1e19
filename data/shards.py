"""Samples in tar shards: local or remote files, an index of their members, and the data set."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
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

from ..files.reading import LARGE, PACKED, SMALL, DataError, matching, regular, unpacked_most, utf8
from ..files.records import Record, parse_json, read_record
from ..files.trust import is_remote, parse_address
from ..files.writing import partial_name, sweep_partials, write_text
from .base import cache_folder, data_root
from .fingerprint import Fingerprint, file_fingerprint
from .samples import ByColumn, Columns, Renamed, SampleDataset, Samples, picked, share

DAMAGED = "damaged"
"""The key that takes the place of a sample's extensions; its value is the reason why neither this sample nor what
follows in its shard can be read."""
PART = 2**20
"""Bytes that are unpacked at a time."""
MOST_SHARDS = 100_000
"""Shards that one pattern may name."""


def expand(pattern: str) -> list[str]:
    """The paths of the shards behind `train-{000..009}.tar` (ten), `train-*.tar` or one path or address, in order.
    Raises DataError for a wrong range and where a pattern matches no file."""
    if found := re.fullmatch(r"([^{}]*)\{([^{}]*)\.\.([^{}]*)\}([^{}]*)", pattern):
        start, first, last, end = found.groups()
        if not re.fullmatch(r"[0-9]{1,9}", first) or not re.fullmatch(r"[0-9]{1,9}", last):
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must be two whole numbers, such as {{000..009}}")
        if not 0 <= int(last) - int(first) < MOST_SHARDS:
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must rise, over {MOST_SHARDS:,} shards at most")
        return [f"{start}{n:0{len(first)}}{end}" for n in range(int(first), int(last) + 1)]
    if is_remote(pattern):
        return [pattern]
    found = matching(os.path.expanduser(pattern))
    if not found:
        raise DataError(f"no shard at {pattern!r} (from the folder {os.getcwd()})")
    return found


def open_file(path: str) -> Any:
    """A local or remote (`s3://...`) file, opened for reading bytes at any offset. The file system is chosen here, so
    that fsspec parses no address. Raises DataError for a protocol that is not supported or whose library is missing,
    and for a remote file that does not exist."""
    if not is_remote(path):
        return open(path, "rb")
    protocol = parse_address(path).protocol
    import fsspec

    try:
        return fsspec.filesystem(protocol).open(path, "rb")
    except (ImportError, ValueError) as error:  # "Install s3fs to access S3"
        raise DataError(f"{path}: {error}") from error
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None


def version(path: str) -> str:
    """JSON that changes when a remote file is replaced, as far as its storage tells: size, date, tag, checksum."""
    with open_file(path) as file:
        told = file.fs.info(path) if hasattr(file, "fs") else {}
    kept = {key: str(value) for key, value in told.items() if key.lower().replace("-", "").replace("_", "") in TOLD}
    return json.dumps(kept, sort_keys=True)


TOLD = {"size", "etag", "mtime", "created", "lastmodified", "updated", "md5hash", "versionid"}
"""Keys of fsspec's `info`, without `-` and `_`, that change with a file."""


def unpacked(path: str, target: Path) -> str:
    """Unpack a compressed shard to the plain tar file `target`, up to where it is cut short, and give that path. Raises
    DataError if it is damaged or empty, or unpacks to more than `unpacked_most` allows."""
    partial, size = partial_name(target), 0
    sweep_partials(target)
    try:
        with (
            open_file(path) as raw,
            PACKED[Path(path).suffix](raw) as source,
            open(partial, "wb") as file,
            suppress(EOFError),  # cut short: what is there is kept, and the index finds the end missing
        ):
            most = unpacked_most(raw.size or 0 if is_remote(path) else os.path.getsize(path))
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


WORDS = 100
"""The most words of a tar file's global header."""


class Headers:
    """A tar file from which only headers are read, so never more than SMALL bytes at once, whatever sizes it claims."""

    def __init__(self, file: Any):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end. Raises ReadError for more than any header has."""
        if size > SMALL:
            raise tarfile.ReadError(f"a header says that it has {size:,} bytes")
        return self.file.read(size)


def members(source: str, path: str) -> Iterator[tuple[str, dict]]:
    """(key, {extension: (offset, size)}) of each sample: neighbouring members with one name up to the first dot.
    `source` is the plain tar file, `path` the shard that messages name. Where it is damaged or cut short the last pair
    is (key, {DAMAGED: why}). Raises DataError where not even the first member can be found."""
    key, found = None, {}
    try:
        with open_file(source) as file, tarfile.open(fileobj=Headers(file), mode="r:") as tar:
            size = file.seek(0, os.SEEK_END)
            for member in tar:
                if len(tar.pax_headers) > WORDS:  # which tarfile copies for every member
                    raise ValueError(f"its global header has more than {WORDS} words")
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
                if member.size < 0:  # as a pax header may say
                    raise ValueError(f"a member of {member.size} bytes")
                if member.offset_data + member.size > size:
                    break
                found[extension.lower()] = (member.offset_data, member.size)
            file.seek(tar.offset)  # tarfile takes a header that is damaged or cut off for the end
            whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
        wrong = None if whole else "its end is missing"
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:  # of sizes below 0, many headers
        if key is None:
            raise DataError(f"{path} is damaged or cut short: {error}") from error
        wrong = str(error)
    if wrong is None and found:
        yield key, found
    elif wrong is not None:  # the last sample may lack members
        yield f"{key} and what follows", {DAMAGED: f"{path} is damaged or cut short after {key!r}: {wrong}"}


Natural = Annotated[int, Field(ge=0, lt=2**63)]


class ShardIndex(Record):
    """Where the samples of a shard lie: the content of a JSON file in the cache folder."""

    path: str
    """The plain tar file that is read: the shard, or, where it is compressed, its unpacked copy in the cache folder."""
    samples: list[tuple[str, dict[str, tuple[Natural, Natural]] | dict[Literal["damaged"], str]]]
    """(key, {extension: (offset, size)}) in bytes, such as ("7", {"png": (512, 310), "cls": (1536, 1)}); at the end
    of a damaged shard (key, {DAMAGED: why})."""

    def fits(self) -> bool:
        """Whether its tar file exists and is long enough for all members; true of a remote one, unchecked."""
        if is_remote(self.path):
            return True
        places = (place for _, members in self.samples for place in members.values() if not isinstance(place, str))
        return os.path.isfile(self.path) and max(map(sum, places), default=0) <= os.path.getsize(self.path)


def shard_index(path: str) -> ShardIndex:
    """The index of a shard, from the cache folder where the shard has not changed since, else made anew. Raises
    DataError where there is no such shard or it is no tar file."""
    remote = is_remote(path)
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
    """Text that changes when a shard's content does, as far as can be told without reading a remote one."""
    return f"{path} {version(path)}" if is_remote(path) else file_fingerprint(Path(path))


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
