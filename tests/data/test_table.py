"""Tables of measurements over time: windows, pauses, missing cells, labels, and the division by time."""

from __future__ import annotations

import json
import os
import pickle
import shlex
from datetime import datetime, timedelta

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.data.datasets.table import Table
from chopmix.data.division import Division
from chopmix.data.table_streams import TableLabel, TableStream, duration, seconds_of
from chopmix.files.reading import DataError
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

STREAMS = {"fast": TableStream(columns=["x", "y"], rate=10), "slow": TableStream(columns=["t"])}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))


def log(rows: int = 400, pause: int = 0) -> list[dict]:
    """Ten rows a second; `t` is measured in each fifth row; a pause of 9 s after the row `pause`; the state changes
    every two seconds."""
    return [
        {"time": round(n / 10 + (9 if pause and n > pause else 0), 3), "x": n, "y": -n if n % 7 else None,
         "t": n / 5 if n % 5 == 0 else None, "camera": f"{n}.png" if n % 20 == 0 else None, "state": "ab"[n // 20 % 2]}
        for n in range(rows)
    ]  # fmt: skip


def write(folder, rows: list[dict], ending: str = ".csv"):
    path = folder / f"log{ending}"
    if ending == ".csv":
        lines = [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *lines]))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=50)
    return str(path)


def table(path: str, **changes) -> Table:
    options = {"time": "time", "window": "2 s", "stride": "1 s", "streams": STREAMS, "files": ["camera"]}
    return Table(train=path, label=TableLabel(column="state"), **options | changes)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_windows_have_their_measurements(tmp_path, ending):
    samples = table(write(tmp_path, log(), ending)).read(str(tmp_path / f"log{ending}"))
    assert len(samples) == 39 and samples.keys[:2] == ["0 s to 1.9 s", "1 s to 2.9 s"]
    row = samples[3]  # from 3 to 5 seconds
    fast = row["fast"]["values"]
    assert row["fast"]["interval"] == 0.1 and fast.shape == (20, 2) and fast[:, 0].tolist() == list(range(30, 50))
    assert np.flatnonzero(np.isnan(fast[:, 1])).tolist() == [n - 30 for n in range(30, 50) if n % 7 == 0]
    assert row["slow"]["values"][:, 0].tolist() == [6, 7, 8, 9]
    np.testing.assert_allclose(row["slow"]["seconds"], [0, 0.5, 1, 1.5], atol=1e-9)
    assert row["camera"] == tmp_path / "40.png" and row["state"] == "a" and samples[2]["state"] == "b"
    assert samples.row(3, ("state",)) == {"state": "a"}
    copy = pickle.loads(pickle.dumps(samples))
    assert np.array_equal(copy[3]["fast"]["values"], fast, equal_nan=True) and len(pickle.dumps(samples)) < 2000
    assert samples.fingerprint() == copy.fingerprint() != samples.select([0]).fingerprint()


@given(gaps=st.lists(st.sampled_from([0.1, 0.1, 0.1, 0.2, 3.0]), min_size=5, max_size=120), window=st.floats(0.3, 2.5),
       stride=st.floats(0.1, 3.0))  # fmt: skip
def test_no_window_contains_a_pause(gaps, window, stride, tmp_path_factory):
    times = np.round(np.cumsum([0.0, *gaps]), 3)
    folder = tmp_path_factory.mktemp("table")
    path = write(folder, [{"time": time, "x": time} for time in times])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_CACHE", str(folder))
        dataset = Table(
            train=path, time="time", window=window, stride=stride, streams={"x": TableStream(columns=["x"])}
        )
        try:
            samples = dataset.read(path)
        except DataError as error:
            assert "has no window of" in str(error)
            return
        starts = samples.starts
        assert (np.diff(starts) > 0).all()
        for number, start in enumerate(starts):
            inside = times[(times >= start - 1e-6) & (times < start + window - 1e-6)]
            assert len(inside) and (np.diff(inside) <= window).all()
            seconds = samples[number]["x"]["seconds"]
            assert (seconds >= 0).all() and (seconds < window).all() and abs(len(seconds) - len(inside)) <= 1


def test_splits_follow_in_time_with_a_gap_of_a_window(tmp_path):
    path = write(tmp_path, log())
    for dataset, splits in ((table(path), ("train", "val")), (table(path).divided(Division(val=0.2, test=0.2)), 3)):
        parts = {split: dataset.opened(split) for split in dataset.splits}
        assert len(parts) == (splits if isinstance(splits, int) else len(splits))
        ends = -np.inf
        for part in parts.values():
            assert part.starts[0] >= ends + 2.0 - 1e-9
            ends = part.starts[-1] + 2.0
    assert dataset.notices()
    grouped = table(path).divided(Division(val=0.5, group="state"))  # by group instead of by time
    assert set(grouped.opened("val").column("state")) != set(grouped.opened("train").column("state"))
    with pytest.raises(DataError, match="the split val has no windows: 1 windows are too few"):
        table(path, window="40 s").opened("val")
    with pytest.raises(DataError, match="folds of a table need a column of groups"):
        table(path).divided(Division(folds=3)).opened("val")


