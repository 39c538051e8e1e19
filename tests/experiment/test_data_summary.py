"""A training prints a summary of its data before the first step."""

import json

import numpy as np
import pytest
import soundfile
import yaml
from chopmix.commands.cli import main
from chopmix.experiment import preflight as data_summary
from chopmix.tasks.classification import Classification
from chopmix.tokenizers.media.summaries import picture_sizes, span
from PIL import Image

MODEL = {"width": 8, "depth": 1, "heads": 1, "context": 128, "attention": "same_sample"}
TRAINING = {"steps": 1, "samples_per_step": 4, "compile": False}


def lines_of(folder, capsys, inputs, tasks, dataset, *more):
    """The printed lines of a training, by the word before the colon."""
    tree = {"inputs": inputs, "model": MODEL, "tasks": tasks, "data": {"dataset": dataset}, "training": TRAINING,
            "evaluation": {"sample_tokens": 0}, "logging": {"tensorboard": False}, "out": "run"}  # fmt: skip
    (folder / "x.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", "x.yaml", *more]) == 0
    printed = capsys.readouterr()
    return dict(line.split(": ", 1) for line in (printed.out + printed.err).splitlines() if ": " in line)


def manifest(folder, rows, columns, files=()):
    for split, part in (("train", rows[: -len(rows) // 4]), ("val", rows[-len(rows) // 4 :])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return {"use": "manifest", "train": "train.jsonl", "val": "val.jsonl", "columns": columns, "files": list(files)}


def test_images_sounds_texts_and_classes_are_summarized(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(24):
        Image.new("RGB", (40, 32), (number, 0, 0)).save(f"{number}.png")
        soundfile.write(f"{number}.wav", np.zeros(800 + 100 * (number % 2)), 16_000)
        row = {"image": f"{number}.png", "sound": f"{number}.wav", "word": "chop" * (1 + number % 3), "age": number / 2}
        rows.append(row | {"shape": "circle" if number % 3 else "square"} | ({"sound": None} if number % 4 else {}))
    dataset = manifest(tmp_path, rows, ["image", "sound", "word", "age", "shape"], ["image", "sound"])
    inputs = {
        "image": {"use": "image_ids", "size": 16, "patch_size": 2},
        "sound": {"use": "audio", "rate": 8_000, "mels": 8},
        "word": {"use": "text", "encoding": "bytes"},
    }
    tasks = {"shape": {"use": "classification", "target": "shape"}, "age": {"use": "regression", "target": "age"}}
    lines = lines_of(tmp_path, capsys, inputs, tasks, dataset)
    assert lines["data"] == "manifest, 18 samples to train; 6 samples to validate"
    assert lines["image"] == (
        "40 x 32 pixels RGB, resized to 16 x 16 with 1 channel and 2 levels, 64 tokens; colour is discarded, "
        "see `channels`"
    )
    assert lines["sound"].startswith("0.05 seconds at 16,000 Hz, resampled to 8,000 Hz")
    assert lines["sound"].endswith("(in 3 of 16 inspected samples)")
    assert lines["word"] == "4 to 12 character(s), 5 to 13 tokens of 257 ids (bytes)"
    assert lines["shape"] == "12 circle, 6 square to train; 4 circle, 2 square to validate"
    assert lines["age"] == "0 to 8.5, mean 4.25 to train; 9 to 11.5, mean 10.2 to validate"


@pytest.mark.parametrize(("apart", "compared"), [(True, 1000), (False, 1000), (False, 12), (True, 12)])
def test_windows_that_overlap_across_splits_are_reported(tmp_path, monkeypatch, capsys, apart, compared):
    """Windows of one recording overlap, and are divided into splits at random or, with `apart`, at a time. A second
    sensor counts down in every window, which alone is no overlap."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_summary, "COMPARED_TRAIN", compared)
    recording = np.random.default_rng(0).normal(size=(2_000, 2)).round(4)
    rows = [
        {"motion": recording[first : first + 40].tolist(), "left": [*range(40, 0, -1)], "kind": "ab"[first % 2]}
        for first in range(0, 1_900, 25)
    ]
    if not apart:
        rows = [rows[number] for number in np.random.default_rng(1).permutation(len(rows))]
        for name, keep in (("train", lambda n: n % 4), ("val", lambda n: not n % 4)):
            part = [json.dumps(row) + "\n" for number, row in enumerate(rows) if keep(number)]
            (tmp_path / f"{name}.jsonl").write_text("".join(part))
        dataset = {"use": "manifest", "train": "train.jsonl", "val": "val.jsonl", "columns": ["motion", "left", "kind"]}
    else:
        dataset = manifest(tmp_path, rows, ["motion", "left", "kind"])
    inputs = {"motion": {"use": "sensor", "channels": 2, "rate": 10}, "left": {"use": "sensor", "channels": 1}}
    tasks = {"kind": {"use": "classification", "target": "kind"}}
    tree = {
        "inputs": inputs,
        "model": MODEL,
        "tasks": tasks,
        "data": {"dataset": dataset},
        "training": TRAINING,
        "out": "run",
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", "x.yaml"]) == 0
    output = "".join(capsys.readouterr())
    assert "motion: 40 measurement(s) of 2 channel(s), normalised by mean and std, 40 token(s)" in output
    assert ("validation samples share measurements with training samples" in output) == (not apart)
    assert ("left, motion: " in output) == (not apart)
    assert apart or ("motion: at least " in output) == (compared < 57)


def test_a_dry_run_prints_the_summary_of_a_text_corpus(tiny, capsys):
    assert main(["train", str(tiny()), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "data: text, " in output and " tokens from " in output and " to validate" in output


def test_many_classes_are_counted():
    task = Classification(target="x")
    assert task.summary([str(n % 20) for n in range(50)]) == "20 classes of 2 to 3 sample(s)"
    assert task.summary([]) == "no labels"


def test_ranges_and_image_sizes_are_described():
    assert span([3, 3]) == "3" and span([0.5, 2.0], "seconds") == "0.5 to 2 seconds" and span([1_000]) == "1,000"
    grey, colour = np.zeros((4, 6), np.uint8), np.zeros((8, 6, 3), np.uint8)
    assert picture_sizes([grey]) == ("6 x 4 pixels grey", False)
    assert picture_sizes([grey, colour, b"none"]) == ("6 x 4 to 6 x 8 pixels grey or RGB", True)
    with pytest.raises(ValueError, match="no image can be read"):
        picture_sizes([b"none"])
