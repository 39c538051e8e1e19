"""`chopmix new samples` joins a table with folders by a key, and the configuration trains without a change."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.new.samples import files_in
from chopmix.files.reading import DataError
from PIL import Image


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    return tmp_path


HEADER = ["id", "size", "weight", "note", "room", "label"]


def row(number):
    words = "a red and small one" if number % 2 else "a very large blue thing"
    return [f"s{number}", number % 7 + 0.5, "" if number % 5 == 0 else number, words, "r1", ["good", "bad"][number % 2]]


def write(count=40, rows=None):
    """A table, pictures of most of its samples, and sounds of some."""
    with open("parts.csv", "w", newline="") as file:
        csv.writer(file).writerows([HEADER, *([row(number) for number in range(count)] if rows is None else rows)])
    for number in range(count):
        if number % 4:
            path = f"photos/{'ab'[number % 2]}/s{number}.png"
            Image.new("L", (20, 24), 200 * (number % 2)).save(folder_of(path))
        if number % 3 == 0:
            tone = np.sin(np.arange(2000) * (0.1 + number % 2)).astype(np.float32)
            soundfile.write(folder_of(f"knocks/s{number}.wav"), tone, 8000)


def folder_of(path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return path


COMMAND = ["new", "samples", "parts.csv", "photos", "knocks", "--key", "id"]


def test_a_table_and_two_folders_train_without_a_change(capsys):
    write()
    assert main(COMMAND) == 0
    text = capsys.readouterr().out
    assert "30 images of 20 x 24 pixels, grey; 10 samples have none" in text and "numbers: size, weight" in text
    assert "texts: note" in text and "not used: room" in text and "14 sounds of" in text
    tree = yaml.safe_load(Path("parts.yaml").read_text())
    assert "fewer than 10 samples of good, bad" in text
    assert [*tree["inputs"]] == ["photos", "knocks", "measurements", "note"]
    assert tree["data"]["dataset"]["key"] == "id" and tree["training"]["input_dropout"] == 0.2
    assert tree["tasks"] == {"label": {"use": "classification", "target": "label", "label_smoothing": 0.1}}
    small = ["training.steps=2", "model.width=16", "model.depth=1", "model.heads=1", "evaluation.baselines=false"]
    assert main(["train", "parts.yaml", *small]) == 0
    assert main(["predict", "runs/parts", "--split", "test", "--output", "answers.csv"]) == 0
    keys = {line["key"] for line in csv.DictReader(Path("answers.csv").read_text().splitlines())}
    assert keys <= {f"s{number}" for number in range(40)} and keys


def changed(number, column, value):
    rows = [row(n) for n in range(40)]
    rows[number][HEADER.index(column)] = value
    return rows


@pytest.mark.parametrize(("rows", "command", "message"), [
    (changed(3, "id", "s4"), COMMAND, "the key 's4' occurs 2 times in column 'id'"),
    (changed(3, "id", ""), COMMAND, "row 4 has no value in column 'id', the key of the samples"),
    ([["x", 1, 2, "a", "r", "good"]], COMMAND, "no value of 'id' in parts.csv is the name of a file in photos"),
    (None, [*COMMAND[:-1], "key"], "has no column 'key'; possible for --key: id, size"),
    (None, COMMAND[:-2], "name the column by which the data are joined"),
    (None, ["new", "samples", "photos", "knocks", "--key", "id"], "name one table .* not 0 tables"),
    (None, ["new", "images", "photos", "knocks"], "are one file or folder; several of them are joined"),
    (None, ["new", "samples", "parts.csv", "none", "--key", "id"], "there is no file or folder 'none'"),
])  # fmt: skip
def test_data_that_cannot_be_joined_are_refused(rows, command, message, capsys):
    write(rows=rows)
    assert main(command) == 2
    assert re.search(message, capsys.readouterr().err)


def test_folders_without_files_or_with_two_files_of_a_key_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images or sounds; possible: .aif"):
        files_in(tmp_path / "empty")
    for name in ("twice/a/1.png", "twice/b/1.png", "mixed/1.png", "mixed/2.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="two files have the key '1'"):
        files_in(tmp_path / "twice")
    with pytest.raises(DataError, match="has images and sounds; use a folder for each"):
        files_in(tmp_path / "mixed")


def test_folders_with_the_same_name_are_refused(capsys):
    write()
    for other in ("more/photos", "measurements", "note"):
        Image.new("L", (8, 8)).save(folder_of(f"{other}/s1.png"))
        assert main(["new", "samples", "parts.csv", "photos", other, "--key", "id"]) == 2
        name = other.rpartition("/")[2]
        assert f"'{name}' is the name of a folder and of another folder or a column" in capsys.readouterr().err


def test_files_are_written_to_the_folder_of_the_output(tmp_path):
    write()
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "there").mkdir()
    assert main([*COMMAND, "--output", "there/x.yaml"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {*before, "there"}
    small = ["training.steps=1", "model.width=16", "model.depth=1", "model.heads=1", "evaluation.baselines=false"]
    assert main(["train", "there/x.yaml", *small]) == 0


def test_the_joined_table_is_not_replaced(capsys):
    write()
    assert main(COMMAND) == 0 and main([*COMMAND, "--output", "other.yaml"]) == 2
    assert "parts-samples.csv exists already; delete it" in capsys.readouterr().err
