"""Cross-validation, seeds and sweeps: metrics over the samples of all folds equal those of scikit-learn, and are read
by `compare` and `report`; wrong options are refused."""

import csv
import json
import re
import shutil
import zlib
from pathlib import Path

import chopmix
import numpy as np
import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.figures import figures_of
from chopmix.experiment.groups import read_groups
from chopmix.experiment.run import load_run
from chopmix.files.reading import DataError
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from test_run_samples import TREE, tree_of, write_clinic


def write(folder: Path, tree: dict, name: str = "x.yaml") -> str:
    (folder / name).write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(folder / name)


def rows_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    """A folder with two runs of three folds by patient: one with two seeds, one with an inner division and early
    stopping."""
    folder = tmp_path_factory.mktemp("clinic")
    file = write_clinic(folder)
    config = write(folder, tree_of(file, folder / "folds"))
    words = ["--folds", "3", "--group", "patient", "--seeds", "0,1"]
    assert main(["train", config, *words]) == 0
    stop = "training.stop={patience: 1}"
    inner = [*words[:4], "--inner", "0.25", stop, "training.steps=40", "evaluation.every=4", f"out={folder / 'inner'}"]
    assert main(["train", config, *inner]) == 0
    return folder


def pooled_by_hand(rows: list[dict]) -> dict[str, float]:
    """The metrics over all samples, computed by scikit-learn from the predictions."""
    of_class = [row for row in rows if "label" in row.get("targets", {}) and "error" not in row]
    true, predicted = ([get(row) for row in of_class] for get in (
        lambda row: row["targets"]["label"], lambda row: row["diagnosis"]["class"],
    ))  # fmt: skip
    numbers = [
        (row["days"]["values"][0], float(row["targets"]["days"])) for row in rows if "days" in row.get("targets", {})
    ]
    errors = np.array([one - other for one, other in numbers])
    return {
        "diagnosis/accuracy": accuracy_score(true, predicted),
        "diagnosis/balanced_accuracy": balanced_accuracy_score(true, predicted),
        "diagnosis/macro_f1": f1_score(true, predicted, average="macro"),
        "diagnosis/loss": np.mean([row["loss"]["diagnosis"] for row in of_class]),
        "days/mae": np.abs(errors).mean(), "days/rmse": np.sqrt((errors**2).mean()),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "split", "seeds"), [("folds", "val", (0, 1)), ("inner", "test", (0,))])
def test_metrics_over_all_samples_equal_those_of_scikit_learn(clinic, name, split, seeds):
    """They are computed over the samples with a target, not as means over the folds."""
    rows = rows_of(clinic / name / "predictions.jsonl")
    assert len(rows) == 90 * len(seeds) and {row["seed"] for row in rows} == set(seeds)
    (group,) = read_groups([clinic / name])
    for seed, member in zip(seeds, group.members.values(), strict=True):
        of_seed = [row for row in rows if row["seed"] == seed]
        for metric, expected in pooled_by_hand(of_seed).items():
            assert member.figures.metrics[f"{split}/{metric}"] == pytest.approx(expected, rel=1e-5)
            for fold in range(3):
                of_fold = pooled_by_hand([row for row in of_seed if row["fold"] == fold])
                assert member.folds[f"fold-{fold}"].metrics[f"{split}/{metric}"] == pytest.approx(
                    of_fold[metric], rel=1e-5
                )
    keys = {row["key"] for row in rows if row["fold"] == 0}
    fold = clinic / name / ("seed-0/fold-0" if len(seeds) > 1 else "fold-0")
    assert keys == {*load_run(fold).samples(split).keys} == {*chopmix.load(clinic / name).samples(split, fold=0).keys}


def test_predictions_have_seed_fold_key_and_group(clinic):
    rows = rows_of(clinic / "folds" / "predictions.jsonl")
    assert len({(row["seed"], row["fold"], row["key"]) for row in rows}) == len(rows)
    for row in rows:
        assert list(row)[:4] == ["seed", "fold", "key", "group"]
        assert row["group"] == f"p{int(row['key'].removeprefix('v')) // 6}"
    folds = {(row["seed"], row["group"]): {r["fold"] for r in rows if r["group"] == row["group"]} for row in rows}
    assert all(len(each) == 1 for each in folds.values())


def test_without_an_inner_division_the_last_checkpoint_is_used(clinic, capsys):
    run = load_run(clinic / "folds/seed-0/fold-1")
    assert run.which == "last" and run.step == 12 and not (run.folder / "best.json").exists()
    words = ["train", str(clinic / "x.yaml"), "--folds", "3", "training.stop={patience: 1}"]
    assert main(words) == 2
    assert "the samples of the fold would choose the length of the training; add --inner 0.1" in capsys.readouterr().err


