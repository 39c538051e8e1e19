"""A cell of a CSV file is a number for sensors, categories and regression, and a text for classes, texts and keys."""

import math

import pytest
import torch
import yaml
from chopmix.commands.cli import main
from chopmix.files.reading import DataError
from chopmix.files.records import as_numbers
from chopmix.tasks.regression import numbers
from chopmix.tokenizers.category import CategoryChopper
from chopmix.tokenizers.sensor import SensorChopper
from hypothesis import given
from hypothesis import strategies as st


@given(st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-(10**9), 10**9))
def test_the_text_of_any_number_is_that_number(value):
    assert as_numbers(str(value)) == value and as_numbers(f" {value} ") == value
    assert numbers(str(value)).tolist() == [pytest.approx(value, rel=1e-6)]
    assert SensorChopper(channels=1).decode(str(value)).tolist() == [[pytest.approx(value, rel=1e-6)]]


@given(st.lists(st.floats(-1e6, 1e6, width=32) | st.none(), min_size=1, max_size=5))
def test_the_text_of_a_list_is_that_list(values):
    written = str(values).replace("None", "null")
    assert as_numbers(written) == values
    (row,) = SensorChopper(channels=len(values)).decode(f"[{written}]").tolist()
    assert [None if math.isnan(value) else value for value in row] == values


@pytest.mark.parametrize("text", ["7.npy", "", "nan", "1_000", "0x10", "a [1]", "[1, 2", "٣"])
def test_other_texts_stay_texts(text):
    assert as_numbers(text) == text


def test_texts_of_categories_are_read_as_numbers():
    assert CategoryChopper(size=3).decode("2").tolist() == [2]
    assert CategoryChopper(size=3).decode("[0, 2, 1]").tolist() == [0, 2, 1]
    with pytest.raises(DataError, match="whole numbers from 0 to 2, not 3"):
        CategoryChopper(size=3).decode("3")


def test_a_regression_and_a_sensor_are_trained_on_a_csv_file(tmp_path, monkeypatch, capsys):
    """The classes of the file keep their leading zeros."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{n / 4},{20 + n % 7}.5,{n % 2:03}\n" for n in range(24)]
    (tmp_path / "log.csv").write_text("heat,age,room\n" + "".join(rows))
    tree = {
        "inputs": {"heat": {"use": "sensor", "channels": 1}},
        "model": {"width": 8, "depth": 1, "heads": 1, "context": 4, "attention": "same_sample"},
        "tasks": {"age": {"use": "regression", "target": "age"}, "room": {"use": "classification", "target": "room"}},
        "data": {"dataset": {"use": "manifest", "train": "log.csv", "columns": ["heat", "age", "room"]}},
        "training": {"steps": 2, "samples_per_step": 4},
        "out": "run",
    }
    (tmp_path / "log.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", "log.yaml"]) == 0
    capsys.readouterr()
    assert main(["predict", "run", "--input", "heat=3.5"]) == 0
    answer = yaml.safe_load(capsys.readouterr().out)
    assert 15 < answer["age"]["values"][0] < 35 and set(answer["room"]["probabilities"]) == {"000", "001"}
    (tmp_path / "log.csv").write_text("heat,age,room\n" + "".join(row.replace(".5", " years") for row in rows))
    assert main(["train", "log.yaml", "out=other"]) == 2
    assert "column 'age': it has no numbers; the first error: '21 years' is not a number" in capsys.readouterr().err


def test_a_single_number_is_one_measurement():
    assert torch.equal(SensorChopper(channels=1).decode(2.5), torch.tensor([[2.5]]))
    with pytest.raises(
        DataError, match=r"the stream must have the shape \(times, 2\), with the channels 0, 1, not \(1, 1\)"
    ):
        SensorChopper(channels=2).decode("2.5")
