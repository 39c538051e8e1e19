"""The trained run `quickstart`, which is part of the package, is used by all commands that read a run."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import chopmix
import pytest
import torch
from chopmix.commands.cli import main
from chopmix.experiment.run import open_part
from chopmix.experiment.run_names import folder_of_run, output_folder
from chopmix.files.plugins import TRAINED
from chopmix.training.checkpoints import read_part

FILES = [file for file in (TRAINED / "quickstart").rglob("*") if file.is_file()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory. After the test, the files of the run are unchanged."""
    before = {file: file.read_bytes() for file in FILES}
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert before == {file: file.read_bytes() for file in (TRAINED / "quickstart").rglob("*") if file.is_file()}


def test_its_files_are_small_and_its_weights_have_half_precision():
    assert sum(file.stat().st_size for file in FILES) < 600_000
    run = chopmix.load("quickstart", device="cpu")
    stored = read_part(run.folder, run.step, "model")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    for name, tensor in run.model.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, stored[name].float())
    assert not any(str(Path.home()) in file.read_text() or "/tmp" in file.read_text() for file in FILES
                   if file.suffix in (".yaml", ".json", ".jsonl"))  # fmt: skip


def test_it_predicts_an_answer(here, capsys):
    assert main(["examples", "quickstart", "--split", "test", "--number", "2", "--output", "examples"]) == 0
    words = [
        word
        for name, ending in (("image", "png"), ("sound", "wav"))
        for word in ("--input", f"{name}=examples/1/{name}.{ending}")
    ]
    capsys.readouterr()
    assert main(["predict", "quickstart", "--input", "operator=+", *words]) == 0
    answer = json.loads(capsys.readouterr().out)["answer"]["text"]
    assert "+" in answer and "=" in answer


def test_pages_are_written_to_the_working_directory(here):
    assert main(["inspect", "quickstart"]) == 0 and os.listdir() == ["inspect.html"]


@pytest.mark.system
def test_the_page_of_the_run_is_written_to_the_working_directory(here, reports):
    assert main(["report", "quickstart"]) == 0 and os.listdir() == ["index.html"]
    assert "Curves" in Path("index.html").read_text()


@pytest.mark.system
def test_an_evaluation_writes_its_report_to_the_working_directory(here):
    assert main(["evaluate", "quickstart", "--split", "val", "--report"]) == 0
    assert os.listdir() == ["report"] and not (TRAINED / "quickstart" / "calibration.json").exists()


def test_a_local_folder_of_that_name_comes_first(here, capsys):
    shutil.copytree(TRAINED / "quickstart", "quickstart")
    assert folder_of_run("quickstart") == Path("quickstart") and output_folder(folder_of_run("quickstart")) == Path(
        "quickstart"
    )
    shutil.rmtree("quickstart")
    assert (
        folder_of_run("quickstart") == TRAINED / "quickstart" and output_folder(folder_of_run("quickstart")) == Path()
    )
    Path("quickstart").write_text("a file")
    assert main(["predict", "quickstart", "--input", "operator=+"]) == 2
    assert "quickstart is not a run" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../trained/quickstart", "none", ".", "", "quickstart/assets", "/quickstart"])
def test_other_names_are_not_folders_of_the_package(here, name):
    assert folder_of_run(name) == Path(name)


def test_training_it_is_refused(here, capsys):
    assert main(["train", "quickstart"]) == 2
    assert "quickstart" in capsys.readouterr().err


def test_a_training_starts_from_its_weights(here, capsys):
    small = ["data.dataset.samples=64", "tasks.answer.metrics=[]", "evaluation.attribution=false"]
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    assert (
        main(["train", str(config), "from=quickstart", "training.steps=1", "training.schedule=constant", *small]) == 0
    )
    printed = capsys.readouterr()
    copied = re.search(
        r"from quickstart, step 900: copied (\d+) tensors \([\d,]+ values\)\n", printed.out + printed.err
    )
    assert int(copied[1]) == len(read_part(TRAINED / "quickstart", 900, "model"))


def test_it_is_opened_as_a_part_of_another_run(here):
    part = open_part("quickstart")
    assert part.name == "quickstart" and part.model.training is False
