"""A text corpus: tokenized once into a file, and cut into windows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import weakref
from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from torch import Tensor

from ..files.printing import plain_console
from ..files.reading import DataError
from ..files.records import Record, as_record
from ..files.writing import partial_name, sweep_partials
from ..models.batch import IGNORED, Batch, Chunks, SetPlan
from ..models.tokens import PADDING, Tokens, plain_tokens
from ..tokenizers.encoding.base import Encoding, UnencodableText
from .base import Dataset, Document, cache_folder
from .reader import Skipped
from .sampler import SampleIndex, Shuffled
from .split import Split
from .workers import deaf, end_with_parent, workers_of

MAGIC, VERSION, HEADER = b"CHOPTOKS", 2, 4096


class Header(Record):
    """The JSON header of a token file: `tokens` and `documents` are counts, `encoding` is a name and `vocabulary` a
    number of ids."""

    version: int
    integers: Literal["uint16", "uint32"]
    tokens: Annotated[int, Field(ge=0, lt=2**48)]
    documents: Annotated[int, Field(ge=0, lt=2**40)]
    bytes: Annotated[int, Field(ge=0)]
    """Of the text, as UTF-8."""
    encoding: str
    fingerprint: str
    """That of the encoding."""
    vocabulary: Annotated[int, Field(ge=1)]
    dataset: str
    split: str
    source: str
    """The hash of the dataset, its options, the split and its text."""


class OnDisk:
    """An array of `count` numbers from byte `offset` of a file on, read from disk where it is sliced: `ids[10:20]`, a
    slice without a step.

    Not mapped into memory: where a mapped file is cut short meanwhile, reading it kills the process; here DataError is
    raised. The file stays open, so that another one under its name changes nothing.
    """

    def __init__(self, path: str | os.PathLike, dtype: np.dtype, offset: int, count: int):
        self.path, self.dtype, self.offset, self.count = path, dtype, offset, count
        self.handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.handle)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice) -> np.ndarray:
        first, last, _ = part.indices(self.count)
        size = max(last - first, 0) * self.dtype.itemsize
        found = bytearray()
        while len(found) < size:
            place = self.offset + first * self.dtype.itemsize + len(found)
            more = os.pread(self.handle, size - len(found), place)
            if not more:
                raise DataError(f"{self.path} was cut short while it was being read")
            found += more
        return np.frombuffer(found, self.dtype)


@dataclass(frozen=True, eq=False)
class TokenFile:
    """An open token file."""

    path: Path
    header: Header
    ids: OnDisk
    """All ids, one document after another."""
    starts: np.ndarray
    """Where in `ids` each document begins, at its start token."""

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """Open a file. Raises DataError when it is missing, cut short, of another version, or no token file at all."""
        try:
            header = _read_header(path)
            found = os.path.getsize(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        size = header.tokens * np.dtype(header.integers).itemsize
        places = HEADER + size + -size % 8
        expected = places + 8 * header.documents
        if found != expected:
            what = "cut short" if found < expected else "too long"
            raise DataError(f"{path} is {what}: {found} bytes instead of {expected}; delete it and start again")
        ids = OnDisk(path, np.dtype(header.integers).newbyteorder("<"), HEADER, header.tokens)
        return cls(Path(path), header, ids, OnDisk(path, np.dtype("<i8"), places, header.documents)[:])

    def __reduce__(self):
        return TokenFile.open, (self.path,)  # pickled by its path: another process opens the file

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text behind the ids: the divisor of bits per byte."""
        return self.header.bytes

    def document(self, number: int) -> np.ndarray:
        """The ids of one document, numbered from 0, its start token first."""
        end = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.ids)
        return self.ids[self.starts[number] : end]


def _read_header(path: Path) -> Header:
    """The header of a file. Raises OSError, and DataError for another kind of file or a damaged one."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
    if not head.startswith(MAGIC):
        raise DataError(f"{path} is not a token file: it begins with {head[:8]!r} instead of {MAGIC!r}")
    if len(head) < HEADER:
        raise DataError(f"{path} is cut short: {len(head)} bytes do not even hold its header")
    header = as_record(head[len(MAGIC) :].rstrip(), Header, f"{path}: damaged header")
    if header.version != VERSION:
        raise DataError(f"{path} has version {header.version}; this program reads version {VERSION}; delete it")
    return header


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


class Windows(Shuffled):
    """Batches of `rows` windows of `context` ids each from a stream of `length` ids; a window's number is the index of
    its first id. Every epoch shifts the windows by a random offset and reads each once, in a random order (nanoGPT
    draws every start independently).

    Of 100 ids and a context of 10 an epoch reads 9 windows, from offset + 0, 10, 20, ..., 80, with an offset of 0 to 9:
    the last window, too, has an id after it.
    """

    def __init__(self, length: int, context: int, rows: int):
        super().__init__(max(1, (length - context) // context), rows)
        self.length, self.context = length, context

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """The first id of each of an epoch's windows, in their order."""
        random = np.random.default_rng([seed, epoch])
        order, room = random.permutation(self.count), self.length - self.count * self.context
        return order * self.context + random.integers(min(self.context, room))


