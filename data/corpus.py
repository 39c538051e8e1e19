"""Text corpora: tokenized once into a file, and read in windows."""

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
    """The JSON header of a token file. `tokens` and `documents` are counts, `encoding` is the name of the encoding, and
    `vocabulary` is the number of its ids."""

    version: int
    integers: Literal["uint16", "uint32"]
    tokens: Annotated[int, Field(ge=0, lt=2**48)]
    documents: Annotated[int, Field(ge=0, lt=2**40)]
    bytes: Annotated[int, Field(ge=0)]
    """The size of the text in UTF-8."""
    encoding: str
    fingerprint: str
    """The fingerprint of the encoding."""
    vocabulary: Annotated[int, Field(ge=1)]
    dataset: str
    split: str
    source: str
    """The hash (`source_digest`) of the data set, its options, the split and its text."""


class OnDisk:
    """An array of `count` numbers that starts at byte `offset` of a file. A slice without a step, such as `ids[10:20]`,
    reads its values from disk; other kinds of indexing are not supported.

    The file is not mapped into memory: if a mapped file is truncated, reading it kills the process, whereas this class
    raises DataError. The file remains open, so a new file under the same name does not affect this array.
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
        content = bytearray()
        while len(content) < size:
            position = self.offset + first * self.dtype.itemsize + len(content)
            more = os.pread(self.handle, size - len(content), position)
            if not more:
                raise DataError(f"{self.path} was cut short while it was being read")
            content += more
        return np.frombuffer(content, self.dtype)


@dataclass(frozen=True, eq=False)
class TokenFile:
    """An open token file."""

    path: Path
    header: Header
    ids: OnDisk
    """The ids of all documents, concatenated."""
    starts: np.ndarray
    """The index in `ids` of the start token of each document."""

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """Opens a token file. Raises DataError if it cannot be read, is too short or too long for its header, has
        another version, or is not a token file."""
        try:
            header = _read_header(path)
            size = os.path.getsize(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        ids_size = header.tokens * np.dtype(header.integers).itemsize
        starts_offset = HEADER + ids_size + -ids_size % 8
        expected = starts_offset + 8 * header.documents
        if size != expected:
            problem = "cut short" if size < expected else "too long"
            raise DataError(f"{path} is {problem}: {size} bytes instead of {expected}; delete it and start again")
        ids = OnDisk(path, np.dtype(header.integers).newbyteorder("<"), HEADER, header.tokens)
        return cls(Path(path), header, ids, OnDisk(path, np.dtype("<i8"), starts_offset, header.documents)[:])

    def __reduce__(self):
        return TokenFile.open, (self.path,)  # only the path is pickled: the other process opens the file

    @property
    def bytes(self) -> int:
        """The size of the text in UTF-8 bytes: the divisor of bits per byte."""
        return self.header.bytes

    def document(self, number: int) -> np.ndarray:
        """Returns the ids of one document (numbered from 0), including its start token."""
        end = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.ids)
        return self.ids[self.starts[number] : end]


def _read_header(path: Path) -> Header:
    """Returns the header of a token file. Raises OSError if the file cannot be opened, and DataError if it has another
    version, is damaged, or is not a token file."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
    if not head.startswith(MAGIC):
        raise DataError(f"{path} is not a token file: it begins with {head[:8]!r} instead of {MAGIC!r}")
    if len(head) < HEADER:
        raise DataError(f"{path} is cut short: {len(head)} bytes are too few for its header")
    header = as_record(head[len(MAGIC) :].rstrip(), Header, f"{path}: damaged header")
    if header.version != VERSION:
        raise DataError(f"{path} has version {header.version}; this program reads version {VERSION}; delete it")
    return header


PART, WORK, SMALL = 2**17, 2**20, 20
"""PART: the approximate number of characters in a part of a document. WORK: the approximate number of characters in a
batch of parts, which is encoded in one call. SMALL: with fewer batches, no worker processes are started."""

WORD_END = re.compile(r"[A-Za-z](?= [A-Za-z])")

_in_worker: list[Encoding] = []  # the encoding of this worker process


