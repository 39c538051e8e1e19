"""The index of tar shards: how large it is, when it is used again, and what happens if a file is damaged or changes."""

import io
import json
import pickle
import tarfile
import time

import numpy as np
import pytest
from chopmix.data import shard_index
from chopmix.data.prepared import Arrays, prepared
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


def test_every_sample_of_every_shard_has_its_members(folder):
    samples = Shards(several(folder))
    assert len(samples) == 60 and list(samples.keys) == [f"sample-{n:06d}" for n in range(60)]
    for number in range(60):
        assert samples[number] == {"bin": bytes([number]) * 50, "cls": number % 3, "json": number}
    assert list(samples.column("cls")) == [n % 3 for n in range(60)]
    with pytest.raises(IndexError):
        samples.keys[60]
    assert samples.keys[-1] == "sample-000059"


def test_an_index_takes_at_most_100_bytes_per_sample(folder):
    """Here every sample has three members and a key of 13 characters."""
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
    """A process ends while it makes the second of three records; the next process makes the others."""
    paths, recorded = several(folder), []
    real = shard_index.make_record

    def stopping(path, changed):
        if len(recorded) == 1:
            raise KeyboardInterrupt
        recorded.append(path)
        real(path, changed)

    monkeypatch.setattr(shard_index, "make_record", stopping)
    with pytest.raises(KeyboardInterrupt):
        len(Shards(paths))
    monkeypatch.setattr(shard_index, "make_record", lambda path, changed: (recorded.append(path), real(path, changed)))
    samples = Shards(paths)
    assert len(samples) == 60 and recorded == list(paths)
    assert samples.fingerprint() == Shards(paths).fingerprint()
    assert recorded == list(paths)


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
def test_a_damaged_index_is_made_again_or_refused_with_a_known_error(tmp_path_factory, number, where, flip, kind):
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


def test_the_same_shards_by_other_paths_are_the_same_files(folder, monkeypatch):
    """The index stores absolute paths; which names precede equal keys depends on the paths, not on what is cached."""
    for name in ("one", "two"):
        (folder / name / "shards").mkdir(parents=True)
        shard(folder / name / "shards" / "x", range(3) if name == "one" else range(10, 13))
    monkeypatch.chdir(folder / "one")
    relative = Shards(("shards/x.tar",))
    assert relative[0]["json"] == 0
    monkeypatch.chdir(folder / "two")
    assert Shards((str(folder / "one/shards/x.tar"),))[0]["json"] == 0
    assert relative[1]["json"] == 1  # also after a change of the working directory
    assert Shards(("shards/x.tar",))[0]["json"] == 10
    for name in "ab":
        (folder / name).mkdir()
        shard(folder / name / "same", range(4))
    monkeypatch.chdir(folder)
    absolute = tuple(str(folder / name / "same.tar") for name in "ab")
    assert Shards(("a/same.tar", "b/same.tar")).keys[0] == "a/same.tar/sample-000000"
    assert Shards(absolute).keys[0] == f"{folder}/a/same.tar/sample-000000"
    assert Shards(("a/same.tar", "b/same.tar")).fingerprint() != Shards(absolute).fingerprint()


def test_a_change_of_permissions_is_no_change(folder):
    paths = several(folder)
    samples = Shards(paths)
    assert samples[0]["json"] == 0
    (folder / "part-0.tar").chmod(0o600)
    assert samples[1]["json"] == 1


def headers(*members) -> bytes:
    """A tar of members (name, size in its header, type, content)."""
    content = b""
    for name, size, kind, body in members:
        info = tarfile.TarInfo(name)
        block = bytearray(info.tobuf())
        block[124:136] = (size % 2**96).to_bytes(12, "big") if size < 0 else b"%011o\0" % size
        block[156:157] = kind
        block[148:156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:]))
        content += bytes(block) + body + bytes(-len(body) % 512)
    return content + bytes(1024)


@pytest.mark.parametrize(
    "odd", [("z", -512, b"Z", b""), ("z", -1024, b"0", b""), ("p", 200_000, b"x", b"1" * 200_000),
            ("p", 30_000, b"g", b"7" * 30_000)],
)  # fmt: skip
def test_headers_that_would_be_read_forever_are_refused_as_damage(folder, odd):
    (folder / "odd.tar").write_bytes(headers(("a.txt", 1, b"0", b"x"), odd, ("b.txt", 1, b"0", b"y")))
    started = time.process_time()
    samples = Shards((str(folder / "odd.tar"),))
    with pytest.raises(DataError, match=r"odd\.tar is damaged or cut short"):
        for number in range(len(samples)):
            samples[number]
    assert time.process_time() - started < 5


def test_sparse_members_are_refused_and_a_member_may_be_named_damaged(folder):
    with tarfile.open(folder / "s.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in (("a.damaged", tarfile.REGTYPE), ("b.bin", tarfile.GNUTYPE_SPARSE)):
            info = tarfile.TarInfo(name)
            info.size, info.type = 3, kind
            tar.addfile(info, io.BytesIO(b"one"))
    samples = Shards((str(folder / "s.tar"),))
    with pytest.raises(DataError, match="s.tar is damaged or cut short after 'b': it has a sparse member"):
        list(map(samples.__getitem__, range(len(samples))))
    shard_of_a = tarfile.open(folder / "t.tar", "w")
    for name in ("a.damaged", "a.txt"):
        info = tarfile.TarInfo(name)
        info.size = 3
        shard_of_a.addfile(info, io.BytesIO(b"one"))
    shard_of_a.close()
    assert Shards((str(folder / "t.tar"),))[0] == {"damaged": b"one", "txt": "one"}


def test_too_many_extensions_and_paths_that_are_not_utf8_are_refused(folder, monkeypatch):
    monkeypatch.setattr(shard_index, "MOST_EXTENSIONS", 2)
    with pytest.raises(DataError, match="more than 2 different extensions, such as 'json'"):
        len(Shards((shard(folder / "part", [1]),)))
    with pytest.raises(DataError, match="the path of a shard must be UTF-8; rename it"):
        len(Shards((str(folder / "\udcff.tar"),)))


def test_a_folder_that_another_process_has_finished_meanwhile_is_used(tmp_path):
    """It may also replace a damaged one."""
    folder = tmp_path / "arrays"

    def write(columns):
        if len(events) == 1:  # the other process is faster
            events.append("other")
            prepared(folder, lambda other: other.add("x", np.arange(3)))
            other = Arrays(folder)
            events.append(other)
        columns.add("x", np.arange(3))

    events = ["first"]
    arrays = prepared(folder, write)
    assert arrays["x"].tolist() == [0, 1, 2] and len(events) == 3
    inode = (folder / "x.npy").stat().st_ino
    assert prepared(folder, write)["x"].tolist() == [0, 1, 2] and (folder / "x.npy").stat().st_ino == inode
    (folder / "x.npy").write_bytes(b"")
    assert prepared(folder, write)["x"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]
