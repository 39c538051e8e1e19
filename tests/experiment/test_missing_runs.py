"""The message about a folder that is not a run, or a run without a checkpoint, names the command that trains it."""

from pathlib import Path

import pytest
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.experiment.run_folder import training_of
from chopmix.experiment.settings.config import load_config, write_config
from chopmix.files.errors import RunError


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("runs/vision/seen", "chopmix train configs/vision/seen.yaml"),
        ("HERE/runs/vision/seen", "chopmix train configs/vision/seen.yaml"),
        ("runs/seen.v2", "chopmix train configs/seen.v2.yaml"),
        ("runs/gone", "chopmix train CONFIG"),
        ("elsewhere/seen.v2", "chopmix train CONFIG"),
        ("runs", "chopmix train CONFIG"),
        (".", "chopmix train CONFIG"),
    ],
)
def test_the_command_that_trains_a_run_is_derived_from_its_folder(tmp_path, monkeypatch, folder, command):
    monkeypatch.chdir(tmp_path)
    for file in ("configs/vision/seen.yaml", "configs/seen.v2.yaml"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("")
    assert training_of(Path(folder.replace("HERE", str(tmp_path)))) == command


def test_the_message_about_a_missing_run_says_how_to_train_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/seen.yaml").write_text("")
    message = "runs/seen is not a run: it has no config.yaml. Train it with `chopmix train configs/seen.yaml`"
    with pytest.raises(RunError, match=message):
        load_run("runs/seen")
    assert main(["predict", "runs/seen", "--input", "image=a.png"]) == 2 and message in capsys.readouterr().err


def test_a_run_that_failed_before_its_first_checkpoint_is_reported(tiny, tmp_path, capsys):
    """The message does not say that a part of the folder was not copied."""
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    write_config(folder, load_config(tiny()))  # as training does before it reads the data
    assert main(["predict", str(folder), "--input", "text=a"]) == 2
    message = (
        "has no checkpoint: its training failed, or ended before the first checkpoint. Train it with `chopmix train "
    )
    assert message in (error := capsys.readouterr().err) and "copy" not in error
