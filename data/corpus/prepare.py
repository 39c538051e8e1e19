"""Preparation of a corpus: its documents encoded once, by several processes, into a token file in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from ...tokenizers.encoding.base import Encoding, UnencodableText
from ...tokenizers.files.printing import plain_console
from ...tokenizers.files.reading import DataError
from ...tokenizers.files.writing import partial_name, sweep_partials
from ..base import Dataset, Document
from ..root import cache_folder
from ..workers import deaf, end_with_parent, workers_of
from .token_file import HEADER, MAGIC, VERSION, TokenFile

PART, WORK, SMALL = 2**17, 2**20, 20
"""Characters (about) of a document's part; characters (about) of one piece of work, of several parts; pieces of work
below which no worker processes are started."""

WORD_END = re.compile(r"[A-Za-z](?= [A-Za-z])")

_in_worker: list[Encoding] = []  # the encoding that a worker process was given


def prepared_folder(dataset: Dataset, encoding: Encoding) -> Path:
    """The folder of a dataset's token files in the cache: its name and a hash (12 hex digits) of the encoding and of
    every split's source."""
    made_of = [encoding.fingerprint, *(source_digest(dataset, split) for split in dataset.splits)]
    return cache_folder() / f"{dataset.name}-{hashlib.sha256(' '.join(made_of).encode()).hexdigest()[:12]}"


def source_digest(dataset: Dataset, split: str) -> str:
    """A sha256 (hex) over the dataset, its options, the split and its source."""
    made_of = json.dumps([dataset.name, dataset.options, split, dataset.source_hash(split)], sort_keys=True)
    return hashlib.sha256(made_of.encode()).hexdigest()


def prepare(
    dataset: Dataset, split: str, encoding: Encoding, folder: Path, *, workers: int | None = None, progress: bool = True
) -> TokenFile:
    """The token file `<folder>/<split>.tokens`: the one that is there, if source and encoding are the same, else a new
    one.

    A large corpus is encoded by `workers` processes (None: one per CPU core). Several processes may prepare the same
    file at once: each writes its own, and the last to finish stays. Raises DataError for a document that the encoding
    cannot hold (naming it and the place), a corpus without text, and a disk that is full or not writable.
    """
    path = Path(folder) / f"{split}.tokens"
    header = {"encoding": encoding.name, "fingerprint": encoding.fingerprint, "vocabulary": encoding.size}
    header |= {"dataset": dataset.name, "split": split, "source": source_digest(dataset, split)}
    sweep_partials(path)
    with contextlib.suppress(DataError):  # what is missing or damaged is made anew
        found = TokenFile.open(path)
        if header.items() <= found.header.model_dump().items():
            return found
    works = _works(dataset.documents(split))
    with _progress_bar(f"{dataset.name} {split}", progress) as advance:
        _write(path, header, _encode_all(works, encoding, workers or os.cpu_count() or 1), advance)
    return TokenFile.open(path)


class Part(NamedTuple):
    """A document, or the part of a long one that begins at its character `start`; `key` names the document."""

    key: str
    start: int
    text: str


class Encoded(NamedTuple):
    """The uint32 ids (t) of some parts, the indices in them at which documents start, and the UTF-8 bytes of their
    text."""

    ids: np.ndarray
    starts: list[int]
    bytes: int


def _parts(document: Document) -> Iterator[Part]:
    """Cut a long document into parts whose ids are those of the whole: between a letter and a space with a letter.
    No byte-pair pattern in use has a piece that crosses such a place or looks beyond it."""
    start, text = 0, document.text
    while start < len(text) or start == 0:
        place = WORD_END.search(text, start + PART)
        end = place.end() if place else len(text)
        yield Part(document.key, start, text[start:end])
        start = max(end, 1)


def _works(documents: Iterable[Document]) -> Iterator[list[Part]]:
    """Gather parts into pieces of work of about WORK characters."""
    work, size = [], 0
    for part in chain.from_iterable(map(_parts, documents)):
        work.append(part)
        size += len(part.text) + 1
        if size >= WORK:
            yield work
            work, size = [], 0
    if work:
        yield work


