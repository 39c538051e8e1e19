"""`chopmix evaluate`: on how many samples each figure is measured, of which data and split."""

import io
import json

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from PIL import Image

SEEN = """
inputs: {image: {use: image, size: 4, patch_size: 2, channels: 1}}
model: {width: 8, depth: 1, heads: 1, context: 8, attention: same_sample}
tasks: {kind: {use: classification, target: label}}
data: {dataset: {use: image_folder, train: TRAIN}}
training: {steps: 1, samples_per_step: 4}
logging: {tensorboard: false}
"""
BOTH = """
inputs: {a: {use: text, encoding: characters}, b: {use: text, encoding: characters}}
model: {width: 8, depth: 1, heads: 1, context: 16, attention: same_sample}
tasks:
  first: {use: masked_diffusion, target: a}
  second: {use: masked_diffusion, target: b, metrics: [exact_match]}
data: {dataset: {use: manifest, columns: [a, b], train: FOLDER/train.jsonl, val: FOLDER/val.jsonl}}
training: {steps: 1, samples_per_step: 4, input_dropout: 0.2}
evaluation: {generated: 8}
logging: {tensorboard: false}
"""


def pictures(folder, count):
    """So many pictures of two classes."""
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(np.full((4, 4), number * 2, dtype=np.uint8)).save(file, "PNG")
        (folder / "uv"[number % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "uv"[number % 2] / f"{number}.png").write_bytes(file.getvalue())
    return folder


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A run that classifies pictures of a folder, of which a part validates."""
    folder = tmp_path_factory.mktemp("seen")
    (folder / "x.yaml").write_text(SEEN.replace("TRAIN", str(pictures(folder / "own", 60))))
    train(load_config(folder / "x.yaml", [f"out={folder / 'run'}"]))
    return folder / "run"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run of two diffusion tasks, one of which has no target in most samples of val."""
    folder = tmp_path_factory.mktemp("both")
    for split, count in (("train", 12), ("val", 80)):
        rows = [{"a": "xyz"[k % 3] * 2} | ({"b": "uvw"[k % 3]} if k % 4 == 0 else {}) for k in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "x.yaml").write_text(BOTH.replace("FOLDER", str(folder)))
    train(load_config(folder / "x.yaml", [f"out={folder / 'run'}"]))
    return folder / "run"


def evaluated(capsys, tmp_path, run, *options):
    """The lines that the command prints, and what it writes as JSON."""
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", str(tmp_path / "x.json"), *options]) == 0
    return capsys.readouterr().out.splitlines(), json.loads((tmp_path / "x.json").read_text())


def test_a_folder_and_a_mapping_of_which_only_train_is_named_are_the_same_data(seen, tmp_path, capsys):
    folder = pictures(tmp_path / "photos_elsewhere", 24)
    found = []
    for data in (str(folder), f"{{use: image_folder, train: {folder}}}"):
        for split in ("val", "test"):
            lines, figures = evaluated(capsys, tmp_path, seen, "--data", data, "--split", split)
            assert lines[0] == f"24 samples of {folder} (all)" and figures["samples"] == 24
            found.append([figures[f"{split}/loss"], figures[f"{split}/accuracy"]])
    assert all(each == found[0] for each in found)


def test_a_split_that_is_named_is_respected(seen, tmp_path, capsys):
    whole, held = pictures(tmp_path / "whole", 24), pictures(tmp_path / "held", 6)
    data = f"{{use: image_folder, train: {whole}, val: {held}}}"
    for split, count in (("train", 24), ("val", 6)):
        lines, figures = evaluated(capsys, tmp_path, seen, "--data", data, "--split", split)
        assert lines[0] == f"{count} samples of image_folder ({split})" and figures["samples"] == count
        assert figures["split"] == split and figures["measured_on"] == dict.fromkeys(
            (
                f"{split}/{name}"
                for name in ("loss", "accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision")
            ),
            count,
        )


def test_every_figure_says_on_how_many_samples_it_is_measured(both, tmp_path, capsys):
    """Of 80 samples 20 have a target of the second task; of the first only 64 are chained."""
    lines, figures = evaluated(capsys, tmp_path, both)
    shown = dict(line.split(" ", 1) for line in lines[1:])
    assert lines[0] == "80 samples of manifest (val)" and figures["samples"] == 80
    low, high = figures["intervals"]["val/first/loss"]
    assert shown["val/first/loss"] == f"{figures['val/first/loss']:.6g} [{low:.4g}, {high:.4g}]"
    assert low < figures["val/first/loss"] < high and " (" not in shown["val/loss"]
    assert (
        "val/first/chain" not in figures["intervals"]
        and "the metric is measured on some of the samples only" in lines[-2]
    )
    assert shown["val/first/chain"].endswith(" (64 samples)") and shown["val/second/loss"].endswith(" (20 samples)")
    assert shown["val/second/judged"] == "20" == shown["val/second/chain_samples"]
    whole = [f"val/first/{name}" for name in ("loss", "bound_bits_per_byte", "accuracy")]
    chained = [f"val/first/{name}" for name in ("chain", "chain_bits_per_byte")]
    second = [f"val/second/{name.rpartition('/')[2]}" for name in (*whole, *chained)]
    assert figures["measured_on"] == {
        "val/loss": 80, **dict.fromkeys(whole, 80), **dict.fromkeys(chained, 64),
        **dict.fromkeys([*second, "val/second/exact_match"], 20),
    }  # fmt: skip
    recorded = json.loads((both / "evaluations.jsonl").read_text().splitlines()[-1])
    assert recorded == figures


def test_tables_say_on_how_many_samples_they_are(both, tmp_path, capsys):
    lines, figures = evaluated(capsys, tmp_path, both, "--subsets")
    text = "\n".join(lines)
    assert "on 80 samples of val; chain, chain_bits_per_byte: 64" in text and "on 20 of 80 samples of val" in text
    assert (
        figures["measured_on"]["val/second/bits/a"] == 20 and figures["measured_on"]["val/first/without_b/chain"] == 64
    )
    assert "val/second/bits/a" in figures and "val/second/without_a/exact_match" in figures
    assert not any(name.startswith("val/second/bits/b") or "judged" in name.rpartition("without")[2] for name in figures
                   if "without" in name or "bits/" in name)  # fmt: skip


def test_a_log_says_how_many_items_a_chain_is_of(both):
    last = [json.loads(line) for line in (both / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["val/first/chain_samples"] == 8 == last["val/second/judged"]
