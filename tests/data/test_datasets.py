"""Data sets: what each of them reads, the split of each sample, and the errors for missing or damaged files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import sys
import sysconfig
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chopmix.data import fingerprint as fingerprint_module
from chopmix.data.base import Dataset, Document, cache_folder, data_root
from chopmix.data.datasets import tiny_shakespeare
from chopmix.data.datasets.text import Text
from chopmix.data.fingerprint import hash_files
from chopmix.data.key_hashes import share_by_hash, split_by_hash
from chopmix.data.mixture import Equalized
from chopmix.data.sample_dataset import share
from chopmix.data.samples import Listed
from chopmix.experiment.settings.registry import registry_of
from chopmix.files import reading as files
from chopmix.files.plugins import modules_of
from chopmix.files.reading import DataError, read_lines, read_packed_text

ROOT = Path(os.environ.get("CHOPMIX_DATA") or "missing")
TEXTS = {"books", "moses", "openwebtext", "python_stdlib", "text", "tiny_shakespeare"}
SAMPLES = {
    "any_digits",
    "archive",
    "emoji",
    "jsb_chorales",
    "episodes",
    "in_context",
    "recall",
    "rules",
    "mixture",
    "arithmetic",
    "rewarded_arithmetic",
    "arithmetic_speech",
    "audiovisual_digits",
    "digit_strings",
    "multi30k",
    "passages",
    "parallel_text",
    "driving",
    "vehicle",
    "motions",
    "cifar10",
    "cifar10_full",
    "digits",
    "dtmf",
    "fsdd",
    "hugging_face",
    "image_folder",
    "manifest",
    "mnist",
    "speech_commands",
    "stamps",
    "torchvision_data",
    "webdataset",
    "idx",
    "table",
    "temperatures",
}


def dataset_class(name: str) -> type[Dataset]:
    return registry_of((Dataset,)).find(name)[1]


def texts(dataset: Dataset, split: str) -> list[str]:
    return [document.text for document in dataset.documents(split)]


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    for name in ("CHOPMIX_DATA", "CHOPMIX_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (data_root(), cache_folder()) == (tmp_path / "chopmix" / "data", tmp_path / "chopmix" / "prepared")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_root() == Path.home() / ".cache" / "chopmix" / "data"
    monkeypatch.setenv("CHOPMIX_DATA", "d")
    monkeypatch.setenv("CHOPMIX_CACHE", "c")
    assert (data_root(), cache_folder()) == (Path("d"), Path("c"))


def test_every_file_in_the_folder_is_a_dataset():
    stems = modules_of("data.datasets")
    assert stems.keys() == TEXTS | SAMPLES
    for stem, module in stems.items():
        dataset = dataset_class(stem)
        assert issubclass(dataset, Dataset) and dataset.__module__ == module


def test_unknown_datasets_and_splits_are_refused():
    with pytest.raises(
        LookupError, match="nothing is named 'book'; possible: .*arithmetic, .*books, .*; did you mean 'books'"
    ):
        dataset_class("book")
    with pytest.raises(DataError, match="dataset 'books' has no split 'test'; possible: train, val"):
        next(dataset_class("books")().documents("test"))


def test_splitting_by_hash_is_stable_and_even():
    assert [round(share_by_hash(key), 4) for key in ("a", "b", "os")] == [0.7914, 0.2427, 0.5158]
    keys = [f"doc-{number}" for number in range(5000)]
    assert 0.08 < sum(split_by_hash(key) == "val" for key in keys) / 5000 < 0.12
    assert {split_by_hash(key, 0.0) for key in keys} == {"train"}


def test_hashes_of_files_change_with_every_change(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("one")
    first = hash_files([file])
    assert hash_files([file]) == first
    file.write_text("two")
    assert hash_files([file]) != first
    monkeypatch.setattr(fingerprint_module, "CONTENT_LIMIT", 1)
    large = hash_files([file])
    os.utime(file, ns=(0, 0))
    assert hash_files([file]) != large
    with pytest.raises(DataError, match="gone.txt does not exist"):
        hash_files([tmp_path / "gone.txt"])


def test_shakespeare_is_cut_at_nine_tenths(tmp_path, monkeypatch):
    content = b"Speak, speak.\n" * 7
    write_in_data_root(tmp_path / "tiny_shakespeare" / "input.txt", content, monkeypatch)
    monkeypatch.setattr(tiny_shakespeare, "SHA256", hashlib.sha256(content).hexdigest())
    dataset = dataset_class("tiny_shakespeare")()
    (train,), (val,) = texts(dataset, "train"), texts(dataset, "val")
    assert (len(train), train + val) == (int(0.9 * 98), content.decode())
    assert dataset.name == "tiny_shakespeare" and dataset.about()["bytes"] == 98 and dataset.options == {}


def write_in_data_root(path: Path, content: bytes, monkeypatch) -> None:
    """Writes a file and sets the data root to the folder that contains the file's folder."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.setenv("CHOPMIX_DATA", str(path.parent.parent))


