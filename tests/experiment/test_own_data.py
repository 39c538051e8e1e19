"""Data that a user names on the command line: all samples are read if only `train` is named."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.base import Dataset
from chopmix.experiment.own_data import dataset_of, folder_data, named_dataset
from chopmix.files.reading import DataError
from PIL import Image


def png(number: int) -> bytes:
    """A small picture, a different one for each number."""
    file = io.BytesIO()
    Image.new("L", (4, 4), number).save(file, "PNG")
    return file.getvalue()


def write_source(folder: Path, name: str) -> str:
    """Writes a data set of 40 samples; returns a value of `--data` that names only `train`."""
    folder.mkdir()
    if name == "image_folder":
        for number in range(40):
            (folder / "ab"[number % 2]).mkdir(exist_ok=True)
            (folder / "ab"[number % 2] / f"{number}.png").write_bytes(png(number))
        return f"{{use: image_folder, train: {folder}}}"
    if name == "webdataset":
        with tarfile.open(folder / "x.tar", "w") as file:
            for number in range(40):
                content = str(number).encode()
                member = tarfile.TarInfo(f"{number}.txt")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        return f"{{use: webdataset, train: {folder}/x.tar, columns: {{text: txt}}}}"
    if name == "idx":
        for kind, array in (("images-idx3", np.zeros((40, 2, 2), np.uint8)), ("labels-idx1", np.zeros(40, np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"train-{kind}-ubyte").write_bytes(header + array.tobytes())
        return f"{{use: idx, train: {folder}/train-images-idx3-ubyte}}"
    if name == "table":
        (folder / "x.csv").write_text("\n".join(["time,x", *(f"{number},{number}" for number in range(40))]))
        return f"{{use: table, train: {folder}/x.csv, time: time, window: 1, streams: {{x: {{columns: [x]}}}}}}"
    lines = [json.dumps({"text": f"line {number}"}) for number in range(40)]
    (folder / "x.jsonl").write_text("\n".join(lines))
    (folder / "x.txt").write_text("\n".join(f"line {number}" for number in range(40)))
    more = {"manifest": ", columns: [text]", "text": ""}
    if name == "parallel_text":
        return f"{{use: parallel_text, train: {{text: {folder}/x.txt}}}}"
    if name == "hugging_face":
        return f"{{use: hugging_face, path: {folder}/x.jsonl}}"
    return f"{{use: {name}, train: {folder}/x.jsonl{more[name]}}}"


DIVIDED = ["image_folder", "manifest", "parallel_text", "text", "webdataset", "hugging_face", "idx", "table"]


def count(dataset: Dataset, split: str) -> int:
    return len(dataset.opened(split)) if dataset.holds_samples else len(list(dataset.documents(split)))


@pytest.mark.parametrize("name", DIVIDED)
def test_all_samples_are_evaluated_if_only_train_is_named(name, tmp_path, monkeypatch):
    """All samples, for every requested split. If training reads the same data, a part is the validation split."""
    if name == "hugging_face":
        library = pytest.importorskip("datasets")
        monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    option = write_source(tmp_path / "data", name)
    for split in ("train", "val", "test"):
        dataset = named_dataset(option, split, {"image": "image"} if name == "image_folder" else {"text": "text"})
        assert count(dataset, split) == 40
        file = {
            "image_folder": "",
            "webdataset": "/x.tar",
            "parallel_text": "/x.txt",
            "table": "/x.csv",
            "idx": "/train-images-idx3-ubyte",
        }.get(name, "/x.jsonl")
        assert dataset.title(split) == f"{tmp_path}/data{file} (all)"
    divided = dataset_of(option)
    gap = name == "table"  # a window between train and val is in none of them
    assert 0 < count(divided, "val") < 20 and count(divided, "train") + count(divided, "val") == 40 - gap
    assert divided.title("val") == f"{name} (val)"


def test_every_data_set_that_names_its_splits_can_be_read_whole():
    """These are the data sets with the options `train` and `val`; all others have fixed splits."""
    modules = [
        importlib.import_module(f"chopmix.data.datasets.{file.stem}") for file in (ROOT / "data/datasets").glob("*.py")
    ]
    classes = [each for module in modules for each in vars(module).values() if isinstance(each, type)]
    named = {
        each.__module__.rpartition(".")[2]
        for each in classes
        if issubclass(each, Dataset)
        and each.__module__.startswith("chopmix.data.datasets.")
        and {"train", "val"} <= inspect.signature(each.__init__).parameters.keys()
    }
    assert named == {*DIVIDED}


def test_splits_that_are_named_are_respected(tmp_path):
    for split, lines in (("train", 40), ("val", 3), ("test", 5)):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(json.dumps({"text": str(n)}) for n in range(lines)))
    path = f"{{use: manifest, columns: [text], train: {tmp_path}/train.jsonl, "
    both = named_dataset(path + f"val: {tmp_path}/val.jsonl}}", "val", {"text": "text"})
    assert [count(both, split) for split in ("train", "val")] == [40, 3] and both.title("val") == "manifest (val)"
    with pytest.raises(DataError, match="dataset 'manifest' has no split 'test'; possible: train, val"):
        both.opened("test")
    held = named_dataset(path + f"test: {tmp_path}/test.jsonl}}", "test", {"text": "text"})
    assert count(held, "test") == 5 and 0 < count(held, "val") < 20


def test_every_source_of_a_mixture_is_read_whole(tmp_path):
    first, other = write_source(tmp_path / "first", "manifest"), write_source(tmp_path / "other", "text")
    dataset = named_dataset(f"{{use: mixture, of: {{a: {first}, b: {other}, c: digits}}}}", "val", {"text": "text"})
    samples = dataset.opened("val")
    assert [len(source.samples) for source in samples.mixture][:2] == [40, 40]
    assert dataset.title("val") == f"{tmp_path}/first/x.jsonl (all), {tmp_path}/other/x.jsonl (all), digits (val)"
    assert len(dataset_of(f"{{use: mixture, of: {{a: {first}}}}}").opened("val")) < 20


@pytest.mark.parametrize("packed", [False, True])
def test_a_column_may_be_absent_from_the_first_sample(tmp_path, packed):
    rows = [{"text": "chop"}, {"text": "mix", "label": "x"}]
    if packed:
        path = tmp_path / "rows.tar"
        with tarfile.open(path, "w") as tar:
            for number, row in enumerate(rows):
                content = json.dumps(row).encode()
                member = tarfile.TarInfo(f"{number}.json")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    else:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    dataset = named_dataset(str(path), "val", {"text": "text", "label": "label"}, False)
    assert {*dataset.columns} == {"text", "label"} and list(dataset.opened("val").numbered("label")) == [(1, "x")]


def test_cells_of_a_table_are_numbers_or_files(tmp_path):
    """An earlier version read a cell such as 1.5 as the name of a file."""
    (tmp_path / "3").write_text("5\n")
    (tmp_path / "cells.csv").write_text('x,path,list\n1.5,3,"[1, 2]"\n2,a.npy,"[3, 4]"\n')
    wanted = dict.fromkeys(("x", "path", "list"), "file")
    samples = named_dataset(str(tmp_path / "cells.csv"), "val", wanted, False).opened("val")
    assert samples[0] == {"x": "1.5", "path": tmp_path / "3", "list": "[1, 2]"}
    assert samples[1] == {"x": "2", "path": tmp_path / "a.npy", "list": "[3, 4]"}


def test_a_run_with_joined_columns_reads_another_manifest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"x": [n % 2, 1, 2], "y": [3, 4, n % 3], "state": "ab"[n % 2]} for n in range(30)]
    for name, some in (("train", rows), ("other", rows[:7])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
    (tmp_path / "x.yaml").write_text("""
