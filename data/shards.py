"""Samples in tar shards, which are local or remote tar files; the index of the files (members) in a shard; and a base
class of data sets."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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
"""The key that replaces the extensions of a sample if this sample and the rest of its shard cannot be read. Its value
is the reason."""
PART = 2**20
"""The number of bytes that are unpacked at a time."""
MOST_SHARDS = 100_000
"""The maximum number of shards in one pattern."""


def expand(pattern: str) -> list[str]:
    """Returns the paths or addresses of the shards of a pattern, in order. A pattern is `train-{000..009}.tar` (ten
    shards), `train-*.tar`, a path, or an address. Raises DataError if the range in braces is not two ascending integers
    or has more than MOST_SHARDS shards, or if a local pattern matches no file."""
    if match := re.fullmatch(r"([^{}]*)\{([^{}]*)\.\.([^{}]*)\}([^{}]*)", pattern):
        start, first, last, end = match.groups()
        if not re.fullmatch(r"[0-9]{1,9}", first) or not re.fullmatch(r"[0-9]{1,9}", last):
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must be two integers, such as {{000..009}}")
        if not 0 <= int(last) - int(first) < MOST_SHARDS:
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must be ascending, with at most {MOST_SHARDS:,} shards")
        return [f"{start}{n:0{len(first)}}{end}" for n in range(int(first), int(last) + 1)]
    if is_remote(pattern):
        return [pattern]
    paths = matching(os.path.expanduser(pattern))
    if not paths:
        raise DataError(f"no shard at {pattern!r} (relative to the folder {os.getcwd()})")
    return paths


def open_file(path: str) -> Any:
    """Returns an open local or remote (`s3://...`) file, for reading bytes at any offset. The file system is selected
    here by the protocol, so fsspec does not interpret the address itself. For a remote file, raises DataError if the
    protocol is not supported, its library is missing, or the file does not exist."""
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
    """Returns a JSON text that changes when a remote file is replaced. It contains the metadata that the storage
    provides: size, date, tag, checksum."""
    with open_file(path) as file:
        info = file.fs.info(path) if hasattr(file, "fs") else {}
    kept = {key: str(value) for key, value in info.items() if key.lower().replace("-", "").replace("_", "") in METADATA}
    return json.dumps(kept, sort_keys=True)


METADATA = {"size", "etag", "mtime", "created", "lastmodified", "updated", "md5hash", "versionid"}
"""Keys of fsspec's `info`, without `-` and `_`, whose values change when a file changes."""


def unpacked(path: str, target: Path) -> str:
    """Unpacks a compressed shard to the tar file `target`, and returns the path of `target`. Of a shard that is cut
    short, the part before its end is unpacked. Raises DataError if the shard is damaged, is empty, or unpacks to more
    bytes than `unpacked_most` allows."""
    partial, size = partial_name(target), 0
    sweep_partials(target)
    try:
        with (
            open_file(path) as raw,
            PACKED[Path(path).suffix](raw) as source,
            open(partial, "wb") as file,
            suppress(EOFError),  # cut short: the first part is kept, and the index reports that the end is missing
        ):
            most = unpacked_most(raw.size or 0 if is_remote(path) else os.path.getsize(path))
            while part := source.read1(PART):
                size += file.write(part)
                if size > most:
                    partial.unlink(missing_ok=True)
                    raise DataError(f"{path} was not unpacked: its content has more than {most:,} bytes, as that of a "
                                    "decompression bomb. If you trust the file, unpack it yourself")  # fmt: skip
        if not partial.stat().st_size:
            raise EOFError("it is empty")
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be unpacked, it is damaged or cut short: {error}") from error
    os.replace(partial, target)
    return str(target)


WORDS = 100
"""The maximum number of words in the global header of a tar file."""


