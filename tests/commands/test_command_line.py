"""Commands as users type them: other data and files of every kind, and options that are nearly right."""

import csv
import json
import tarfile
from pathlib import Path

import chopmix
import numpy as np
import pytest
import soundfile
import torch
import yaml
from chopmix.commands.cli import main
from PIL import Image
from tiers import only

MODEL = {"width": 16, "depth": 1, "heads": 2, "context": 32, "attention": "same_sample"}


def error_of(capsys, *words: str) -> str:
    """Runs a command that must end with status 2; returns its error."""
    assert main(list(words)) == 2
    return capsys.readouterr().err


# ------------------------------------------------------------------------------------------- another data set: --data


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Pictures of two classes in every possible form, and a run that was trained on them."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for number in range(8):
        label = "dark" if number % 2 else "light"
        file = folder / "classes" / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 + 100 * (number % 2 == 0) + number, dtype=np.uint8)).save(file)
        rows.append({"image": str(file.relative_to(folder)), "label": label})
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open(folder / "list.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "label"])
        writer.writeheader()
        writer.writerows(rows)
    for part in range(2):
        (folder / "shards").mkdir(exist_ok=True)
        with tarfile.open(folder / "shards" / f"s-{part}.tar", "w") as tar:
            for number, row in enumerate(rows[4 * part : 4 * part + 4]):
                tar.add(folder / row["image"], f"{part}{number}.png")
                (folder / "label.cls").write_text(row["label"])
                tar.add(folder / "label.cls", f"{part}{number}.cls")
    tree = {
        "inputs": {"image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8}}, "model": MODEL,
        "tasks": {"shade": {"use": "classification", "target": "label"}},
        "data": {"dataset": {"use": "image_folder", "train": str(folder / "classes"), "val": str(folder / "classes")}},
        "training": {"steps": 2, "samples_per_step": 4}, "out": str(folder / "run"),
    }  # fmt: skip
    (folder / "photos.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", str(folder / "photos.yaml")]) == 0
    return folder


KINDS = {
    "folder": "classes",
    "manifest": "list.jsonl",
    "CSV": "list.csv",
    "shards": "shards/s-{0..1}.tar",
    "folder of shards": "shards",
    "dataset": "{use: image_folder, train: HERE/classes, test: HERE/classes}",
    "dataset with a manifest": "{use: manifest, train: HERE/list.jsonl, test: HERE/list.csv, columns: [image, "
    "label], files: [image]}",
}


@pytest.mark.parametrize("kind", only(3, KINDS))
def test_a_run_is_evaluated_on_data_of_any_kind(photos, kind, capsys):
    """The same pictures in another form have the same metrics."""
    named = KINDS[kind]
    named = named.replace("HERE", str(photos)) if named.startswith("{") else str(photos / named)
    figures = []
    for data in (str(photos / "classes"), named):
        file = photos / "figures.json"
        assert main(["evaluate", str(photos / "run"), "--data", data, "--split", "test", "--json", str(file)]) == 0
        figures.append(
            {name: value for name, value in json.loads(file.read_text()).items() if name.startswith("test/")}
        )
    assert figures[1] == pytest.approx(figures[0], rel=1e-6) and figures[0]["test/accuracy"] in {
        n / 8 for n in range(9)
    }
    assert main(["embed", str(photos / "run"), "--data", named, "--output", str(photos / f"{kind}.npy")]) == 0
    assert np.load(photos / f"{kind}.npy").shape == (8, 16)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Tones of two heights in files of a manifest and in shards, and a run that was trained on them."""
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "clips").mkdir()
    rows = []
    for number in range(6):
        rows.append({"sound": f"clips/{number}.wav", "label": "high" if number % 2 else "low"})
        wave = np.sin(np.arange(1600) * (0.2 + 0.6 * (number % 2)) + number) * 10_000
        for kind in ("wav", "flac"):
            soundfile.write(folder / "clips" / f"{number}.{kind}", wave.astype(np.int16), 8000)
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for part in range(2):
        with tarfile.open(folder / f"s-{part}.tar", "w") as tar:
            for number in range(3 * part, 3 * part + 3):
                tar.add(folder / "clips" / f"{number}.flac", f"{number}.flac")
                (folder / "label.cls").write_text(rows[number]["label"])
                tar.add(folder / "label.cls", f"{number}.cls")
    dataset = {"use": "manifest", "columns": ["sound", "label"], "files": ["sound"]}
    tree = {
        "inputs": {"sound": {"use": "audio", "rate": 8000, "mels": 8, "frames": 4}}, "model": MODEL,
        "tasks": {"height": {"use": "classification", "target": "label"}},
        "data": {"dataset": dataset | dict.fromkeys(("train", "val"), str(folder / "list.jsonl"))},
        "training": {"steps": 2, "samples_per_step": 4}, "out": str(folder / "run"),
    }  # fmt: skip
    (folder / "sounds.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", str(folder / "sounds.yaml")]) == 0
    return folder


@pytest.mark.parametrize("named", ["list.jsonl", "s-{0..1}.tar"])
def test_a_run_is_evaluated_on_sounds_in_a_manifest_and_in_shards(sounds, named):
    """The same recordings in a manifest, or in shards in another format, have the metrics of the data of the run."""
    figures = []
    for data in ([], ["--data", str(sounds / named)]):
        assert main(["evaluate", str(sounds / "run"), *data, "--json", str(sounds / "figures.json")]) == 0
        metrics = json.loads((sounds / "figures.json").read_text())
        figures.append({name: value for name, value in metrics.items() if name.startswith("val/")})
    assert "val/accuracy" in figures[0] and figures[1] == pytest.approx(figures[0], rel=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere", "--data nowhere: no such file or folder, and as a dataset: nothing is named 'nowhere'; possible:"),
        ("image_folder", "--data image_folder: no such file or folder, and as a dataset: "),
        ("{use: image_folder}", "--data {use: image_folder}: "),
        ("{use: image_folder, train: 3}", "--data {use: image_folder, train: 3}: "),
        ("photos.yaml", "this run reads image, label: name a manifest (JSONL, CSV), a folder or shards"),
    ],
)  # fmt: skip
def test_a_value_that_is_no_data_set_is_refused(photos, data, message, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    assert message in error_of(capsys, "evaluate", "run", "--data", data)


def test_a_text_is_read_from_files_and_folders(tiny, tmp_path, capsys):
    assert main(["train", str(tiny()), "training.steps=1"]) == 0
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"{number}.txt").write_text("chop mix set token " * (3 + number))
    (tmp_path / "whole.txt").write_text("chop mix set token " * 9)
    run, counts = str(tmp_path / "runs" / "tiny"), []
    for data in ("texts", "texts/*.txt", "whole.txt"):
        assert main(["evaluate", run, "--data", str(tmp_path / data), "--json", str(tmp_path / "figures.json")]) == 0
        counts.append(json.loads((tmp_path / "figures.json").read_text())["val/loss"])
    assert counts[0] == counts[1] != counts[2]


def test_twenty_texts_are_enough_for_a_training(tiny, tmp_path):
    """Some of them are the validation split, for any hashes of their names."""
    for number in range(20):
        (tmp_path / f"text{number}.txt").write_text("chop mix set token " * 8)
    assert (
        main(["train", str(tiny()), f"data.dataset={{use: text, train: {tmp_path}/text*.txt}}", "training.steps=1"])
        == 0
    )
    assert json.loads((tmp_path / "runs" / "tiny" / "summary.json").read_text())["val/loss"] > 0


# ------------------------------------------------------------------------------------------------ files and predictions


def test_many_pictures_are_predicted_with_one_command(photos, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    assert main(["predict", "run", "--input", "image=classes/**/*.png"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == sorted(map(str, Path("classes").glob("*/*.png")))
    assert all(line["shade"]["class"] in ("dark", "light") for line in lines)
    assert main(["predict", "run", "--input", "image=nothing/*.jpg"]) == 1
    assert "nothing/*.jpg does not exist" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["evaluate", "run"], ["predict", "run", "--input", "image=classes/dark/1.png"]])
def test_the_checkpoint_of_the_answers_is_printed(photos, words, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    for options, which in ([], "best"), (["--checkpoint", "last"], "last"):
        capsys.readouterr()
        assert main([*words, *options]) == 0
        captured = capsys.readouterr()
        assert f"run, {which} checkpoint: step 2\n" in captured.err and " checkpoint: step" not in captured.out


def test_a_sensor_is_read_from_arrays_and_tables(tmp_path, capsys):
    rows = []
    for number in range(6):
        values = np.random.default_rng(number).standard_normal((12, 2))
        np.save(tmp_path / f"{number}.npy", values)
        np.savetxt(tmp_path / f"{number}.csv", values, delimiter=",", header="a,b", comments="")
        rows.append({"motion": f"{number}.{'npy' if number % 2 else 'csv'}", "label": number % 2})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "inputs": {"motion": {"use": "sensor", "channels": {"a": "m", "b": "m"}, "rate": 10, "window": 4}},
        "model": MODEL,
        "tasks": {"moves": {"use": "classification", "target": "label"}},
        "data": {
            "dataset": {
                "use": "manifest",
                "train": "rows.jsonl",
                "val": "rows.jsonl",
                "columns": ["motion", "label"],
                "files": ["motion"],
            }
        },
        "training": {"steps": 1, "samples_per_step": 4},
        "out": "run",
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        Path("sensor.yaml").write_text(yaml.safe_dump(tree))
        assert main(["train", "sensor.yaml"]) == 0
        capsys.readouterr()
        assert main(["predict", "run", "--input", "motion=2.npy", "--input", "motion=2.csv"]) == 0
        array, table = (json.loads(line)["moves"]["probabilities"] for line in capsys.readouterr().out.splitlines())
        assert array == pytest.approx(table, abs=1e-5)
        Path("cut.npy").write_bytes(Path("2.npy").read_bytes()[:-8])
        assert main(["predict", "run", "--input", "motion=cut.npy"]) == 1
        assert "utf-8" not in capsys.readouterr().err


def test_a_run_is_inspected_like_its_configuration(photos, capsys):
    assert main(["inspect", str(photos / "run")]) == 0
    assert (photos / "run" / "inspect.html").read_text().startswith("<")
    capsys.readouterr()


def test_a_file_of_weights_is_not_imported_as_a_directory(tmp_path, capsys):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "vit.pth")
    error = error_of(capsys, "import", str(tmp_path / "vit.pth"), str(tmp_path / "run"))
    assert "vit.pth" in error and "config.json" in error and "Errno" not in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "300"], "did you mean training.steps=300?"),
        (["--steps=300"], "did you mean training.steps=300?"),
        (["--lr", "0.1"], "did you mean training.learning_rate=0.1?"),
        (["--batch_size", "8"], "did you mean training.samples_per_step=8 (or training.tokens_per_step)?"),
        (["training.steps"], "training.steps: an override has the form key.sub=value"),
    ],
)  # fmt: skip
def test_options_that_are_nearly_right_are_corrected_in_the_message(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(["train", "configs/quickstart.yaml", *words]))
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_train_requires_only_a_configuration(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("error: the following arguments are required: CONFIG\n")


CLASSIFIER = """
inputs: {image: {use: image, patch_size: 4, channels: 1, size: 8}}
model: {width: 16, depth: 1, heads: 2, context: 8, attention: same_sample}
tasks: {digit: {use: classification, target: label}}
data: {dataset: digits}
training: {steps: 3, samples_per_step: 64, device: cpu}
checkpoints: {best: val/accuracy}
"""


@pytest.mark.system
def test_a_sweep_of_a_classifier_prints_the_best_first(tmp_path, monkeypatch, capsys):
    """Whether larger values are better depends on the classes, which the task learns from the data."""
    monkeypatch.chdir(tmp_path)
    Path("seen.yaml").write_text(CLASSIFIER)
    for _ in range(2):  # in the second pass all runs are finished
        assert main(["train", "seen.yaml", "--sweep", "training.learning_rate=1e-7,3e-2", "--seeds", "0,1"]) == 0
        table = capsys.readouterr().out.partition("sorted by val/accuracy, best first")[2]
        names = ("val/accuracy", "val/loss", "val/balanced_accuracy", "val/macro_f1", "val/top5_accuracy", "val/auroc",
                 "val/average_precision")  # fmt: skip
        assert all(f"│ {name} " in table for name in names) and table.count("±") == 2 * len(names) + 1
        assert 0 < table.index("learning_rate=3e-2") < table.index("learning_rate=1e-7")


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"chopmix {chopmix.__version__}\n"


def test_an_unknown_flag_prints_the_usage_of_its_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "run", "--nonsense"])
    assert capsys.readouterr().err.startswith("usage: chopmix predict [-h]")
