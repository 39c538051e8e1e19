"""Fingerprints of data: a change of any value of any column gives another fingerprint."""

import importlib
import inspect
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from chopmix.data.datasets import manifest as manifests
from chopmix.data.datasets.cifar10_full import RECORD, Records
from chopmix.data.datasets.hugging_face import Rows, class_names, undecoded
from chopmix.data.datasets.manifest import Manifest
from chopmix.data.datasets.parallel_text import Lines
from chopmix.data.division import Balanced
from chopmix.data.fingerprint import Fingerprint
from chopmix.data.generated import Made
from chopmix.data.mixture import Equalized, MixedSamples, Source
from chopmix.data.samples import (
    ByColumn,
    Changed,
    Channels,
    Chosen,
    Hidden,
    Joined,
    Listed,
    Renamed,
    Samples,
    Visible,
)
from chopmix.data.shards import Shards
from chopmix.projects.decision.datasets.episodes import Windows
from chopmix.projects.decision.recording.episodes import Episode, joined
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

COUNT = 200
"""The number of samples of each data set, more than the fingerprint of a user's data set reads."""
COLUMNS = ("text", "number", "flag", "list", "array")


def rows(change: tuple[int, str] | None = None) -> list[dict]:
    """Rows of several columns; `change` selects a value that is changed."""
    table = []
    for n in range(COUNT):
        row = {"text": f"word {n}", "number": n % 7, "flag": n % 2 == 0, "list": [n, n + 1], "array": np.arange(3) + n}
        table.append(row)
    if change:
        number, column = change
        other = {"text": "word x", "number": 9, "flag": number % 2 == 1, "list": [number, -1], "array": np.ones(3)}
        table[number][column] = other[column]
    return table


KEYS = [f"key {n}" for n in range(COUNT)]


def windows(folder: Path, change=None) -> Samples:
    """One episode per row: the columns are the arrays, the mission, and what is computed from rewards and lengths."""
    episodes = []
    for row in rows(change):
        observations = {"state": np.array(row["array"], float)[:, None], "twin": np.array(row["array"], float)[:, None]}
        actions, rewards = np.full(3, row["number"]), np.array([*row["list"], row["flag"]], float)
        episodes.append(Episode(observations, {"mission": row["text"]}, actions, rewards))
    return Windows(joined(episodes), np.arange(COUNT), np.zeros(COUNT, int), 2)


def shards(folder: Path, change=None) -> Samples:
    path = folder / f"{len([*folder.iterdir()])}.tar"
    with tarfile.open(path, "w") as tar:
        for n, row in enumerate(rows(change)):
            for name, value in row.items():
                info, content = tarfile.TarInfo(f"{n}.{name}"), repr(value).encode()
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return Shards((str(path.replace(folder / "a.tar")),))


def records(folder: Path, change=None) -> Samples:
    array = np.zeros((COUNT, RECORD), np.uint8)
    for n, row in enumerate(rows(change)):
        array[n, 0] = row["number"]
        for place, column in enumerate(("text", "flag", "list", "array")):
            array[n, 1 + 8 * place : 9 + 8 * place] = list(repr(row[column])[-8:].ljust(8).encode())
    array.tofile(folder / "a.bin")
    return Records((folder / "a.bin",))


def lines(folder: Path, change=None) -> Samples:
    for column in COLUMNS:
        (folder / column).write_text("".join(f"{row[column]}\n" for row in rows(change)))
    return Lines({column: folder / column for column in COLUMNS})


def table(folder: Path, change=None) -> Samples:
    datasets = pytest.importorskip("datasets")
    data = [{**row, "array": row["array"].tolist(), "kind": row["number"] % 10} for row in rows(change)]
    columns = {name: [row[name] for row in data] for name in data[0]}
    columns["file"] = [{"bytes": row["text"].encode(), "path": None} for row in data]
    dataset = datasets.Dataset.from_dict(columns).cast_column("kind", datasets.ClassLabel(names=list("abcdefghij")))
    dataset = dataset.cast_column("file", datasets.Image(decode=False))
    return Rows(KEYS, *undecoded(dataset), class_names(dataset))


def listed(folder: Path, change=None) -> Samples:
    return Listed(KEYS, rows(change))


def manifest(folder: Path, change=None) -> Samples:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({**row, "array": row["array"].tolist()}) for row in rows(change)))
    return Manifest(train=str(path), columns=list(COLUMNS)).read(path)


def files(folder: Path, change=None) -> Samples:
    """Samples whose values are files."""
    for n, row in enumerate(rows(change)):
        (folder / f"{n}.txt").write_text(repr(row))
    return Listed(KEYS, [{"file": folder / f"{n}.txt"} for n in range(COUNT)])