def test_shakespeare_is_downloaded_once_or_refused(tmp_path, monkeypatch):
    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, most):
            return b"Speak."

    monkeypatch.setenv("CHOPMIX_DATA", str(tmp_path))
    path = tmp_path / "tiny_shakespeare" / "input.txt"
    monkeypatch.setattr(tiny_shakespeare.urllib.request, "urlopen", lambda address, timeout: Answer())
    with pytest.raises(DataError, match="input.txt is not the text of https"):
        dataset_class("tiny_shakespeare")().source_hash("train")
    assert not path.exists()
    monkeypatch.setattr(tiny_shakespeare, "SHA256", hashlib.sha256(b"Speak.").hexdigest())
    assert texts(dataset_class("tiny_shakespeare")(), "val") == ["."]
    assert path.read_bytes() == b"Speak."
    path.unlink()

    def unreachable(address, timeout):
        raise OSError("no network")

    monkeypatch.setattr(tiny_shakespeare.urllib.request, "urlopen", unreachable)
    with pytest.raises(
        DataError, match="input.txt is missing and cannot be downloaded .*; save https://.*input.txt there"
    ):
        texts(dataset_class("tiny_shakespeare")(), "train")


def test_books_begin_at_their_titles(tmp_path, monkeypatch):
    text = "# Title: One\n\nIt was.\n\n# VOLUME TWO\n\n# Title: Two\n\nIt was not.\n"
    write_in_data_root(tmp_path / "books" / "train.txt.xz", lzma.compress(text.encode()), monkeypatch)
    (tmp_path / "books" / "val.txt.xz").write_bytes(lzma.compress(b"No title."))
    dataset = dataset_class("books")()
    assert [(d.key, len(d.text)) for d in dataset.documents("train")] == [("One", 37), ("Two", 26)]
    assert "".join(texts(dataset, "train")) == text
    assert list(dataset.documents("val")) == [Document("val", "No title.")]
    assert set(dataset.about()["packed_bytes"]) == {"train", "val"}
    half = dataset_class("books")(share=0.5)
    assert texts(half, "train") == [text[:18], text[37:50]] and texts(half, "val") == ["No title."]
    with pytest.raises(ValueError, match="share must be more than 0 and at most 1, not 0"):
        dataset_class("books")(share=0)
    (tmp_path / "books" / "val.txt.xz").write_bytes(b"not packed")
    with pytest.raises(DataError, match="val.txt.xz cannot be read"):
        texts(dataset, "val")


def test_passages_are_from_the_ends_of_books_that_a_share_leaves_out(tmp_path, monkeypatch):
    books = {title: " ".join(f"{title}{n}" for n in range(5000)) for title in ("A", "B")}
    text = "\n".join(f"# Title: {title}\n{words}" for title, words in books.items())
    write_in_data_root(tmp_path / "books" / "train.txt.xz", lzma.compress(text.encode()), monkeypatch)
    read = " ".join(texts(dataset_class("books")(share=0.9), "train"))
    earlier_words: set[str] = set()
    for split, count in (("train", 6), ("val", 18), ("test", 18)):
        samples = dataset_class("passages")(words=10, each=3).open(split)
        assert len(samples) == pytest.approx(count, abs=3) and len(set(samples.keys)) == len(samples)
        for sample in (samples[number] for number in range(len(samples))):
            words = sample["text"].split()
            assert len(words) == 10 and {word[0] for word in words} == {sample["label"]}
            assert not earlier_words & {*words} and not {*words[1:-1]} & {*read.split()}
            earlier_words.update(words)
    with pytest.raises(DataError, match="A has 28 passages of 10 words for training, not 1000"):
        dataset_class("passages")(words=10, each=1000).open("train")


