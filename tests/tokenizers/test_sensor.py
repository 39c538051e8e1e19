"""Sensors: windows and their times, missing values, categories, statistics, and files that are refused."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from chopmix.data.datasets.driving import RANGES, Driving
from chopmix.files.reading import DataError
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.chopping.packing import pack
from chopmix.tokenizers.sensor import SensorChopper, SensorTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

AXES = ("order", "seconds")
CHOPPER = SensorChopper(channels={"speed": "m/s", "gear": None}, categories={"gear": 6}, rate=10, window=2)


def tokens(chopper: SensorChopper, stream, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    model = SensorTokenizer(chopper, 8, 16)
    return model(pack([[("sensor", chopper.decode(stream))]], {"sensor": chopper}, 16, AXES).chunks["sensor"])


@given(st.integers(1, 40), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_windows_contain_every_measurement_once(times, window):
    chopper = SensorChopper(channels=3, rate=5, window=window)
    stream = torch.arange(times * 3, dtype=torch.float32).view(times, 3)
    chunk = chopper.chop(stream)
    assert chunk.count == chopper.count(stream) == math.ceil(times / window)
    assert chunk.values.flatten()[: times * 3].tolist() == stream.flatten().tolist()
    assert chunk.values.flatten()[times * 3 :].isnan().all()
    assert chunk.coordinates[:, 0].tolist() == pytest.approx([((n + 1) * window - 1) / 5 for n in range(chunk.count)])


def test_statistics_ignore_missing_values(tmp_path):
    streams = [[[1.0, 0], [math.nan, 1]], [[3.0, 5], [5.0, math.nan]]]
    fitted = CHOPPER.fit(lambda: iter(streams), Role())
    assert fitted.mean["speed"] == pytest.approx(3) and fitted.scale["speed"] == pytest.approx((8 / 3) ** 0.5)
    fitted.save(tmp_path / "s")
    assert CHOPPER.load(tmp_path / "s", Role()) == fitted
    values = fitted.chop(fitted.decode(streams[1])).values
    assert values[0].tolist()[:3] == pytest.approx([0, 5, 2 / (8 / 3) ** 0.5]) and values[0, 3].isnan()
    set_by_user = replace(CHOPPER, mean={"speed": 10.0}, scale={"speed": 2.0}).fit(lambda: iter(streams), Role())
    assert set_by_user.chop(set_by_user.decode([[14.0, 3]])).values[0].tolist()[:2] == [2.0, 3.0]
    both = {name: dict.fromkeys(CHOPPER.names, value) for name, value in (("mean", 10.0), ("scale", 2.0))}
    every = replace(CHOPPER, mean=10.0, scale=2.0)
    assert [every.by_channel(name) for name in both] == [*both.values()]
    assert every.fit(lambda: iter([]), Role()) == every  # no data are read
    every.save(tmp_path / "e")
    assert every.load(tmp_path / "e", Role()) == replace(CHOPPER, **both)
    with pytest.raises(ValueError, match="scale: 'speed' must be more than 0, not 0"):
        replace(CHOPPER, scale=0)
    half = replace(CHOPPER, scale={"speed": 2.0}).fit(lambda: iter(streams), Role())
    assert half.mean["speed"] == pytest.approx(3) and half.scale["speed"] == 2.0
    with pytest.raises(ValueError, match="channel 'speed' has no value in the training data"):
        CHOPPER.fit(lambda: iter([[[math.nan, 1.0]]]), Role())


def test_missing_values_differ_from_zero_and_categories_are_embedded():
    zero, missing, other = (tokens(CHOPPER, [[value, gear]]) for value, gear in ((0.0, 2), (math.nan, 2), (0.0, 3)))
    assert not torch.allclose(zero, missing) and not torch.allclose(zero, other)
    assert torch.isfinite(missing).all()
    model = SensorTokenizer(CHOPPER, 8, 16)
    assert len(model.tables) == 1 and model.tables[0].num_embeddings == 12


def test_files_are_read_by_their_header(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text("gear,time,speed\n1,0.0,3.5\n2,0.1,\n")
    values = CHOPPER.decode(str(file))
    assert values[0].tolist() == [3.5, 1] and values[1, 0].isnan() and values[1, 1] == 2
    assert torch.equal(CHOPPER.decode(file.read_bytes()).nan_to_num(), values.nan_to_num())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((3, 4)), r"the stream must have the shape \(times, 2\), with the channels speed, gear, not \(3, 4\)"),
        (np.zeros((0, 2)), "the stream has no measurements"),
        ([[1.0, 7]], "channel 'gear' must hold whole numbers from 0 to 5"),
        ([[1.0, 1.5]], "channel 'gear' must hold whole numbers from 0 to 5"),
        ("missing.csv", "missing.csv does not exist"),
        (b"speed,time\n1,2\n", "no column 'gear'; the columns are speed, time"),
        (b"speed,gear\n1,2\n3\n", "line 3 has 1 columns, but the header has 2"),
        (b"\x93NUMPY\x01\x00\x0e\x00{'descr': '<f4'(", "is not a readable array"),
        (b"speed,gear\nfast,2\n", "line 2 contains a value that is not a number"),
    ],
)
def test_unreadable_streams_are_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        CHOPPER.decode(raw)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"channels": 0}, "at least one"), ({"channels": 1, "rate": 0}, "rate must be more than 0"),
     ({"channels": {"a": None}, "categories": {"b": 2}}, "there is no channel 'b'; possible: a"),
     ({"channels": {"a": None}, "mean": {"b": 2}}, "mean: there is no channel 'b'; possible: a"),
     ({"channels": {"a": None}, "scale": {"a": 0}}, "scale: 'a' must be more than 0, not 0")],
)  # fmt: skip
def test_invalid_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SensorChopper(**options)


def test_a_driving_scene_depends_only_on_its_number():
    first, again, other = (Driving().open("val")[n] for n in (3, 3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert (
        first["camera"].shape == (24, 24)
        and first["radar"].shape == (1, RANGES)
        and first["control"] != other["control"]
    )
    assert all(0 <= Driving().open("train")[n]["control"][1] <= 1 for n in range(50))


def test_the_count_of_numbers_in_a_token_is_limited():
    assert SensorChopper(channels=2**15, window=2)
    with pytest.raises(ValueError, match="times window must be at most 65,536, not 65,537 times 1"):
        SensorChopper(channels=2**16 + 1)


def test_many_channels_are_looked_up_by_name_quickly():
    """When each channel was searched in a list, 65,536 channels took a minute."""
    start = time.process_time()
    chopper = SensorChopper(channels=2**16, mean=0, scale=1)
    assert len(chopper.names) == 2**16 and chopper.by_channel("mean")["65535"] == 0
    assert time.process_time() - start < 5


def stream(count: int, interval: float | None = None, channels: int = 1):
    values = np.random.default_rng(0).normal(size=(count, channels)).astype(np.float32)
    return values if interval is None else {"values": values, "interval": interval}


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("interval", [0.05, 3600.0, 1])
def test_the_interval_of_the_data_determines_the_times_of_the_tokens(window, interval):
    """As `rate` does for data without times, also in a mixture of a table and plain arrays."""
    chopper = SensorChopper(channels=1, window=window, mean=0, scale=1)
    chunk = chopper.chop(chopper.decode(stream(10, interval)))
    plain = SensorChopper(channels=1, window=window, mean=0, scale=1, rate=1 / interval)
    expected = plain.chop(plain.decode(stream(10)))
    torch.testing.assert_close(chunk.coordinates, expected.coordinates)
    assert torch.equal(chunk.values, expected.values) or chunk.values.isnan().any()
    ends = np.minimum(np.arange(1, chunk.count + 1) * window - 1, chunk.count * window - 1) * interval
    np.testing.assert_allclose(chunk.coordinates[:, 0], ends, rtol=1e-6)


def test_a_rate_that_differs_from_the_data_is_refused():
    for rate, interval in ((20.0, 0.05), (1 / 3600, 3600.0), (29.97, 1 / 29.97)):
        SensorChopper(channels=1, rate=rate).decode(stream(4, interval))
    message = "rate: 1 measurements per second differ from the data, in which two measurements are 0.05 s apart .20 per"
    with pytest.raises(DataError, match=message):
        SensorChopper(channels=1, rate=1).decode(stream(4, 0.05))
    with pytest.raises(ValueError, match="no stream of the training data can be read; first error: rate: 1 "):
        SensorChopper(channels=1, rate=1).fit(lambda: [stream(4, 0.05)], Role())
    for wrong in (0, -1, math.inf, math.nan, "1", True):
        with pytest.raises(DataError, match="the interval of a stream must be a positive number of seconds, not"):
            SensorChopper(channels=1).decode({"values": [1.0], "interval": wrong})
    with pytest.raises(
        DataError, match="a stream with times needs 'values' and 'seconds' or 'interval'; 'seconds' is m"
    ):
        SensorChopper(channels=1).decode({"values": [1.0]})


@pytest.mark.parametrize("statistics", [{}, {"mean": 0, "scale": 1}])
def test_plain_values_have_the_interval_of_the_training_data(tmp_path, statistics):
    """The interval is stored with the run. A table with another interval keeps its times."""
    fitted = SensorChopper(channels=1, **statistics).fit(
        lambda: [stream(6, 0.5), stream(6, 0.5), stream(4, 2.0)], Role()
    )
    fitted.save(tmp_path)
    loaded = SensorChopper(channels=1, **statistics).load(tmp_path, Role())
    assert loaded.interval == 0.5 and loaded.rate is None and not loaded.is_old
    assert loaded.chop(loaded.decode(stream(3))).coordinates[:, 0].tolist() == [0, 0.5, 1]
    assert loaded.chop(loaded.decode(stream(3, 2.0))).coordinates[:, 0].tolist() == [0, 2, 4]
    without = SensorChopper(channels=1, **statistics).fit(lambda: [stream(6)], Role())
    assert without.interval is None and without.chop(without.decode(stream(3))).coordinates[:, 0].tolist() == [0, 1, 2]
    assert json.loads((tmp_path / "channels.json").read_text())["interval"] == 0.5


@pytest.mark.parametrize("rate", [None, 4.0])
def test_a_run_of_format_2_keeps_its_times(tmp_path, rate):
    """Its weights were trained with the times of `rate`, which is 1 by default, for data of any interval."""
    (tmp_path / "channels.json").write_text("[[0.5], [2.0]]")
    old = SensorChopper(channels=1, rate=rate).load(tmp_path, Role())
    expected = [0, 1 / (rate or 1), 2 / (rate or 1)]
    for raw in (stream(3), stream(3, 0.05)):
        assert old.chop(old.decode(raw)).coordinates[:, 0].tolist() == expected
    assert old.is_old and old.by_channel("mean") == {"0": 0.5}


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e-6, 1.0, 1e9, 1e30])
def test_channels_are_normalised_in_any_unit(unit):
    values = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32) * unit
    values[:, 1] = 0.1 * unit  # a constant channel
    fitted = SensorChopper(channels={"current": "A", "offset": "A"}).fit(
        lambda: iter([values[:200], values[200:]]), Role()
    )
    chopped = fitted.chop(fitted.decode(values)).values
    assert fitted.scale["current"] == pytest.approx(values[:, 0].std(dtype=np.float64), rel=1e-6)
    assert chopped[:, 0].std(unbiased=False) == pytest.approx(1, rel=1e-5) and fitted.scale["offset"] == 1
    assert fitted.summary([values]).endswith("constant in the inspected samples: offset")


def test_a_scale_far_from_zero_is_computed_in_float64():
    values = 1e5 + np.random.default_rng(0).standard_normal((2000, 1)) * 0.1
    fitted = SensorChopper(channels=1).fit(lambda: iter(np.split(values, 4)), Role())
    assert fitted.scale["0"] == pytest.approx(values.astype(np.float32).std(dtype=np.float64), rel=1e-9)
    noise = 1e5 + np.array([[0.0], [0.0078125]] * 50)  # the last bit of float32 at 1e5
    assert SensorChopper(channels=1).fit(lambda: iter([noise]), Role()).scale["0"] == 1
