"""`chopmix predict --data` writes predictions for a data set into files; shards are merged by `chopmix merge`,
probabilities can be calibrated, and JSON lines are read from standard input."""

import csv
import io
import json
import math
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from bounded import measured
from chopmix.commands.cli import main
from chopmix.commands.predict import shortened
from chopmix.experiment.answers import Shard
from chopmix.experiment.merge import record_file
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.files.errors import RunError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiers import only

SHADES = ("black", "grey", "white")


def pictures(folder: Path, count: int, classes=SHADES) -> Path:
    """Writes `count` pictures of each class, whose shades differ."""
    random = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            shade = (number + (index % 8 == 7)) % len(classes)  # every eighth has the shade of the next class
            pixels = np.clip(random.normal(40 + 70 * shade, 20, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03d}.png")
    return folder


TREE = {
    "inputs": {"image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8}},
    "model": {"width": 16, "depth": 1, "heads": 2, "context": 32, "attention": "same_sample"},
    "tasks": {"shade": {"use": "classification", "target": "label"}},
    "training": {"steps": 30, "samples_per_step": 16, "learning_rate": 1e-2, "schedule": "constant"},
    "evaluation": {"every": 30, "rows": 16}, "checkpoints": {"best": "val/accuracy"}, "logging": {"tensorboard": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with pictures `photos` and a trained run `run` that classifies their shades."""
    folder = tmp_path_factory.mktemp("answers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        pictures(Path("photos"), 40)
        tree = TREE | {"data": {"dataset": {"use": "image_folder", "train": "photos", "val": "photos"}}, "out": "run"}
        Path("x.yaml").write_text(yaml.safe_dump(tree))
        train(load_config("x.yaml"))
    return folder


@pytest.fixture
def here(world, monkeypatch, tmp_path):
    """A new current folder with links to `photos` and `run` of `world`."""
    for name in ("photos", "run"):
        (tmp_path / name).symlink_to(world / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(file) -> list[dict]:
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines)) if str(file).endswith(".csv") else [json.loads(line) for line in lines]


def test_a_folder_is_predicted_into_a_table(here, capsys):
    assert main(["predict", "run", "--data", "photos", "--output", "a.csv"]) == 0
    rows = rows_of("a.csv")
    assert [row["key"] for row in rows] == sorted(f"{name}/{n:03d}.png" for name in SHADES for n in range(40))
    assert [*rows[0]] == ["key", "shade.class", *(f"shade.probabilities.{name}" for name in SHADES), "targets.label",
                          "without", "error"]  # fmt: skip
    assert all(row["targets.label"] == row["key"].split("/")[0] for row in rows)
    right = sum(row["shade.class"] == row["targets.label"] for row in rows)
    assert right / 120 == pytest.approx(load_run("run").evaluate("val")["val/accuracy"]) and 60 < right < 120
    assert "photos (all): 120 samples" in capsys.readouterr().err


def test_files_contain_the_unrounded_probabilities_of_python(here):
    names = [f"{name}/{n:03d}.png" for name in SHADES for n in range(40)]
    expected = load_run("run").predict([{"image": Path("photos", name)} for name in names])
    assert main(["predict", "run", "--data", "photos", "--output", "a.jsonl"]) == 0
    assert main(["predict", "run", "--data", "photos", "--output", "a.csv"]) == 0
    for row, in_csv, answer in zip(rows_of("a.jsonl"), rows_of("a.csv"), expected, strict=True):
        theirs = answer["shade"]["probabilities"]
        assert row["shade"]["class"] == answer["shade"]["class"] == in_csv["shade.class"]
        assert math.isclose(sum(theirs.values()), 1, rel_tol=1e-6)
        for name, value in row["shade"]["probabilities"].items():
            assert value == float(in_csv[f"shade.probabilities.{name}"]) == pytest.approx(theirs[name], abs=1e-5)


def test_data_without_labels_or_with_unknown_labels_are_predicted(here, capsys):
    pictures(Path("new"), 2, ("black", "zebra"))
    assert main(["predict", "run", "--data", "new", "--output", "new.jsonl"]) == 0
    rows = rows_of("new.jsonl")
    assert [row["targets"]["label"] for row in rows] == ["black", "black", "zebra", "zebra"]
    assert all(row["shade"]["class"] in SHADES and "error" not in row for row in rows)
    Path("list.csv").write_text("image\nnew/zebra/000.png\nnew/none.png\n")
    assert main(["predict", "run", "--data", "list.csv"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "targets" not in first and first["shade"]["class"] in SHADES
    assert "none.png does not exist" in second["error"] and "shade" not in second


def test_broken_images_have_a_row_with_an_error_and_are_counted(here, capsys):
    folder = pictures(Path("mixed"), 3)
    (folder / "grey" / "001.png").write_bytes(b"no image")
    assert main(["predict", "run", "--data", "mixed", "--output", "m.csv"]) == 0
    rows = rows_of("m.csv")
    assert [row["key"] for row in rows if row["error"]] == ["grey/001.png"] and len(rows) == 9
    assert rows[4]["shade.class"] == "" and rows[4]["targets.label"] == "grey"
    assert "1 of 9 samples have no result because of errors" in capsys.readouterr().err
    for command in (["predict"], ["embed"], ["evaluate"]):
        output = ["--output", f"{command[0]}.csv", "--overwrite"]
        assert main([*command, "run", "--data", "mixed", "--strict", *output]) == 3
    errors = {name: [row["key"] for row in rows_of(f"{name}.csv") if row["error"]] for name in ("embed", "evaluate")}
    assert errors == {"embed": ["grey/001.png"], "evaluate": ["grey/001.png"]}
    only = Path("only", "grey")
    only.mkdir(parents=True)
    shutil.copy(folder / "grey" / "001.png", only)
    assert main(["predict", "run", "--data", "only", "--output", "o.csv"]) == 1


def test_an_existing_file_is_replaced_only_with_overwrite(here, capsys):
    Path("a.csv").write_text("mine")
    for words in (["predict", "run", "--data", "photos"], ["embed", "run", "--data", "photos"], ["evaluate", "run"]):
        assert main([*words, "--output", "a.csv"]) == 2
        assert "a.csv exists; choose another name, or replace it with --overwrite" in capsys.readouterr().err
    assert Path("a.csv").read_text() == "mine"
    assert main(["predict", "run", "--data", "photos", "--output", "a.csv", "--overwrite"]) == 0
    assert len(rows_of("a.csv")) == 120


@pytest.mark.parametrize(
    "words, message",
    [
        (["--data", "photos", "--output", "a.txt"], "--output a.txt: possible endings: .csv, .jsonl, .parquet"),
        (["--data", "photos", "--output", "no/a.csv"], "the folder no does not exist"),
        (["--data", "photos", "--shard", "0/2"], "--shard needs --output FILE"),
        (["--data", "photos", "--overwrite"], "--overwrite needs --output FILE"),
        (["--data", "photos", "--shard", "2/2", "--output", "a.csv"], "write I/N with I from 0 to N - 1"),
        (["--data", "photos", "--shard", "500/900", "--output", "a.csv"], "there are only 120 samples"),
        ([], "pass either samples (--input NAME=VALUE) or a data set (--data DATA, or --split of the run's)"),
        (["--input", "-", "--input", "image=a.png"], "--input - reads the samples from standard input; remove"),
        (["--input", "image=a.png", "--shard", "0/2", "--output", "a.csv"], "--shard divides a data set (--data)"),
        (["--data", "gone"], "no such file or folder"),
        (["--data", "digits_list.csv"], "has none of the columns image; it has words"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(here, capsys, words, message):
    Path("digits_list.csv").write_text("words\na\nb\n")
    assert main(["predict", "run", *words]) == 2
    assert message in capsys.readouterr().err
    assert not [name for name in os.listdir() if name.startswith((".a", "a."))]


def test_a_split_of_the_data_set_of_the_run_is_predicted(here, capsys):
    assert main(["predict", "run", "--split", "val", "--output", "v.csv"]) == 0
    assert len(rows_of("v.csv")) == 120


@pytest.mark.parametrize(
    ("count", "ending"),
    only(2, [(2, ".jsonl"), (7, ".npy"), (2, ".csv"), (2, ".parquet"), (7, ".csv"), (7, ".parquet")]),
)  # fmt: skip
def test_shards_are_merged_in_the_order_of_the_data(here, ending, count):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    folder = pictures(Path("some"), 5)
    (folder / "black" / "003.png").write_bytes(b"broken")
    commands = (
        [["embed"]] if ending == ".npy" else [["predict"], ["evaluate"], ["embed"], ["embed", "--pool", "tokens"]]
    )
    for command, *options in commands:
        words = [command, "run", "--data", "some", *options]
        assert main([*words, "--output", f"whole{ending}", "--overwrite"]) == 0
        for index in range(count):
            output = ["--output", f"part-{index}{ending}", "--overwrite", "--shard", f"{index}/{count}"]
            assert main([*words, *output]) == 0
        files = [f"part-{index}{ending}" for index in reversed(range(count))]
        assert main(["merge", f"merged{ending}", "--overwrite", *files]) == 0
        if ending == ".npy":
            np.testing.assert_allclose(np.load("merged.npy"), np.load("whole.npy"), atol=1e-5)
        elif ending == ".parquet":
            from pyarrow import parquet

            whole, merged = (parquet.read_table(f"{name}.parquet") for name in ("whole", "merged"))
            assert whole.schema == merged.schema and whole["key"] == merged["key"] and whole["error"] == merged["error"]
        else:
            whole, merged = rows_of(f"whole{ending}"), rows_of(f"merged{ending}")
            assert [close(a, b) for a, b in zip(whole, merged, strict=True)] == [True] * len(whole)


def close(a, b) -> bool:
    """Whether two rows are equal, but for the last digits of numbers: other samples were in their batches."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-3, abs_tol=1e-4)
    except (TypeError, ValueError):
        return a == b


def test_shards_that_do_not_belong_together_are_refused(here, capsys):
    pictures(Path("some"), 3)
    for index in range(3):
        words = ["--data", "some", "--output", f"p{index}.csv", "--shard", f"{index}/3"]
        assert main(["predict", "run", *words]) == 0
    capsys.readouterr()
    refused = lambda *files: (main(["merge", "m.csv", *files]), capsys.readouterr().err)
    assert refused("p0.csv", "p2.csv") == (2, "the shards 1/3 are missing\n")
    shutil.copy("p2.csv", "p3.csv")
    shutil.copy(record_file(Path("p2.csv")), record_file(Path("p3.csv")))
    assert refused("p0.csv", "p1.csv", "p2.csv", "p3.csv")[1] == (
        "there are 4 files, but only 3 shards: a shard is passed twice\n"
    )
    record = json.loads(record_file(Path("p1.csv")).read_text())
    for name, value in (("weights", "other"), ("data", "elsewhere"), ("count", 4), ("samples", 9)):
        record_file(Path("p1.csv")).write_text(json.dumps(record | {name: value}))
        status, message = refused("p0.csv", "p1.csv", "p2.csv")
        assert status == 2 and ("do not belong together" in message or "the data have changed" in message)
    record_file(Path("p1.csv")).write_text(json.dumps(record))
    lines = Path("p1.csv").read_text().splitlines()
    Path("p1.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert refused("p0.csv", "p1.csv", "p2.csv")[1] == "p1.csv is cut short: its record lists 3 samples\n"
    Path("p1.csv").write_text("\n".join([*lines, lines[-1].replace("/00", "/99")]) + "\n")
    assert refused("p0.csv", "p1.csv", "p2.csv")[1] == "p1.csv has more rows than its record lists\n"
    assert "p0.jsonl" not in os.listdir() and "m.csv" not in os.listdir()
    for name in (".", "..", "/"):
        assert "is not a file of `--shard I/N`" in refused("p0.csv", name)[1]
    record_file(Path("p1.csv")).unlink()
    status, message = refused("p0.csv", "p1.csv", "p2.csv")
    assert status == 2 and "p1.csv is not a file of `--shard I/N`" in message


@given(st.integers(1, 30), st.integers(1, 12))
def test_every_sample_is_in_exactly_one_shard(samples, count):
    from chopmix.data.samples import Listed

    listed = Listed([str(number) for number in range(samples)], [{}] * samples)
    members = []
    for index in range(count):
        shard = Shard.of(f"{index}/{count}")
        if index < samples:
            members += [(int(key), int(key) % count == index) for key in shard.of_samples(listed).keys]
        else:
            with pytest.raises(RunError, match="there are only"):
                shard.of_samples(listed)
    assert sorted(members) == [(number, True) for number in range(samples)] or count == 1


@pytest.mark.parametrize("text", ["", "1", "1/1", "-1/2", "a/2", "2/2", "0/0", "1/2/3", "٠/١"])
def test_a_shard_that_is_not_two_numbers_is_refused(text):
    with pytest.raises(RunError, match="write I/N"):
        Shard.of(text or "/")


def test_lines_of_standard_input_are_answered_one_by_one(here, capsys, monkeypatch):
    lines = ['{"image": "photos/black/000.png", "key": 7}', "", "{", '{"image": "none.png"}', '{"picture": 1}', "[]"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert main(["predict", "run", "--input", "-"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answers[0]["key"] == 7 and answers[0]["shade"]["class"] in SHADES and len(answers) == 5
    errors = ["line 3: not JSON", "none.png does not exist", "no input 'picture'", "a sample must map inputs"]
    assert all(part in answer["error"] for part, answer in zip(errors, answers[1:], strict=True))


def test_lists_of_numbers_are_values_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"climate": [[20 + n % 3, 1013], [21, 1012 + n % 2]], "state": "ab"[n % 2]} for n in range(24)]
    Path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = TREE | {
        "inputs": {"climate": {"use": "sensor", "channels": 2, "rate": 1}},
        "tasks": {"state": {"use": "classification", "target": "state"}}, "out": "run",
        "data": {"dataset": {"use": "manifest", "train": "log.jsonl", "columns": ["climate", "state"]}},
        "training": TREE["training"] | {"steps": 2},
    }  # fmt: skip
    Path("x.yaml").write_text(yaml.safe_dump(tree))
    train(load_config("x.yaml"))
    capsys.readouterr()
    assert main(["predict", "run", "--input", "climate=[[20,1013],[21,null]]", "--input", "climate=[[20,1013]]"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["state"]["class"] in "ab" and second["climate"] == [[20, 1013]]
    assert main(["predict", "run", "--input", "climate=[[20,"]) == 2
    assert "--input climate: not JSON" in capsys.readouterr().err


def test_probabilities_are_calibrated_by_the_report_of_the_validation_split(here, world, capsys):
    shutil.copytree(world / "run", "copy")
    assert main(["predict", "copy", "--data", "photos", "--calibrated"]) == 2
    assert "copy has no calibration for step" in capsys.readouterr().err
    assert main(["evaluate", "copy", "--report"]) == 0
    stored = json.loads(Path("copy/calibration.json").read_text())
    temperature = stored["tasks"]["shade"]["temperature"]
    assert main(["predict", "copy", "--data", "photos", "--output", "c.jsonl", "--calibrated"]) == 0
    assert main(["predict", "copy", "--data", "photos", "--output", "p.jsonl"]) == 0
    for plain, calibrated in zip(rows_of("p.jsonl"), rows_of("c.jsonl"), strict=True):
        before, after = (torch.tensor([*row["shade"]["probabilities"].values()]) for row in (plain, calibrated))
        torch.testing.assert_close(after, (before.log() / temperature).softmax(-1), atol=1e-5, rtol=1e-4)
        assert plain["shade"]["class"] == calibrated["shade"]["class"]
    run = load_run("copy")
    sample = {"image": "photos/grey/001.png"}
    (row,) = [row for row in rows_of("c.jsonl") if row["key"] == "grey/001.png"]
    probabilities = run.predict(sample, calibrated=True)["shade"]["probabilities"]
    assert probabilities == pytest.approx(row["shade"]["probabilities"], abs=1e-5)
    Path("copy/calibration.json").write_text(json.dumps(stored | {"step": 1}))
    with pytest.raises(RunError, match="no calibration"):
        run.predict(sample, calibrated=True)


def test_answers_below_a_threshold_have_no_class(here):
    assert main(["predict", "run", "--data", "photos", "--output", "t.jsonl", "--threshold", "0.9"]) == 0
    for row in rows_of("t.jsonl"):
        largest = max(row["shade"]["probabilities"].values())
        assert (row["shade"]["class"] is None) == (largest < 0.9)


def test_a_terminal_shows_the_largest_probabilities():
    probabilities = {str(number): number / 100 + 1e-9 for number in range(9)}
    shown = shortened({"key": "a", "kind": {"class": 8, "probabilities": probabilities}, "values": [1 / 3]})
    assert shown["kind"]["probabilities"] == {"8": 0.08, "7": 0.07, "6": 0.06, "5": 0.05, "4": 0.04}
    assert shown["values"] == [0.3333] and shown["key"] == "a"


def predict_folder(folder, data, output):
    os.chdir(folder)
    return main(["predict", "run", "--data", data, "--output", output])


@pytest.mark.system
def test_memory_grows_only_by_the_keys_and_paths_of_the_samples(world, tmp_path):
    """7,000 more samples use less than 8 MiB more."""
    sizes = (1000, 8000)
    for size in sizes:
        Path(world, f"list{size}.csv").write_text("image\n" + "photos/black/000.png\n" * size)
    memory = [measured(predict_folder, world, f"list{size}.csv", str(tmp_path / f"{size}.csv")).mib for size in sizes]
    assert all(b - a < 8 for a, b in pairwise(memory)), memory


@pytest.mark.parametrize("threshold", ["70", "-1", "0", "nan"])
def test_a_threshold_that_is_no_probability_is_refused(here, capsys, threshold):
    assert main(["predict", "run", "--split", "val", "--threshold", threshold]) == 2
    assert "--threshold must be a probability" in capsys.readouterr().err


def test_an_evaluation_without_readable_samples_names_their_number_once(here, capsys):
    folder = pictures(Path("broken"), 2)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no picture")
    assert main(["evaluate", "run", "--data", "broken"]) == 2
    printed = capsys.readouterr()
    assert "none of its 6 samples can be read" in printed.err and printed.out == ""


def test_warnings_are_not_printed_among_the_results_of_an_evaluation(here, capsys):
    folder = pictures(Path("mixed"), 4)
    (folder / "black" / "001.png").write_bytes(b"no picture")
    assert main(["evaluate", "run", "--data", "mixed", "--report", "r"]) == 0
    printed = capsys.readouterr()
    assert "001.png" not in printed.out and printed.err.count("sample 'black/001.png' is bad") == 1


def test_a_folder_of_files_without_classes_is_predicted(here, capsys):
    flat = Path("flat")
    flat.mkdir()
    for number, file in enumerate(sorted(pictures(Path("sorted"), 2).rglob("*.png"))):
        shutil.copy(file, flat / f"{number}.png")
    (flat / "notes.txt").write_text("no picture")
    assert main(["predict", "run", "--data", "flat", "--output", "f.csv"]) == 0
    rows = rows_of("f.csv")
    assert [row["key"] for row in rows] == [f"{number}.png" for number in range(6)]
    assert all(row["shade.class"] in SHADES and "targets.label" not in row for row in rows)
    (flat / "deep").mkdir()
    for file in flat.glob("*.png"):
        file.unlink()
    assert main(["predict", "run", "--data", "flat"]) == 2
    assert "flat has no images in folders named by class" in capsys.readouterr().err