def test_stdlib_has_each_source_once_and_keeps_packages_in_one_split(tmp_path, monkeypatch):
    files = {
        "abc.py": b"a = 1\r\n",
        "copy_of_abc.py": b"a = 1\n",
        "pkg/__init__.py": b"",
        "pkg/deep/mod.py": "\ufeffé = 1\n".encode(),
        "pkg/latin.py": b"# coding: latin-1\nx = '\xe9'\n",
        "pkg/liar.py": b"x = '\xe9'\n",
        "pkg/odd.py": b"# coding: no-such\n",
        "pkg/notes.txt": b"no",
        "pkg/test/mod.py": b"t = 1\n",
        "tests/mod.py": b"t = 2\n",
        "idlelib/idle_test/mod.py": b"t = 3\n",
        "site-packages/mod.py": b"t = 4\n",
        "dist-packages/mod.py": b"t = 5\n",
        "__pycache__/mod.py": b"t = 6\n",
    } | {f"pkg{number}/{name}.py": f"{number}{name}".encode() for number in range(60) for name in "ab"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: {"stdlib": str(tmp_path)}[name])
    dataset = dataset_class("python_stdlib")()
    by_split = {split: list(dataset.documents(split)) for split in dataset.splits}
    everything = {document.key: document.text for documents in by_split.values() for document in documents}
    assert len(everything) == 122 and everything["pkg/deep/mod.py"] == "é = 1\n" and everything["abc.py"] == "a = 1\n"
    tops = [{document.key.split("/")[0] for document in documents} for documents in by_split.values()]
    assert all(tops) and not (tops[0] & tops[1] | tops[0] & tops[2] | tops[1] & tops[2])
    assert [d.key for d in by_split["train"]] == sorted(d.key for d in by_split["train"])
    assert sum(dataset.about()["files"].values()) == 122 and dataset.about()["python"].startswith("3.")
    assert len({dataset.source_hash(split) for split in dataset.splits}) == 3


def test_stdlib_without_sources_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="holds no Python source"):
        texts(dataset_class("python_stdlib")(), "train")


def test_stdlib_of_this_python():
    dataset = dataset_class("python_stdlib")()
    about = dataset.about()
    assert sum(about["bytes"].values()) > 5_000_000 and min(about["bytes"].values()) > 100_000
    assert dataset.source_hash("val") == dataset_class("python_stdlib")().source_hash("val")


