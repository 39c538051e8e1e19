"""Splits by `data.split`, folds, and drawing with balanced classes."""

from __future__ import annotations

import json
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.data.datasets.image_folder import ImageFolder
from chopmix.data.datasets.manifest import Manifest
from chopmix.data.division import Division, balanced
from chopmix.data.sampler import Weighted
from chopmix.data.samples import Joined, Listed
from chopmix.files.reading import DataError
from chopmix.files.records import as_text
from hypothesis import given
from hypothesis import strategies as st

ROWS = st.lists(
    st.fixed_dictionaries({
        "label": st.sampled_from(["a", "b", "c", 1, None]), "speaker": st.integers(0, 8),
        "time": st.floats(-1e6, 1e6) | st.integers(-5, 5),
    }), min_size=1, max_size=60,
)  # fmt: skip


def samples_of(rows) -> Listed:
    return Listed([f"key {number}" for number in range(len(rows))], rows)


def divisions():
    shares = {"val": st.floats(0.05, 0.45), "test": st.sampled_from([0.0, 0.2, 0.4])}
    columns = {"stratify": st.sampled_from([None, "label"]), "group": st.sampled_from([None, "speaker"])}
    drawn = st.builds(Division, **shares, **columns)
    ordered = st.builds(Division, **shares, order=st.just("time"))
    folds = st.integers(2, 5).flatmap(lambda n: st.builds(
        Division, test=shares["test"], **columns, folds=st.just(n), fold=st.integers(0, n - 1)))  # fmt: skip
    return drawn | ordered | folds


@given(rows=ROWS, division=divisions())
def test_every_sample_is_in_one_split_and_groups_stay_together(rows, division):
    samples = samples_of(rows)
    try:
        parts = division.numbers(samples, division.splits)
    except DataError as error:
        assert "no samples" in str(error) or "folds are too many" in str(error)
        return
    assert tuple(parts) == division.splits and all(parts.values())
    assert sorted(number for part in parts.values() for number in part) == list(range(len(rows)))
    assert all(part == sorted(part) for part in parts.values())
    assert parts == division.numbers(samples_of(rows), division.splits)
    if division.group:
        speakers = [{rows[number]["speaker"] for number in part} for part in parts.values()]
        assert len(set().union(*speakers)) == sum(map(len, speakers))
    if division.order:
        times = [[rows[number]["time"] for number in part] for part in parts.values()]
        assert all(max(earlier) < min(later) for earlier, later in zip(times, times[1:]))
    if division.stratify and not division.group and not division.folds:
        assert {rows[number]["label"] for number in parts["train"]} == {row["label"] for row in rows}
    division.notices(samples, parts)


@given(
    counts=st.lists(st.integers(1, 400), min_size=1, max_size=6), val=st.floats(0.05, 0.3), test=st.floats(0.05, 0.3)
)
def test_shares_are_exact_over_all_and_nearly_in_each_class(counts, val, test):
    rows = [{"label": f"class {label}"} for label, count in enumerate(counts) for _ in range(count)]
    samples = samples_of(rows + [{"label": "more"}] * 60)
    division = Division(val=val, test=test, stratify="label")
    parts = division.numbers(samples, division.splits)
    for split, share in (("val", val), ("test", test)):
        assert abs(len(parts[split]) - share * len(samples)) <= 2
        labels = Counter(samples.rows[number]["label"] for number in parts[split])
        assert all(abs(labels[f"class {label}"] - share * count) <= 3 for label, count in enumerate(counts))


