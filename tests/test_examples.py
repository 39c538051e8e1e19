"""`chopmix examples`: samples as files, and commands that ask about them."""

import json
import shlex

import numpy as np
import pytest
import soundfile
from chopmix.training.cli import main
from PIL import Image

QUICK = ["training.steps=1", "model.depth=1", "model.width=16", "data.card.samples=20", "training.samples_per_step=4",
         "evaluation.worth=false", "evaluation.generated=1", "logging.tensorboard=false"]  # fmt: skip


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The quickstart after one step."""
    folder = tmp_path_factory.mktemp("examples") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("chopmix.data.cards.arithmetic.JUDGED", 8)
        assert main(["train", "configs/quickstart.yaml", *QUICK, f"out={folder}"]) == 0
        yield folder


def test_samples_are_written_and_can_be_asked_about(quickstart, tmp_path, capsys):
    assert main(["examples", str(quickstart), "--number", "2", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, start=1):
        folder = tmp_path / str(number)
        told = json.loads((folder / "sample.json").read_text())
        assert set(told) == {"image", "operator", "sound", "answer"} and told["operator"] in "+-"
        assert np.asarray(Image.open(folder / told["image"])).shape == (8, 8)
        wave, rate = soundfile.read(folder / told["sound"])
        assert rate == 8000 and len(wave) > 1000 and abs(wave).max() > 0.1
        program, command, run, *options = shlex.split(line)
        assert (program, command, run) == ("chopmix", "predict", str(quickstart)) and not any(
            "answer" in each for each in options
        )
        assert main([command, run, *options]) == 0
        assert "answer" in json.loads(capsys.readouterr().out)


def test_samples_of_a_configuration_need_no_run(tmp_path, capsys):
    assert (
        main(
            [
                "examples",
                "configs/quickstart.yaml",
                "--split",
                "train",
                "--number",
                "1",
                "--output",
                str(tmp_path / "a"),
            ]
        )
        == 0
    )
    assert (tmp_path / "a" / "1" / "image.png").exists()


def test_what_is_refused(tiny, tmp_path, capsys):
    for given, message in (
        (["configs/quickstart.yaml", "--number", "0"], "--number is 0; it must be at least 1"),
        ([str(tiny())], "is a text corpus: chopmix inspect shows what it holds"),
        (["configs/quickstart.yaml", "--split", "vla"], "vla"),
    ):
        assert main(["examples", *given, "--output", str(tmp_path / "b")]) == 2
        assert message in capsys.readouterr().err
