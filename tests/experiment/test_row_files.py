"""Files of rows (CSV, JSON lines and parquet): rows are written, read back and refused."""

import csv
import io
import json
import math
import os
import string

import pytest
from bounded import measured
from chopmix.files.reading import DataError
from chopmix.files.rows import ENDINGS, FIRST, ending_of, flat_row, read_rows, row_file
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text(string.ascii_letters, min_size=1, max_size=4).filter(lambda name: name != "error")
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5)


def write_rows(path, groups, **options):
    with row_file(path, **options) as write:
        for group in groups:
            write(group)
    return path


def test_a_row_becomes_columns():
    row = {"key": "a", "kind": {"class": "cat", "p": {"cat": 1.0}}, "age": {"values": [1.5, 2]}, "ids": [1]}
    assert flat_row(row, ["age.values"]) == {
        "key": "a", "kind.class": "cat", "kind.p.cat": 1.0, "age.values.0": 1.5, "age.values.1": 2, "ids": [1],
    }  # fmt: skip
    errors = {"text": {"error": "no text"}, "age": {"error": "no sound"}}
    assert flat_row({"key": "a", **errors}) == {"key": "a", "error": "text: no text; age: no sound"}


@given(st.lists(st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=3), max_size=4), max_size=6))
def test_json_lines_return_all_rows(rows):
    with pytest.MonkeyPatch.context() as patch:
        file = io.StringIO()
        patch.setattr("chopmix.files.rows.atomic_file", lambda *_, **options: FileInMemory(file))
        from pathlib import Path

        write_rows(Path("x.jsonl"), [rows])
    assert [json.loads(line) for line in file.getvalue().splitlines()] == rows


class FileInMemory:
    """A context manager that returns a file in memory and does not close it."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self.file

    def __exit__(self, *error):
        return False


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("count", [0, 1, FIRST - 1, FIRST, 2 * FIRST + 1])
def test_every_row_is_read_back_in_order(tmp_path, ending, count):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    rows = [{"key": f"é,{n}\n", "answer": {"value": n / 3}, "words": ["a", "b"]} for n in range(count)]
    if count > 1:
        rows[1] = {"key": "bad", "error": "cut short"}
    path = write_rows(tmp_path / f"x{ending}", [rows[:3], rows[3:]])
    loaded = list(read_rows(path))
    assert [row["key"] for row in loaded] == [row["key"] for row in rows]
    if ending == ".csv" and count:
        assert list(loaded[0]) == ["key", "answer.value", "words", "without", "error"]
        assert [float(row["answer.value"]) for row in loaded if not row["error"]] == [
            row["answer"]["value"] for row in rows if "error" not in row
        ]
        assert json.loads(loaded[0]["words"]) == ["a", "b"]
    if ending == ".parquet" and count:
        assert loaded[0]["words"] == ["a", "b"] and loaded[-1]["answer.value"] == rows[-1]["answer"]["value"]
    assert os.listdir(tmp_path) == [f"x{ending}"]


def test_a_column_that_comes_late_is_refused_and_nothing_is_left(tmp_path):
    rows = [{"key": str(n)} for n in range(FIRST)]
    with pytest.raises(DataError, match=r"the column 'late' first occurs after 1,024 rows; write .jsonl"):
        write_rows(tmp_path / "x.csv", [rows, [{"key": "z", "late": 1}]])
    assert os.listdir(tmp_path) == []


def test_a_value_of_another_type_is_refused_in_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [{"key": n} for n in range(FIRST)]
    with pytest.raises(DataError, match="a value has another type than in the first 1,024 rows"):
        write_rows(tmp_path / "x.parquet", [rows, [{"key": "z"}]])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_names_that_are_not_utf8_are_escaped(tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    (row,) = read_rows(write_rows(tmp_path / f"x{ending}", [[{"key": "a\udcff"}]]))
    assert row["key"].encode() and row["key"].startswith("a")


def test_other_endings_are_named(tmp_path):
    with pytest.raises(DataError, match=r"x.txt: possible endings: .csv, .jsonl, .parquet"):
        ending_of(tmp_path / "x.txt")
    assert ending_of(tmp_path / "X.CSV") == ".csv"


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"a": 1}\n{"a"', b"PAR1"])
def test_damaged_files_raise_no_error_but_a_data_error(tmp_path, content):
    for ending in ENDINGS:
        (tmp_path / f"x{ending}").write_bytes(content)
        try:
            list(read_rows(tmp_path / f"x{ending}"))
        except DataError as error:
            assert f"x{ending}" in str(error)
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows(tmp_path / "none.csv"))


def write_many_rows(count, path):
    with row_file(path) as write:
        for _ in range(count):
            write([{"key": "k" * 50, "answer": {"value": 1.0}} for _ in range(100)])
    return 0


@pytest.mark.system
def test_the_memory_does_not_grow_with_the_rows(tmp_path):
    """30,000 rows are 10 MB as Python objects."""
    few, lots = (measured(write_many_rows, count, tmp_path / f"{count}.csv") for count in (10, 300))
    assert lots.mib - few.mib < 3, (few.mib, lots.mib)


def test_numbers_keep_their_precision(tmp_path):
    values = [0.1, 1 / 3, math.pi * 1e-12]
    path = write_rows(tmp_path / "x.csv", [[{"p": value} for value in values]])
    with open(path, newline="") as file:
        assert [float(row["p"]) for row in csv.DictReader(file)] == values
