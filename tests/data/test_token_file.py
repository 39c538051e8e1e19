"""Token files: they are complete or absent, are reused only if nothing changed, and hold the ids of every document."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkout import TESTS
from chopmix.data import tokenizing as preparing
from chopmix.data.base import Dataset, Document
from chopmix.data.token_file import HEADER, TokenFile, TokenFiles
from chopmix.data.tokenizing import prepare, prepared_folder
from chopmix.files.reading import DataError
from chopmix.tokenizers.encoding.base import ByteEncoding, CharacterEncoding, Encoding
from chopmix.tokenizers.encoding.stored import make_encoding
from hypothesis import given, settings
from hypothesis import strategies as st

WORDS = "the quick brown fox jumps over the lazy dog while 17 others watch.\n    def it():\n        return it's\n"
RANKS = Path(os.environ.get("CHOPMIX_DATA") or "missing", "bpe")
BPE = make_encoding("bpe", 300, lambda: [WORDS])


class InMemoryTexts(Dataset):
    """A dataset of texts in memory."""

    splits = ("train",)

    def __init__(self, *, texts: list[str], broken_after: int | None = None):
        self.texts, self.broken_after = texts, broken_after

    @property
    def options(self):
        return {"texts": self.texts}

    def documents(self, split: str) -> Iterator[Document]:
        for number, text in enumerate(self.texts):
            if number == self.broken_after:
                raise KeyboardInterrupt
            yield Document(f"doc-{number}", text)

    def source_hash(self, split: str) -> str:
        return str(hash(tuple(self.texts)))


class Numbers(Encoding):
    """A fake encoding with a vocabulary of any size: the id of a character is its number times 1,000."""

    name, start, specials = "numbers", 0, {0: "<|endoftext|>"}

    def __init__(self, vocabulary: int):
        self.pieces = [b""] * vocabulary

    def encode(self, text):
        return [ord(symbol) * 1000 for symbol in text]


def prepared(texts: list[str], encoding: Encoding, folder, workers: int | None = 1) -> TokenFiles:
    return prepare(InMemoryTexts(texts=texts), "train", encoding, folder, workers=workers, progress=False)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1).filter(any))
def test_a_file_holds_every_document_after_its_start_token(texts, tmp_path_factory):
    for encoding in (ByteEncoding(), BPE):
        file = prepared(texts, encoding, tmp_path_factory.mktemp("tokens"))
        wanted = [[encoding.start, *encoding.encode(text)] for text in texts]
        assert [list(file.document(i)) for i in range(len(file.starts))] == wanted
        assert file.ids[:].tolist() == [i for ids in wanted for i in ids]
        assert file.bytes == sum(len(text.encode()) for text in texts)
        assert file.starts.dtype == np.int64 and file.header.documents == len(texts)


def test_long_documents_are_cut_where_it_changes_no_id(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "PART", 100)
    monkeypatch.setattr(preparing, "WORK", 700)
    texts = [WORDS * 40, "", "nospaces" * 100, "a " * 3, WORDS * 3 + " "]
    file = prepared(texts, BPE, tmp_path)
    assert len(list(preparing._parts(Document("x", texts[0])))) > 10
    assert [list(file.document(i)) for i in range(5)] == [[BPE.start, *BPE.encode(text)] for text in texts]


@pytest.mark.skipif(not RANKS.is_dir(), reason="CHOPMIX_DATA with the folder bpe")
@pytest.mark.parametrize("name", ["gpt2", "cl100k_base"])
def test_the_cuts_change_no_id_of_public_encodings(name, monkeypatch):
    monkeypatch.setattr(preparing, "PART", 50)
    encoding, text = make_encoding(name, None, lambda: ()), Path(preparing.__file__).read_text(encoding="utf-8")
    parts = list(preparing._parts(Document("x", text)))
    assert len(parts) > 50 and "".join(part.text for part in parts) == text
    assert [i for part in parts for i in encoding.encode(part.text)] == encoding.encode(text)


@pytest.mark.system
def test_processes_write_the_same_file(tmp_path, monkeypatch):
    texts = [WORDS * n for n in (1, 50, 0, 400, 3)] * 3
    alone = prepared(texts, BPE, tmp_path / "alone")
    monkeypatch.setattr(preparing, "WORK", 5000)
    monkeypatch.setattr(preparing, "SMALL", 2)
    together = prepared(texts, BPE, tmp_path / "together", workers=2)
    assert alone.files[0].path.read_bytes() == together.files[0].path.read_bytes()
    with pytest.raises(DataError, match=r"document 'doc-15': lone surrogate U\+D800 at position 2 "):
        prepared([*texts, "ab\ud800"], BPE, tmp_path / "together", workers=2)


def test_characters_that_cannot_be_encoded_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "PART", 10)
    with pytest.raises(DataError, match=r"document 'doc-1': character 'é' \(U\+00E9\) at position 24 is not among"):
        prepared(["abc", "a bb " * 4 + "abc é"], CharacterEncoding(" abc"), tmp_path)
    with pytest.raises(DataError, match=r"document 'doc-0': lone surrogate U\+DC00 at position 1 "):
        prepared(["a\udc00"], ByteEncoding(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_corpus_without_text_is_refused(tmp_path):
    for texts in ([], ["", ""]):
        with pytest.raises(DataError, match="has no text in its split 'train'"):
            prepared(texts, BPE, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("vocabulary", "kind"), [(65_536, np.uint16), (65_537, np.uint32), (200_000, np.uint32)])
def test_integers_are_as_wide_as_the_vocabulary_needs(vocabulary, kind, tmp_path):
    assert prepared(["A"], Numbers(vocabulary), tmp_path).ids.dtype == kind
    assert prepared(["A"], Numbers(vocabulary), tmp_path).ids[:].tolist() == [0, 65_000]


def test_ids_beyond_the_vocabulary_are_refused(tmp_path):
    with pytest.raises(ValueError, match="id 66000 is outside the vocabulary of 65536 ids"):
        prepared(["B"], Numbers(65_536), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_is_reused_until_text_or_encoding_change(tmp_path):
    first = prepared([WORDS], BPE, tmp_path)
    written = first.files[0].path.stat().st_mtime_ns
    assert prepared([WORDS], BPE, tmp_path).files[0].path.stat().st_mtime_ns == written
    assert prepare(InMemoryTexts(texts=[WORDS]), "train", BPE, tmp_path).ids[:].tolist() == first.ids[:].tolist()
    assert prepared([WORDS], ByteEncoding(), tmp_path).header.encoding == "bytes"
    assert prepared([WORDS + "!"], ByteEncoding(), tmp_path).bytes == len(WORDS) + 1
    assert first.ids[:].tolist() == [BPE.start, *BPE.encode(WORDS)]  # the open old file stays complete


def test_folders_differ_if_the_data_set_or_the_encoding_differs(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    other = InMemoryTexts(texts=["a"])
    other.source_hash = lambda split: "another"
    datasets = [InMemoryTexts(texts=["a"]), InMemoryTexts(texts=["b"]), other]
    folders = {prepared_folder(dataset, encoding) for dataset in datasets for encoding in (BPE, ByteEncoding())}
    assert len(folders) == 6 and prepared_folder(datasets[0], BPE) in folders
    assert all(folder.parent == tmp_path and folder.name.startswith("test_token_file-") for folder in folders)


def test_an_open_file_is_sent_to_other_processes_as_its_path(tmp_path):
    file = prepared([WORDS * 1000], BPE, tmp_path)
    packed = pickle.dumps(file)
    assert len(packed) < 1000 and pickle.loads(packed).ids[:].tolist() == file.ids[:].tolist()


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path):
    """A mapped file would end the process (SIGBUS)."""
    file = prepared([WORDS * 1000], BPE, tmp_path)
    whole = file.ids[:]
    os.truncate(file.files[0].path, HEADER + 100)
    with pytest.raises(DataError, match="was cut short while it was being read"):
        file.ids[len(whole) - 10 :]
    assert file.ids[:10].tolist() == whole[:10].tolist()


def test_files_left_by_killed_processes_are_deleted(tmp_path):
    """No other temporary file is deleted."""
    over = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    path = tmp_path / "train.tokens"
    host = socket.gethostname()
    left = [tmp_path / f".train.tokens.{host}.00000000.{process}" for process in (int(over.stdout), os.getpid())]
    left += [
        tmp_path / f".train.tokens.elsewhere.00000000.{int(over.stdout)}",
        tmp_path / f".val.tokens.{host}.0.{over.stdout.strip()}",
    ]
    for each in left:
        each.write_text("half of it")
    prepared([WORDS], BPE, tmp_path)
    assert [each.exists() for each in left] == [False, True, True, True] and path.exists()


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {tests!r}
from chopmix.data import tokenizing as preparing
from test_token_file import BPE, WORDS, InMemoryTexts
preparing.WORK, preparing.SMALL = 2000, 2
if __name__ == "__main__":
    preparing.prepare(InMemoryTexts(texts=[WORDS] * 200_000), "train", BPE, Path({folder!r}), workers=2, progress=False)
"""


