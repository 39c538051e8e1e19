"""What is said of a run's folder that cannot be opened: the command that trains it."""

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
def test_the_command_that_trains_a_run(tmp_path, monkeypatch, folder, command):
    monkeypatch.chdir(tmp_path)
    for file in ("configs/vision/seen.yaml", "configs/seen.v2.yaml"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("")
    assert training_of(Path(folder.replace("HERE", str(tmp_path)))) == command


def test_a_run_that_is_not_there_says_how_it_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/seen.yaml").write_text("")
    told = "runs/seen is not a run: it has no config.yaml. Train it with `chopmix train configs/seen.yaml`"
    with pytest.raises(RunError, match=told):
        load_run("runs/seen")
    assert main(["predict", "runs/seen", "--input", "image=a.png"]) == 2 and told in capsys.readouterr().err


def test_a_run_that_failed_before_its_first_checkpoint_says_so(tiny, tmp_path, capsys):
    """Not that its folder was copied in part."""
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    write_config(folder, load_config(tiny()))  # as training does before it reads the data
    assert main(["predict", str(folder), "--input", "text=a"]) == 2
    told = "has no checkpoint: its training failed, or ended before the first checkpoint. Train it with `chopmix train "
    assert told in (said := capsys.readouterr().err) and "copy" not in said