def test_folds_cover_train_and_val_once_and_never_the_test_split():
    rows = [{"label": "ab"[number % 3 == 0], "speaker": number % 12} for number in range(120)]
    for columns in ({}, {"stratify": "label"}, {"group": "speaker"}, {"stratify": "label", "group": "speaker"}):
        divisions = [Division(test=0.2, folds=4, fold=fold, **columns) for fold in range(4)]
        folds = [division.numbers(samples_of(rows), division.splits) for division in divisions]
        assert all(fold["test"] == folds[0]["test"] for fold in folds)
        assert sorted(number for fold in folds for number in fold["val"]) == sorted(folds[0]["train"] + folds[0]["val"])
        assert {len(fold["val"]) for fold in folds} <= {23, 24, 25} or "group" in columns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": 0.0}, "val and test must be shares with a sum below 1, not 0 and 0"),
        ({"val": 0.5, "test": 0.5}, "sum below 1"),
        ({"order": "t", "group": "g"}, "order cannot be combined with stratify or group"),
        ({"folds": 1}, "folds must be from 2 to 1,000"),
        ({"folds": 3, "fold": 3}, "fold from 0 to folds - 1, not 3"),
        ({"folds": 3, "order": "t"}, "folds cannot be combined with order"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Division(**options)


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        ({"group": "g"}, [{"g": "one"}] * 9, "the split val has no samples: 9 samples have only 1 different values"),
        ({"group": "g"}, [{"g": "one"}, {}], "data.split.group: sample 'key 1' has no value in column 'g'"),
        ({"order": "g"}, [{"g": "one"}, {"g": 2}], "data.split.order: some values are texts, others are numbers"),
        ({"order": "g"}, [{"g": 1}] * 4, "the split train has no samples: 4 samples have only 1 different values"),
        ({"stratify": "g"}, [{"g": ["list"]}] * 4, "must be texts or numbers, not"),
        ({}, [{"g": 1}], "the split val has no samples: there are only 1 samples"),
        ({"folds": 3, "stratify": "g"}, [{"g": 1}] * 8 + [{"g": 2}] * 2, "the class '2' in column 'g' has 2 samples"),
        ({"folds": 5, "group": "g"}, [{"g": i % 2} for i in range(9)], "5 folds are too many: a fold has no samples"),
    ],
)
def test_data_that_cannot_be_divided_are_refused(options, rows, message):
    with pytest.raises(DataError, match=message):
        division = Division(**options)
        division.numbers(samples_of(rows), division.splits)


def test_a_large_group_and_a_missing_class_are_reported():
    rows = [{"g": "large", "c": "x"}] * 60 + [{"g": "small", "c": "y"}] * 40
    division = Division(val=0.1, group="g", stratify="c")
    lines = division.notices(samples_of(rows), division.numbers(samples_of(rows), division.splits))
    assert lines[0] == "data.split: of the values in column 'g', 1 in train, 1 in val; none is in two splits"
    assert "val has 40% of the samples instead of 10%" in lines[1]
    assert lines[2:] == [
        "data.split: val has no sample of the class 'x'",
        "data.split: train has no sample of the class 'y'",
    ]


def test_data_sets_of_files_are_divided(tmp_path):
    for number in range(20):
        (tmp_path / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "ab"[number % 2] / f"{number}.png").write_bytes(b"")
    (tmp_path / "m.csv").write_text("key,label,speaker\n" + "".join(f"{n},a,s{n % 4}\n" for n in range(20)))
    folder = ImageFolder(train=str(tmp_path / "photos")).divided(Division(val=0.2, test=0.2, stratify="label"))
    assert [len(folder.opened(split)) for split in ("train", "val", "test")] == [12, 4, 4]
    assert Counter(folder.opened("val").column("label")) == {"a": 2, "b": 2}
    manifest = Manifest(train=str(tmp_path / "m.csv"), columns=["label"])
    divided = manifest.divided(Division(val=0.25, group="speaker"))  # a column that `columns` does not name
    assert len(set(divided.opened("val").column("speaker"))) == 1 and manifest.columns == ("label",)
    with pytest.raises(DataError, match="has no split 'test'; possible: train, val"):
        divided.opened("test")
    with pytest.raises(DataError, match="has no column 'age'; possible: label, key, speaker|possible: label, speaker"):
        manifest.divided(Division(group="age"))
    with_val = Manifest(train=str(tmp_path / "m.csv"), val=str(tmp_path / "m.csv"), columns=["label"])
    with pytest.raises(DataError, match="'manifest' provides samples for val; remove data.split"):
        with_val.divided(Division())
    assert len(with_val.divided(Division(folds=4)).opened("val")) == 10  # of both files


def test_splits_that_a_data_set_does_not_provide_are_divided(tmp_path):
    for name, count in (("train", 20), ("val", 6), ("test", 8)):
        rows = "".join(f"{name}{n},{'ab'[n % 2]}\n" for n in range(count))
        (tmp_path / f"{name}.csv").write_text("key,label\n" + rows)
    files = {name: str(tmp_path / f"{name}.csv") for name in ("train", "val", "test")}

    def sizes(provided, **options):
        data = {name: files[name] for name in ("train", *provided)}
        dataset = Manifest(**data, columns=["label"]).divided(Division(**options))
        opened = {name: dataset.opened(name) for name in dataset.splits}
        assert all(key.removeprefix("train: ").startswith(name) for name in provided for key in opened[name].keys)
        assert all(len({*opened[a].keys} & {*opened[b].keys}) == 0 for a in opened for b in opened if a != b)
        return {name: len(samples) for name, samples in opened.items()}, dataset.notices()

    assert sizes([], val=0.2, test=0.1)[0] == {"train": 14, "val": 4, "test": 2}
    counts, notices = sizes(["test"], val=0.2, stratify="label")
    assert counts == {"train": 16, "val": 4, "test": 8} and "data.split: test provides samples" in notices
    assert sizes(["val"], test=0.1)[0] == {"train": 18, "val": 6, "test": 2}
    assert sizes(["test"], folds=4) == ({"train": 15, "val": 5, "test": 8}, ["data.split: test provides samples"])
    for provided, options, message in (
        (["val"], {}, "provides samples for val; remove data.split"),
        (["val", "test"], {"test": 0.1}, "provides samples for val and test; remove data.split"),
        (["test"], {"test": 0.1}, "data.split.test: dataset 'manifest' provides samples for test"),
    ):
        with pytest.raises(DataError, match=message):
            sizes(provided, **options)


