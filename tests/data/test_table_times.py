"""The times of a table: numbers, dates in several forms, zones and their offsets, which the keys and the rows of a
forecast keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.data.datasets.table import Table
from chopmix.data.table_files import moment
from chopmix.data.table_streams import TableStream
from chopmix.files.reading import DataError
from chopmix.files.rows import read_rows
from hypothesis import given
from hypothesis import strategies as st

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet

BERLIN = ZoneInfo("Europe/Berlin")
STREAMS = {"x": TableStream(columns=["x"], every="1 h", horizon="2 h")}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def opened(times, name: str = "t.csv", window="4 h", **options):
    Path(name).write_text("\n".join(["time,x", *(f"{time},{n}" for n, time in enumerate(times))]))
    return Table(train=name, time="time", window=window, streams=options.pop("streams", STREAMS), **options).read(name)


def stored(times, zone, name: str = "t.parquet"):
    column = pyarrow.array(times, pyarrow.timestamp("us", zone))
    parquet.write_table(pyarrow.table({"time": column, "x": np.arange(float(len(times)))}), name)
    return Table(train=name, time="time", window="4 h", streams=STREAMS).read(name)


def summer(count: int = 48) -> list[datetime]:
    """Hours around the change to summer time, on 29 March 2026 at 01:00 UTC."""
    return [datetime(2026, 3, 28, 22, tzinfo=UTC) + timedelta(hours=n) for n in range(count)]


def test_times_keep_the_offsets_of_a_file():
    """The file has the offsets of winter and of summer; all rows are an hour apart."""
    texts = [time.astimezone(BERLIN).isoformat() for time in summer()]
    samples = opened(texts)
    assert len(samples) == 12 and samples.keys[0] == "2026-03-28T23:00:00.000+01:00 to 2026-03-29T03:00:00.000+02:00"
    assert samples[0]["x"]["values"][:, 0].tolist() == [0, 1, 2, 3]
    assert [*stored(summer(), "Europe/Berlin").keys] == [*samples.keys]
    assert opened([text.replace("T", " ") for text in texts], "b.csv").keys == samples.keys
    assert opened([text[:-6] + text[-6:].replace(":", "") for text in texts], "c.csv").keys == samples.keys


@pytest.mark.parametrize("ending", ["Z", "+00:00", "-03:30", "+05", "+0545", ""])
def test_a_zone_is_part_of_the_keys(ending):
    samples = opened([f"2026-01-{1 + n // 24:02d}T{n % 24:02d}:00:00{ending}" for n in range(48)])
    shown = {"+05": "+05:00", "+0545": "+05:45"}.get(ending, ending)
    assert samples.keys[1] == f"2026-01-01T04:00:00.000{shown} to 2026-01-01T07:00:00.000{shown}"


def test_a_file_with_z_and_offsets_keeps_both():
    texts = [time.isoformat().replace("+00:00", "Z") for time in summer(4)]
    texts += [time.astimezone(BERLIN).isoformat() for time in summer(8)[4:]]
    keys = opened(texts).keys
    assert keys[0].endswith("01:00:00.000Z") and keys[1].startswith("2026-03-29T04:00:00.000+02:00")


@pytest.mark.parametrize("named", [True, False])
def test_the_rows_of_a_forecast_have_the_zone_of_the_table(named, capsys):
    """A named zone knows the offset after the end of the table; otherwise the last offset holds."""
    times = [datetime(2026, 3, 28, tzinfo=UTC) + timedelta(hours=n - 200) for n in range(225)]  # until 01:00 local
    if named:
        stored(times, "Europe/Berlin", "log.parquet")
    else:
        opened([time.astimezone(BERLIN).isoformat() for time in times], "log.csv")
    name = "log.parquet" if named else "log.csv"
    Path("x.yaml").write_text(f"""
inputs: {{x: {{use: sensor, channels: 1, window: 2}}}}
model: {{width: 16, depth: 1, heads: 2, context: 16, attention: same_sample}}
tasks: {{next: {{use: forecast, target: x_future, input: x}}}}
data: {{dataset: {{use: table, train: {name}, time: time, window: 8 h, stride: 1 h,
       streams: {{x: {{columns: [x], every: 1 h, horizon: 3 h}}}}}}}}
