"""Manifests: a CSV table is read line by line and has the same rows as one that is read as a whole."""

import csv
import json
from pathlib import Path

import pytest
from chopmix.data.datasets.manifest import Manifest, numbered_rows
from chopmix.data.division import Division
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.files.reading import DataError
from hypothesis import given
from hypothesis import strategies as st


def rows_of_the_whole(text: str) -> list[tuple[int, dict]] | str:
    """The rows that one call of `csv` over all lines returns, or the message if they are refused."""
    reader = csv.reader(text.removeprefix("\ufeff").splitlines(keepends=True))
    try:
        header = next(reader, [])
        if not header or len(set(header)) != len(header):
            return "its first line must name every column"
        rows = []
        for row in reader:
            if row and len(row) != len(header):
                return f"line {reader.line_num} has {len(row)} fields"
            if row:
                rows.append((reader.line_num, {name: value or None for name, value in zip(header, row)}))
        return rows
    except csv.Error as error:
        return str(error)


@given(st.text(st.sampled_from('a,b"\n\r\ufeff\x0b\u2028'), max_size=40).map(lambda text: "a,b\n" + text) | st.text())
def test_rows_are_those_of_the_whole_text(tmp_path_factory, text):
    try:
        content = text.encode()
    except UnicodeEncodeError:
        return
    file = tmp_path_factory.getbasetemp() / "table.csv"
    file.write_bytes(content)
    expected = rows_of_the_whole(text)
    if isinstance(expected, str):
        with pytest.raises(DataError) as error:
            list(numbered_rows(file))
        assert expected in str(error.value)
    else:
        assert list(numbered_rows(file)) == expected


def test_a_table_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"a,b\n1,2\n\xff,3\n")
    with pytest.raises(DataError, match=r"table.csv, line 3: byte 0 \(0xff\) is not valid UTF-8"):
        list(numbered_rows(tmp_path / "table.csv"))


def test_unused_columns_of_a_manifest_are_named_if_a_column_is_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("path,label,speaker\na.wav,b,x\nb.wav,a,y\n")
    tree = {
        "inputs": {"sound": {"use": "audio", "rate": 8000}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 9, "attention": "same_sample"},
        "tasks": {"kind": {"use": "classification", "target": "label"}},
        "training": {"steps": 1, "samples_per_step": 2},
        "data": {"dataset": {"use": "manifest", "train": "t.csv", "columns": ["sound", "label"], "files": ["sound"]}},
    }  # fmt: skip
    Path("x.yaml").write_text(json.dumps(tree))
    with pytest.raises(DataError, match="'sound'; dataset.columns does not name path, speaker, which the samples have"):
        train(load_config("x.yaml"))


def test_a_division_of_an_empty_manifest_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    dataset = Manifest(train=str(tmp_path / "empty.jsonl"), columns=["text"])
    with pytest.raises(DataError, match=r"has no column 'who'; possible: text"):
        dataset.divided(Division(group="who"))
