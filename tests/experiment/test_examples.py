"""`chopmix examples` writes samples as files, and prints commands that predict them."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.experiment.examples import write_examples, write_value
from chopmix.experiment.learned_sections import same_item
from chopmix.experiment.next_steps import as_argument
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from PIL import Image
from untrained import Everything, untrained

QUICK = [
    "training.steps=1",
    "model.depth=1",
    "model.width=16",
    "data.dataset.samples=20",
    "training.samples_per_step=4",
    "evaluation.attribution=false",
    "evaluation.generated=1",
    "logging.tensorboard=false",
]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The folder of a small quickstart run after one step."""
    folder = tmp_path_factory.mktemp("examples") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        patched.setattr("chopmix.data.datasets.arithmetic.Arithmetic.held_back", 8)
        assert main(["train", "configs/quickstart.yaml", *QUICK, f"out={folder}"]) == 0
        yield folder


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    """The working directory is the checkout, so that configurations have short paths."""
    monkeypatch.chdir(ROOT)


def test_samples_are_written_and_the_printed_commands_predict_them(quickstart, tmp_path, capsys):
    assert main(["examples", str(quickstart), "--number", "2", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, start=1):
        folder = tmp_path / str(number)
        sample = json.loads((folder / "sample.json").read_text())
        assert set(sample) == {"image", "operator", "sound", "answer"} and sample["operator"] in "+-"
        assert np.asarray(Image.open(folder / sample["image"])).shape == (8, 8)
        wave, rate = soundfile.read(folder / sample["sound"])
        assert rate == 8000 and len(wave) > 1000 and abs(wave).max() > 0.1
        program, command, run, *options = shlex.split(line)
        assert (program, command, run) == ("chopmix", "predict", str(quickstart)) and not any(
            "answer" in each for each in options
        )
        assert main([command, run, *options]) == 0
        assert "answer" in json.loads(capsys.readouterr().out)


def test_examples_of_a_configuration_need_no_run(tmp_path, capsys):
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


def test_wrong_numbers_splits_and_text_corpora_are_refused(tiny, tmp_path, capsys):
    for options, message in (
        (["configs/quickstart.yaml", "--number", "0"], "--number is 0; it must be at least 1"),
        ([str(tiny())], "is a text corpus: chopmix inspect shows its content"),
        (["configs/quickstart.yaml", "--split", "vla"], "vla"),
    ):
        assert main(["examples", *options, "--output", str(tmp_path / "b")]) == 2
        assert message in capsys.readouterr().err


def test_files_stay_in_their_folder_with_any_name_of_a_column(tmp_path, capsys):
    """In an untrusted run, the name of a column may be a path; a text may be longer than the name of a file."""
    rows = [{"../../x": f"a/{n}.png", "note": "long " * 100, "label": n % 2} for n in range(4)]
    (tmp_path / "a").mkdir()
    for n in range(4):
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / "a" / f"{n}.png")
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = {"use": "manifest", "train": str(tmp_path / "train.jsonl"), "val": str(tmp_path / "train.jsonl"),
            "columns": ["../../x", "note", "label"], "files": ["../../x"]}  # fmt: skip
    tree = {
        "inputs": {"image": {"use": "image", "patch_size": 4, "size": 8}, "note": {"use": "text", "encoding": "bytes"}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 600, "attention": "same_sample"},
        "tasks": {"kind": {"use": "classification", "target": "label"}},
        "data": {"dataset": dataset, "columns": {"image": "../../x"}}, "training": {"steps": 1, "samples_per_step": 2},
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(json.dumps(tree))
    out = tmp_path / "b" / "c" / "d"
    assert main(["examples", str(tmp_path / "x.yaml"), "--split", "val", "--number", "1", "--output", str(out)]) == 0
    assert sorted(file.name for file in (out / "1").iterdir()) == ["_._.._x.png", "sample.json"]
    assert "long long" in capsys.readouterr().out and not (out / "x.png").exists()


@pytest.mark.parametrize(
    "column, options",
    [
        ("image", {"use": "image", "size": 8, "patch_size": 4, "channels": 1}),
        ("clip", {"use": "video", "size": 8, "patch_size": 4, "channels": 1}),
        ("sound", {"use": "audio", "rate": 8000, "mels": 8}),
        ("wave", {"use": "sensor", "channels": 2}),
        ("moves", {"use": "category", "size": 3}),
        ("tune", {"use": "score", "voices": 2}),
        ("text", {"use": "text", "encoding": "bytes"}),
    ],
)
def test_a_written_example_is_read_back_unchanged(column, options, tmp_path, monkeypatch):
    """The tokenizers also read videos and scores that are written as arrays."""
    monkeypatch.chdir(tmp_path)
    run = untrained({column: options}, {"label": {"use": "classification", "target": "label"}})
    (chopper,) = run.choppers.values()
    raw = Everything().open("val")[0][column]
    written = write_value(raw, tmp_path, column)
    file = tmp_path / str(written)
    first, second = chopper.decode(raw), chopper.decode(str(file) if file.is_file() else written)
    if column == "sound":  # 16 bits
        first, second = (np.asarray(chopper.chop(each).values) for each in (first, second))
        assert np.allclose(first, second, atol=1e-3)
    else:
        assert same_item(first, second)


@pytest.mark.parametrize("content", [b"", b"x", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'"])
@pytest.mark.parametrize(
    "column, options",
    [("clip", {"use": "video", "size": 8, "patch_size": 4, "channels": 1}), ("tune", {"use": "score", "voices": 2})],
)
def test_a_damaged_array_is_an_error_with_its_path(column, options, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (chopper,) = untrained({column: options}, {"label": {"use": "classification", "target": "label"}}).choppers.values()
    (tmp_path / "damaged.npy").write_bytes(content)
    for name, message in (
        ("damaged.npy", "damaged.npy is not a readable array"),
        ("none.npy", "none.npy does not exist"),
    ):
        with pytest.raises(DataError, match=message):
            chopper.decode(name)


@pytest.mark.parametrize(
    "inputs, command",
    [
        ({"wave": {"use": "sensor", "channels": 2}}, "chopmix predict nowhere --trust untrained --input wave="),
        ({"tune": {"use": "score", "voices": 2}}, "chopmix generate nowhere --trust untrained"),
    ],
)
def test_the_printed_command_trusts_the_modules_of_the_user(inputs, command, tmp_path, monkeypatch):
    """The command contains --trust, and is `generate` for a run that only generates."""
    monkeypatch.chdir(tmp_path)
    task = (
        {"use": "language_modeling", "target": "tune"} if "tune" in inputs else {"use": "regression", "target": "value"}
    )
    run = untrained(inputs, {"task": task}, {"attention": "causal"})
    (line,) = write_examples(run.config, "val", 1, tmp_path / "examples")
    assert line.startswith(command)
    if "tune" in inputs:
        run = replace(run, folder=Path("my run"))
        with pytest.raises(RunError, match="Write `chopmix generate 'my run' --trust untrained --prompt TEXT`"):
            run.predict({})
    with pytest.raises(RunError, match=f"`chopmix evaluate {as_argument(run.folder, run.config)} --report` fits"):
        run.calibration()