class Headers:
    """A tar file from which only headers are read. One call reads at most SMALL bytes, even if a header claims a larger
    size."""

    def __init__(self, file: Any):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Returns `size` bytes, or fewer at the end. Raises ReadError if `size` is larger than SMALL."""
        if size > SMALL:
            raise tarfile.ReadError(f"a header claims a size of {size:,} bytes")
        return self.file.read(size)


def members(source: str, path: str) -> Iterator[tuple[str, dict]]:
    """Yields (key, {extension: (offset, size)}) for each sample; offset and size are in bytes. A sample consists of
    adjacent members with the same path up to the first dot of the file name. `source` is the uncompressed tar file,
    `path` is the shard, for messages. If the file is damaged or cut short, the last pair is (key, {DAMAGED: reason}).
    Raises DataError if the first member cannot be read."""
    key, parts = None, {}
    try:
        with open_file(source) as file, tarfile.open(fileobj=Headers(file), mode="r:") as tar:
            size = file.seek(0, os.SEEK_END)
            for member in tar:
                if len(tar.pax_headers) > WORDS:  # tarfile copies them for every member
                    raise ValueError(f"its global header has more than {WORDS} words")
                if not member.isfile():
                    continue
                path_inside = member.name.encode(errors="backslashreplace").decode()  # it may be invalid UTF-8
                folder, _, name = path_inside.rpartition("/")
                stem, _, extension = name.partition(".")
                member_key = f"{folder}/{stem}" if folder else stem
                if member_key != key and parts:
                    yield key, parts
                    parts = {}
                key = member_key
                if member.size < 0:  # possible in a pax header
                    raise ValueError(f"a member of {member.size} bytes")
                if member.offset_data + member.size > size:
                    break
                parts[extension.lower()] = (member.offset_data, member.size)
            file.seek(tar.offset)  # tarfile treats a damaged or incomplete header as the end
            complete = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
        problem = None if complete else "its end is missing"
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:  # negative size, many headers
        if key is None:
            raise DataError(f"{path} is damaged or cut short: {error}") from error
        problem = str(error)
    if problem is None and parts:
        yield key, parts
    elif problem is not None:  # the last sample may lack members
        yield f"{key} and what follows", {DAMAGED: f"{path} is damaged or cut short after {key!r}: {problem}"}


Natural = Annotated[int, Field(ge=0, lt=2**63)]


class ShardIndex(Record):
    """The positions of the samples in a shard. An index is stored as a JSON file in the cache folder."""

    path: str
    """The uncompressed tar file: the shard, or its unpacked copy in the cache folder."""
    samples: list[tuple[str, dict[str, tuple[Natural, Natural]] | dict[Literal["damaged"], str]]]
    """Pairs (key, {extension: (offset, size)}) in bytes, such as ("7", {"png": (512, 310), "cls": (1536, 1)}). The last
    pair of a damaged shard is (key, {DAMAGED: reason})."""

    def fits(self) -> bool:
        """Returns whether the tar file exists and is long enough for all members. Always True for a remote file, which
        is not checked."""
        if is_remote(self.path):
            return True
        spans = (span for _, members in self.samples for span in members.values() if not isinstance(span, str))
        return os.path.isfile(self.path) and max(map(sum, spans), default=0) <= os.path.getsize(self.path)


def shard_index(path: str) -> ShardIndex:
    """Returns the index of a shard. It is read from the cache folder if the shard is unchanged; otherwise a new index
    is created and stored. Raises DataError if the shard does not exist or its first member cannot be read."""
    remote = is_remote(path)
    changed = version(path) if remote else "{0.st_size} {0.st_mtime_ns}".format(regular(path))
    name = hashlib.sha256(f"{path if remote else os.path.abspath(path)} {changed}".encode()).hexdigest()[:32]
    folder = cache_folder() / "shards"
    file = folder / f"{name}.json"
    with suppress(DataError):  # a missing or damaged index is created again
        cached = read_record(file, ShardIndex, LARGE)
        if cached.fits():
            return cached
    folder.mkdir(parents=True, exist_ok=True)
    source = unpacked(path, folder / f"{name}.tar") if Path(path).suffix in PACKED else path
    index = ShardIndex(path=source, samples=list(members(source, path)))
    sweep_partials(file)
    write_text(file, index.model_dump_json())
    return index


def shard_version(path: str) -> str:
    """Returns a text that changes when the content of a shard changes (for a remote shard, when its metadata
    change)."""
    return f"{path} {version(path)}" if is_remote(path) else file_fingerprint(Path(path))


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
    def index(self) -> list[ShardIndex]:
        """The index of each shard."""
        return [shard_index(path) for path in self.paths]

    @cached_property
    def _entries(self) -> list[tuple[int, str, dict]]:
        return [(shard, key, members) for shard, index in enumerate(self.index) for key, members in index.samples]

    @cached_property
    def keys(self) -> Sequence[str]:
        """The path of each sample's members up to the first dot of the file name. If two shards have a key in common,
        the name of the shard precedes all keys; if keys are then still equal, its path. Raises DataError if a shard
        contains a key twice."""
        keys = [key for _, key, _ in self._entries]
        names = [Path(path).name for path in self.paths]
        for shards in (names, self.paths):
            if len(set(keys)) < len(keys):
                keys = [f"{shards[shard]}/{key}" for shard, key, _ in self._entries]
        if len(set(keys)) < len(keys):
            duplicate = Counter(keys).most_common(1)[0][0]
            raise DataError(f"{duplicate} occurs twice: the members of a sample must be adjacent")
        return keys

    def __len__(self) -> int:
        return len(self._entries)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint(list(map(shard_version, self.paths)), list(self.keys)).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        shard, key, members = self._entries[number]
        if DAMAGED in members:
            raise DataError(members[DAMAGED])
        return {
            extension: self._read(shard, key, extension, *span) for extension, span in picked(members, names).items()
        }

    def damaged(self) -> Iterator[tuple[int, str]]:
        return ((number, parts[DAMAGED]) for number, (*_, parts) in enumerate(self._entries) if DAMAGED in parts)

    def _read(self, shard: int, key: str, extension: str, offset: int, size: int) -> Any:
        with open_file(self.index[shard].path) as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) != size:
            raise DataError(f"{self.paths[shard]}: {key}.{extension} is cut short ({len(content)} of {size} bytes)")
        return decoded(content, extension, f"{self.paths[shard]}: {key}.{extension}")


def decoded(content: bytes, extension: str, where: str) -> Any:
    """Returns the value of a member: `cls` as an integer (or text), `txt` as text, `json` parsed, any other member as
    bytes. Raises DataError if a text is not UTF-8 or the JSON is invalid; the message begins with `where`."""
    if extension == "cls":
        text = utf8(content, where).strip()
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    if extension == "txt":
        return utf8(content, where)
    return parse_json(content, where) if extension == "json" else content


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
