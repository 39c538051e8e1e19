"""Forecasts from tables: the future values of a window, splits, no value after the origin, and `chopmix forecast`."""

import json
import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from chopmix.commands.cli import main
from chopmix.data.datasets.table import Table, in_time
from chopmix.data.table_streams import TableStream
from chopmix.experiment.next_steps import next_commands, program
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.files.rows import read_rows
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("pyarrow")

TREE = """
inputs: {air: {use: sensor, channels: {temp: C, wind: null}, window: 4, period: 8, relative: true}}
model: {width: 16, depth: 1, heads: 2, context: 16, attention: same_sample}
tasks: {next: {use: forecast, target: air_future, input: air}}
data: {dataset: {use: table, train: log.csv, time: time, window: 24 h, stride: 1 h,
       streams: {air: {columns: [temp, wind], every: 1 h, horizon: 8 h}}}, split: {val: 0.2, test: 0.2}}
training: {steps: 4, samples_per_step: 8}
logging: {tensorboard: false}
"""


def lines(count: int, first: int = 0, other: bool = False) -> list[str]:
    """Hourly rows. With `other`, the rows from number `first` on are different."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(count, 2))
    rows = []
    for hour in range(count):
        temp = 10 + 5 * math.sin(hour * math.pi / 4) + noise[hour, 0] + 300 * (other and hour >= first)
        wind = "" if hour % 11 == 3 else f"{noise[hour, 1]:.3f}"
        rows.append(f"2026-01-{1 + hour // 24:02d} {hour % 24:02d}:00:00,{temp:.3f},{wind}")
    return ["time,temp,wind", *rows]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a table `log.csv` of 500 hours and a run that was trained on it."""
    folder = tmp_path_factory.mktemp("forecast")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CHOPMIX_CACHE", str(folder / "cache"))
        Path("log.csv").write_text("\n".join(lines(500)))
        Path("x.yaml").write_text(TREE)
        assert main(["train", "x.yaml"]) == 0
    return folder