READS = {column: (lambda row, column=column: row[column]) for column in COLUMNS}
MAKERS = {
    "windows": windows, "shards": shards, "records": records, "lines": lines, "table": table, "listed": listed,
    "files": files,
    "manifest": manifest,
    "some of them": lambda *a: Chosen(listed(*a), range(COUNT)),
    "renamed": lambda *a: Renamed(listed(*a), READS, dict(zip(READS, READS))),
    "hidden": lambda *a: Hidden(listed(*a), "other", {3}),
    "mixed": lambda *a: MixedSamples([Source("one", listed(None), 1), Source("two", listed(*a), 1, {"text": "words"})]),
    "joined": lambda *a: Joined({"one": listed(None), "two": listed(*a)}),
    "balanced": lambda *a: Balanced(listed(*a), "number"),
    "channels": lambda *a: Channels(listed(*a), {"pair": ["number", "flag"]}),
    "visible": lambda *a: Visible(listed(*a), COLUMNS),
    "equalised": lambda *a: Equalized(listed(*a), listed(None), "sound", str),
}  # fmt: skip
CLASSES = {Windows, Shards, Records, Lines, Rows, Listed, Chosen, Renamed, Hidden, MixedSamples, Equalized, Joined,
           Balanced, Channels, Visible, manifests.Rows}  # fmt: skip
OF_FILES = {"Pairs", "IdxSamples", "Windows", "RolledOut"}
"""Classes that are not tested here: torchvision checks its published files, and the fingerprints of idx files and of
tables are those of their files (test_table); rollouts: test_rollouts."""


@pytest.mark.parametrize("kind", MAKERS)
@given(change=st.tuples(st.integers(0, COUNT - 1), st.sampled_from(COLUMNS)))
@settings(max_examples=8, deadline=None)
def test_a_change_of_any_value_of_any_column_gives_another_fingerprint(tmp_path_factory, kind, change):
    folder = tmp_path_factory.mktemp("data")
    one, same, other = (MAKERS[kind](folder, each).fingerprint() for each in (None, None, change))
    assert one == same != other


def test_all_samples_that_hold_data_are_tested():
    classes = set()
    files = [*(ROOT / "data").rglob("*.py"), *(ROOT / "projects").glob("*/datasets/*.py")]
    for file in files:
        name = ".".join(("chopmix", *file.relative_to(ROOT).with_suffix("").parts))
        for each in vars(importlib.import_module(name)).values():
            if inspect.isclass(each) and issubclass(each, Samples) and each.__module__ == name:
                classes.add(each)
    with_data = {each for each in classes if not issubclass(each, Made) and each not in (Samples, ByColumn, Changed)}
    assert {each for each in with_data if each.__name__ not in OF_FILES or each in CLASSES} == CLASSES and len(
        classes
    ) > len(CLASSES) + 8


def one_episode(mission="go", lengths=(3, 2), names=("a", "b")) -> Windows:
    steps = sum(lengths)
    every = [Episode({names[0]: np.zeros(n), names[1]: np.ones(n)}, {"mission": mission}, np.zeros(n), np.zeros(n))
             for n in lengths]  # fmt: skip
    assert steps == 5
    return Windows(joined(every), np.array([0, 1]), np.array([0, 0]), 0)


def test_windows_of_episodes_differ_by_texts_lengths_and_names():
    """Their fingerprints differ although the arrays of all steps are the same."""
    changes = [{}, {"mission": "stop"}, {"lengths": (2, 3)}, {"names": ("b", "a")}]
    assert len({one_episode(**each).fingerprint() for each in changes}) == len(changes)


class Drawn(Made):
    """Samples that are computed from others, of which the fingerprint reads few."""

    def __init__(self, source: Samples):
        super().__init__("train", 3, "thing", source)

    def __getitem__(self, number):
        return {"text": self.sources[0][number]["text"]}


def test_samples_computed_from_others_change_with_them():
    one, same, other = (Drawn(Listed(KEYS, rows(each))).fingerprint() for each in (None, None, (150, "text")))
    assert one == same != other


PLAIN = [1, 1.0, True, None, "1", b"1", bytearray(b"2"), 1j, 2j, {1, 2}, {1, 3}, frozenset({1}), [1], (1, 2), {"a": 1}]


def test_values_of_all_plain_types_have_different_fingerprints():
    assert len({Fingerprint(each).hex for each in PLAIN}) == len(PLAIN)
    assert Fingerprint({"b", "a", "c"}).hex == Fingerprint({"c", "a", "b"}).hex


def test_arrays_of_objects_differ_by_their_values():
    one, same, other = (np.array([each, None], dtype=object) for each in ("word one", "".join(["word ", "one"]), "two"))
    assert Fingerprint(one).hex == Fingerprint(same).hex != Fingerprint(other).hex


def test_pictures_with_other_palettes_have_other_fingerprints():
    one, other = (Image.new("P", (2, 2), 0) for _ in range(2))
    one.putpalette([255, 0, 0])
    other.putpalette([0, 255, 0])
    assert Fingerprint(one).hex == Fingerprint(one.copy()).hex != Fingerprint(other).hex
