"""`run.samples` returns the samples that a run has used, for every division, and other functions accept them."""

import json
from dataclasses import replace
from pathlib import Path

import chopmix
import numpy as np
import pytest
import yaml
from chopmix.commands.cli import main
from chopmix.data.division import Division
from chopmix.data.samples import Samples
from chopmix.experiment.run import load_run
from chopmix.experiment.train import train
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from hypothesis import given, settings
from hypothesis import strategies as st

TREE = {
    "inputs": {
        "blood": {"use": "sensor", "channels": {"crp": "mg/l", "age": None}},
        "note": {"use": "text", "encoding": "characters"},
    },
    "model": {"width": 16, "depth": 1, "heads": 2, "context": 32, "attention": "same_sample"},
    "tasks": {
        "diagnosis": {"use": "classification", "target": "label"},
        "days": {"use": "regression", "target": "days"},
    },
    "training": {"steps": 12, "samples_per_step": 8, "learning_rate": 1e-2},
    "evaluation": {"every": 6, "report": False},
    "logging": {"tensorboard": False},
}
COLUMNS = ["crp", "age", "remark", "label", "days", "patient", "visit"]


def write_clinic(folder: Path, count: int = 90) -> Path:
    """Writes a manifest: two numbers, a remark, a class and a number of each visit; some cells are missing."""
    random, lines = np.random.default_rng(0), [",".join(["key", *COLUMNS])]
    for number in range(count):
        kind = number % 3
        cells = [f"v{number}", f"{random.normal(kind, 1):.3f}", "" if number % 7 == 0 else 30 + number % 40,
                 "" if number % 5 == 0 else "abc"[kind] * 3, "" if number % 11 == 3 else "xyz"[kind],
                 f"{kind + random.normal():.3f}", f"p{number // 6}", number]  # fmt: skip
        lines.append(",".join(map(str, cells)))
    (folder / "visits.csv").write_text("\n".join(lines))
    return folder / "visits.csv"


def tree_of(file: Path, out: Path, **data):
    dataset = {"use": "manifest", "train": str(file), "columns": COLUMNS}
    columns = {"blood": ["crp", "age"], "note": "remark"}
    return TREE | {"data": {"dataset": dataset, "columns": columns, **data}, "out": str(out)}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clinic")
    file = write_clinic(folder)
    split = {"val": 0.2, "test": 0.1, "group": "patient", "stratify": "label"}
    (folder / "x.yaml").write_text(yaml.safe_dump(tree_of(file, folder / "run", split=split)))
    chopmix.train(folder / "x.yaml")
    return folder


@pytest.fixture(scope="module")
def run(clinic):
    return load_run(clinic / "run")


def divided(run, division):
    """Returns the run with another division of its data."""
    return replace(run, config=replace(run.config, data=replace(run.config.data, split=division)), source=None)


divisions = st.none() | st.builds(
    lambda val, test, columns, folds, fold: Division(
        val=val, test=test, **columns, **({"folds": folds, "fold": fold % folds} if folds else {})
    ),
    st.sampled_from([0.1, 0.25, 0.4]), st.sampled_from([0.0, 0.2]),
    st.sampled_from([{}, {"group": "patient"}, {"stratify": "label"}, {"group": "patient", "stratify": "label"}]),
    st.sampled_from([None, 2, 3]), st.integers(0, 2),
)  # fmt: skip


@settings(max_examples=25)
@given(division=divisions)
def test_samples_are_those_of_the_run_for_every_division(run, division):
    other, keys = divided(run, division), {}
    for split in other.dataset().splits:
        samples = other.samples(split)
        keys[split] = list(samples.keys)
        opened = other.open(split)
        assert keys[split] == list(opened.samples.keys) and len(samples) == len(opened) == len(list(samples))
        for number in (0, len(samples) - 1):
            row, raw = samples[number], opened.samples[number]
            assert row.get("note") == raw.get("remark") and row["days"] == raw["days"]
            assert {*row} == {"blood", "note", "label", "days"} and row["label"] == raw.get("label")
            assert str(row["blood"]) == str(raw["blood"])
    everything = [key for part in keys.values() for key in part]
    assert len(everything) == len(set(everything)) == 90
    if division is not None:
        with pytest.raises(RunError, match=r"is divided by data.split, .* use run.samples\('val'\)"):
            other.dataset().open("val")
        assert list(other.dataset().opened("val").keys) == keys["val"]
    else:
        assert len(other.dataset().open("val")) == len(keys["val"])


def test_metrics_computed_from_the_samples_are_those_of_the_evaluation(run):
    val = run.samples("val")
    answers = run.predict(val)
    assert answers == run.predict(list(val)) and len(answers) == len(val)
    known = [(a["diagnosis"]["class"], row["label"]) for a, row in zip(answers, val, strict=True) if row["label"]]
    right = sum(answer == true for answer, true in known)
    assert run.evaluate("val")["val/diagnosis/accuracy"] == pytest.approx(right / len(known))
    error = np.mean([abs(a["days"]["values"][0] - float(row["days"])) for a, row in zip(answers, val, strict=True)])
    assert run.evaluate("val")["val/days/mae"] == pytest.approx(error, rel=1e-5)
    chosen = val.select([2, 0])
    assert [*chosen.keys] == [val.keys[2], val.keys[0]]
    for answer, number in zip(run.predict(chosen), (2, 0), strict=True):  # a batch of another size: other rounding
        assert answer["diagnosis"]["class"] == answers[number]["diagnosis"]["class"]
        assert answer["days"]["values"] == pytest.approx(answers[number]["days"]["values"], rel=1e-5)


