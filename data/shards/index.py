"""The index of a shard, kept in the cache folder: where every member of every sample lies."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ...tokenizers.files.reading import LARGE, PACKED, DataError, regular
from ...tokenizers.files.records import Record, read_record
from ...tokenizers.files.trust import is_remote
from ...tokenizers.files.writing import sweep_partials, write_text
from ..fingerprint import file_fingerprint
from ..root import cache_folder
from .files import members, unpacked, version

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