def accept_ctrl_c() -> None:
    """Processes that a shell starts in the background ignore Ctrl-C, and so do their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("how", ["kill -9", "Ctrl-C"])
@pytest.mark.system
def test_no_worker_outlives_the_process_that_started_it(tmp_path, how):
    """Ctrl-C also reaches workers, even while they start; only the process itself reports it."""
    (tmp_path / "prepare_it.py").write_text(
        KILLED.format(tests=[str(TESTS), str(TESTS / "data")], folder=str(tmp_path))
    )
    errors = open(tmp_path / "errors.txt", "w+")
    with (
        errors,
        subprocess.Popen(
            [sys.executable, str(tmp_path / "prepare_it.py")],
            start_new_session=True,
            stderr=errors,
            preexec_fn=accept_ctrl_c,
        ) as run,
    ):

        def others() -> list[int]:
            numbers = []
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError, ProcessLookupError):
                    if (
                        os.getsid(int(folder.name)) == run.pid
                        and (folder / "stat").read_text().split(") ")[1][0] != "Z"
                    ):
                        numbers.append(int(folder.name))
            return [number for number in numbers if number != run.pid]

        def workers() -> list[int]:
            """Without processes that a library starts for a moment while the process itself still imports."""
            with contextlib.suppress(OSError):
                return [n for n in others() if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes()]
            return []

        deadline = time.monotonic() + 60
        while len(workers()) < 2 and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(workers()) == 2
        if how == "Ctrl-C":
            os.killpg(run.pid, signal.SIGINT)
        else:
            time.sleep(0.5)
            run.kill()
        run.wait()
        deadline = time.monotonic() + 20
        while others() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert others() == []
        errors.seek(0)
        assert errors.read().count("KeyboardInterrupt") == (how == "Ctrl-C")


def test_damage_is_reported_and_repaired(tmp_path):
    file = prepared([WORDS], BPE, tmp_path)
    whole, path = file.files[0].path.read_bytes(), file.files[0].path
    header = json.loads(whole[8:HEADER])

    def with_header(**changed) -> bytes:
        return whole[:8] + json.dumps(header | changed).encode().ljust(HEADER - 8) + whole[HEADER:]

    for content, message in [
        (whole[:-1], r"is cut short: \d+ bytes instead of \d+"),
        (whole + b"\0", "is too long"),
        (whole[:100], "is cut short: 100 bytes are too few for its header"),
        (b"PK" + whole, "is not a token file: it begins with b'PKCHOPTO'"),
        (b"", "is not a token file"),
        (with_header(version=3), "has version 3; this program reads version 2"),
        (with_header(tokens=None), "damaged header"),
        (whole[:8] + b"{" + whole[9:HEADER].replace(b":", b";") + whole[HEADER:], "damaged header"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            TokenFile.open(path)
        assert prepared([WORDS], BPE, tmp_path).files[0].path.read_bytes() == whole
    with pytest.raises(DataError, match="missing.tokens cannot be read: No such file"):
        TokenFile.open(tmp_path / "missing.tokens")


def test_an_interrupted_preparation_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "WORK", 10)
    with pytest.raises(KeyboardInterrupt):
        prepare(InMemoryTexts(texts=[WORDS] * 9, broken_after=5), "train", BPE, tmp_path, workers=1, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_is_named_and_leaves_the_old_file(call, tmp_path, monkeypatch):
    old = prepared([WORDS], BPE, tmp_path).files[0].path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":
        monkeypatch.setattr(preparing, "open", _Full, raising=False)
    else:
        monkeypatch.setattr(preparing.os, call, full)
    with pytest.raises(
        DataError, match="train.tokens cannot be written: No space left on device; the incomplete file is deleted"
    ):
        prepared([WORDS * 2], BPE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.tokens"]
    assert (tmp_path / "train.tokens").read_bytes() == old


class _Full:
    """A file on a full disk."""

    def __init__(self, *arguments):
        self.file = open(*arguments)
        self.read, self.seek, self.close = self.file.read, self.file.seek, self.file.close

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def write(self, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="train.tokens cannot be written"):
        prepared([WORDS], BPE, tmp_path / "taken")


@pytest.mark.system
def test_a_worker_that_ends_unexpectedly_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "WORK", 10)
    monkeypatch.setattr(preparing, "SMALL", 2)
    with pytest.raises(DataError, match="a process that encodes text ended unexpectedly"):
        prepared([WORDS] * 9, Deadly(), tmp_path, workers=2)
    assert not list(tmp_path.iterdir())


class Deadly(ByteEncoding):
    """An encoding whose encoder ends the process."""

    def encode(self, text):
        os._exit(1)


# -------------------------------------------------------------------------------------------------------- several files


@pytest.fixture
def small_files(monkeypatch):
    """Files of about 500 tokens, and batches of 50 characters."""
    for name, value in (("SHARD", 500), ("WORK", 50), ("PART", 40)):
        monkeypatch.setattr(preparing, name, value)


TEXTS = [WORDS * (n % 5) + str(n) for n in range(30)]


def test_a_list_of_files_is_read_like_one_file(tmp_path, small_files, monkeypatch):
    several = prepared(TEXTS, BPE, tmp_path / "several")
    monkeypatch.setattr(preparing, "SHARD", 2**28)
    one = prepared(TEXTS, BPE, tmp_path / "one")
    assert len(one.files) == 1 and len(several.files) > 3
    assert several.starts.tolist() == one.starts.tolist() and several.bytes == one.bytes
    assert several.header.model_copy(update={"last": True}) == one.header
    ids, n = one.ids[:].tolist(), len(one.ids)
    assert len(several.ids) == n and several.ids.parts[0].dtype == several.ids[5:5].dtype
    for first in range(0, n, 37):
        for last in (first, first + 1, first + 150, first + 500, n):
            assert several.ids[first:last].tolist() == ids[first:last]
    assert [several.document(i).tolist() for i in range(30)] == [one.document(i).tolist() for i in range(30)]
    assert pickle.loads(pickle.dumps(several)).ids[:].tolist() == ids
    assert prepared(TEXTS, BPE, tmp_path / "several").files[0].path == several.files[0].path


@pytest.mark.parametrize("broken_after", [15, 29])
def test_an_interrupted_preparation_continues_after_its_last_complete_file(tmp_path, small_files, broken_after):
    expected, broken = (
        prepared(TEXTS, BPE, tmp_path / "complete"),
        InMemoryTexts(texts=TEXTS, broken_after=broken_after),
    )
    with pytest.raises(KeyboardInterrupt):
        prepare(broken, "train", BPE, tmp_path / "part", workers=1, progress=False)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "part").iterdir()}
    assert kept and not any(name.startswith(".") for name in kept)
    resumed = prepared(TEXTS, BPE, tmp_path / "part")
    assert {name: (tmp_path / "part" / name).stat().st_mtime_ns for name in kept} == kept
    for file, other in zip(resumed.files, expected.files, strict=True):
        assert file.path.read_bytes() == other.path.read_bytes()


def test_a_file_of_a_list_that_is_damaged_is_written_again(tmp_path, small_files):
    files = prepared(TEXTS, BPE, tmp_path).files
    contents = [file.path.read_bytes() for file in files]
    for number in (0, 2, len(files) - 1):
        files[number].path.write_bytes(contents[number][:-3])
        with pytest.raises(DataError, match=r"is cut short"):
            TokenFiles.open(tmp_path, "train")
        assert [file.path.read_bytes() for file in prepared(TEXTS, BPE, tmp_path).files] == contents
    files[1].path.unlink()
    with pytest.raises(DataError, match=r"train\.1\.tokens cannot be read"):
        TokenFiles.open(tmp_path, "train")
