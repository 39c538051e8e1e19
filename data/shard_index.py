"""The index of tar shards: where the members of each sample are. It is prepared once, and used as long as the shards do
not change."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ..files.progress import counted
from ..files.reading import LARGE, PACKED, DataError, regular, shown, utf8
from ..files.records import Record, parse_json, read_record
from ..files.trust import is_remote
from ..files.writing import make_folder, sweep, write_text
from .base import cache_folder
from .fingerprint import Fingerprint, file_fingerprint
from .key_hashes import share_by_hash
from .prepared import Arrays, Columnwise, prepared
from .sample_keys import Keys
from .tar_files import DAMAGED, members, open_file, unpacked, version
from .workers import deaf, workers_of

FORMAT = 2
"""The number of the format of an index."""
MOST_CLASSES = 2**16
"""The values of `cls` are part of the index if there are at most this many."""
MOST_EXTENSIONS = 2**16
"""The largest number of different extensions of members."""
LONGEST_CLASS = 64
"""The values of `cls` are part of the index if they have at most this many bytes."""
MANY = 100
"""From this number of new shards, their members are found by several processes."""
THREADS = 32
"""The number of remote shards whose versions are requested at the same time."""

Natural = Annotated[int, Field(ge=0, lt=2**63)]


class ShardRecord(Record):
    """The positions of the samples in one shard, which is stored as a JSON file in the cache folder."""

    path: str
    """The absolute path (or the address) of the uncompressed tar file: the shard, or its unpacked copy in the cache
    folder."""
    content: str
    """See `shard_version`."""
    samples: list[tuple[str, dict[str, tuple[Natural, Natural]] | dict[Literal["damaged"], str]]]
    """Pairs (key, {extension: (offset, size)}) in bytes, such as ("7", {"png": (512, 310), "cls": (1536, 1)}). The last
    pair of a damaged shard is (key, {DAMAGED: reason})."""
    classes: list[str | None]
    """For each sample, the text of its member `cls`; None if it has none, or a long one."""

    def fits(self) -> bool:
        """Returns whether the tar file exists and is long enough for all members. Always True for a remote file, which
        is not checked."""
        if len(self.classes) != len(self.samples):
            return False
        if is_remote(self.path):
            return True
        spans = (span for _, members in self.samples for span in members.values() if not isinstance(span, str))
        return os.path.isfile(self.path) and max(map(sum, spans), default=0) <= os.path.getsize(self.path)


class ShardIndex(Arrays):
    """The samples of several shards, by number. `write_index` describes the arrays."""

    def check(self) -> None:
        self.sources: list[str] = self.about["sources"]
        self.versions: list[str] = self.about["versions"]
        self.prefixes: list[str] = self.about["prefixes"]
        self.extensions: list[str] = self.about["extensions"]
        self.classes: list[int | str] = [class_of(text) for text in self.about["classes"]]
        self.damage: dict[int, str] = {int(number): reason for number, reason in self.about["damage"]}
        self.fingerprint: str = self.about["fingerprint"]
        self.starts, self.count = self["starts"], len(self["key"])
        self.keys = ShardKeys(self)
        if len({*map(len, (self.sources, self.versions, self.prefixes, self.starts))}) > 1:
            raise ValueError("the lists of shards have different lengths")
        counts = np.diff(self.starts, append=self.count)
        for name, total in (("key", len(self["keys"])), ("member", len(self["place"]))):
            ends = np.repeat(self[f"first_{name}"], counts) + self[name]
            if len(ends) and (ends[-1] != total or ends[0] < 0 or (np.diff(ends) < 0).any()):
                raise ValueError(f"the positions of the {name}s are not ascending")
        lengths = {len(self[name]) for name in ("key", "member", "class", "share")}
        if len(lengths) > 1 or (counts < 0).any() or len(self["extension"]) != len(self["place"]):
            raise ValueError("the arrays have different lengths")
        if (self["place"] < 0).any() or (self["extension"] >= len(self.extensions)).any():
            raise ValueError("a member has no position or extension")
        sizes = np.array(
            [np.iinfo(np.int64).max if is_remote(path) else os.path.getsize(path) for path in self.sources]
        )
        members_of_shard = np.diff(self["first_member"], append=len(self["place"]))
        if (self["place"][:, 0] > np.repeat(sizes, members_of_shard) - self["place"][:, 1]).any():
            raise ValueError("a member is not in its shard")

    def shard(self, number: int) -> int:
        """Returns the number of the shard with this sample."""
        return int(np.searchsorted(self.starts, number, side="right")) - 1

    def spans(self, number: int) -> dict[str, tuple[int, int]]:
        """Returns {extension: (offset, size)} of a sample, in bytes."""
        shard = self.shard(number)
        first = self._before("member", shard, number)
        end = int(self["first_member"][shard]) + int(self["member"][number])
        codes, places = self["extension"][first:end].tolist(), self["place"][first:end].tolist()
        return {self.extensions[code]: tuple(place) for code, place in zip(codes, places)}

    def label(self, number: int) -> int | str | None:
        """Returns the value of the member `cls`; None if the sample has none, or if it is not part of the index."""
        code = int(self["class"][number])
        return self.classes[code] if code < len(self.classes) else None

    def key(self, number: int) -> str:
        """Returns the key of a sample."""
        shard = self.shard(number)
        first = self._before("key", shard, number)
        end = int(self["first_key"][shard]) + int(self["key"][number])
        return self.prefixes[shard] + self["keys"][first:end].tobytes().decode(errors="replace")

    def _before(self, name: str, shard: int, number: int) -> int:
        """Returns where the keys or members of a sample begin. The ends are stored relative to the shard."""
        before = int(self[name][number - 1]) if number > self.starts[shard] else 0
        return int(self[f"first_{name}"][shard]) + before


class ShardKeys(Keys):
    """The keys of the samples of an index."""

    def __init__(self, index: ShardIndex):
        self.index = index

    def __len__(self) -> int:
        return self.index.count

    def __getitem__(self, number: int) -> str:
        return self.index.key(range(len(self))[number])

    def shares(self) -> np.ndarray:
        return self.index["share"]


def class_of(text: str) -> int | str:
    """Returns the value of a member `cls`: an integer if it has at most 18 digits, else a text."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text