@pytest.fixture
def here(world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.setenv("CHOPMIX_CACHE", str(world / "cache"))
    return world


def test_the_command_of_a_forecast_is_printed_after_training(here):
    _, use, _ = next_commands(load_config("x.yaml"))
    assert use == "chopmix forecast runs/x --horizon 8 --output next.csv --picture"


def table(path, **stream) -> Table:
    streams = {"air": TableStream(columns=["temp"], **{"every": "1 h", "horizon": "8 h"} | stream)}
    return Table(train=str(path), time="time", window="24 h", stride="1 h", streams=streams)


def test_the_future_is_the_time_after_the_window(here):
    samples = table("log.csv").read("log.csv")
    temps = [float(line.split(",")[1]) for line in lines(500)[1:]]
    row = samples[10]
    np.testing.assert_allclose(row["air"]["values"][:, 0], temps[10:34], rtol=1e-6)
    np.testing.assert_allclose(row["air_future"][:, 0], temps[34:42], rtol=1e-6)
    partial, none = samples[len(samples) - 4]["air_future"], samples[len(samples) - 1]["air_future"]
    assert np.isnan(partial[:, 0]).tolist() == [False] * 3 + [True] * 5 and none is None
    assert samples.row(3, ("air",)).keys() == {"air"}
    latest = table("log.csv").latest()
    np.testing.assert_allclose(latest[0]["air"]["values"][:, 0], temps[-24:], rtol=1e-6)
    assert len(latest) == 1 and latest[0]["air_future"] is None and latest.fingerprint() != samples.fingerprint()


@given(
    window=st.integers(1, 12), horizon=st.integers(1, 12), stride=st.integers(1, 5), share=st.floats(0.2, 0.4)
)  # fmt: skip
def test_no_split_reads_what_the_split_before_it_predicts(window, horizon, stride, share, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    (folder / "log.csv").write_text("\n".join(lines(400)))
    streams = {"air": TableStream(columns=["temp"], every="1 h", horizon=f"{horizon} h")}
    dataset = Table(
        train=str(folder / "log.csv"), time="time", window=f"{window} h", stride=f"{stride} h", streams=streams
    )
    samples = dataset.read(dataset.train)
    parts = in_time(samples, {"train": 1 - 2 * share, "val": share, "test": share})
    for before, after in (("train", "val"), ("val", "test")):
        end = samples.starts[parts[before][-1]] + samples.size + horizon * 3600
        assert samples.starts[parts[after][0]] >= end + samples.size - 1e-6


def test_nothing_after_the_origin_enters_a_forecast(here):
    """A table with different values from an hour on has the same forecasts from all windows before this hour."""
    Path("other.csv").write_text("\n".join(lines(500, first=200, other=True)))
    answers = {}
    for name in ("log", "other"):
        assert main(["predict", "runs/x", "--data", f"{name}.csv", "--output", f"{name}.jsonl", "--overwrite"]) == 0
        answers[name] = list(read_rows(Path(f"{name}.jsonl")))
    assert len(answers["log"]) == len(answers["other"]) == 477
    equal = [a["next"] == b["next"] for a, b in zip(answers["log"], answers["other"])]
    assert equal == [number + 24 <= 200 for number in range(477)]
    targets = [a.get("targets") == b.get("targets") for a, b in zip(answers["log"], answers["other"])]
    assert targets[:169] == [True] * 169 and not any(targets[169:476]), "the perturbed hours are in the true values"


def test_the_rows_of_a_forecast_from_the_end_of_a_table(here, capsys):
    assert main(["forecast", "runs/x", "--horizon", "6", "--output", "next.csv", "--picture", "--overwrite"]) == 0
    rows = list(read_rows(Path("next.csv")))
    assert main(["predict", "runs/x", "--horizon", "6", "--output", "alias.csv"]) == 0
    assert Path("alias.csv").read_text() == Path("next.csv").read_text()
    assert main(["forecast", "runs/x", "--output", "all.csv"]) == 0
    assert len(list(read_rows(Path("all.csv")))) == 2 * 8
    assert len(rows) == 12 and [*rows[0]][:5] == ["time", "step", "channel", "value", "quantiles.0.1"]
    assert rows[0]["time"] == "2026-01-21T20:00:00.000" and rows[5]["time"] == "2026-01-22T01:00:00.000"
    assert [row["channel"] for row in rows] == ["temp"] * 6 + ["wind"] * 6
    past = np.array([[float(cell or "nan") for cell in line.split(",")[1:]] for line in lines(500)[-24:]])
    answer = load_run("runs/x").predict({"air": past.astype(np.float32)})["next"]
    assert [float(row["value"]) for row in rows[:6]] == pytest.approx(answer["values"]["temp"][:6], abs=1e-4)
    assert float(rows[0]["last_value"]) == pytest.approx(past[-1, 0], abs=1e-4)
    assert float(rows[2]["last_period"]) == pytest.approx(past[-6, 0], abs=1e-4)
    with Image.open("next.png") as picture:
        assert picture.width > 500
    capsys.readouterr()
    Path("short.csv").write_text("\n".join(lines(400)))
    assert (
        main(["predict", "runs/x", "--horizon", "1", "--data", "short.csv", "--picture", "one.png", "--overwrite"]) == 0
    )
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert row["time"] == "2026-01-17T16:00:00.000" and [*row["quantiles"]] == ["0.1", "0.5", "0.9"]
    assert Path("one.png").exists()


@pytest.mark.parametrize(
    "options, message",
    [("--horizon 9", "was trained to forecast 8 steps"), ("--horizon 0", "at least 1 step"),
     ("--picture", "--picture needs --horizon N"), ("--horizon 2 --picture", "--picture needs --output FILE"),
     ("--horizon 2 --split val", "cannot be combined with --split"), ("--horizon 2 --strict", "cannot be combined"),
     ("--horizon 2 --input air=[[1,2]]", "cannot be combined with --input"),
     ("--horizon 2 --picture a.jpg", "possible endings: .png"), ("--horizon 2 --data mnist", "needs a table"),
     ("--horizon 2 --data tiny.csv", "the longest part without a pause is"),
     ("--horizon 2 --data absent.csv", "there is no table 'absent.csv'"),
     ("--horizon 2 --output log.csv", "log.csv exists")],
)  # fmt: skip
def test_impossible_forecasts_are_refused(here, options, message, capsys):
    Path("tiny.csv").write_text("\n".join(lines(20)))
    assert main(["predict", "runs/x", *options.split()]) != 0
    error = capsys.readouterr().err
    assert message in error and len([line for line in error.splitlines() if message in line]) == 1


@pytest.mark.system
def test_metrics_and_the_report_compare_with_the_baselines(here, capsys, reports):
    assert main(["evaluate", "runs/x", "--split", "test", "--report", "out"]) == 0
    printed = capsys.readouterr().out
    for name in ("mae_temp", "mae_last_value_temp", "mae_last_period_temp", "coverage_wind"):
        assert f"test/{name} " in printed
    rows = list(read_rows(Path("out/test-next-steps.csv")))
    assert len(rows) == 2 * 9 and rows[0]["step"] == "" and rows[1]["step"] == "1"
    values = dict(line.split(" ")[:2] for line in printed.splitlines() if line.startswith("test/"))
    assert float(rows[0]["mae"]) == pytest.approx(float(values["test/mae_temp"]), rel=1e-4)
    assert float(rows[0]["mae_last_period"]) == pytest.approx(float(values["test/mae_last_period_temp"]), rel=1e-4)


@pytest.mark.parametrize(
    "stream, message",
    [({"every": None}, "horizon needs `every` or `rate`"), ({"rate": 1.0}, "set `rate` or `every`, not both"),
     ({"every": "1 week"}, "every must be a number of seconds, or"), ({"horizon": "-1 h"}, "horizon must be"),
     ({"horizon": "0 s"}, "horizon must be more than 0")],
)  # fmt: skip
def test_streams_that_have_no_future_are_refused(stream, message):
    with pytest.raises(ValueError, match=message):
        table("log.csv", **stream)


def test_a_run_that_does_not_forecast_has_no_horizon(here, capsys):
    changed = TREE.replace("{next: {use: forecast, target: air_future, input: air}}",
                           "{next: {use: next_item, target: air, at: air}}")  # fmt: skip
    Path("y.yaml").write_text(changed.replace(", relative: true", "").replace("same_sample", "causal & same_sample"))
    assert main(["train", "y.yaml"]) == 0
    assert main(["predict", "runs/y", "--horizon", "3"]) != 0
    assert "runs/y has no task `forecast`" in capsys.readouterr().err


def ramp(minutes: int, hours: int = 60) -> str:
    """A table with the hours since its start, a row for every `minutes`. The last row is at the end of an hour."""
    times = [timedelta(minutes=minutes * n) for n in range(hours * 60 // minutes)]
    return "\n".join(["time,temp,wind", *(f"{datetime(2026, 1, 1) + t},{t.total_seconds() / 3600},1" for t in times)])


@pytest.mark.parametrize("minutes", [60, 30, 15, 10])
def test_slots_of_a_finer_table_are_evenly_spaced(here, minutes):
    """Every slot has the last measurement of its hour, for any distance of rows."""
    Path("ramp.csv").write_text(ramp(minutes))
    samples, last = table("ramp.csv").read("ramp.csv"), 1 - minutes / 60
    row = samples[5]
    np.testing.assert_allclose(row["air"]["values"][:, 0], 5 + last + np.arange(24), atol=1e-4)
    np.testing.assert_allclose(row["air_future"][:, 0], 29 + last + np.arange(8), atol=1e-4)
    assert main(["predict", "runs/x", "--horizon", "2", "--data", "ramp.csv", "--output", "r.csv", "--overwrite"]) == 0
    rows = list(read_rows(Path("r.csv")))
    end = datetime(2026, 1, 1) + timedelta(hours=60 + last)
    assert [datetime.fromisoformat(row["time"]) for row in rows[:2]] == [end, end + timedelta(hours=1)]
    assert float(rows[0]["last_value"]) == pytest.approx(59 + last, abs=1e-4)
    assert float(rows[0]["last_period"]) == pytest.approx(52 + last, abs=1e-4)


def test_a_window_with_missing_measurements_is_reported(here, capsys):
    Path("coarse.csv").write_text(ramp(120))
    assert main(["predict", "runs/x", "--horizon", "2", "--data", "coarse.csv"]) == 0
    assert "50% of the measurements of air in the last window" in capsys.readouterr().err


@pytest.mark.parametrize("depth, expected", [(None, "chopmix"), ("1", "uv run chopmix")])
def test_commands_are_printed_as_the_user_calls_them(monkeypatch, depth, expected):
    """`uv run` sets the variable in the processes that it starts."""
    if depth:
        monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", depth)
    assert program() == expected