def prepared_folder(dataset: Dataset, encoding: Encoding) -> Path:
    """Returns the cache folder of the token files of a data set. The name of the folder consists of the name of the
    data set and 12 hex digits of a hash of the encoding and of the sources of all splits."""
    digests = [encoding.fingerprint, *(source_digest(dataset, split) for split in dataset.splits)]
    return cache_folder() / f"{dataset.name}-{hashlib.sha256(' '.join(digests).encode()).hexdigest()[:12]}"


def source_digest(dataset: Dataset, split: str) -> str:
    """Returns the SHA-256 (hex) of the data set's name and options, the name of the split, and `Dataset.source_hash` of
    the split."""
    content = json.dumps([dataset.name, dataset.options, split, dataset.source_hash(split)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def prepare(
    dataset: Dataset, split: str, encoding: Encoding, folder: Path, *, workers: int | None = None, progress: bool = True
) -> TokenFile:
    """Returns the token file `<folder>/<split>.tokens`. An existing file is reused if its source and encoding are
    unchanged; otherwise the split is encoded into a new file.

    A corpus of at least SMALL batches is encoded by `workers` processes (None: one per CPU core). Several processes can
    prepare the same file at the same time: each writes its own copy, and the copy that is finished last remains. Raises
    DataError if a document cannot be encoded (the message contains its key and the position of the character), if the
    split has no text, if a worker process ends unexpectedly, or if the file cannot be written.
    """
    path = Path(folder) / f"{split}.tokens"
    header = {"encoding": encoding.name, "fingerprint": encoding.fingerprint, "vocabulary": encoding.size}
    header |= {"dataset": dataset.name, "split": split, "source": source_digest(dataset, split)}
    sweep_partials(path)
    with contextlib.suppress(DataError):  # a missing or damaged file is written again
        existing = TokenFile.open(path)
        if header.items() <= existing.header.model_dump().items():
            return existing
    batches = _batches(dataset.documents(split))
    with _progress_bar(f"{dataset.name} {split}", progress) as advance:
        _write(path, header, _encode_all(batches, encoding, workers or os.cpu_count() or 1), advance)
    return TokenFile.open(path)


class Part(NamedTuple):
    """A document, or a part of a long document. `key` is the key of the document; `start` is the index of the first
    character of the part in the document."""

    key: str
    start: int
    text: str


class Encoded(NamedTuple):
    """The encoded parts of one batch: their uint32 ids (n), concatenated; the indices in `ids` of the start tokens; and
    the size of the texts in UTF-8 bytes."""

    ids: np.ndarray
    starts: list[int]
    bytes: int


def _parts(document: Document) -> Iterator[Part]:
    """Yields the parts of a document. The ids of the parts, concatenated, equal the ids of the complete document,
    because a document is cut only between a letter and a space that is followed by a letter: no supported byte-pair
    pattern matches or looks across this boundary."""
    start, text = 0, document.text
    while start < len(text) or start == 0:
        match = WORD_END.search(text, start + PART)
        end = match.end() if match else len(text)
        yield Part(document.key, start, text[start:end])
        start = max(end, 1)


def _batches(documents: Iterable[Document]) -> Iterator[list[Part]]:
    """Yields batches of parts with about WORK characters each."""
    batch, size = [], 0
    for part in chain.from_iterable(map(_parts, documents)):
        batch.append(part)
        size += len(part.text) + 1
        if size >= WORK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ids(part: Part, encoding: Encoding) -> list[int]:
    """Returns the ids of one part. Raises DataError, with the key of the document and the position of the character, if
    the text cannot be encoded."""
    try:
        return encoding.encode(part.text)
    except UnencodableText as error:
        character, position, reason = error.args
        raise DataError(f"document {part.key!r}: {UnencodableText(character, part.start + position, reason)}") from None
    except DataError as error:
        raise DataError(f"document {part.key!r}: {error}") from None


def _encode(batch: list[Part], encoding: Encoding, threads: bool) -> Encoded:
    """Returns the encoded parts, with a start token before each document. The parts are encoded in `threads`, or one
    after another. Raises DataError if a text cannot be encoded."""
    texts = [part.text for part in batch]
    try:
        ids_of_parts = encoding.encode_batch(texts) if threads else [_ids(part, encoding) for part in batch]
    except (UnencodableText, DataError):
        if not threads:
            raise
        return _encode(batch, encoding, threads=False)  # one by one, to name the document in the error
    arrays, starts, total = [], [], 0
    for part, ids in zip(batch, ids_of_parts, strict=True):
        if part.start == 0:
            starts.append(total)
            ids = [encoding.start, *ids]
        arrays.append(np.array(ids, dtype=np.uint32))
        total += len(ids)
    return Encoded(np.concatenate(arrays), starts, sum(len(text.encode()) for text in texts))


def _encode_all(batches: Iterator[list[Part]], encoding: Encoding, workers: int) -> Iterator[Encoded]:
    """Yields the encoded batches in order. A corpus of fewer than SMALL batches is encoded in threads of this process,
    a larger corpus in `workers` processes (if there are at least 2). Raises DataError if a worker process ends
    unexpectedly or a text cannot be encoded."""
    first = list(islice(batches, SMALL))
    if len(first) < SMALL or workers < 2:
        yield from (_encode(batch, encoding, threads=True) for batch in chain(first, batches))
        return
    waiting: deque[Future[Encoded]] = deque()
    pool = workers_of(workers, _start_worker, encoding)
    try:
        for batch in chain(first, batches):
            with deaf():
                waiting.append(pool.submit(_encode_in_worker, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError("a process that encodes text ended unexpectedly; is there enough memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(encoding: Encoding) -> None:
    _in_worker.append(encoding)
    end_with_parent()


def _encode_in_worker(batch: list[Part]) -> Encoded:
    return _encode(batch, _in_worker[0], threads=False)


def _write(path: Path, header: dict, batches: Iterable[Encoded], advance: Callable[[int], None]) -> None:
    """Writes a token file under a temporary name, syncs it to disk, and renames it to `path`. The temporary file is
    deleted after an error. `advance` is called with the number of bytes of text in each batch. Raises ValueError if an
    id is not smaller than the size of the vocabulary, and DataError if there is no text or the file cannot be
    written."""
    kind = np.dtype("<u2" if header["vocabulary"] <= 2**16 else "<u4")
    starts, counts, temporary = array("q"), Counter(tokens=0, documents=0, bytes=0), partial_name(path)
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, "wb")
        file.seek(HEADER)
    try:
        for encoded in batches:
            if (highest := int(encoded.ids.max(initial=0))) >= header["vocabulary"]:
                raise ValueError(f"id {highest} is outside the vocabulary of {header['vocabulary']} ids")
            starts.extend(counts["tokens"] + start for start in encoded.starts)
            counts.update(tokens=len(encoded.ids), documents=len(encoded.starts), bytes=encoded.bytes)
            with _write_errors(path):
                file.write(encoded.ids.astype(kind).tobytes())
            advance(encoded.bytes)
        if not counts["bytes"]:
            raise DataError(f"dataset {header['dataset']!r} has no text in its split {header['split']!r}")
        header = {"version": VERSION, "integers": kind.name, **counts, **header}
        with _write_errors(path):
            file.write(bytes(-counts["tokens"] * kind.itemsize % 8) + np.asarray(starts, "<i8").tobytes())
            file.seek(0)
            file.write(MAGIC + json.dumps(header).encode().ljust(HEADER - len(MAGIC)))
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            file.close()  # on a full disk, writing the buffered bytes fails a second time
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; the incomplete file is deleted") from error


@contextlib.contextmanager
def _progress_bar(title: str, enabled: bool) -> Iterator:
    """Shows a progress line with bytes of text, speed and time, if it is enabled and standard error is a terminal.
    Yields a function that adds a number of bytes to the progress."""
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
    """A sampler of windows: batches of `rows` windows of `context` ids each, from a stream of `length` ids. The number
    of a window is the index of its first id. In every epoch, the windows are shifted by a random offset, and each
    window is read once, in random order. (nanoGPT draws the start of each window independently.)

    Example: an epoch over 100 ids with a context of 10 has 9 windows, which start at offset + 0, 10, 20, ..., 80 with
    an offset from 0 to 9. At least one id follows the last window.
    """

    def __init__(self, length: int, context: int, rows: int):
        super().__init__(max(1, (length - context) // context), rows)
        self.length, self.context = length, context

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the indices at which the windows of an epoch start, in the order of reading."""
        random = np.random.default_rng([seed, epoch])
        order, room = random.permutation(self.count), self.length - self.count * self.context
        return order * self.context + random.integers(min(self.context, room))


@dataclass(frozen=True, kw_only=True)
class StreamSplit(Split):
    """One split of a corpus as windows of `context` tokens; each token predicts the next one. A global batch has `rows`
    windows, and the model reads them as the input with the name `input`.

    With `separate`, each document (or part of a document) in a window is a separate sample; otherwise a window is one
    sample. Example: the documents "ab" and "c" as bytes, each after the start token 256, in a window of 4 tokens
    (`context`) that starts at index 0:

        values     256  97  98  256
        next_ids    97  98 256   99
        index        0   1   2    3     separate:  0  1  2  0
        sample       1   1   1    1     separate:  1  1  1  2

    Raises DataError if the corpus has fewer than `context` + 1 tokens.
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
            available = f"{self.file.header.dataset} {self.name}: {len(self.file.ids)} tokens"
            needed = f"one window of the context ({self.context}) and the token after it"
            raise DataError(f"{available} are too few for {needed}; use more text or a smaller model.context")

    @property
    def unit(self) -> str:
        return f"rows of {self.context}"

    @cached_property
    def sampler(self) -> Windows:
        """The sampler, which selects the windows of each step."""
        return Windows(len(self.file.ids), self.context, self.rows)

    def __len__(self) -> int:
        """The number of windows in one training epoch."""
        return self.sampler.count

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return self.sampler.plan(seed, step)

    @property
    def fingerprint(self) -> str:
        """The hash (`source_digest`) of the data set, its options, the split and its text."""
        return self.file.header.source

    def all(self) -> list[SampleIndex]:
        """Returns the windows of an evaluation of the complete split: each token except the first is a target exactly
        once."""
        return [SampleIndex(0, 0, start) for start in range(0, len(self.file.ids) - 1, self.context)]

    def read(
        self, indices: Sequence[SampleIndex], *, training: bool = False, inputs: Collection[str] | None = None
    ) -> Batch:
        """Returns windows as the rows of one set, with the ids (b, context). A window that extends beyond the end of
        the split is padded. The seeds of a row, for tasks that mask tokens at random, are the run's seed, the epoch,
        and the number of the window. `inputs` is ignored, because there is only one input."""
        n, starts = self.context, [sample.number for sample in indices]
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
        batch = Batch(main=SetPlan(tokens=tokens, chunks={self.input: chunks}, seeds=tuple(map(tuple, indices))))
        return batch if training else replace(batch, units={self.input: self.bytes_of(next_ids)})

    def bytes_of(self, next_ids: Int[Tensor, "b n"]) -> float:
        """Returns the approximate number of UTF-8 bytes of the targets in `next_ids`: the bytes of the split, times the
        share of its targets that are in `next_ids`."""
        return self.file.bytes * int((next_ids != IGNORED).sum()) / (len(self.file.ids) - 1)

    def _descriptors(self, starts: Sequence[int], real: Tensor) -> tuple[Tokens, Int[Tensor, "b n"]]:
        """Returns (tokens, index) for rows with padding or several documents: the descriptors of the tokens, and the
        index of each token in its sample (b, n). `starts` contains the index in the stream of each row's first token;
        `real` is false for padding."""
        plain, n = plain_tokens(len(starts), self.context), self.context
        positions = np.asarray(starts)[:, None] + np.arange(n)
        begins = np.zeros(positions.shape, dtype=bool)
        begins[:, 0] = True
        if self.separate:
            next_start = np.searchsorted(self.file.starts, positions)  # there may be millions of documents
            begins |= self.file.starts[np.minimum(next_start, len(self.file.starts) - 1)] == positions
        column = np.broadcast_to(np.arange(n), positions.shape)
        index = column - np.maximum.accumulate(np.where(begins, column, 0), axis=1)
        sample = torch.from_numpy(begins.flatten().cumsum().reshape(positions.shape)) * real
        tokens = Tokens(input=(sample != PADDING).long(), sample=sample, item=sample, position=plain.position)
        return tokens, torch.from_numpy(np.ascontiguousarray(index))