def test_dates_are_read_as_times(tmp_path):
    start = datetime(2026, 3, 1)
    for form in ("%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M"):
        rows = [{"date": (start + timedelta(hours=n)).strftime(form), "x": n} for n in range(48)]
        path = write(tmp_path, rows)
        os.utime(path, (1, hash(form) % 10**6))
        dataset = Table(train=path, time="date", window="1 d", streams={"x": TableStream(columns=["x"])})
        samples = dataset.read(path)
        assert samples.keys == [
            "2026-03-01T00:00:00.000 to 2026-03-01T23:00:00.000", "2026-03-02T00:00:00.000 to 2026-03-02T23:00:00.000",
        ]  # fmt: skip
        assert samples[1]["x"]["seconds"].tolist() == [3600.0 * n for n in range(24)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[5].update(time=0.1), r"row 6: the time 0.1 s is not after that of the row before it, 0.4 s"),
        (
            lambda rows: rows[5].update(time=rows[4]["time"]),
            "row 6: the time 0.4 s is equal to that of the row before it; put the values of",
        ),
        (lambda rows: rows[5].update(time=None), "row 6: there is no time in column 'time'"),
        (lambda rows: rows[5].update(x="much"), r"log.csv, line 7: column .x. must have numbers, not .much."),
        (lambda rows: [row.pop("t") for row in rows], "has no column 't'; possible: time, x, y, camera, state"),
        (lambda rows: rows.clear() or rows.append({"time": "", "x": ""}), "has no column|no time|must be numbers"),
        (lambda rows: [row.update(time=f"at {row['time']}") for row in rows], "must be numbers of seconds, or dates"),
    ],
)
def test_tables_that_cannot_be_read_are_named(tmp_path, change, message):
    rows = log(60)
    change(rows)
    with pytest.raises(DataError, match=message):
        table(write(tmp_path, rows)).opened("train")
    assert not list((tmp_path / "cache").rglob("*.npy"))  # nothing is left behind


def test_options_that_mean_nothing_are_refused(tmp_path):
    path = write(tmp_path, log())
    for changes, message in (
        (
            {"window": "5 parsecs"},
            "window must be a number of seconds, or a number with ms, s, min, h, d, not '5 parsecs'",
        ),
        ({"stride": 0}, "stride must be more than 0"),
        ({"streams": {}}, "streams must name at least one sensor"),
        ({"files": ["state"]}, "'state' is the name of two columns"),
    ):
        with pytest.raises(ValueError, match=message):
            table(path, **changes)
    with pytest.raises(ValueError, match="columns must name at least one column"):
        TableStream(columns=[])
    with pytest.raises(DataError, match="there is no table"):
        table(str(tmp_path / "no.csv")).opened("train")
    with pytest.raises(DataError, match="has no window of 100 s"):
        table(path, window="100 s").opened("train")


@given(seconds=st.sampled_from([0.001, 0.25, 1.0, 59.0, 90.0, 3600.0, 7200.0, 86400.0]) | st.floats(0.001, 1e6))
def test_durations_are_read_as_they_are_written(seconds):
    assert seconds_of(duration(seconds), "window") == pytest.approx(seconds, rel=1e-5)


def test_a_changed_table_is_prepared_again(tmp_path):
    path = write(tmp_path, log())
    first = table(path).opened("train")
    rows = log()
    rows[3]["x"] = 1000
    write(tmp_path, rows)
    os.utime(path, (2, 2))
    second = table(path).opened("train")
    assert first.fingerprint() != second.fingerprint() and second[0]["fast"]["values"][3, 0] == 1000