def decoded(content: bytes, extension: str, where: str) -> Any:
    """Returns the value of a member: `cls` as an integer (or text), `txt` as text, `json` parsed, any other member as
    bytes. Raises DataError if a text is not UTF-8 or the JSON is invalid; the message begins with `where`."""
    if extension == "cls":
        return class_of(utf8(content, where).strip())
    if extension == "txt":
        return utf8(content, where)
    return parse_json(content, where) if extension == "json" else content


# ---------------------------------------------------------------------------------------------------- making an index


def shard_index(paths: Sequence[str]) -> ShardIndex:
    """Returns the index of shards. It is read from the cache folder if the shards are unchanged; otherwise it is
    created, from the stored records of unchanged shards and from new records, by several processes if there are many.
    Raises DataError if a shard does not exist, if its first member cannot be read, or if a shard contains a key
    twice."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(f"{shown(path)}: the path of a shard must be UTF-8; rename it") from None
    versions = versions_of(paths)
    described = Fingerprint(FORMAT, list(paths), list(map(located, paths)), versions).hex
    folder = cache_folder() / "shards" / f"index-{described[:32]}"
    return prepared(folder, partial(write_index, paths=paths, versions=versions), ShardIndex)


def located(path: str) -> str:
    """Returns the absolute path of a local shard, and the address of a remote one."""
    return path if is_remote(path) else os.path.abspath(path)


def versions_of(paths: Sequence[str]) -> list[str]:
    """Returns the version of each shard: a text that changes when the file is written. Raises DataError if a shard does
    not exist."""
    if any(map(is_remote, paths)):
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(version_of, paths))
    return list(map(version_of, paths))


def version_of(path: str) -> str:
    """Returns the version of one shard (see `versions_of`)."""
    return version(path) if is_remote(path) else local_version(regular(path))


def local_version(stat: os.stat_result) -> str:
    """Returns the version of a local file: its size and the time of its last change."""
    return f"{stat.st_size} {stat.st_mtime_ns}"


def shard_version(path: str) -> str:
    """Returns a text that changes when the content of a shard changes (for a remote shard, when its metadata
    change)."""
    return f"{path} {version(path)}" if is_remote(path) else file_fingerprint(Path(path))


def record_file(path: str, changed: str) -> Path:
    """Returns the file in which the record of a shard with this version is stored."""
    name = hashlib.sha256(f"{FORMAT} {located(path)} {changed}".encode()).hexdigest()[:32]
    return cache_folder() / "shards" / f"{name}.json"


def stored_record(path: str, changed: str) -> ShardRecord | None:
    """Returns the stored record of a shard; None if there is none, if it is damaged, or if it does not fit the
    shard."""
    with suppress(DataError):
        record = read_record(record_file(path, changed), ShardRecord, LARGE)
        if record.fits():
            return record
    return None


def make_record(path: str, changed: str) -> None:
    """Finds the members of a shard, and stores their record. Raises DataError if the shard does not exist or its first
    member cannot be read."""
    file = record_file(path, changed)
    source = unpacked(path, file.with_suffix(".tar").absolute()) if is_packed(path) else located(path)
    samples = list(members(source, path))
    with open_file(source) as tar:
        classes = [class_text(tar, parts) for _, parts in samples]
    record = ShardRecord(path=source, content=shard_version(path), samples=samples, classes=classes)
    write_text(file, record.model_dump_json())


def is_packed(path: str) -> bool:
    """Returns whether a shard is compressed, so that its unpacked copy is read."""
    return Path(path).suffix in PACKED


def class_text(tar: Any, parts: dict[str, Any]) -> str | None:
    """Returns the text of the member `cls` of a sample; None if it has none, a long one, or one that is not UTF-8."""
    offset, size = parts.get("cls", (0, LONGEST_CLASS + 1))
    if size > LONGEST_CLASS:
        return None
    tar.seek(offset)
    with suppress(UnicodeDecodeError):
        return tar.read(size).decode().strip()
    return None


def records_of(paths: Sequence[str], versions: Sequence[str]) -> Iterator[ShardRecord]:
    """Yields the record of each shard. Missing records are made first, each of which is stored immediately: if the
    process is killed, the next one continues."""
    folder = cache_folder() / "shards"
    make_folder(folder)
    sweep(folder.iterdir())
    missing = [(path, changed) for path, changed in zip(paths, versions) if not stored_record(path, changed)]
    for _ in counted(made_records(missing), "tar shards", len(missing)):
        pass
    for path, changed in zip(paths, versions):
        record = stored_record(path, changed)
        if record is None:
            raise DataError(f"{path} changed while its members were counted; start again")
        yield record


def made_records(missing: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Makes the records of shards with these versions, and yields after each one."""
    processes = min(os.cpu_count() or 1, len(missing) // MANY + 1)
    if processes == 1:
        yield from (make_record(path, changed) for path, changed in missing)
        return
    pool = workers_of(processes)
    try:
        with deaf():
            results = pool.map(make_record, *zip(*missing), chunksize=16)
        yield from results
    except BrokenProcessPool:
        raise DataError("a process that reads tar shards ended unexpectedly; is there enough memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def write_index(columns: Columnwise, paths: Sequence[str], versions: Sequence[str]) -> None:
    """Writes the index of shards: one entry per shard in `starts`, `first_key` and `first_member` (the number of its
    first sample, the position of its first key in `keys`, the number of its first member); one per sample in `key` and
    `member` (where the sample's key and members end, relative to the shard), `class` (the index of its class in
    `classes`) and `share` (`share_by_hash` of the key); one per member in `extension` (its index in `extensions`) and
    `place` (offset, size)."""
    index = Index()
    for record in records_of(paths, versions):
        for name, values in index.columns_of(record).items():
            columns.add(name, values)
    prefixes = prefixes_of(index.keys, index.counts, paths)
    first = np.cumsum([0, *index.counts]).tolist()
    keys = [prefix + key for n, prefix in enumerate(prefixes) for key in index.keys[first[n] : first[n + 1]]]
    columns.add("share", np.fromiter(map(share_by_hash, keys), np.float64, len(keys)))
    columns.about = {
        "sources": index.sources, "versions": list(versions), "extensions": list(index.extensions),
        "classes": list(index.classes), "damage": index.damage, "prefixes": prefixes,
        "fingerprint": Fingerprint(index.contents, keys).hex,
    }  # fmt: skip


@dataclass
class Index:
    """What the shards before the next one contain."""

    sources: list[str] = field(default_factory=list)
    contents: list[Any] = field(default_factory=list)
    damage: list[tuple[int, str]] = field(default_factory=list)
    """The number of each damaged sample, and the reason."""
    keys: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """The number of samples of each shard."""
    extensions: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    key_bytes: int = 0
    members: int = 0

    def columns_of(self, record: ShardRecord) -> dict[str, np.ndarray]:
        """Returns the columns of one shard (see `write_index`), and adds it. Raises DataError if there are too many
        extensions."""
        sample = len(self.keys)
        names = [key.encode(errors="backslashreplace") for key, _ in record.samples]
        reasons = [parts.get(DAMAGED) if isinstance(parts.get(DAMAGED), str) else None for _, parts in record.samples]
        self.damage += [(sample + number, reason) for number, reason in enumerate(reasons) if reason is not None]
        spans = [{} if reason is not None else parts for reason, (_, parts) in zip(reasons, record.samples)]
        codes = [self.extensions.setdefault(name, len(self.extensions)) for parts in spans for name in parts]
        places = [span for parts in spans for span in parts.values()]
        if len(self.extensions) > MOST_EXTENSIONS:
            raise DataError(
                f"{record.path} has more than {MOST_EXTENSIONS:,} different extensions, such as "
                f"{shown(next(reversed(self.extensions)))}: the key of a sample is the name of its files up to the "
                "first dot"
            )
        columns = {
            "starts": np.array([sample]), "first_key": np.array([self.key_bytes]),
            "first_member": np.array([self.members]), "keys": np.frombuffer(b"".join(names), np.uint8),
            "key": np.cumsum(list(map(len, names)), dtype=np.uint32),
            "member": np.cumsum(list(map(len, spans)), dtype=np.uint32), "extension": np.array(codes, np.uint16),
            "place": np.array(places, np.int64).reshape(-1, 2),
            "class": np.array([class_code(text, self.classes) for text in record.classes], np.uint32),
        }  # fmt: skip
        self.sources.append(record.path)
        self.contents.append(record.content)
        self.keys += [name.decode() for name in names]
        self.counts.append(len(names))
        self.key_bytes += sum(map(len, names))
        self.members += len(places)
        return columns


def class_code(text: str | None, classes: dict[str, int]) -> int:
    """Returns the index of a class, which is added if it is new; MOST_CLASSES if there is none, or if there are too
    many classes."""
    if text is None or (text not in classes and len(classes) >= MOST_CLASSES):
        return MOST_CLASSES
    return classes.setdefault(text, len(classes))


def prefixes_of(keys: Sequence[str], counts: Sequence[int], paths: Sequence[str]) -> list[str]:
    """Returns the text before all keys of each shard: nothing; if two shards have a key in common, the name of the
    shard; if keys are then still equal, its path. Raises DataError if a shard contains a key twice."""
    shards = np.repeat(np.arange(len(paths)), counts).tolist()
    for prefixes in ([""] * len(paths), [f"{Path(path).name}/" for path in paths], [f"{path}/" for path in paths]):
        seen: set[str] = set()
        for shard, key in zip(shards, keys):
            if (complete := prefixes[shard] + key) in seen:
                break
            seen.add(complete)
        else:
            return prefixes
    raise DataError(f"{complete} occurs twice: the members of a sample must be adjacent")
