"""The index of tar shards: how large it is, when it is used again, and what happens if a file is damaged or changes."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from chopmix.data import shard_index
from chopmix.data.shards import Shards
from chopmix.files.reading import DataError
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def shard(path, numbers, ending="tar"):
    """Writes a shard with a sample for each number: a `bin`, a `cls` and a `json` member."""
    file = path.with_suffix(f".{ending}")
    with tarfile.open(file, f"w:{ending.partition('.')[2]}") as tar:
        for number in numbers:
            members = {"bin": bytes([number % 256]) * 50, "cls": f"{number % 3}\n".encode(), "json": b"%d" % number}
            for extension, content in members.items():
                info = tarfile.TarInfo(f"sample-{number:06d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return str(file)


def several(folder, count=3, per_shard=20):
    paths = [folder / f"part-{n}" for n in range(count)]
    return tuple(shard(path, range(n * per_shard, (n + 1) * per_shard)) for n, path in enumerate(paths))


def test_every_sample_of_every_shard_has_its_own_members(folder):
    samples = Shards(several(folder))
    assert len(samples) == 60 and list(samples.keys) == [f"sample-{n:06d}" for n in range(60)]
    for number in range(60):
        assert samples[number] == {"bin": bytes([number]) * 50, "cls": number % 3, "json": number}
    assert list(samples.column("cls")) == [n % 3 for n in range(60)]
    with pytest.raises(IndexError):
        samples.keys[60]
    assert samples.keys[-1] == "sample-000059"


def test_an_index_takes_at_most_100_bytes_per_sample(folder):
    """With three members a sample, and keys of 13 characters."""
    index = Shards(several(folder, 2, 2000)).index
    size = sum(index[name].nbytes for name in index.about["arrays"])
    assert size / index.count < 100
    assert len(pickle.dumps(index)) < 1000  # a worker maps the same files


def test_labels_are_read_without_opening_a_shard(folder, monkeypatch):
    samples = Shards(several(folder))
    assert len(samples) == 60
    monkeypatch.setattr("chopmix.data.shards.open_file", None)
    assert list(samples.column("cls")) == [n % 3 for n in range(60)]


def test_records_that_exist_are_not_made_again(folder, monkeypatch):
    """A process that ends while it makes the second record of three."""
    paths, made = several(folder), []
    real = shard_index.make_record

    def stopping(path, changed):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(path)
        real(path, changed)

    monkeypatch.setattr(shard_index, "make_record", stopping)
    with pytest.raises(KeyboardInterrupt):
        len(Shards(paths))
    monkeypatch.setattr(shard_index, "make_record", lambda path, changed: (made.append(path), real(path, changed)))
    samples = Shards(paths)
    assert len(samples) == 60 and made == list(paths)
    assert samples.fingerprint() == Shards(paths).fingerprint()
    assert made == list(paths)


@pytest.mark.system
def test_several_processes_make_the_same_records(folder, monkeypatch):
    paths = several(folder, 6)
    alone = Shards(paths)
    expected, keys = alone.fingerprint(), list(alone.keys)
    monkeypatch.setenv("CHOPMIX_CACHE", str(folder / "cache 2"))
    monkeypatch.setattr(shard_index, "MANY", 3)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    together = Shards(paths)
    assert (together.fingerprint(), list(together.keys)) == (expected, keys)


def test_a_shard_that_changes_is_refused_while_it_is_used_and_read_again_afterwards(folder):
    paths = several(folder)
    before = Shards(paths)
    fingerprint = before.fingerprint()
    assert before[25]["json"] == 25
    shard(folder / "part-1", range(120, 140))
    with pytest.raises(DataError, match=r"part-1\.tar changed after its samples were counted; start again"):
        before[25]
    assert before[5]["json"] == 5  # the other shards did not change
    after = Shards(paths)
    assert after[25]["json"] == 125 and after.fingerprint() != fingerprint


def test_a_shard_that_disappears_is_named(folder):
    paths = several(folder)
    samples = Shards(paths)
    assert samples[25]["json"] == 25
    (folder / "part-1.tar").unlink()
    with pytest.raises((DataError, OSError), match=r"part-1\.tar"):
        samples[25]
    with pytest.raises(DataError, match=r"part-1\.tar does not exist"):
        len(Shards(paths))


def test_an_unpacked_copy_that_was_deleted_is_made_again(folder):
    path = shard(folder / "part", range(10), "tar.gz")
    assert Shards((path,))[3]["json"] == 3
    (copy,) = (folder / "cache" / "shards").glob("*.tar")
    copy.unlink()
    assert Shards((path,))[3]["json"] == 3


@pytest.mark.parametrize(
    "members", [{"json": "why"}, {"json": [-1, 3]}, {"json": [512, 2**40]}, {"json": [512]}, {"cls": [512, 2]}]
)
def test_a_record_that_does_not_fit_its_shard_is_made_again(folder, members):
    path = shard(folder / "part", [7])
    assert Shards((path,))[0]["json"] == 7
    (record,) = (folder / "cache" / "shards").glob("*.json")
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "samples": [["0", members]], "classes": []}))
    (index,) = (folder / "cache" / "shards").glob("index-*")
    (index / "about.json").write_text("{}")
    assert Shards((path,))[0]["json"] == 7


@given(
    number=st.integers(0, 10), where=st.floats(0, 0.999), flip=st.integers(1, 255),
    kind=st.sampled_from(["changed", "cut", "deleted"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_damaged_index_is_made_again_or_read_without_another_error(tmp_path_factory, number, where, flip, kind):
    """Any byte of any file of the index is changed, or any file is cut short or deleted."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("damage")
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        paths = several(folder, 2, 3)
        assert len(Shards(paths)) == 6
        (index,) = (folder / "cache" / "shards").glob("index-*")
        files = sorted(index.iterdir())
        assert len(files) == 11
        file = files[number]
        content = bytearray(file.read_bytes())
        place = int(where * len(content))
        if kind == "deleted":
            file.unlink()
        else:
            content[place] ^= flip
            file.write_bytes(content if kind == "changed" else content[:place])
        try:
            samples = Shards(paths)
            for number in range(len(samples)):
                assert isinstance(samples.keys[number], str)
                samples[number]
        except (DataError, OSError):
            return
        if kind != "changed":
            assert [samples[n]["json"] for n in range(6)] == list(range(6))


def test_classes_that_are_too_many_or_too_long_are_read_from_the_shards(folder, monkeypatch):
    monkeypatch.setattr(shard_index, "MOST_CLASSES", 2)
    samples = Shards((shard(folder / "part", range(6)),))
    assert [samples[n]["cls"] for n in range(6)] == [0, 1, 2, 0, 1, 2]
    monkeypatch.setattr(shard_index, "LONGEST_CLASS", 1)
    assert [Shards((shard(folder / "other", range(6)),))[n]["cls"] for n in range(6)] == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(samples.keys.shares(), Shards((shard(folder / "third", range(6)),)).keys.shares())