def test_openwebtext_streams_and_splits_by_number(monkeypatch):
    pages = [{"text": f"page {number}"} for number in range(6000)]
    module = types.ModuleType("datasets")
    module.load_dataset = lambda name, split, streaming: iter(pages)
    monkeypatch.setitem(sys.modules, "datasets", module)
    dataset = dataset_class("openwebtext")(limit=5000)
    train, val = texts(dataset, "train"), texts(dataset, "val")
    assert len(train) + len(val) == 5000 and 0 < len(val) < 10
    assert dataset.options == {"limit": 5000} and dataset.source_hash("val") != dataset_class(
        "openwebtext"
    )().source_hash("val")
    with pytest.raises(ValueError, match="limit: 0 must be at least 1"):
        dataset_class("openwebtext")(limit=0)

    def unreachable(name, split, streaming):
        raise ConnectionError("no network")

    module.load_dataset = unreachable
    with pytest.raises(
        DataError,
        match="cannot be streamed from the hub .ConnectionError.; without a network connection, provide its pages",
    ):
        texts(dataset, "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="chopmix.hub."):
        texts(dataset, "train")


def test_one_text_file_validates_on_its_last_tenth(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"0123456789\r\n" * 10)
    dataset = Text(train=str(tmp_path / "a.txt"))
    assert dataset.splits == ("train", "val") and dataset.name == "text"
    assert texts(dataset, "train") + texts(dataset, "val") == ["0123456789\r\n" * 9, "0123456789\r\n"]


def test_many_files_and_jsonl_validate_by_hash(tmp_path):
    for number in range(60):
        (tmp_path / f"{number:02}.txt").write_text(f"text {number}")
    files = Text(train=str(tmp_path / "*.txt"))
    train, val = list(files.documents("train")), list(files.documents("val"))
    assert sorted(d.key for d in train + val) == [f"{number:02}.txt" for number in range(60)]
    assert val == [Document(d.key, d.text) for d in val if split_by_hash(d.key) == "val"] != []
    with gzip.open(tmp_path / "all.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps({"body": f"line {number}"}) for number in range(60)) + "\n\n")
    lines = Text(train=str(tmp_path / "all.jsonl.gz"), field="body")
    train, val = list(lines.documents("train")), list(lines.documents("val"))
    assert len(train) + len(val) == 60 and train[0] == Document("all.jsonl.gz:1", "line 0") and val
    assert lines.about()["files"] == {"train": 1, "val": 1}


def test_one_of_a_few_texts_validates(tmp_path):
    """If no hash is below a tenth, the text with the lowest hash validates: 20 files are enough to train."""
    names = [name for name in map(str, range(200)) if split_by_hash(f"{name}.txt") == "train"][:20]
    for name in names:
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    dataset = Text(train=str(tmp_path / "*.txt"))
    train, val = list(dataset.documents("train")), list(dataset.documents("val"))
    lowest = min((f"{name}.txt" for name in names), key=share_by_hash)
    assert [document.key for document in val] == [lowest] and len(train) == 19 and val[0] not in train
    lines = [number for number in range(1, 300) if split_by_hash(f"a.jsonl:{number}") == "train"][:2]
    texts = ["" if number not in lines else json.dumps({"text": str(number)}) for number in range(1, max(lines) + 1)]
    (tmp_path / "a.jsonl").write_text("\n".join(texts))
    dataset = Text(train=str(tmp_path / "a.jsonl"))
    assert [len(list(dataset.documents(split))) for split in ("train", "val")] == [1, 1]
    samples = Listed([f"{name}.txt" for name in names], [{"a": name} for name in names])
    assert [len(share(samples, split)) for split in ("train", "val")] == [19, 1]
    assert list(share(samples, "val").keys) == [lowest]


def test_files_that_unpack_to_far_more_bytes_are_refused(tmp_path, monkeypatch):
    with gzip.open(tmp_path / "bomb.txt.gz", "wb") as file:
        file.write(b"a" * 2**20 + b"\n")
    monkeypatch.setattr(files, "unpacked_most", lambda *arguments: 2**19)
    with pytest.raises(DataError, match=r"bomb.txt.gz unpacks to more than 524,288 bytes; unpack it yourself"):
        read_packed_text(tmp_path / "bomb.txt.gz")
    monkeypatch.setattr(files, "LONGEST", 2**10)
    (tmp_path / "line.txt").write_bytes(b"a" * 2**12)
    with pytest.raises(DataError, match=r"line.txt has a line of more than 1,024 bytes"):
        list(read_lines(tmp_path / "line.txt"))
    assert read_packed_text(tmp_path / "line.txt") == "a" * 2**12  # a text may be one line


def test_named_splits_are_not_divided(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"\ufeff{name}", encoding="utf-8")
    here = [str(tmp_path / f"{name}.txt") for name in "abc"]
    dataset = Text(train=here[:2], val=here[2], test=here[2])
    assert [texts(dataset, split) for split in dataset.splits] == [["a", "b"], ["c"], ["c"]]
    assert dataset.options == {"train": here[:2], "val": here[2], "test": here[2], "field": "text"}
    (tmp_path / "b.txt").write_text("changed")
    again = Text(train=here[:2], val=here[2])
    assert dataset.source_hash("val") == again.source_hash("val") and texts(again, "train") == ["a", "changed"]


def test_errors_in_texts_name_the_file_and_the_line(tmp_path):
    def problem(content: bytes, name: str = "a.txt", split: str = "train", pattern: str = "", **options) -> Text:
        (tmp_path / name).write_bytes(content)
        return texts(Text(train=pattern or str(tmp_path / name), **options), split)

    with pytest.raises(DataError, match=r"a.txt, line 3: byte 8 \(0xff\) is not valid UTF-8 \(invalid start byte\)"):
        problem(b"one\ntwo\n\xff")
    with pytest.raises(DataError, match=r"a.jsonl, line 2: not JSON: key must be a string at character 2"):
        problem(b'{"text": "x"}\n{text}\n', "a.jsonl")
    with pytest.raises(DataError, match=r"a.jsonl, line 1: no text under the field 'text'; its keys are \['body'\]"):
        problem(b'{"body": "x"}\n', "a.jsonl")
    with pytest.raises(DataError, match=r"a.jsonl, line 1: no text under the field 'text'; it is not an object"):
        problem(b"[1]\n", "a.jsonl")
    with pytest.raises(DataError, match=r"a.jsonl, line 1: byte 10 .0xff. is not valid UTF-8"):
        problem(b'{"text": "\xff"}\n', "a.jsonl")
    with pytest.raises(DataError, match=r"a.txt.gz cannot be read"):
        problem(b"not packed", "a.txt.gz")
    with pytest.raises(DataError, match=r"train: no text in .*a.txt$"):
        problem(b"")
    with pytest.raises(DataError, match=r"train: no text in .*a.jsonl; a tenth of it is used for validation: set val"):
        problem(b'{"text": "x"}\n', "a.jsonl")
    with pytest.raises(DataError, match=r"val: no text in .*a.txt; a tenth of train is used for validation"):
        problem(b"", "a.txt", split="val")
    with pytest.raises(DataError, match=r"train: no file at '.*nowhere.txt' \(relative to the folder"):
        problem(b"", pattern=str(tmp_path / "nowhere.txt"))
    with pytest.raises(DataError, match=r"train: no file at '.*'.*; for a folder write .*/\*\*/\*.txt"):
        problem(b"", pattern=str(tmp_path))
    with pytest.raises(DataError, match=r"a.txt is in train and in val"):
        problem(b"text", split="val", val=str(tmp_path / "*.txt"))
    with pytest.raises(DataError, match=r"gone.txt does not exist"):
        read_packed_text(tmp_path / "gone.txt")


@pytest.mark.skipif(not ROOT.joinpath("tiny_shakespeare").is_dir(), reason="CHOPMIX_DATA with tiny_shakespeare")
def test_the_real_shakespeare():
    dataset = dataset_class("tiny_shakespeare")()
    assert [len(text) for split in dataset.splits for text in texts(dataset, split)] == [1_003_854, 111_540]
    assert len(set().union(*texts(dataset, "train"))) == 65


@pytest.mark.skipif(not ROOT.joinpath("books").is_dir(), reason="CHOPMIX_DATA with books")
def test_the_real_books():
    dataset = dataset_class("books")()
    assert [document.key for document in dataset.documents("val")] == ["The Moonstone"]
    assert [len(texts(dataset, split)) for split in dataset.splits] == [7, 1]


REAL = {"mnist": 8000, "cifar10": 10000, "fsdd": 2250}


@pytest.mark.skipif(not (ROOT / "fsdd").exists(), reason="needs CHOPMIX_DATA")
@pytest.mark.parametrize("name", REAL)
def test_real_shards_are_split_and_read(name, monkeypatch, tmp_path):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    dataset = dataset_class(name)()
    splits = {split: dataset.open(split) for split in dataset.splits}
    assert len(splits["train"]) + len(splits["val"]) == REAL[name]
    assert not set(splits["train"].keys) & set(splits["val"].keys)
    for samples in splits.values():
        assert set(samples[0]) == set(dataset.columns) and samples[0]["label"] in range(10)


@pytest.mark.skipif(not (ROOT / "fsdd").exists(), reason="needs CHOPMIX_DATA")
def test_a_held_out_speaker_is_not_in_train_or_has_no_labels_there(monkeypatch, tmp_path):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    dataset = dataset_class("fsdd")(held_out="theo")
    speakers = {split: {key.split("_")[1] for key in dataset.open(split).keys} for split in dataset.splits}
    assert speakers["test"] == {"theo"} and len(dataset.open("test")) == 500
    assert "theo" not in speakers["train"] | speakers["val"] and len(speakers["train"]) == 4
    with pytest.raises(DataError, match="fsdd has no speaker 'nobody'; possible: george, jackson"):
        dataset_class("fsdd")(held_out="nobody").open("train")
    with pytest.raises(DataError, match="unlabelled needs held_out"):
        dataset_class("fsdd")(unlabelled=True)
    unlabelled = dataset_class("fsdd")(held_out="theo", unlabelled=True)
    train = unlabelled.open("train")
    numbers_of_theo = [n for n, key in enumerate(train.keys) if "_theo_" in key]
    assert len(numbers_of_theo) > 300 and {row["label"] for row in map(train.__getitem__, numbers_of_theo)} == {None}
    assert dict(train.numbered("label")).keys() == set(range(len(train))) - set(numbers_of_theo)
    assert unlabelled.open("val").keys == dataset.open("val").keys
    assert {row["label"] for row in unlabelled.open("test")} == set(range(10))


@pytest.mark.skipif(not (ROOT / "stamps").exists(), reason="needs CHOPMIX_DATA")
def test_stamps_have_a_picture_a_voice_and_captions(monkeypatch, tmp_path):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    row = dataset_class("stamps")().open("val")[0]
    assert isinstance(row["image"], bytes) and isinstance(row["sound"], bytes)
    assert row["caption"] == "The letter c." and row["caption_fr"] == "La lettre c."


def test_recordings_that_cannot_be_read_leave_the_others_equalized():
    """The mean spectrum of a speaker is that of the recordings that can be read; the bad one is an error only when
    it is read."""

    def sound(seed: int) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, np.random.default_rng(seed).standard_normal(2000) / 10, 8000, format="WAV")
        return file.getvalue()

    keys = [f"7_{who}_{n}" for who in ("a", "b") for n in range(3)]
    whole = Listed(keys, [{"sound": sound(n)} for n in range(6)])
    hurt = Listed([*keys, "7_a_3"], [*whole.rows, {"sound": b"no sound"}])
    for samples in (whole, hurt):
        equalized = Equalized(samples, samples, "sound", lambda key: key.split("_")[1])
        clip, rate = equalized[0]["sound"]
        assert rate == 8000 and np.allclose(clip, Equalized(whole, whole, "sound", lambda key: key[2])[0]["sound"][0])
    with pytest.raises(ValueError, match="the sound cannot be read"):
        equalized[6]


@pytest.mark.skipif(not (ROOT / "fsdd").exists(), reason="needs fsdd in CHOPMIX_DATA")
def test_the_texts_of_digit_strings_are_those_of_their_sounds():
    strings = dataset_class("digit_strings")(samples=200).open("train")
    texts, speakers = dict(strings.numbered("text")), dict(strings.numbered("speaker"))
    for number in range(0, 200, 9):
        sample = strings[number]
        labels = [strings.source[recording]["label"] for recording in strings.spoken(number)[2]]
        assert sample["text"] == texts[number] == " ".join(str(int(label)) for label in labels)
        assert sample["speaker"] == speakers[number]
        assert len(sample["sound"][0]) >= sum(len(strings.recording(each)) for each in strings.spoken(number)[2])
    equalized = dataset_class("digit_strings")(samples=8, held_out="theo", equalize=True)
    assert np.isfinite(equalized.open("train")[3]["sound"][0]).all() and equalized.open("test").speakers == ["theo"]
    assert 0 < sum(not text for text in texts.values()) < 30 and max(map(len, texts.values())) == 13
