"""The clock of a table: windows have the right slots whatever the phase, the jitter and the speed of the clock. The
oracle (`table_oracle.py`) knows the slot of every measurement."""

from __future__ import annotations

import os
import pickle
from collections import Counter

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.data.datasets.table import Table, in_time
from chopmix.data.division import Division
from chopmix.data.table_clock import Clock, clock_of, fitted_line, measured_interval
from chopmix.data.table_streams import TableLabel, TableStream, duration, nearest_multiples, seconds_of
from chopmix.files.reading import DataError
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from table_oracle import TableTruth, problems, random_table

pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))


def opened(truth: TableTruth, folder, name: str = "t.csv", **changes):
    truth.write(folder / name)
    options = truth.options() | changes
    streams = {key: TableStream(**value) for key, value in options.pop("streams").items()}
    return Table(train=str(folder / name), streams=streams, **options).read(str(folder / name))


def write(folder, rows: dict[str, list], name: str = "t.csv") -> str:
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in zip(*rows.values(), strict=True)]
    (folder / name).write_text("\n".join([",".join(rows), *lines]))
    return str(folder / name)


def windows(folder, rows: dict[str, list], window="10 s", stride=None, label=None, every="1 s", **stream):
    path = write(folder, rows)
    dataset = Table(train=path, time="time", window=window, stride=stride, label=label and TableLabel(**label),
                    streams={"x": TableStream(columns=["x"], every=every, **stream)})  # fmt: skip
    return dataset, dataset.read(path)


# ---------------------------------------------------------------------------------------------------------- the oracle


def compared(seeds, folder) -> float:
    """Compares random tables with the oracle. Returns the mean number of windows per table."""
    count = 0
    for seed in seeds:
        truth = random_table(np.random.default_rng(seed))
        try:
            samples = opened(truth, folder, f"{seed}.csv")
        except DataError as error:
            assert "has no window of" in str(error)  # all parts are shorter than a window
            continue
        differences = problems(truth, samples)
        assert not differences, (seed, differences[:3])
        os.remove(folder / f"{seed}.csv")
        count += len(samples)
    return count / len(seeds)


def test_all_windows_of_random_tables_have_the_slots_of_the_oracle(tmp_path):
    assert compared(range(30), tmp_path) > 20


@pytest.mark.system
@pytest.mark.parametrize("part", range(4))
def test_all_windows_of_a_thousand_random_tables(tmp_path, part):
    assert compared(range(1000 + 250 * part, 1250 + 250 * part), tmp_path) > 20


@pytest.mark.parametrize("drift", [0.0, 0.001, -0.004, 0.009])
@pytest.mark.parametrize("jitter", [0.0, 0.003, 0.3, 0.44])
def test_each_measurement_occurs_once(tmp_path, jitter, drift):
    """With a stride of one window and an exact clock; a clock that is off by a share repeats or skips as many."""
    for seed in range(3):
        table = random_table(np.random.default_rng(seed), jitter=jitter, drift=drift, streams=1, rows=600, stride=1,
                             whole=True)  # fmt: skip
        table.stride = table.window
        samples, (stream,) = opened(table, tmp_path, f"{seed}.csv"), table.streams
        counts = Counter()
        for sample in samples:
            counts.update(value for value in sample["a"]["values"][:, 0].tolist() if value == value)
        last = max(counts)
        expected = [slot for slot in stream.slots.tolist() if slot <= last]
        wrong = sum(counts[slot] != 1 for slot in expected)
        assert wrong <= (abs(drift) * len(expected) + 1 if drift else 0)
        assert last >= stream.slots[-1] - 2 * len(samples[0]["a"]["values"])


def test_the_oracle_finds_a_window_that_is_one_slot_late(tmp_path, monkeypatch):
    """With slots computed from the measured begin of a window, as in an earlier version, most tables are wrong."""
    monkeypatch.setattr("chopmix.data.table_windows.Windows._first_slot",
                        lambda self, name, line, origin, begin: np.ceil(line.number(begin, origin) + 0.25))  # fmt: skip
    truths = [random_table(np.random.default_rng(seed)) for seed in range(8)]
    assert sum(bool(problems(truth, opened(truth, tmp_path, f"{n}.csv"))) for n, truth in enumerate(truths)) > 4