def test_predictions_do_not_read_the_true_values(run):
    val = list(run.samples("val"))
    shuffled = [{**row, "label": "xyz"[number % 3], "days": "1e3"} for number, row in enumerate(val)]
    bare = [{name: row.get(name) for name in ("blood", "note")} for row in val]
    assert run.predict(val) == run.predict(shuffled) == run.predict(bare)
    with pytest.raises(RunError, match="has no input 'lable'; possible: blood, note"):
        run.predict({**val[0], "lable": "x"})


def test_trace_and_attribution_accept_samples(run):
    val = run.samples("val")
    number = next(n for n in range(len(val)) if val[n]["label"])
    trace = run.trace(val[number])
    with_targets = trace.batch.targets["diagnosis"]
    assert with_targets.count == 1 and trace.loss("diagnosis", trace.outputs["diagnosis"]) > 0
    whole, part = run.attribution("val"), run.attribution(val)
    assert part["diagnosis"].nats == pytest.approx(whole["diagnosis"].nats)
    few = run.attribution(val.select(range(5)))["days"]
    assert few.samples <= 5 and few.nats != whole["days"].nats


def test_a_run_that_generates_ignores_its_target():
    run = chopmix.load("quickstart")
    val = run.samples("val").select(range(6))
    assert {*val[0]} == {"image", "operator", "sound", "answer"}
    bare = [{name: row[name] for name in ("image", "operator", "sound")} for row in val]
    assert run.predict(val) == run.predict(list(val)) == run.predict(bare)
    assert run.predict(val[0])["answer"]["text"] and isinstance(val, Samples)
    assert run.trace(val[0]).batch.targets["answer"].count > 1
    assert run.attribution(val)["answer"].samples == 6


def test_runs_and_splits_without_samples_are_refused(tiny_run, clinic, run):
    with pytest.raises(RunError, match=r"reads a text corpus, which has no samples; run.open\('val'\) has its windows"):
        load_run(tiny_run).samples("val")
    with pytest.raises(DataError, match="has no split 'dev'; possible: train, val, test"):
        run.samples("dev")
    columns = {"blood": ["crp", "age"], "label": "remark"}
    inputs = {"blood": TREE["inputs"]["blood"], "label": TREE["inputs"]["note"]}
    tree = tree_of(clinic / "visits.csv", clinic / "odd") | {"inputs": inputs}
    tree["data"]["columns"] = columns
    tree["tasks"] = {"days": TREE["tasks"]["days"], "kind": {"use": "classification", "target": "label"}}
    (clinic / "odd.yaml").write_text(yaml.safe_dump(tree))
    chopmix.train(clinic / "odd.yaml", training={"steps": 1})
    with pytest.raises(
        RunError, match="the input 'label' reads the column 'remark', but a task reads a column 'label'"
    ):
        load_run(clinic / "odd").samples("val")


def test_a_cross_validation_has_the_samples_of_its_folds(clinic, capsys, monkeypatch):
    monkeypatch.chdir(clinic)
    file = clinic / "folds.yaml"
    file.write_text(yaml.safe_dump(tree_of(clinic / "visits.csv", clinic / "folds")))
    assert main(["train", str(file), "--folds", "3", "--group", "patient", "training.steps=2"]) == 0
    folds = chopmix.load(clinic / "folds")
    parts = [[*folds.samples("val", fold=fold).keys] for fold in range(3)]
    assert sorted(key for part in parts for key in part) == sorted(f"v{n}" for n in range(90))
    for fold, part in enumerate(parts):
        assert {*folds.samples("train", fold=fold).keys} == {f"v{n}" for n in range(90)} - {*part}
        assert [*load_run(clinic / "folds" / f"fold-{fold}").samples("val").keys] == part
        rows = map(json.loads, (clinic / "folds" / f"fold-{fold}" / "predictions.jsonl").read_text().splitlines())
        assert sorted(row["key"] for row in rows) == sorted(part)
    assert repr(folds) == f"CrossValidation('{clinic / 'folds'}', folds 0, 1, 2)"
    with pytest.raises(RunError, match="has no fold 3; possible: 0, 1, 2"):
        folds.samples("val", fold=3)
    with pytest.raises(AttributeError, match=r"has no 'predict', only samples.*load\('.*fold-0'\)"):
        folds.predict({})
    with pytest.raises(TypeError, match="fold"):
        folds.samples("val")


def test_shards_of_a_divided_data_set_are_those_of_the_run(clinic, run, tmp_path):
    keys = []
    for index in (0, 1):
        words = ["evaluate", str(clinic / "run"), "--shard", f"{index}/2", "--output", str(tmp_path / f"{index}.jsonl")]
        assert main(words) == 0
        keys.append([json.loads(line)["key"] for line in (tmp_path / f"{index}.jsonl").read_text().splitlines()])
    assert [key for pair in zip(*keys, strict=False) for key in pair] == [*run.samples("val").keys][: 2 * len(keys[1])]


def test_more_training_keeps_the_division(clinic, run):
    """The samples of `from:` and of a resumed run are divided in the same way."""
    before = [*run.samples("val").keys]
    train(replace(run.config, training=replace(run.config.training, steps=13)))
    assert [*load_run(clinic / "run").samples("val").keys] == before
