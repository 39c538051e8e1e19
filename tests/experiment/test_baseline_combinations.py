"""The comparison with simple models in combination with every system of the attack tests, with several tasks, mixtures,
tables and resumed runs; and the options `augment_stream`, `stem` and `ridge` in combination with the training loop."""

import csv
import json
import math
from copy import deepcopy

import numpy as np
import pytest
import torch
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run
from chopmix.inference import baselines
from chopmix.inference.baseline_table import comparable, compared
from chopmix.inference.limited import Outcome
from ranks import train_together
from test_combinations import ALL, equal, home, stopped_equals_whole, trained, weights  # noqa: F401

pytestmark = [
    pytest.mark.system,
    pytest.mark.usefixtures("comparisons"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Simple models are fitted in this process; like in their own one, an error becomes the reason in the table."""

    def call(function, limit):
        try:
            return Outcome(function(), 1.0)
        except Exception as error:
            return Outcome(None, 1.0, f"{type(error).__name__}: {error}")

    monkeypatch.setattr(baselines, "in_process", call)


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_system_is_compared_or_refused_by_name(home, name, capsys):  # noqa: F811
    """A system has simple models exactly if one of its tasks declares some; each figure of the run in the table is that
    of its evaluation."""
    tree = deepcopy(ALL[name])
    trained(home, tree, f"compared_{name}")
    run = load_run(f"compared_{name}", "last", trust=["own_rewards"])
    possible = [key for key, task in run.tasks.items() if task.baselines]
    capsys.readouterr()
    status = main(["baselines", f"compared_{name}", "--checkpoint", "last", "--trust", "own_rewards"])
    printed = capsys.readouterr()
    if not possible:
        assert status == 2 and "Sequences are not supported" in printed.err
        return
    assert status == 0, printed.err
    metrics = run.evaluate("val")
    for each in compared(run):
        prefix = "val/" if len(run.tasks) == 1 else f"val/{each.task}/"
        assert each.value == pytest.approx(metrics[prefix + each.metric], rel=1e-4)
        assert each.metric in comparable(run.tasks[each.task])
        assert any(row.value is not None for row in each.rows), each.rows
        assert each.task in printed.out


WAVE = {"use": "sensor", "channels": 2, "position": None}
SETTINGS = {
    "model": {"width": 16, "depth": 1, "heads": 2, "context": 96, "attention": "same_sample", "position": "rotary"},
    "training": {"steps": 3, "samples_per_step": 4},
}  # fmt: skip


def write_log(file, jitter=0.0, rows=400):
    """A table of two sensors with different rates, a jittering clock, gaps, and a class."""
    random = np.random.default_rng(0)
    with open(file, "w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["time", "fast", "slow", "state", "machine"])
        for n in range(rows):
            time, state = n / 10 + random.uniform(-jitter, jitter), "up" if (n // 20) % 2 else "down"
            fast = f"{math.sin(n / 3) + (state == 'up'):.4f}" if random.random() > 0.1 else ""
            writer.writerow([f"{time:.4f}", fast, f"{n % 7}" if n % 5 == 0 else "", state, f"m{n // 40}"])


def table(file, tasks, **more):
    streams = {"fast": {"columns": ["fast"], "rate": 10}, "slow": {"columns": ["slow"], "rate": 2}}
    if any(task["use"] == "forecast" for task in tasks.values()):
        streams["fast"]["horizon"] = "1 s"
    return {
        **deepcopy(SETTINGS),
        "inputs": {name: {**WAVE, "channels": 1, **more.pop(name, {})} for name in streams}, "tasks": tasks,
        "data": {"dataset": {"use": "table", "train": file, "time": "time", "window": "2 s", "stride": "0.5 s",
                             "streams": streams, "label": {"column": "state", "at": "most"}},
                 "split": {"val": 0.2, "test": 0.2}},
    }  # fmt: skip


KIND = {"kind": {"use": "classification", "target": "state"}}
NEXT = {"next": {"use": "forecast", "target": "fast_future", "input": "fast"}}


@pytest.mark.parametrize("jitter", [0.0, 0.03])
@pytest.mark.parametrize("tasks", [KIND, NEXT, KIND | NEXT], ids=["class", "forecast", "both"])
def test_a_table_with_two_rates_and_a_jittering_clock(home, tasks, jitter):  # noqa: F811
    write_log(home / "log.csv", jitter)
    trained(home, table("log.csv", tasks), f"log{jitter}{len(tasks)}{next(iter(tasks))}", "evaluation.baselines=true")
    run = load_run(f"log{jitter}{len(tasks)}{next(iter(tasks))}", "last")
    for split in ("val", "test"):
        comparisons = compared(run, split)
        assert {each.task for each in comparisons} == {*tasks}
        for each in comparisons:
            assert all(row.value is not None for row in each.rows), each.rows
            assert "blocks" in each.sentence or "(" in each.sentence


def test_folds_of_groups_are_drawn_by_group(home, capsys):  # noqa: F811
    write_log(home / "groups.csv")
    tree = table("groups.csv", KIND)
    tree["data"]["split"] = None
    (home / "grouped.yaml").write_text(yaml.safe_dump(tree | {"logging": {"tensorboard": False}, "out": "grouped"}))
    assert main(["train", "grouped.yaml", "--folds", "3", "--group", "machine"]) == 0
    assert main(["baselines", "grouped", "--json", "grouped.json"]) == 0
    comparison = json.loads((home / "grouped.json").read_text())["comparisons"][0]
    predictions = (home / "grouped" / "predictions.jsonl").read_text().splitlines()
    assert comparison["samples"] == len(predictions)
    groups = {json.loads(line)["group"] for line in predictions}
    assert len(groups) == 10 and comparison["rows"][1]["interval"]  # ten groups are enough for an interval


def test_a_mixture_and_a_resumed_run(home):  # noqa: F811
    part = {"use": "digits"}
    tree = {
        **deepcopy(SETTINGS), "inputs": {"image": {"use": "image", "size": 8, "patch_size": 4, "channels": 1}},
        "tasks": {"digit": {"use": "classification", "target": "label"}},
        "data": {"dataset": {"use": "mixture", "of": {"a": part, "b": part}}},
    }  # fmt: skip
    trained(home, tree, "mixed", "training.steps=2", "evaluation.baselines=true")
    first = json.loads((home / "mixed/report/baselines.json").read_text())["comparisons"][0]
    assert first["samples"] == len(load_run("mixed", "last").samples("val"))
    trained(home, tree, "mixed", "training.steps=4", "evaluation.baselines=true")
    second = json.loads((home / "mixed/report/baselines.json").read_text())["comparisons"][0]
    assert [row["value"] for row in first["rows"]] == [row["value"] for row in second["rows"]]
    assert first["value"] != second["value"]


AUGMENT = {"shift": 0.2, "warp": 0.2, "scale": 0.2, "jitter": 0.1, "mask_time": 0.3, "mask_channels": 0.3}


@pytest.mark.parametrize("words", [
    [], ["training.precision=bfloat16"], ["training.compile=true"], ["training.rows_per_micro_batch=1"],
    ["data.workers=2"], ["training.ema=0.9", "training.input_dropout={slow: 0.5}"], ["inputs.fast.relative=true"],
    ["evaluation.attribution=true"],
], ids=str)  # fmt: skip
def test_augmented_streams_and_convolutions_resume_bit_equal(home, words):  # noqa: F811
    write_log(home / "stem.csv")
    options = {"augment_stream": AUGMENT, "stem": 2, "window": 2}
    tree = table("stem.csv", KIND, fast=options, slow={"augment_stream": {"mask_time": 0.5}})
    for word in words:
        place, _, value = word.partition("=")
        tree = with_option(tree, place, value)
    assert stopped_equals_whole(home, tree)


@pytest.mark.parametrize("words", [
    [], ["training.precision=bfloat16"], ["training.compile=true"], ["training.rows_per_micro_batch=1"],
    ["training.ema=0.9"], ["tasks.next.quantiles=[0.25, 0.5]"], ["inputs.fast={use: sensor, channels: 1, period: 5}"],
], ids=str)  # fmt: skip
def test_forecasts_that_start_at_a_ridge_regression_resume_bit_equal(home, words):  # noqa: F811
    write_log(home / "ridge.csv")
    tree = table("ridge.csv", NEXT | KIND)
    for word in words:
        place, _, value = word.partition("=")
        tree = with_option(tree, place, value)
    assert stopped_equals_whole(home, tree)


def with_option(tree, place, text):
    tree, names = deepcopy(tree), place.split(".")
    below = tree
    for name in names[:-1]:
        below = below.setdefault(name, {})
    below[names[-1]] = yaml.safe_load(text)
    return tree


def test_a_stem_and_a_ridge_regression_in_two_processes(home):  # noqa: F811
    """The weights after two steps are those of one process up to rounding."""
    write_log(home / "ranks.csv")
    tree = table("ranks.csv", NEXT | KIND, slow={"stem": 1, "augment_stream": {"shift": 0.2, "jitter": 0.1}})
    trained(home, tree, "alone")
    done = train_together(home, 2, "x.yaml", "out=together")
    assert done.returncode == 0, done.stderr
    one, two = weights("alone"), weights("together")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
