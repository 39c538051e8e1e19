"""Streams of a table with different rates share one time axis in the model and on pages."""

import csv

import chopmix
import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

STREAMS = {
    "shake": ({"columns": ["x", "y"], "rate": 20}, 2, 8, 0.05),
    "climate": ({"columns": ["temp"], "rate": 2}, 1, 2, 0.5),
    "power": ({"columns": ["watt"], "every": "200 ms"}, 1, 4, 0.2),
}
"""By name: the stream, its channels, the measurements in a token, and its interval in seconds."""


def write_plant(folder):
    """Writes two minutes of three sensors with different rates and phases."""
    cells: dict[float, dict[str, float]] = {}
    random = np.random.default_rng(0)
    for (stream, *_, interval), phase in zip(STREAMS.values(), (0.0, 0.11, 0.07), strict=True):
        for k in range(int(120 / interval)):
            row = cells.setdefault(round(phase + k * interval, 6), {})
            row |= {column: round(random.standard_normal(), 3) for column in stream["columns"]}
    with open(folder / "plant.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["time", "x", "y", "temp", "watt", "state"])
        writer.writeheader()
        writer.writerows(
            {"time": time, "state": "on" if time % 20 < 10 else "off", **cells[time]} for time in sorted(cells)
        )
    return folder / "plant.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    inputs = {
        name: {"use": "sensor", "channels": channels, "window": window, "position": None}
        for name, (_, channels, window, _) in STREAMS.items()
    }
    dataset = {
        "use": "table",
        "train": str(write_plant(folder)),
        "time": "time",
        "window": "4 s",
        "stride": "1 s",
        "streams": {name: stream for name, (stream, *_) in STREAMS.items()},
        "label": {"column": "state"},
    }
    tree = {
        "inputs": inputs, "tasks": {"state": {"use": "classification", "target": "state"}},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 64, "attention": "same_sample & causal(seconds)"},
        "data": {"dataset": dataset}, "out": str(folder / "run"),
        "training": {"steps": 1, "samples_per_step": 2}, "evaluation": {"every": 1, "report": False},
        "logging": {"tensorboard": False},
    }  # fmt: skip
    (folder / "plant.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    chopmix.train(folder / "plant.yaml")
    return chopmix.load(folder / "run")


def test_streams_of_three_rates_have_their_true_times(run):
    sample = run.samples("val")[0]
    trace = run.trace(sample)
    seconds = {}
    for name, chunk in trace.batch.main.chunks.items():
        _, _, window, interval = STREAMS[name]
        tokens = round(4 / interval) // window
        seconds[name] = [(window * (token + 1) - 1) * interval for token in range(tokens)]
        assert chunk.coordinates[:, 0].tolist() == pytest.approx(seconds[name])
    assert [len(times) for times in seconds.values()] == [10, 4, 5]
    times = np.array([time for of_input in seconds.values() for time in of_input])
    readable = times[None] <= times[:, None]  # (receiver, sender): what causal(seconds) should connect
    (weights,) = trace.cores["main"].attention
    assert ((weights[..., : len(times), : len(times)] > 0).cpu().numpy() == readable).all()
    without = run.samples("val")[1] | {"climate": None}
    assert [*run.trace(without).batch.main.chunks] == ["shake", "power"]


def test_pages_have_the_seconds_of_the_window(run):
    for name, (_, _, _, interval) in STREAMS.items():
        canvas = Figure().add_subplot()
        chopper = run.choppers[name]
        chopper.draw(canvas, chopper.decode(run.samples("val")[0][name]))
        assert canvas.lines[0].get_xdata() == pytest.approx(np.arange(round(4 / interval)) * interval)
