"""`chopmix prepare` stores tokens, which training then uses."""

import pytest
from chopmix.commands.cli import main
from chopmix.data import tokenizing


def files_in(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_a_prepared_corpus_is_not_tokenized_again(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    file = tiny()
    assert main(["prepare", str(file)]) == 0
    output = capsys.readouterr().out
    assert "train: " in output and " tokens from " in output and "in 1 file" in output and "is prepared after" in output
    files = files_in(tmp_path / "cache")
    assert len([path for path in files if path.suffix == ".tokens"]) == 2 and not (tmp_path / "runs").exists()
    monkeypatch.setattr(tokenizing, "_encode_all", None)
    assert main(["train", str(file), "training.steps=1"]) == 0
    assert files_in(tmp_path / "cache") == files


def test_prepare_refuses_what_training_refuses(tiny, capsys):
    assert main(["prepare", str(tiny()), "data.dataset.train=nowhere.txt"]) == 2
    assert "train: no file at 'nowhere.txt'" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["training.epochs=2", "training.minutes=1"])
def test_a_run_without_a_number_of_steps_is_prepared(tiny, tmp_path, monkeypatch, setting):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    assert main(["prepare", str(tiny()), "training.steps=null", setting]) == 0