@dataclass(frozen=True, kw_only=True)
class StreamSplit(Split):
    """One split of a corpus as windows of `context` tokens, of which each is to predict the next; `rows` windows are a
    global batch, read as the input `input`.

    With `separate` every document (or part of one) in a window is a sample of its own; else the window is one sample.
    The documents "ab" and "c" as bytes, behind the start token 256, in a window of 4 (context) from 0:

        values     256  97  98  256
        next_ids    97  98 256   99
        index        0   1   2    3     separate:  0  1  2  0
        sample       1   1   1    1     separate:  1  1  1  2

    Raises DataError for a corpus shorter than one window and the token after it.
    """

    file: TokenFile
    context: int
    input: str = "text"
    separate: bool = False
    rows: int = 1
    skipped: Skipped = field(default_factory=lambda: Skipped.of(""), repr=False)
    _plain: dict[int, Tokens] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if len(self.file.ids) < self.context + 1:
            there = f"{self.file.header.dataset} {self.name}: {len(self.file.ids)} tokens"
            needed = f"one window of the context ({self.context}) and the token after it"
            raise DataError(f"{there} are too few for {needed}; use more text or a smaller model.context")

    @property
    def unit(self) -> str:
        return f"rows of {self.context}"

    @cached_property
    def sampler(self) -> Windows:
        """Which windows a step reads."""
        return Windows(len(self.file.ids), self.context, self.rows)

    def __len__(self) -> int:
        """Windows in one training epoch."""
        return self.sampler.count

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return self.sampler.plan(seed, step)

    @property
    def fingerprint(self) -> str:
        """The hash of the dataset, its options, the split and its text (`source_digest`)."""
        return self.file.header.source

    def all(self) -> list[SampleIndex]:
        """The windows of a whole evaluation: every token but the first is a target exactly once."""
        return [SampleIndex(0, 0, start) for start in range(0, len(self.file.ids) - 1, self.context)]

    def read(
        self, places: Sequence[SampleIndex], *, training: bool = False, inputs: Collection[str] | None = None
    ) -> Batch:
        """These windows as rows of one set, ids (b, context); a row that reaches past the split's end is padded. The
        seeds of a row (for a task that hides tokens at random) are its run's seed, epoch and window. `inputs` is
        ignored: there is one."""
        n, starts = self.context, [place.number for place in places]
        rows = [torch.from_numpy(self.file.ids[start : start + n + 1].astype(np.int64)) for start in starts]
        ids = torch.full((len(rows), n + 1), IGNORED)
        for row, window in zip(ids, rows):
            row[: len(window)] = window
        next_ids = ids[:, 1:].contiguous()
        values = ids[:, :-1].clamp(min=0)
        if not self.separate and (next_ids[:, -1] != IGNORED).all():
            tokens = self._plain.setdefault(len(rows), plain_tokens(len(rows), n))
            index = torch.arange(n)
        else:
            tokens, index = self._descriptors(starts, next_ids != IGNORED)
        chunks = Chunks(values=values, index=index, next_ids=next_ids)
        batch = Batch(main=SetPlan(tokens=tokens, chunks={self.input: chunks}, seeds=tuple(map(tuple, places))))
        return batch if training else replace(batch, units={self.input: self.bytes_of(next_ids)})

    def bytes_of(self, next_ids: Int[Tensor, "b n"]) -> float:
        """The UTF-8 bytes of the split, times the share of its targets that these windows hold."""
        return self.file.bytes * int((next_ids != IGNORED).sum()) / (len(self.file.ids) - 1)

    def _descriptors(self, starts: Sequence[int], real: Tensor) -> tuple[Tokens, Int[Tensor, "b n"]]:
        """Descriptors of rows with padding or several documents, and each token's index in its document's part."""
        plain, n = plain_tokens(len(starts), self.context), self.context
        place = np.asarray(starts)[:, None] + np.arange(n)
        begins = np.zeros(place.shape, dtype=bool)
        begins[:, 0] = True
        if self.separate:
            next_start = np.searchsorted(self.file.starts, place)  # binary: there may be millions of documents
            begins |= self.file.starts[np.minimum(next_start, len(self.file.starts) - 1)] == place
        column = np.broadcast_to(np.arange(n), place.shape)
        index = column - np.maximum.accumulate(np.where(begins, column, 0), axis=1)
        sample = torch.from_numpy(begins.flatten().cumsum().reshape(place.shape)) * real
        tokens = Tokens(input=(sample != PADDING).long(), sample=sample, item=sample, position=plain.position)
        return tokens, torch.from_numpy(np.ascontiguousarray(index))
