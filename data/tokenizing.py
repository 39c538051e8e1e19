"""Tokenization of text corpora: each split is encoded once into token files, by several processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files.progress import counted_bytes
from ..files.reading import DataError
from ..files.writing import partial_name, sweep_partials
from ..tokenizers.encoding.base import Encoding, UnencodableText
from .base import Dataset, Document, cache_folder
from .token_file import HEADER, MAGIC, VERSION, TokenFile, TokenFiles, shard_path
from .workers import deaf, end_with_parent, workers_of

PART, WORK, SMALL, SHARD = 2**17, 2**20, 20, 2**28
"""PART: the approximate number of characters in a part of a document. WORK: the approximate number of characters in a
batch of parts, which is encoded in one call. SMALL: with fewer batches, no worker processes are started. SHARD: the
approximate number of tokens in a file."""

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
) -> TokenFiles:
    """Returns the token files of a split in `folder`. Existing files are reused if their source and encoding are
    unchanged; otherwise the split is encoded into new files. If an earlier process ended before all files were written,
    its complete files are kept.

    A corpus of at least SMALL batches is encoded by `workers` processes (None: one per CPU core). Several processes can
    prepare the same files at the same time: each writes its own copies, and those that are finished last remain. Raises
    DataError if a document cannot be encoded (the message contains its key and the position of the character), if the
    split has no text, if a worker process ends unexpectedly, or if a file cannot be written.
    """
    header = {"encoding": encoding.name, "fingerprint": encoding.fingerprint, "vocabulary": encoding.size}
    header |= {"dataset": dataset.name, "split": split, "source": source_digest(dataset, split)}
    sweep_partials(shard_path(folder, split, 0))
    complete = _complete(folder, split, header)
    if complete and complete[-1].header.last:
        return TokenFiles(complete)
    _tokenize(dataset, encoding, folder, header, complete, workers, progress)
    return TokenFiles.open(folder, split)


def _tokenize(dataset, encoding, folder, header, complete, workers, progress) -> None:
    """Encode the documents that the `complete` shards lack. The arguments are those of `prepare`."""
    split = header["split"]
    done = sum(file.header.documents for file in complete)
    batches = _batches(islice(dataset.documents(split), done, None))
    with counted_bytes(f"{dataset.name} {split}", progress) as advance:
        encoded, number = _encode_all(batches, encoding, workers or os.cpu_count() or 1), len(complete)
        while (following := _write(folder, number, header, encoded, advance)) is not None:
            encoded, number = chain([following], encoded), number + 1


def _complete(folder: Path, split: str, header: dict) -> list[TokenFile]:
    """Returns the first files of a split that are complete and have this header."""
    files: list[TokenFile] = []
    with contextlib.suppress(DataError):  # a missing or damaged file is written again
        while not files or not files[-1].header.last:
            file = TokenFile.open(shard_path(folder, split, len(files)))
            if not header.items() <= file.header.model_dump().items():
                break
            files.append(file)
    return files


class Part(NamedTuple):
    """A document, or a part of a long document. `key` is the key of the document; `start` is the index of the first
    character of the part in the document."""

    key: str
    start: int
    text: str


class Encoded(NamedTuple):
    """The encoded parts of one batch: their uint32 ids (n), concatenated; the indices in `ids` of the start tokens (d);
    and the sizes in UTF-8 bytes (d + 1) of the text before the first start token, and of each document."""

    ids: np.ndarray
    starts: list[int]
    sizes: list[int]

    def divided(self, least: int) -> tuple[Encoded, Encoded | None]:
        """Returns two parts, of which the second begins with the first document that starts after at least `least` ids;
        it is None if there is no such document."""
        document = bisect_left(self.starts, least)
        if document == len(self.starts):
            return self, None
        cut = self.starts[document]
        starts = [start - cut for start in self.starts[document:]]
        first = Encoded(self.ids[:cut], self.starts[:document], self.sizes[: document + 1])
        return first, Encoded(self.ids[cut:], starts, [0, *self.sizes[document + 1 :]])


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
    arrays, starts, sizes, total = [], [], [0], 0
    for part, ids in zip(batch, ids_of_parts, strict=True):
        if part.start == 0:
            starts.append(total)
            sizes.append(0)
            ids = [encoding.start, *ids]
        sizes[-1] += len(part.text.encode())
        arrays.append(np.array(ids, dtype=np.uint32))
        total += len(ids)
    return Encoded(np.concatenate(arrays), starts, sizes)


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


def _write(
    folder: Path, number: int, header: dict, batches: Iterator[Encoded], advance: Callable[[int], None]
) -> Encoded | None:
    """Writes one token file under a temporary name, syncs it to disk, and renames it. The file ends before the first
    document that starts after at least SHARD tokens; what remains of the batch with this document is returned. If there
    is none, the file is the last one. The temporary file is deleted after an error. `advance` is called with the number
    of bytes of text in each batch. Raises ValueError if an id is not smaller than the size of the vocabulary, and
    DataError if there is no text or the file cannot be written."""
    path, following = shard_path(folder, header["split"], number), None
    kind = np.dtype("<u2" if header["vocabulary"] <= 2**16 else "<u4")
    starts, counts, temporary = array("q"), Counter(tokens=0, documents=0, bytes=0), partial_name(path)
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, "wb")
        file.seek(HEADER)
    try:
        for encoded in batches:
            encoded, following = encoded.divided(SHARD - counts["tokens"])
            if (highest := int(encoded.ids.max(initial=0))) >= header["vocabulary"]:
                raise ValueError(f"id {highest} is outside the vocabulary of {header['vocabulary']} ids")
            starts.extend(counts["tokens"] + start for start in encoded.starts)
            counts.update(tokens=len(encoded.ids), documents=len(encoded.starts), bytes=sum(encoded.sizes))
            with _write_errors(path):
                file.write(encoded.ids.astype(kind).tobytes())
            advance(sum(encoded.sizes))
            if following is not None:
                break
        if not counts["bytes"] and number == 0:
            raise DataError(f"dataset {header['dataset']!r} has no text in its split {header['split']!r}")
        header = {"version": VERSION, "integers": kind.name, **counts, **header, "last": following is None}
        with _write_errors(path):
            file.write(bytes(-counts["tokens"] * kind.itemsize % 8) + np.asarray(starts, "<i8").tobytes())
            file.seek(0)
            file.write(MAGIC + json.dumps(header).encode().ljust(HEADER - len(MAGIC)))
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(temporary, path)
        return following
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