def test_samples_without_a_class_do_not_limit_the_number_of_folds():
    rows = [{"g": "ab"[n % 2]} for n in range(20)] + [{}, {}]
    folds = [
        Division(folds=5, fold=fold, stratify="g").numbers(samples_of(rows), ("train", "val")) for fold in range(5)
    ]
    assert sorted(number for fold in folds for number in fold["val"]) == list(range(22))
    assert all(4 <= len(fold["val"]) <= 5 for fold in folds)


@given(st.lists(st.sampled_from([1, 1.0, "1", 2, 2.0, "2", 3, 3.5, "x"]), min_size=4, max_size=40))
def test_groups_are_compared_by_value(values):
    rows = [{"g": value} for value in values]
    names = {as_text(value) for value in values}
    if len(names) < 2:
        return
    division = Division(val=0.3, group="g")
    parts = division.numbers(samples_of(rows), division.splits)
    groups = {split: {as_text(values[n]) for n in numbers} for split, numbers in parts.items()}
    assert not groups["train"] & groups["val"] and groups["train"] | groups["val"] == names
    notice = division.notices(samples_of(rows), parts)[0]
    assert f"{len(groups['train'])} in train, {len(groups['val'])} in val" in notice


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_an_order_has_exact_shares_and_sorts_numbers_in_texts(count):
    division = Division(val=0.2, test=0.1, order="t")
    for value in (int, float, str):
        parts = division.numbers(samples_of([{"t": value(n)} for n in range(count)]), division.splits)
        assert {name: len(part) for name, part in parts.items()} == {
            "train": count * 7 // 10, "val": count // 5, "test": count // 10
        }  # fmt: skip
        assert parts["test"] == list(range(count * 9 // 10, count))


def test_joined_samples_have_the_samples_of_all_parts():
    parts = {"train": samples_of([{"x": 1}, {"x": 2}]), "val": samples_of([{"x": 3}])}
    joined = Joined(parts)
    assert joined.keys == ["train: key 0", "train: key 1", "val: key 0"] and list(joined.column("x")) == [1, 2, 3]
    assert joined.fingerprint() != Joined({"train": parts["val"], "val": parts["train"]}).fingerprint()


def test_classes_are_drawn_with_equal_probability():
    samples = balanced(samples_of([{"c": "x"}] * 90 + [{"c": "y"}] * 9 + [{}]), "c")
    sampler = Weighted(samples.weights, 3000)
    drawn = np.array([index.number for index in sampler.plan(0, 0)])
    assert np.allclose(
        [(drawn < 90).mean(), ((drawn >= 90) & (drawn < 99)).mean(), (drawn == 99).mean()], 1 / 3, atol=0.03
    )
    with pytest.raises(DataError, match="data.balance is not possible for a mixture, or for samples with weights"):
        balanced(SimpleNamespace(mixture=[1], weights=None), "c")


def test_predictions_of_folds_have_targets_and_bad_samples_are_not_counted(tmp_path, monkeypatch, capsys):
    """The task has the name of its column."""
    monkeypatch.chdir(tmp_path)
    rows = [{"text": "chop " * (n % 3 + 1) if n != 4 else [1], "label": "ab"[n % 2]} for n in range(30)]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "x.yaml").write_text("""
inputs: {text: {use: text, encoding: bytes}}
model: {width: 16, depth: 1, heads: 2, context: 40, attention: same_sample}
tasks: {label: {use: classification, target: label}}
data: {dataset: {use: manifest, train: l.jsonl, columns: [text, label]}, bad_share: 0.2}
training: {steps: 1, samples_per_step: 4}
evaluation: {every: 1}
logging: {tensorboard: false}
""")
    assert main(["train", "x.yaml", "--folds", "3"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "runs/x/predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 30 and sum("error" in line for line in lines) == 1
    for line in lines:
        number = int(line["key"].removeprefix("line ")) - 1
        assert line["targets"] == {"label": "ab"[number % 2]}
        assert ("error" in line) == (number == 4) and ("error" in line or line["label"]["class"] in "ab")
    output = capsys.readouterr().out
    assert "all samples" in output and re.search(r"samples .* 29 ", output)
