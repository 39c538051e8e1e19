"""Data files of tables that unpack to far more bytes than their size are refused before they are read."""

import gzip
import json
from contextlib import nullcontext

import pytest
from chopmix.data import hub_files as unpacked_tables
from chopmix.data.datasets.hugging_face import HuggingFace
from chopmix.data.hub_files import check_table
from chopmix.files.reading import DataError

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")

TEXT, TIMES = "x" * 100_000, 6000
"""A text that is stored once and repeated: 600 MB in a file of 300 bytes."""


def repeated(kind=None):
    """An array of one text, `TIMES` times, that takes the memory of one."""
    kind = kind or arrow.string()
    return arrow.DictionaryArray.from_arrays(arrow.array([0] * TIMES, arrow.int32()), arrow.array([TEXT], kind))


NESTED = {
    "text": repeated,
    "binary": lambda: repeated(arrow.binary()),
    "list": lambda: arrow.ListArray.from_arrays([0, TIMES], repeated()),
    "struct": lambda: arrow.StructArray.from_arrays([repeated()], ["inner"]),
    "mapping": lambda: arrow.MapArray.from_arrays([0, TIMES], arrow.array(map(str, range(TIMES))), repeated()),
    "structs in a list": lambda: arrow.ListArray.from_arrays(
        [0, TIMES], arrow.StructArray.from_arrays([repeated()], ["inner"])
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_repeated_values_of_a_parquet_file_are_counted(tmp_path, name):
    file = tmp_path / "train.parquet"
    parquet.write_table(arrow.table({"a": NESTED[name]()}), file, compression="zstd", store_schema=False)
    with pytest.raises(DataError, match=r"its columns unpack to [\d,]+ bytes or more; possible: up to 536,870,912"):
        check_table(file)


@pytest.mark.parametrize("wide", [False, True])
def test_equal_numbers_of_a_parquet_file_are_counted(tmp_path, monkeypatch, wide):
    monkeypatch.setattr(unpacked_tables, "ROOM", 1)
    file, count = tmp_path / "train.parquet", 2**22 // (1000 if wide else 1) + 1
    table = arrow.table({"a": arrow.repeat(arrow.scalar(bytes(10_000), arrow.binary(10_000)) if wide else 7, count)})
    parquet.write_table(table, file, compression="zstd")
    with pytest.raises(DataError, match=r"its columns unpack to [34]\d,\d+,\d+ bytes or more; possible: up to [\d,]+$"):
        check_table(file)


def test_parquet_files_of_few_bytes_are_read(tmp_path):
    """Texts, lists, structs and mappings of which each is small, though they repeat."""
    row = {"text": "cat", "list": [["a"]], "struct": {"b": "c", "d": 1.0}, "number": 3, "nothing": None}
    table = arrow.table({name: [value] * 50_000 for name, value in row.items()})
    mapping = arrow.array([[("k", "v")]] * 50_000, arrow.map_(arrow.string(), arrow.string()))
    parquet.write_table(table.append_column("mapping", mapping), tmp_path / "train.parquet")
    check_table(tmp_path / "train.parquet")


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("new", ["new_stream", "new_file"])
@pytest.mark.parametrize("coded", [False, True])
def test_compressed_columns_of_arrow_files_are_refused(tmp_path, compression, new, coded):
    text = arrow.array(["text"] * 99)
    table = arrow.table({"a": text.dictionary_encode() if coded else text})
    options = arrow.ipc.IpcWriteOptions(compression=compression)
    with getattr(arrow.ipc, new)(tmp_path / "train.arrow", table.schema, options=options) as writer:
        writer.write_table(table)
    is_refused = pytest.raises(
        DataError, match=r"train.arrow: its columns are compressed; write it without compression"
    )
    with is_refused if compression else nullcontext():
        check_table(tmp_path / "train.arrow")


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet", "arrow"])
def test_archives_with_the_name_of_a_data_file_are_refused(tmp_path, ending):
    file = tmp_path / f"train.{ending}"
    file.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(DataError, match=rf"train.{ending}: it is a gzip file; unpack it, and use the file inside"):
        HuggingFace(path=str(file)).open("train")
    with pytest.raises(DataError, match="it is a gzip file"):
        HuggingFace(path=str(tmp_path)).open("train")


def test_compressed_files_of_any_name_in_a_saved_folder_are_refused(tmp_path):
    datasets.Dataset.from_dict({"a": [1, 2]}).save_to_disk(tmp_path)
    assert HuggingFace(path=str(tmp_path)).columns == ("a",)
    (data,) = tmp_path.glob("*.arrow")
    table = arrow.table({"a": [1, 2]})
    with arrow.ipc.new_stream(tmp_path / ".a", table.schema, options=arrow.ipc.IpcWriteOptions(compression="lz4")) as w:
        w.write_table(table)
    (tmp_path / "state.json").write_text((tmp_path / "state.json").read_text().replace(data.name, ".a"))
    with pytest.raises(DataError, match="its columns are compressed"):
        HuggingFace(path=str(tmp_path)).open("train")


def test_files_are_checked_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    file, checked = tmp_path / "a.csv", []

    def check(file):
        checked.append(file.read_text())
        if "bad" in file.read_text():
            raise DataError("bad")

    for content in ("good", "good", "other", "bad", "bad"):
        if not checked or file.read_text() != content:
            file.write_text(content)
        with pytest.raises(DataError) if content == "bad" else nullcontext():
            unpacked_tables.check_once(file, check)
    assert checked == ["good", "other", "bad", "bad"]


def test_compressed_columns_behind_the_end_of_an_arrow_file_are_refused(tmp_path):
    """Its messages end before them, but its footer names them, and readers follow the footer."""
    file, table = tmp_path / "train.arrow", arrow.table({"a": ["text"] * 99})
    with arrow.ipc.new_file(file, table.schema, options=arrow.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[-10:-6], "little")
    footer = content[-10 - length : -10]
    read = bytes(footer)
    vector = unpacked_tables.pointed(read, unpacked_tables.field(read, unpacked_tables.pointed(read, 0), 3))
    batch = int.from_bytes(footer[vector + 4 : vector + 12], "little")
    footer[vector + 4 : vector + 12] = (batch + 8).to_bytes(8, "little")
    end = b"\xff\xff\xff\xff" + bytes(4)
    file.write_bytes(content[:batch] + end + content[batch : -10 - length] + footer + content[-10:])
    assert arrow.ipc.open_file(file).get_batch(0).num_rows == 99
    with pytest.raises(DataError, match="its columns are compressed"):
        check_table(file)


@pytest.mark.parametrize("name", ["../other/data.arrow", "..", "a/b.arrow", "", None, "/etc/hostname"])
def test_saved_folders_may_name_only_files_inside_them(tmp_path, name):
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"a": [1, 2]})}).save_to_disk(tmp_path)
    assert HuggingFace(path=str(tmp_path)).columns == ("a",)
    state = tmp_path / "train" / "state.json"
    content = json.loads(state.read_text())
    state.write_text(json.dumps(content | {"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match="is not the name of a file or folder in it"):
        HuggingFace(path=str(tmp_path)).open("train")
    state.write_text(json.dumps(content))
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(DataError, match="is not the name of a file or folder in it"):
        HuggingFace(path=str(tmp_path)).open("train")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1\0\0", bytes(100), b"\xff" * 100, b"a,b\n1,2\n"])
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_damaged_files_are_left_to_the_library(tmp_path, content, ending):
    (tmp_path / f"train.{ending}").write_bytes(content)
    check_table(tmp_path / f"train.{ending}")
    with pytest.raises(DataError, match="cannot be loaded"):
        HuggingFace(path=str(tmp_path / f"train.{ending}")).open("train")