def test_a_sensor_log_trains_from_a_yaml(tmp_path, capsys):
    """Two rates, a missing channel, a pause, labels; then columns of a manifest as channels of a sensor."""
    path = write(tmp_path, log(600, pause=200))
    (tmp_path / "x.yaml").write_text(f"""
inputs:
  fast: {{use: sensor, channels: {{x: null, y: null}}, rate: 10, window: 4}}
  slow: {{use: sensor, channels: 1}}
model: {{width: 16, depth: 1, heads: 2, context: 32, attention: same_sample}}
tasks: {{state: {{use: classification, target: state}}}}
data:
  dataset: {{use: table, train: {path}, time: time, window: 2 s, stride: 0.5 s, label: {{column: state, at: most}},
            streams: {{fast: {{columns: [x, y], rate: 10}}, slow: {{columns: [t]}}}}}}
training: {{steps: 4, samples_per_step: 8}}
out: {tmp_path}/run
""")
    assert main(["train", str(tmp_path / "x.yaml"), "data.workers=1"]) == 0
    assert "fast: 20 measurement(s) of 2 channel(s)" in capsys.readouterr().err
    (tmp_path / "m.jsonl").write_text(
        "\n".join(
            f'{{"x": [{n}, 1], "y": [2, {n}], "z": {n}, "w": {n % 5}, "state": "{"ab"[n % 2]}"}}' for n in range(20)
        )
    )
    columns = "data.columns={fast: [x, y], slow: [z]}"
    dataset = f"data.dataset={{use: manifest, train: {tmp_path}/m.jsonl, columns: [state]}}"
    assert main(["train", str(tmp_path / "x.yaml"), columns, dataset, f"out={tmp_path}/other"]) == 0
    assert "fast: 2 measurement(s) of 2 channel(s)" in capsys.readouterr().err
    wrong = "data.columns={fast: [x, q], slow: [z]}"
    assert main(["train", str(tmp_path / "x.yaml"), wrong, dataset, f"out={tmp_path}/wrong"]) == 2
    assert "data.columns: dataset 'manifest' has no column 'q'; possible: state, x, y, z, w" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "deleted", "about", "folder"])
def test_a_damaged_prepared_table_is_prepared_again(tmp_path, damage):
    path = write(tmp_path, log())
    samples = table(path).read(path)
    keys, values = list(samples.keys), samples[3]["fast"]["values"].copy()
    (folder,) = (tmp_path / "cache" / "tables").iterdir()
    file = folder / ("about.json" if damage == "about" else "stream-0.npy")
    if damage == "folder":
        for inside in folder.iterdir():
            inside.unlink()
    elif damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:200])
    again = table(path).read(path)
    assert again.keys == keys
    np.testing.assert_array_equal(again[3]["fast"]["values"], values)


def test_a_prepared_table_that_disappears_is_named_in_another_process(tmp_path):
    path = write(tmp_path, log())
    packed = pickle.dumps(table(path).read(path))
    (folder,) = (tmp_path / "cache" / "tables").iterdir()
    (folder / "time.npy").unlink()
    with pytest.raises(DataError, match=r"the prepared data in .* are damaged \(.*time\.npy.*\); delete this folder"):
        pickle.loads(packed)


def test_times_in_nanoseconds_are_rounded(tmp_path):
    import pyarrow
    from pyarrow import parquet

    start = np.datetime64("2026-11-30T08:00:00", "ns")
    times = start + np.arange(100) * np.timedelta64(100_000_001, "ns")
    columns = {"time": times, "x": np.arange(100.0), "y": np.arange(100.0), "t": np.arange(100.0)}
    parquet.write_table(
        pyarrow.table({**columns, "state": ["a"] * 100, "camera": ["1.png"] * 100}), tmp_path / "log.parquet"
    )
    samples = table(str(tmp_path / "log.parquet")).read(str(tmp_path / "log.parquet"))
    assert samples.keys[0] == "2026-11-30T08:00:00.000 to 2026-11-30T08:00:01.900"


def test_names_of_streams_and_columns_are_not_used_as_file_names(tmp_path):
    rows = [
        row | {"m/s": "ab"[n // 50], "e.time": f"{n}.png", "e": "cd"[n // 30 % 2]} for n, row in enumerate(log(100))
    ]
    path = write(tmp_path, rows)
    streams = {"a/b": TableStream(columns=["x"]), "a": TableStream(columns=["y"]), "a.time": TableStream(columns=["t"]),
               "x" * 300: TableStream(columns=["y", "x"])}  # fmt: skip
    options = {"time": "time", "window": "1 s", "streams": streams, "files": ["e.time"]}
    for column, labels in (("m/s", "aaaaabbbbb"), ("e", "cccdddcccd")):
        samples = Table(train=path, label=TableLabel(column=column), **options).read(path)
        assert "".join(samples.column(column)) == labels
        assert samples[0]["a/b"]["values"][3, 0] == 3 and samples[9]["e.time"].name == "99.png"


@pytest.mark.parametrize(("start", "window"), [(1.7e9, 0.5), (0.0, 0.1 + 0.2)])
def test_windows_have_different_keys(tmp_path, start, window):
    rows = [{"time": start + n / 100, "x": n, "y": 0, "t": 0, "state": "a", "camera": "1.png"} for n in range(1000)]
    samples = table(write(tmp_path, rows), window=window, stride=None).read(str(tmp_path / "log.csv"))
    assert len(set(samples.keys)) == len(samples) >= 15


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"time": [1_764_500_000_000, 1_764_500_000_100]},
            "must be seconds, .* milliseconds and nanoseconds must be conv",
        ),
        ({"state": [["a"], ["b"]]}, "the column 'state' must have texts or numbers, not \\['a'\\]"),
        ({"x": [{"a": 1}, {"a": 2}]}, "the channel 'x' must have numbers"),
    ],
)
def test_columns_of_odd_types_are_named(tmp_path, columns, message):
    import pyarrow
    from pyarrow import parquet

    good = {"time": [0.0, 0.1], "x": [1, 2**60], "y": [1, 2], "t": [1, 2], "state": ["a", "b"], "camera": ["1", "2"]}
    parquet.write_table(pyarrow.table(good | columns), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message):
        table(str(tmp_path / "log.parquet")).read(str(tmp_path / "log.parquet"))


