"""Paths of data in a YAML file are relative to the folder of the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.data.base import Dataset
from chopmix.data.sample_dataset import OwnFiles
from chopmix.experiment.settings.config import ConfigError, load_config
from chopmix.experiment.settings.locations import notify
from chopmix.experiment.settings.registry import registry_of
from test_new import KINDS

MODEL = {
    "inputs": {"text": {"use": "text", "encoding": "bytes"}},
    "tasks": {"lm": {"use": "language_modeling", "target": "text"}},
    "model": {"width": 16, "depth": 1, "heads": 1, "context": 16, "attention": "causal"},
    "training": {"steps": 2, "tokens_per_step": 32}, "evaluation": {"every": 2},
}  # fmt: skip


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """The folder `a` of the YAML file; the working directory is the folder `b` next to it."""
    notify.cache_clear()
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "b")
    return tmp_path / "a"


def read(folder: Path, dataset: object, *overrides: str):
    """The options of the data set of a configuration that is written into this folder and loaded."""
    (folder / "x.yaml").write_text(yaml.safe_dump(MODEL | {"data": {"dataset": dataset}}))
    return load_config(os.path.relpath(folder / "x.yaml"), ["out=run", *overrides]).tree["data"]["dataset"]


def write(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("chop and mix " * 40)


def test_a_corpus_trains_and_is_evaluated_from_another_folder(places, capsys):
    write(places / "texts" / "one.txt", places / "texts" / "two.txt")
    assert read(places, {"use": "text", "train": "texts/*.txt"})["train"] == "../a/texts/*.txt"
    assert main(["train", "../a/x.yaml", "out=run"]) == 0
    assert main(["evaluate", "run"]) == 0
    assert "working directory" not in capsys.readouterr().err


def test_paths_of_every_form_are_relative_to_the_file(places):
    write(places / "one.txt", places / "s-001.tar", places / "en", places / "fr", Path("one.txt"), places / "two.txt")
    absolute = str(places / "two.txt")
    options = read(places, {"use": "text", "train": ["one.txt", "*.txt", absolute], "val": "~/one.txt"})
    assert options["train"] == ["../a/one.txt", "../a/*.txt", absolute] and options["val"] == "~/one.txt"
    options = read(places, {"use": "parallel_text", "train": {"text": "en", "other": "fr"}})
    assert options["train"] == {"text": "../a/en", "other": "../a/fr"}
    columns = {"columns": {"text": "txt"}}
    for shards in ("s-{000..001}.tar", "s-001.tar"):
        assert read(places, {"use": "webdataset", "train": shards, **columns})["train"] == f"../a/{shards}"
    for address in ("s3://bucket/s-001.tar", "https://host/one.tar"):
        assert read(places, {"use": "webdataset", "train": address, **columns})["train"] == address
    assert read(places, {"use": "hugging_face", "path": "owner/name"})["path"] == "owner/name"
    (places / "owner" / "name").mkdir(parents=True)
    options = read(places, {"use": "hugging_face", "path": "owner/name"})
    assert options["path"] == "../a/owner/name" and options["train"] == "train"
    options = read(
        places, {"use": "mixture", "of": {"mine": {"use": "text", "train": "one.txt"}, "code": "python_stdlib"}}
    )
    assert options["of"]["mine"]["train"] == "../a/one.txt"
    assert read(places, {"use": "text", "train": "one.txt"}, "data.dataset.train=one.txt")["train"] == "one.txt"


def test_a_path_in_the_folder_of_the_file_is_not_changed(places, monkeypatch):
    monkeypatch.chdir(places)
    write(Path("texts/one.txt"))
    assert read(places, {"use": "text", "train": "texts/one.txt"})["train"] == "texts/one.txt"


def test_a_file_of_the_working_directory_is_read_with_one_notice(places, capsys):
    write(Path("one.txt"))
    assert read(places, {"use": "text", "train": "one.txt"})["train"] == "one.txt"
    command = ["train", "../a/x.yaml", "out=runs", "--seeds", "0,1", "logging.every=1"]
    notify.cache_clear()
    assert main(command) == 0
    notice = "data.dataset.train: one.txt is read from the working directory, because it does not exist in ../a, the"
    assert capsys.readouterr().err.replace("\n", " ").count(notice) == 1


def test_a_missing_file_is_named_in_the_folder_of_the_yaml(places, capsys):
    read(places, {"use": "text", "train": "gone.txt"})
    assert main(["train", "../a/x.yaml", "out=run"]) == 2
    assert "../a/gone.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "dataset",
    [
        None,
        3,
        "nothing_like_it",
        {"use": 3},
        {"use": "text", "train": 3},
        {"use": "text"},
        ["text"],
        {"use": "no.module:Class"},
    ],
)
def test_a_wrong_data_set_is_reported_by_the_checks(places, dataset):
    with pytest.raises(ConfigError, match="data"):
        read(places, dataset)


def test_a_pattern_that_takes_too_long_is_reported_when_the_data_are_read(places, capsys):
    read(places, {"use": "text", "train": "**/" + "a/**/" * 9 + "x"})
    assert main(["train", "../a/x.yaml", "out=run"]) == 2
    assert "contains ** more than" in capsys.readouterr().err


def test_paths_of_a_user_defined_class_are_relative_to_the_file(places, monkeypatch):
    (places / "mine.py").write_text(
        "from chopmix.data.base import Dataset\n\n\nclass Mine(Dataset):\n    paths = ('folder',)\n\n"
        "    def __init__(self, *, folder: str):\n        self.folder = folder\n"
    )
    monkeypatch.syspath_prepend(places)
    assert read(places, {"use": "mine:Mine", "folder": "texts"})["folder"] == "../a/texts"


def test_every_data_set_of_files_names_its_paths():
    registry = registry_of((Dataset,))
    for name in registry.names():
        dataset = registry.find(name)[1]
        if issubclass(dataset, OwnFiles) or name == "text":
            assert dataset.paths, name


@pytest.mark.parametrize("kind", ["sounds", "text"])
def test_new_writes_paths_relative_to_its_file(kind, places, monkeypatch, tmp_path):
    make, words, *_ = KINDS[kind]
    make(Path())
    assert main(["new", *words, "--output", "../a/x.yaml"]) == 0
    dataset = yaml.safe_load((places / "x.yaml").read_text())["data"]["dataset"]
    assert dataset["train"].startswith("../b/")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "a/x.yaml", "training.steps=2", "out=run"]) == 0