# ------------------------------------------------------------------------------------------------------------ one line


@given(
    seed=st.integers(0, 2**32 - 1), rows=st.sampled_from([20, 30, 60, 150, 250, 700]), share=st.floats(-0.0095, 0.0095),
    every=st.sampled_from([1e-3, 0.05, 1.0, 3600.0]), missing=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
@settings(max_examples=60)
def test_the_slots_of_rows_are_read_correctly(seed, rows, share, every, missing):
    """The documented limits: jitter up to 0.45 with 200 rows, 0.40 with 50 rows, 0.35 with fewer rows."""
    random = np.random.default_rng(seed)
    limit = 0.45 if rows >= 200 else 0.40 if rows >= 50 else 0.35
    slots = np.flatnonzero(random.random(int(rows * 1.2)) >= missing)[:rows]
    times = (random.random() + slots * (1 + share) + random.uniform(-limit, limit, len(slots)) * 0.98) * every
    line = fitted_line(times - times[0], every)
    computed = np.rint((times - times[0] - line.phase) / line.interval)
    assert len(set((computed - slots).tolist())) == 1


def test_the_later_of_two_rows_in_a_slot_is_used_and_the_other_is_counted(tmp_path):
    times = np.sort(np.append(np.arange(300.0), 200.2))
    clock = clock_of(times, 1.0, 10.0, np.zeros(1))
    assert (clock.repeated, clock.late, clock.rows) == (1, 0, 301)
    dataset, samples = windows(tmp_path, {"time": times.tolist(), "x": times.tolist()})
    assert samples[20]["x"]["values"][:2, 0].tolist() == pytest.approx([200.2, 201])
    assert dataset.notices() == [
        "stream 'x': 1 of 301 measurements are ignored, because a later one is in the same slot; 0 are almost half an "
        "interval from their slots"
    ]


def test_late_rows_are_counted(tmp_path):
    random = np.random.default_rng(0)
    times = np.arange(3000) + random.uniform(-0.482, 0.482, 3000)
    dataset, samples = windows(tmp_path, {"time": times.tolist(), "x": range(3000)})
    late = samples.clocks["x"].late
    assert 0 < late < 30 and samples.clocks["x"].repeated == 0 and len(samples) == 300
    assert dataset.notices()[0].endswith(f"; {late} are almost half an interval from their slots")
    assert [row["x"]["values"][:, 0].tolist() for row in samples] == np.arange(3000).reshape(300, 10).tolist()
    times = np.arange(3000) + random.uniform(-0.5, 0.5, 3000)
    with pytest.raises(DataError, match="the measurements of stream 'x' are not 1 s apart"):
        windows(tmp_path, {"time": times.tolist(), "x": range(3000)})


def test_a_table_that_is_not_evenly_spaced_is_refused(tmp_path):
    times = np.cumsum(np.random.default_rng(0).uniform(0.5, 2.5, 300))
    with pytest.raises(DataError, match=r"the measurements of stream 'x' are not 1 s apart: \d+ of 300 do not fit, and "
                                        r"the median interval is 1\.\d+ s. Set `every` to"):  # fmt: skip
        windows(tmp_path, {"time": times.tolist(), "x": times.tolist()})
    with pytest.raises(DataError, match=r"not 1 s apart: .* the median interval is 0\.9 s"):
        windows(tmp_path, {"time": (np.arange(300) * 0.9).tolist(), "x": [1] * 300})


def test_an_interval_that_differs_is_noted(tmp_path):
    for share, noted in ((0.0005, False), (0.002, True)):
        dataset, _ = windows(tmp_path, {"time": (np.arange(300) * (1 + share)).tolist(), "x": [1] * 300})
        expected = ["stream 'x': its measurements are 1.002 s apart instead of 1 s"] if noted else []
        assert dataset.notices() == expected


def test_empty_slots_are_noted(tmp_path):
    """Every second hour has no row, and the windows begin every two hours: the same slots are always empty."""
    times = [3600.0 * 2 * n for n in range(100)]
    dataset, _ = windows(tmp_path, {"time": times, "x": times}, window="4 h", stride="2 h", every="1 h", horizon="2 h")
    assert dataset.notices() == [
        "stream 'x': 3 of 4 slots and 2 steps (number 2, 4, 6) are empty in more than half of the windows"
    ]
    dataset, _ = windows(tmp_path, {"time": times, "x": times}, window="4 h", stride="2 h", every="2 h")
    assert dataset.notices() == []


# ------------------------------------------------------------------------------------ down-sampled and without interval


@given(
    seed=st.integers(0, 2**32 - 1), every=st.sampled_from([0.3, 0.5, 1.0]), step=st.sampled_from([0.05, 0.1, 0.2]),
    start=st.sampled_from([0.0, 1.7e9]), slots=st.integers(3, 6), ahead=st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=25)
def test_a_down_sampled_stream_has_the_last_value_of_each_slot(
    seed, every, step, start, slots, ahead, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(seed)
    times = np.round(start + np.arange(150) * step + random.uniform(0, 0.3 * step, 150) * (seed % 2), 6)
    times = times[random.random(150) > 0.05]
    assume(np.diff(times).max() < slots * every and step < 0.7 * every)
    to_boundary = np.abs((times - times[0] + every / 2) % every - every / 2)
    assume(not ((to_boundary > 4e-7) & (to_boundary < 4e-6)).any())  # float64 distinguishes 2e-7 s at 1.7e9 s
    values = np.where(random.random(len(times)) < 0.1, np.nan, np.arange(len(times)))
    other = np.where(np.isnan(values), 1.0, np.where(random.random(len(times)) < 0.3, np.nan, -values))
    rows = {"time": [repr(t) for t in times.tolist()], "x": values.tolist(), "y": other.tolist()}
    path = write(folder, rows)
    streams = {"s": TableStream(columns=["x", "y"], every=every, horizon=ahead * every or None)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_CACHE", str(folder))
        samples = Table(train=path, time="time", window=slots * every, stride=every, streams=streams).read(path)
        near = 1e-6 * every + 1e-6 * (start > 0)
        count = int(np.floor((times[-1] + every - times[0] - slots * every) / every + 1e-6)) + 1
        assert len(samples) == count
        for number in range(len(samples)):
            begin = times[0] + number * every
            for column, first, length in (("s", 0, slots), ("s_future", slots, ahead)):
                value = samples[number].get(column)
                value = value["values"] if isinstance(value, dict) else value
                expected = np.full((length, 2), np.nan)
                for slot in range(length):
                    low, high = (begin + (first + slot + edge) * every - near for edge in (0, 1))
                    inside = (times >= low) & (times < high)
                    for channel, cells in enumerate((values, other)):
                        known = cells[inside & ~np.isnan(cells)]
                        expected[slot, channel] = known[-1] if len(known) else np.nan
                if value is None:
                    assert np.isnan(expected).all()
                else:
                    np.testing.assert_array_equal(value, expected.astype(np.float32))


@given(seed=st.integers(0, 2**32 - 1), start=st.sampled_from([0.0, 1.7e9]), stride=st.sampled_from([0.1, 0.7, 2.0]))
@settings(max_examples=20)
def test_a_stream_without_an_interval_has_its_measured_times(seed, start, stride, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(seed)
    times = np.round(start + np.cumsum(random.choice([0.1, 0.1, 0.25], 120)), 6)
    path = write(folder, {"time": [repr(t) for t in times.tolist()], "x": range(120)})
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_CACHE", str(folder))
        streams = {"x": TableStream(columns=["x"])}
        samples = Table(train=path, time="time", window=2.0, stride=stride, streams=streams).read(path)
        for number, begin in enumerate(times[0] + stride * np.arange(len(samples))):
            inside = (times >= begin - 1e-5) & (times < begin + 2 - 1e-5)
            sample = samples[number]["x"]
            assert sample["values"][:, 0].tolist() == np.flatnonzero(inside).tolist()
            np.testing.assert_allclose(sample["seconds"], np.maximum(times[inside] - begin, 0), atol=1e-6)


def test_a_stream_with_a_clock_and_streams_without_share_a_table(tmp_path):
    """A former error: wind every ten minutes from 00:00, temperature every hour at HH:40."""
    times = np.arange(6 * 24 * 20) * 600.0
    for minute in (0, 20, 30, 40, 50):
        temp = [t / 3600 if t % 3600 == minute * 60 else None for t in times]
        path = write(tmp_path, {"time": times.tolist(), "temp": temp, "wind": np.sin(times).tolist()}, f"{minute}.csv")
        streams = {"air": TableStream(columns=["temp"], every="1 h", horizon="3 h")}
        streams |= {"wind": TableStream(columns=["wind"], every="10 min"), "free": TableStream(columns=["wind"])}
        samples = Table(train=path, time="time", window="6 h", stride="1 h", streams=streams).read(path)
        row, hour = samples[10], 10 + minute / 60 - (minute >= 30)
        np.testing.assert_allclose(row["air"]["values"][:, 0], hour + np.arange(6), rtol=1e-6)
        np.testing.assert_allclose(row["air_future"][:, 0], hour + 6 + np.arange(3), rtol=1e-6)
        assert row["air"]["interval"] == 3600 and len(row["wind"]["values"]) == len(row["free"]["values"]) == 36
        assert not np.isnan(row["wind"]["values"]).any() and row["free"]["seconds"][-1] == 35 * 600


# ------------------------------------------------------------------------------------------------------- labels, groups


@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_the_label_of_a_window_is_that_of_its_slots(tmp_path, jitter):
    """A row whose measured time is in the next window, because of jitter, labels the window of its slot."""
    random = np.random.default_rng(0)
    times = 100 + np.arange(400) + random.uniform(-jitter, jitter, 400)
    rows = {"time": times.tolist(), "x": range(400), "state": [f"s{n // 10}" for n in range(400)]}
    for at in ("first", "last", "most"):
        _, samples = windows(tmp_path, rows, label={"column": "state", "at": at})
        assert [row["state"] for row in samples] == [f"s{n}" for n in range(40)]


def test_windows_with_two_groups_are_in_no_split(tmp_path):
    """Nor are windows whose horizon has another group. Folds and groups work for a table."""
    rows = {"time": range(600), "x": range(600), "session": [f"g{n // 60}" for n in range(600)],
            "state": ["ab"[n // 7 % 2] for n in range(600)]}  # fmt: skip
    dataset, samples = windows(tmp_path, rows, stride="2 s", label={"column": "state"}, horizon="4 s")
    for division in (Division(val=0.3, group="session"), Division(folds=3, fold=1, group="session", stratify="state")):
        divided, groups = dataset.divided(division), {}
        for split in ("train", "val"):
            part = divided.opened(split)
            groups[split] = {value for n in range(len(part)) for value in part.values_in(n, "session")}
            for n in range(len(part)):
                past, future = part[n]["x"]["values"][:, 0], part[n]["x_future"]
                slots = {
                    int(value) // 60
                    for value in [*past, *(future[:, 0] if future is not None else [])]
                    if value == value
                }
                assert len(slots) == 1 and part[n]["session"] == f"g{slots.pop()}"
        assert groups["train"] and groups["val"] and not groups["train"] & groups["val"]
        dropped = len(samples) - sum(len(divided.opened(split)) for split in ("train", "val"))
        assert (
            f"data.split: {dropped:,} windows with several values in column 'session' are not used" in divided.notices()
        )
    with pytest.raises(DataError, match=r"data\.split\.order: the windows of a table are always divided in the order"):
        dataset.divided(Division(order="session"))
    rows["session"] = [None if 100 < n < 200 else value for n, value in enumerate(rows["session"])]
    dataset, _ = windows(tmp_path, rows)
    with pytest.raises(DataError, match=r"sample '110 s to 119 s' has no value in column 'session'"):
        dataset.divided(Division(group="session")).opened("val")


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_no_split_reads_what_the_split_before_it_predicts(seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    truth = random_table(np.random.default_rng(seed), rows=900, streams=2, stride=1)
    truth.streams[0].steps = truth.streams[0].steps or 3
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_CACHE", str(folder))
        samples = opened(truth, folder)
        parts = in_time(samples, {"train": 0.5, "val": 0.25, "test": 0.25})
        last: dict[str, float] = {}
        for numbers in parts.values():
            values = {name: [] for name in "ab"}
            for number in numbers:
                for name in values:
                    row = samples[number][name]
                    values[name] += [] if row is None else row["values"][:, 0][~np.isnan(row["values"][:, 0])].tolist()
            assert all(min(values[name]) > last.get(name, -1) for name in values if values[name])
            futures = [samples[number]["a_future"] for number in numbers]
            last = {name: max(values[name], default=-1) for name in values}
            last["a"] = max(
                [last["a"], *(value for f in futures if f is not None for value in f[:, 0].tolist() if value == value)]
            )


# ------------------------------------------------------------ multiples, the end, oddities


def test_windows_and_horizons_must_be_multiples_of_the_interval(tmp_path):
    for stream, window, message in (
        ({"every": "1 h"}, "90 min", "90 min is no multiple of the interval of stream 'x', 1 h; possible: 1 h or"),
        ({"rate": 2.5}, "1 s", "1 s is no multiple of the interval of stream 'x', 400 ms; possible: 800 ms or 1.2 s"),
        ({"every": "1 h", "horizon": "90 min"}, "2 h", "streams.x.horizon: 90 min is no multiple of its interval, 1 h"),
        ({"rate": 29.97}, "10 s", "possible: 9976.64331 ms or 10010.01001 ms"),
        ({"every": "1 h"}, "10 min", "possible: 1 h$"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Table(train="x", time="t", window=window, streams={"x": TableStream(columns=["x"], **stream)})
    two = {"a": TableStream(columns=["a"], rate=10), "b": TableStream(columns=["b"], every="250 ms")}
    with pytest.raises(ValueError, match="window: 1.1 s is no multiple of .* 'b', 250 ms; possible: 1 s or 1.5 s"):
        Table(train="x", time="t", window="1.1 s", streams=two)
    Table(train="x", time="t", window="10010.01001 ms", streams={"x": TableStream(columns=["x"], rate=29.97)})


@given(seconds=st.floats(0.01, 1e5), every=st.sampled_from(["1 h", "250 ms", "0.3", "7 min"]))
def test_windows_that_a_message_suggests_are_accepted(seconds, every):
    stream = TableStream(columns=["x"], every=every)
    text = nearest_multiples(
        stream.exact_interval * 0 + type(stream.exact_interval)(str(seconds)), [stream.exact_interval]
    )
    for possible in text.split(" or "):
        Table(train="x", time="t", window=possible, streams={"x": stream})
        assert seconds_of(possible, "window") <= 2 * max(seconds, stream.interval)
    assert duration(stream.interval)


@pytest.mark.parametrize("share", [0.0, 0.005, -0.008])
@pytest.mark.parametrize("ahead", [-0.3, 0.9, 1.3])
def test_the_last_window_ends_with_the_last_row(tmp_path, share, ahead):
    """The next step of a forecast follows the last measurement, also with a slow clock and with two phases."""
    random = np.random.default_rng(1)
    hours = np.arange(300) * (1 + share) + 0.66 + random.uniform(-0.1, 0.1, 300)
    wind = np.arange(1900) / 6
    wind = wind[wind <= hours[-1] + ahead]
    times = np.union1d(hours, wind)
    columns = {"time": (times * 3600).tolist(), "temp": [t if t in set(hours) else None for t in times],
               "wind": [1 if t in set(wind) else None for t in times]}  # fmt: skip
    path = write(tmp_path, columns)
    streams = {"air": TableStream(columns=["temp"], every="1 h", horizon="3 h"), "wind": TableStream(columns=["wind"])}
    latest = Table(train=path, time="time", window="200 h", stride="1 h", streams=streams).latest()
    end = max(hours[-1], wind[-1])
    past = latest[0]["air"]["values"][:, 0]
    slots = 0.66 + np.arange(0, 400) * (1 + share)
    last = max(299, int(np.flatnonzero(slots <= end)[-1]))
    next_times = latest.times_of_slots(0, "air", 200, 3) / 3600
    np.testing.assert_allclose(next_times, slots[last + 1 : last + 4], atol=0.05)
    known = past[~np.isnan(past)]
    assert known[-1] == pytest.approx(hours[hours <= end][-1], abs=1e-4) and len(latest) == 1
    np.testing.assert_allclose(latest.times_of_slots(0, "air", 199, 1)[0] / 3600, slots[last], atol=0.05)


def test_a_part_that_is_shorter_than_a_window_has_no_window(tmp_path):
    times = [*range(100), *range(200, 205), *range(300, 400)]
    dataset, samples = windows(tmp_path, {"time": times, "x": times})
    values = {value for row in samples for value in row["x"]["values"][:, 0].tolist()}
    assert values == {*range(100), *range(300, 400)} and len(samples) == 20
    dataset, samples = windows(tmp_path, {"time": times[:105], "x": times[:105]})
    assert dataset.latest()[0]["x"]["values"][-5:, 0].tolist() == [200, 201, 202, 203, 204]
    with pytest.raises(DataError, match="has no window of 10 s: the longest part without a pause is 4 s"):
        windows(tmp_path, {"time": times[100:105], "x": times[100:105]})


def test_a_stream_without_a_row_in_a_window_is_missing(tmp_path):
    path = write(tmp_path, {"time": range(60), "x": range(60), "y": [n if n < 20 else None for n in range(60)]})
    streams = {"x": TableStream(columns=["x"], every=1), "y": TableStream(columns=["y"], every=1, horizon=2)}
    samples = Table(train=path, time="time", window=10, streams=streams).read(path)
    assert [row["y"] is None for row in samples] == [False] * 2 + [True] * 4
    assert [row["y_future"] is None for row in samples] == [False] + [True] * 5
    empty = write(tmp_path, {"time": range(60), "x": [None] * 60}, "e.csv")
    with pytest.raises(DataError, match="no stream has a value"):
        Table(train=empty, time="time", window=10, streams={"x": streams["x"]}).read(empty)


def test_clocks_are_small_when_they_are_sent_to_another_process(tmp_path):
    _, samples = windows(tmp_path, {"time": np.linspace(0, 5000, 5001).tolist(), "x": range(5001)})
    assert samples[7]["x"]["values"][3, 0] == 73
    packed = pickle.dumps(samples)
    assert len(packed) < 3000 and pickle.loads(packed)[7]["x"]["values"][3, 0] == 73
    assert isinstance(samples.clocks["x"], Clock) and pickle.loads(packed).keys == samples.keys


def test_the_interval_of_a_log_is_measured(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    for every, jitter, expected in ((0.768, 0.3, 0.768), (0.7680021, 0.001, 0.768), (3600, 0.003, 3600), (60, 0.3, 60)):
        slots = np.flatnonzero(random.random(300) > 0.1)
        times = 1.7e9 + (slots + random.uniform(-jitter, jitter, len(slots))) * every
        assert measured_interval(times, 32) == pytest.approx(expected, rel=1e-9)
    assert measured_interval(np.cumsum(random.exponential(1, 500)), 32) is None
    monkeypatch.chdir(tmp_path)
    times = np.arange(2000) * 0.768 + random.uniform(-0.2, 0.2, 2000)
    write(tmp_path, {"time": times.tolist(), "speed": np.sin(times).tolist()}, "log.csv")
    assert main(["new", "table", "log.csv"]) == 0
    output, text = capsys.readouterr().out, (tmp_path / "log.yaml").read_text()
    assert "one every 768 ms" in output and "every: 768 ms" in text and "use: forecast" in text
    assert main(["train", "log.yaml", "training.steps=2", "out=run"]) == 0
    assert "instead of" not in capsys.readouterr().err