def test_a_column_that_occurs_twice_and_a_parquet_bomb_are_refused(tmp_path, monkeypatch):
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "log.csv").write_text("time,x,x,y,t,state,camera\n0,1,2,3,4,a,b\n")
    with pytest.raises(DataError, match=r"log\.csv has the column 'x' twice"):
        table(str(tmp_path / "log.csv")).read(str(tmp_path / "log.csv"))
    monkeypatch.setattr("chopmix.data.hub_files.ROOM", 100_000)
    long = {name: ["a" * 10_000] * 1000 for name in ("state", "camera")}
    numbers = {name: np.arange(1000.0) for name in ("time", "x", "y", "t")}
    parquet.write_table(pyarrow.table(numbers | long), tmp_path / "log.parquet")
    with pytest.raises(DataError, match="its columns unpack to .* bytes or more"):
        table(str(tmp_path / "log.parquet")).read(str(tmp_path / "log.parquet"))


RUN = """
inputs: {{fast: {{use: sensor, channels: 2}}, slow: {{use: sensor, channels: 1}}}}
model: {{width: 16, depth: 1, heads: 2, context: 64, attention: same_sample}}
tasks: {{state: {{use: classification, target: state}}}}
data: {{dataset: {{use: table, train: {path}, time: time, window: 2 s, stride: 1 s, label: {{column: state}},
       streams: {{fast: {{columns: [x, y], rate: 10}}, slow: {{columns: [t]}}}}}}, split: {{val: 0.2, test: 0.2}}}}
training: {{steps: 2, samples_per_step: 4}}
logging: {{tensorboard: false}}
"""


def test_a_run_reads_another_table_in_the_same_windows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(RUN.format(path=write(tmp_path, log())))
    assert main(["train", "x.yaml"]) == 0
    (tmp_path / "new").mkdir()
    rows = [{name: value for name, value in row.items() if name != "state"} for row in log(100)]
    unlabelled = write(tmp_path / "new", rows)
    assert main(["evaluate", "runs/x", "--data", str(tmp_path / "log.csv")]) == 0
    assert "39 samples" in capsys.readouterr().out
    assert main(["embed", "runs/x", "--data", unlabelled, "--output", "e.npy"]) == 0
    assert np.load("e.npy").shape == (9, 16)
    for data, count, known in ((unlabelled, 9, False), (str(tmp_path / "log.csv"), 39, True)):
        assert main(["predict", "runs/x", "--data", data, "--output", "p.jsonl", "--overwrite"]) == 0
        answers = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
        assert len(answers) == count and all(("targets" in answer) == known for answer in answers)
        assert answers[0]["key"] == "0 s to 1.9 s" and answers[0]["state"]["class"] in "ab"
    capsys.readouterr()
    assert main(["examples", "runs/x", "--number", "1"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[0])
    assert main([*command[1:], "--device", "cpu"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert answers["state"]["class"] in "ab"
    assert main(["evaluate", "runs/x", "--data", unlabelled]) == 2
    assert "has no column 'state'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["time;x;y;t;state;camera", "0;1;2;3;a;1.png"], "must be separated by commas, not by semicolons"),
        (["time,x,y,t,state,camera", "2026-11-30 08:00:00,1,2,3,a,1.png", "yesterday,1,2,3,a,1.png"],
         r"row 2: the times in column 'time' must be numbers of seconds, or dates .*, not 'yesterday'"),
        (["time,x,y,t,state,camera", "0,1,2,3,a,1.png", "1,1,2,3,a,1.png"], "the longest part without a pause is 1 s"),
    ],
)  # fmt: skip
def test_odd_tables_are_named_in_one_sentence(tmp_path, lines, message):
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=message):
        table(str(tmp_path / "log.csv"), window="1 h").read(str(tmp_path / "log.csv"))