def _ids(part: Part, encoding: Encoding) -> list[int]:
    """The ids of one part. Raises DataError naming the document, and the place that the encoding cannot hold."""
    try:
        return encoding.encode(part.text)
    except UnencodableText as error:
        what, place, why = error.args
        raise DataError(f"document {part.key!r}: {UnencodableText(what, part.start + place, why)}") from None
    except DataError as error:
        raise DataError(f"document {part.key!r}: {error}") from None


def _encode(work: list[Part], encoding: Encoding, threads: bool) -> Encoded:
    """The ids of some parts, encoded in threads or one by one, with a start token before every document. Raises
    DataError as `_ids` does."""
    texts = [part.text for part in work]
    try:
        found = encoding.encode_batch(texts) if threads else [_ids(part, encoding) for part in work]
    except (UnencodableText, DataError):
        if not threads:
            raise
        return _encode(work, encoding, threads=False)  # one by one, to name the document
    arrays, starts, total = [], [], 0
    for part, ids in zip(work, found, strict=True):
        if part.start == 0:
            starts.append(total)
            ids = [encoding.start, *ids]
        arrays.append(np.array(ids, dtype=np.uint32))
        total += len(ids)
    return Encoded(np.concatenate(arrays), starts, sum(len(text.encode()) for text in texts))


def _encode_all(works: Iterator[list[Part]], encoding: Encoding, workers: int) -> Iterator[Encoded]:
    """Encode pieces of work in order: in this process with threads, or for a large corpus in `workers` others. Raises
    DataError where one of these ends early."""
    first = list(islice(works, SMALL))
    if len(first) < SMALL or workers < 2:
        yield from (_encode(work, encoding, threads=True) for work in chain(first, works))
        return
    waiting: deque[Future[Encoded]] = deque()
    pool = workers_of(workers, _start_worker, encoding)
    try:
        for work in chain(first, works):
            with deaf():
                waiting.append(pool.submit(_encode_in_worker, work))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError("a process that encodes text ended early; is there enough memory for all of them?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(encoding: Encoding) -> None:
    _in_worker.append(encoding)
    end_with_parent()


def _encode_in_worker(work: list[Part]) -> Encoded:
    return _encode(work, _in_worker[0], threads=False)


def _write(path: Path, header: dict, every: Iterable[Encoded], advance: Callable[[int], None]) -> None:
    """Write a token file under a temporary name, sync it to disk, and rename it when it is whole; else leave nothing.
    Raises ValueError for an id outside the vocabulary, DataError where there is no text or writing fails."""
    kind = np.dtype("<u2" if header["vocabulary"] <= 2**16 else "<u4")
    starts, counts, temporary = array("q"), Counter(tokens=0, documents=0, bytes=0), partial_name(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, "wb")
        file.seek(HEADER)
    try:
        for encoded in every:
            if (highest := int(encoded.ids.max(initial=0))) >= header["vocabulary"]:
                raise ValueError(f"id {highest} is outside the vocabulary of {header['vocabulary']} ids")
            starts.extend(counts["tokens"] + start for start in encoded.starts)
            counts.update(tokens=len(encoded.ids), documents=len(encoded.starts), bytes=encoded.bytes)
            with _naming(path):
                file.write(encoded.ids.astype(kind).tobytes())
            advance(encoded.bytes)
        if not counts["bytes"]:
            raise DataError(f"dataset {header['dataset']!r} has no text in its split {header['split']!r}")
        whole = {"version": VERSION, "integers": kind.name, **counts, **header}
        with _naming(path):
            file.write(bytes(-counts["tokens"] * kind.itemsize % 8) + np.asarray(starts, "<i8").tobytes())
            file.seek(0)
            file.write(MAGIC + json.dumps(whole).encode().ljust(HEADER - len(MAGIC)))
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            file.close()  # on a full disk what is still to be written fails a second time
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; nothing of it is kept") from error


@contextlib.contextmanager
def _progress_bar(title: str, enabled: bool) -> Iterator:
    """A progress line on standard error where that is a terminal: bytes of text, speed, time. Gives the function that
    advances it by so many bytes."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    shown = enabled and sys.stderr.isatty()
    with Progress(*columns, console=plain_console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(title, total=None)
        yield lambda size: bar.update(task, advance=size)
