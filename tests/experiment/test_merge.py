"""`chopmix merge` refuses files that do not fit together, damaged files, and records with impossible numbers."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
from chopmix.commands.cli import main

RECORD = {
    "command": "predict",
    "run": "r",
    "weights": "w",
    "data": "d",
    "settings": {},
    "count": 1,
    "index": 0,
    "samples": 1,
}


def npy_bytes(values) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize(
    "name, content, changes, message",
    [
        ("a.jsonl", '{"key": "a"}\n', {"count": 3 * 10**8}, "the shards 1/300000000, 2/300000000, .*, ... are missing"),
        ("a.jsonl", '{"key": "a"}\n', {"count": 10**30}, "count"), ("a.jsonl", '{"key": "a"}\n', {"count": 0}, "count"),
        ("a.jsonl", '{"key": "a"}\n', {"samples": 10**12}, "is cut short"),
        ("a.jsonl", '{"key": "a"}\n', {"samples": -5}, "samples"), ("a.jsonl", '{"x": "a"}\n', {}, "row 1 has no key"),
        ("a.jsonl", "[1, 2]\n", {}, "row 1 has no key"), ("a.jsonl", "null\n", {}, "row 1 has no key"),
        ("a.jsonl", "5\n", {}, "row 1 has no key"), ("a.jsonl", '{"key": ["a"]}\n', {}, "row 1 has no key"),
        ("a.csv", "x,y\n1,2\n", {}, "row 1 has no key"), ("a.csv", "", {}, "is cut short"),
        ("a.csv", "key,y\na,2,3,4\n", {}, "row 1 has more cells than the header"),
        ("a.npy", npy_bytes(np.float32(3)), {}, "a single number instead of rows"),
        ("a.npy", b"\x93NUMPY", {}, "cannot be read"),
    ],
)  # fmt: skip
def test_damaged_shards_are_refused_with_one_message(tmp_path, monkeypatch, capsys, name, content, changes, message):
    import re

    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / f"{name}.shard.json").write_text(json.dumps(RECORD | changes))
    started = time.process_time()
    assert main(["merge", f"out.{name.partition('.')[2]}", name]) == 2
    assert re.search(message, capsys.readouterr().err) and time.process_time() - started < 5
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(("out", ".out"))]