inputs: {motion: {use: sensor, channels: 2}}
model: {width: 16, depth: 1, heads: 2, context: 16, attention: same_sample}
tasks: {state: {use: classification, target: state}}
data: {dataset: {use: manifest, train: train.jsonl, columns: [x, y, state]}, columns: {motion: [x, y]}}
training: {steps: 1, samples_per_step: 4}
logging: {tensorboard: false}
""")
    assert main(["train", "x.yaml"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "runs/x", "--data", "other.jsonl"]) == 0
    assert "7 samples" in capsys.readouterr().out
    assert main(["predict", "runs/x", "--data", "other.jsonl", "--output", "p.csv"]) == 0
    assert (tmp_path / "p.csv").read_text().count("\n") == 8
    assert main(["embed", "runs/x", "--data", "other.jsonl", "--output", "e.npy"]) == 0


def test_a_folder_of_sounds_needs_no_classes(tmp_path):
    for name in ("b/2.wav", "a.flac", "notes.txt", "b/picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    samples = folder_data(tmp_path, {"path": "sound"}, "test").opened("test")
    assert list(samples.keys) == ["a.flac", "b/2.wav"] and samples[1] == {"path": tmp_path / "b" / "2.wav"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no sounds \(\.flac, "):
        folder_data(tmp_path / "empty", {"path": "sound"}, "test")