def test_the_inner_division_chooses_the_checkpoint(clinic):
    """It uses samples that are neither in the fold nor in train; each patient is in one of the three."""
    for fold in range(3):
        run = load_run(clinic / f"inner/fold-{fold}")
        parts = {split: run.samples(split) for split in ("train", "val", "test")}
        patients = {split: {key.removeprefix("v") for key in part.keys} for split, part in parts.items()}
        groups = {split: {int(number) // 6 for number in numbers} for split, numbers in patients.items()}
        assert sum(map(len, groups.values())) == 15 and len(set().union(*groups.values())) == 15
        losses = {
            line["step"]: line["val/loss"] for line in rows_of(run.folder / "metrics.jsonl") if "val/loss" in line
        }
        assert losses[run.step] == min(losses.values())
        figures = figures_of(run.folder)
        assert figures.step == run.step and figures.metrics["val/loss"] == losses[run.step]
        assert figures.last["val/loss"] == losses[max(losses)]
        assert run.evaluate("val")["val/loss"] == pytest.approx(losses[run.step], rel=1e-5)


def test_the_table_of_folds_has_the_values_of_the_files(clinic, capsys):
    capsys.readouterr()
    assert main(["train", str(clinic / "x.yaml"), "--folds", "3", "--group", "patient", "--seeds", "0,1"]) == 0
    output = capsys.readouterr().out
    labelled = sum("label" in row["targets"] for row in rows_of(clinic / "folds/predictions.jsonl")) // 2
    assert re.search(rf"diagnosis: samples .* {labelled} ", output) and "fold-2" in output and "mean of folds" in output
    (group,) = read_groups([clinic / "folds"])
    rmse = np.mean([*group.values("val/days/rmse").values()])
    assert re.search(rf"val/days/rmse .* {rmse:.3f}\d* ± ", output)
    assert "15 groups (column 'patient')" in output and "The figures are those of the last checkpoint" in output


@pytest.mark.system
@pytest.mark.usefixtures("all_resamples")
def test_compare_and_report_read_seeds_with_folds(clinic, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", str(clinic / "folds")]) == 0
    output = capsys.readouterr().out
    assert "val/days/rmse" in output and "bootstrap, 2,000 resamples of 15 groups (column 'patient')" in output
    assert main(["report", str(clinic / "inner"), "--output", "inner.html"]) == 0
    page = Path("inner.html").read_text()
    assert "The folds" in page and "15 groups" in page and f"<h1>{clinic / 'inner'}</h1>" in page
    assert main(["report", str(clinic / "inner"), "--output", "inner.html"]) == 2
    assert "inner.html exists; replace it with --overwrite" in capsys.readouterr().err


@pytest.mark.system
def test_a_sweep_evaluates_only_the_folds_of_the_chosen_setting(clinic, capsys):
    out = clinic / "rates"
    words = ["train", str(clinic / "x.yaml"), "--folds", "3", "--inner", "0.3", f"out={out}", "training.steps=6"]
    assert main([*words, "--sweep", "training.learning_rate=1e-5,3e-2"]) == 0
    output = capsys.readouterr().out
    table, _, folds = output.partition("fold-0")
    assert "test/" not in table and "test/diagnosis/accuracy" in folds
    evaluated = {file.parent.parent.parent.name for file in out.rglob("test-sums.safetensors")}
    assert evaluated == {"learning_rate=3e-2"}
    with open(out / "sweep.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 6 and not any(name.startswith("test/") for name in rows[0])
    assert {row["fold"] for row in rows_of(out / "predictions.jsonl")} == {0, 1, 2}
    assert main(["compare", str(out)]) == 0
    output = capsys.readouterr().out
    assert "val/diagnosis/accuracy" in output and "test/" not in output
    assert "the validation samples of the folds overlap" in output
    assert main(["report", str(out)]) == 0


def small_config(folder: Path, rows: list[dict], **data) -> str:
    """The path of a configuration for rows with a text, a class and a number."""
    (folder / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = [name for name in rows[0] if name != "id"]
    return write(folder, TREE | {
        "inputs": {"text": {"use": "text", "encoding": "bytes"}},
        "tasks": {"kind": {"use": "classification", "target": "label"},
                  "size": {"use": "regression", "target": "size"}},
        "data": {"dataset": {"use": "manifest", "train": str(folder / "l.jsonl"), "columns": columns, **data}},
        "training": {"steps": 2, "samples_per_step": 4}, "out": str(folder / "run"),
    })  # fmt: skip


def test_a_task_without_a_target_in_one_fold_is_measured_on_the_others(tmp_path, capsys):
    """There are 24 samples in three groups. Those of the third have no number and not the class c."""
    rows = [{"text": "chop" * (n % 3 + 1), "label": "abc"[n % 3] if n < 16 else "ab"[n % 2], "group": n // 8,
             "size": n if n < 16 else None} for n in range(24)]  # fmt: skip
    config = small_config(tmp_path, rows)
    assert main(["train", config, "--folds", "3", "--group", "group"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"size: samples +│ +\d+ +│", output) and "–" in output and " 16 " in output
    (group,) = read_groups([tmp_path / "run"])
    (member,) = group.members.values()
    sizes = [fold.samples.get("size", 0) for fold in member.folds.values()]
    assert sorted(sizes) == [0, 8, 8] and "val/size/rmse" in member.figures.metrics
    assert "there are only 3 groups (column 'group')" in output


def test_a_class_that_train_lacks_and_missing_groups_are_refused(tmp_path, capsys):
    rows = [{"text": "chop", "label": "c" if n == 0 else "ab"[n % 2], "group": n // 4, "size": n} for n in range(12)]
    assert main(["train", small_config(tmp_path, rows), "--folds", "3", "--group", "group"]) == 2
    assert "'c' in column 'label' is none of the 2 classes" in capsys.readouterr().err
    rows[5]["group"] = None
    assert (
        main(["train", small_config(tmp_path, rows), "--folds", "3", "--group", "group", f"out={tmp_path / 'b'}"]) == 2
    )
    assert "sample 'line 6' has no value in column 'group'" in capsys.readouterr().err
    assert main(["train", small_config(tmp_path, rows), "--inner", "0.1"]) == 2
    assert "--inner needs --folds" in capsys.readouterr().err
    assert main(["train", small_config(tmp_path, rows), "--folds", "3", "--inner", "0.1", "data.split.test=0.2"]) == 2
    assert "the fold is the split test" in capsys.readouterr().err


def test_the_keys_of_a_manifest_are_read_from_a_column(tmp_path, capsys):
    rows = [{"id": f"k{n}", "text": "chop", "label": "ab"[n % 2], "size": n} for n in range(12)]
    config = small_config(tmp_path, rows, key="id")
    assert main(["train", config, "--folds", "2"]) == 0
    assert {row["key"] for row in rows_of(tmp_path / "run/predictions.jsonl")} == {row["id"] for row in rows}
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps(row | {"id": f"new {n}"}) for n, row in enumerate(rows[:3])))
    table = tmp_path / "answers.csv"
    assert main(["predict", str(tmp_path / "run/fold-0"), "--data", str(other), "--output", str(table)]) == 0
    assert [line.partition(",")[0] for line in table.read_text().splitlines()] == ["key", "new 0", "new 1", "new 2"]
    for changed, message in (
        ("k1", "the key 'k1' occurs twice"),
        (None, "line 3 has no value in column 'id', the key"),
    ):
        rows[2]["id"] = changed
        capsys.readouterr()
        assert main(["train", small_config(tmp_path, rows, key="id"), f"out={tmp_path / 'b'}"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["seed", "fold", "key", "group", "loss", "targets", "error"])
def test_tasks_with_the_name_of_a_column_are_refused(tmp_path, capsys, name):
    tree = yaml.safe_load(Path(small_config(tmp_path, [{"text": "a", "label": "a", "size": 1}])).read_text())
    tree["tasks"] = {name: tree["tasks"]["kind"]}
    assert main(["train", write(tmp_path, tree)]) == 2
    assert f"tasks.{name}: {name!r} is the name of a column of the predictions" in capsys.readouterr().err


def test_the_evaluation_of_an_older_run_omits_the_new_columns(tmp_path):
    """The task has the name of a column that older versions did not write."""
    rows = [{"text": "chop", "label": "ab"[n % 2], "size": n} for n in range(12)]
    assert main(["train", small_config(tmp_path, rows)]) == 0
    run = tmp_path / "run"
    for file in (run / "config.yaml", *(run / "assets").glob("task-kind/*")):
        if file.name == "config.yaml":
            file.write_text(file.read_text().replace("  kind:", "  loss:"))
    (run / "assets/task-kind").rename(run / "assets/task-loss")
    for weights in run.rglob("model.safetensors"):
        tensors = {name.replace("heads.kind.", "heads.loss."): value for name, value in load_file(weights).items()}
        save_file(tensors, weights)
        state = json.loads((weights.parent / "state.json").read_text())
        content = weights.read_bytes()
        state["files"]["model.safetensors"] = {"bytes": len(content), "crc32": zlib.crc32(content)}
        (weights.parent / "state.json").write_text(json.dumps(state))
    assert main(["evaluate", str(run), "--output", str(tmp_path / "a.jsonl")]) == 0
    for row in rows_of(tmp_path / "a.jsonl"):
        assert "class" in row["loss"] and "size" in row  # the answer, not the loss of the sample


def test_a_damaged_file_of_sums_is_an_error_with_its_path(clinic, tmp_path):
    shutil.copytree(clinic / "inner", tmp_path / "inner")
    file = tmp_path / "inner/fold-1/report/test-sums.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="test-sums.safetensors is damaged"):
        read_groups([tmp_path / "inner"])