training: {{steps: 2, samples_per_step: 8}}
logging: {{tensorboard: false}}
""")
    assert main(["train", "x.yaml"]) == 0
    assert main(["predict", "runs/x", "--horizon", "3", "--output", "next.csv", "--picture"]) == 0
    shown = [row["time"] for row in read_rows(Path("next.csv"))]
    if named:
        expected = [f"2026-03-29T0{hour}:00:00.000+02:00" for hour in (3, 4, 5)]
    else:
        expected = [f"2026-03-29T0{hour}:00:00.000+01:00" for hour in (2, 3, 4)]
    assert shown == expected
    assert main(["predict", "runs/x", "--split", "val", "--output", "val.csv"]) == 0
    assert all(row["key"].endswith("+01:00") for row in read_rows(Path("val.csv")))


@given(
    seconds=st.integers(-(10**9), 4 * 10**9), step=st.sampled_from([1, 60, 3600]), zone=st.sampled_from(
        ["", "Z", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "+02:00"]),
    form=st.sampled_from(["T", " "]), digits=st.sampled_from([0, 3, 6]),
)  # fmt: skip
def test_dates_of_every_kind_are_read_and_written(seconds, step, zone, form, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dates")
    zones = {"": UTC, "Z": UTC, "+02:00": timezone(timedelta(hours=2))}
    zone_info = zones.get(zone) or ZoneInfo(zone)
    dates = [datetime.fromtimestamp(seconds + n * step, UTC).astimezone(zone_info) for n in range(6)]
    texts = [date.isoformat(sep=form, timespec=["seconds", "", "", "milliseconds", "", "", "microseconds"][digits])
             for date in dates]  # fmt: skip
    ends = {"": lambda text: text[:-6], "Z": lambda text: text[:-6] + "Z"}
    texts = [ends.get(zone, str)(text) for text in texts]
    if any(len(text.rpartition(":")[2]) > 2 and zone not in ("", "Z") and digits == 0 for text in texts):
        return  # an offset with seconds, of the time before zones
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        patched.chdir(folder)
        streams = {"x": TableStream(columns=["x"], every=step)}
        if any(abs((date.utcoffset() or timedelta()).total_seconds()) % 60 for date in dates):
            return
        samples = opened(texts, window=2 * step, streams=streams)
        assert [len(samples), samples[1]["x"]["values"].ravel().tolist()] == [3, [2, 3]]
        first, last = samples.keys[1].split(" to ")
        for text, date in ((first, dates[2]), (last, dates[3])):
            read = datetime.fromisoformat(text)
            assert (read.replace(tzinfo=UTC) if not zone else read) == date and (
                read.utcoffset() == date.utcoffset() or not zone
            )


def test_times_that_become_fractions_are_read():
    """The first megabyte has whole numbers."""
    times = [*range(150_000), *(150_000 + n / 2 for n in range(1, 100))]
    samples = opened(times, window=10, streams={"x": TableStream(columns=["x"])})
    assert len(samples) == 15_005 and samples[15_001]["x"]["seconds"][1] == 0.5


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2026-01-01T00:00:00+01:00", "2026-01-01T01:00:00"], "column 'time': some of the dates have a zone, such as"),
        (["2026-01-01T00:00:00", "x"], r"row 2: the times in column 'time' must be numbers .*, or dates .* 'x'"),
        (["0", "1", "1"], "row 3: the time 1 s is equal to that of the row before it; put the values of one time into"),
        (["0", "2", "1.5"], "row 3: the time 1.5 s is not after that of the row before it, 2 s; sort the table by"),
        (["2026-01-01 02:00", "2026-01-01 01:00"], "row 2: the time 2026-01-01T01:00:00.000 is not after that of the"),
        (["0", "inf"], "the times in column 'time' must be seconds, from"),
        (["1e300", "2e300"], "the times in column 'time' must be seconds, from"),
    ],
)  # fmt: skip
def test_times_that_cannot_be_used_are_named(times, message):
    with pytest.raises(DataError, match=message):
        opened(times)


def test_kinds_of_times_do_not_change_within_a_table():
    rows = [f"{n}" for n in range(60_000)] + ["2026-01-01 00:00:00"] * 60_000
    with pytest.raises(DataError, match="must all be numbers, all be dates without a zone, or all be dates with a zone|"
                                        "must be numbers of seconds, or dates"):  # fmt: skip
        opened(rows)


def test_moments_are_written():
    assert moment(12.5, False) == "12.5 s" and moment(0.1 + 0.2, False, is_exact=True) == "0.30000000000000004 s"
    assert moment(0, True) == "1970-01-01T00:00:00.000" and moment(0, True, 3600) == "1970-01-01T01:00:00.000+01:00"
