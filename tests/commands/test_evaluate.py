"""`chopmix evaluate` prints on how many samples, of which data and split, each metric is measured."""

import io
import json

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from PIL import Image

CLASSIFIER = """
inputs: {image: {use: image, size: 4, patch_size: 2, channels: 1}}
model: {width: 8, depth: 1, heads: 1, context: 8, attention: same_sample}
tasks: {kind: {use: classification, target: label}}
data: {dataset: {use: image_folder, train: TRAIN}}
training: {steps: 1, samples_per_step: 4}
logging: {tensorboard: false}
"""
DIFFUSION = """
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
    """Writes `count` pictures of two classes; returns the folder."""
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(np.full((4, 4), number * 2, dtype=np.uint8)).save(file, "PNG")
        (folder / "uv"[number % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "uv"[number % 2] / f"{number}.png").write_bytes(file.getvalue())
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run that classifies pictures of a folder; a part of them is the validation split."""
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "x.yaml").write_text(CLASSIFIER.replace("TRAIN", str(pictures(folder / "pictures", 60))))
    train(load_config(folder / "x.yaml", [f"out={folder / 'run'}"]))
    return folder / "run"


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    """A run of two diffusion tasks, one of which has no target in most samples of val."""
    folder = tmp_path_factory.mktemp("both")
    for split, count in (("train", 12), ("val", 80)):
        rows = [{"a": "xyz"[k % 3] * 2} | ({"b": "uvw"[k % 3]} if k % 4 == 0 else {}) for k in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "x.yaml").write_text(DIFFUSION.replace("FOLDER", str(folder)))
    train(load_config(folder / "x.yaml", [f"out={folder / 'run'}"]))
    return folder / "run"


def evaluated(capsys, tmp_path, run, *options):
    """Returns the lines that the command prints and the JSON that it writes."""
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", str(tmp_path / "x.json"), *options]) == 0
    return capsys.readouterr().out.splitlines(), json.loads((tmp_path / "x.json").read_text())


@pytest.mark.system
def test_a_folder_and_a_mapping_that_names_only_train_are_the_same_data(classifier, tmp_path, capsys):
    folder = pictures(tmp_path / "photos_elsewhere", 24)
    results = []
    for data in (str(folder), f"{{use: image_folder, train: {folder}}}"):
        for split in ("val", "test"):
            lines, figures = evaluated(capsys, tmp_path, classifier, "--data", data, "--split", split)
            assert lines[0] == f"24 samples of {folder} (all)" and figures["samples"] == 24
            results.append([figures[f"{split}/loss"], figures[f"{split}/accuracy"]])
    assert all(each == results[0] for each in results)


def test_a_split_that_is_named_is_respected(classifier, tmp_path, capsys):
    whole, held = pictures(tmp_path / "whole", 24), pictures(tmp_path / "held", 6)
    data = f"{{use: image_folder, train: {whole}, val: {held}}}"
    for split, count in (("train", 24), ("val", 6)):
        lines, figures = evaluated(capsys, tmp_path, classifier, "--data", data, "--split", split)
        assert lines[0] == f"{count} samples of image_folder ({split})" and figures["samples"] == count
        assert figures["split"] == split and figures["measured_on"] == dict.fromkeys(
            (
                f"{split}/{name}"
                for name in ("loss", "accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision")
            ),
            count,
        )


def test_every_metric_is_printed_with_its_number_of_samples(diffusion, tmp_path, capsys):
    """20 of 80 samples have a target of the second task; for the first task, the chain is measured on 64 samples."""
    lines, figures = evaluated(capsys, tmp_path, diffusion)
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
    recorded = json.loads((diffusion / "evaluations.jsonl").read_text().splitlines()[-1])
    assert recorded == figures


def test_tables_are_printed_with_their_number_of_samples(diffusion, tmp_path, capsys):
    lines, figures = evaluated(capsys, tmp_path, diffusion, "--subsets")
    text = "\n".join(lines)
    assert "on 80 samples of val; chain, chain_bits_per_byte: 64" in text and "on 20 of 80 samples of val" in text
    assert (
        figures["measured_on"]["val/second/bits/a"] == 20 and figures["measured_on"]["val/first/without_b/chain"] == 64
    )
    assert "val/second/bits/a" in figures and "val/second/without_a/exact_match" in figures
    assert not any(name.startswith("val/second/bits/b") or "judged" in name.rpartition("without")[2] for name in figures
                   if "without" in name or "bits/" in name)  # fmt: skip


def test_the_log_of_training_has_the_number_of_items_of_a_chain(diffusion):
    last = [json.loads(line) for line in (diffusion / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["val/first/chain_samples"] == 8 == last["val/second/judged"]
