"""The data set `vehicle`: its table follows the rule, samples show their facts, and an input can be added to a run."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from chopmix.data.datasets.vehicle import LIKELY, ORDERS, Vehicle, action, situations
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference.evaluators.attribution import Attribution, best_guess, entropy, some_orders, subsets_of, tables
from hypothesis import given, settings
from hypothesis import strategies as st

CONFIGS = Path(__file__).parents[2] / "configs"
INPUTS = Vehicle.columns[:-1]
FACTS = st.fixed_dictionaries({name: st.booleans() for name in LIKELY})


@given(FACTS, st.sampled_from(list(ORDERS)))
def test_the_first_rule_that_holds_decides(facts, order):
    done, crossing = action(facts, order), facts["east"] == facts["crossing_east"]
    if facts["siren"]:
        expected = {"pull over"}
    elif facts["ahead"] and facts["closing"]:
        expected = {"brake"}
    elif crossing and order == "turn left":
        expected = {"wait"} if facts["left_taken"] else {"left"}
    elif crossing and order == "turn right":
        expected = {"wait"} if facts["right_taken"] else {"right"}
    elif not crossing and facts["truck"] and facts["fast"]:
        expected = {"slow"}
    else:
        expected = {"keep"}
    assert {done} == expected


def test_the_table_is_a_distribution_and_every_input_is_informative():
    truth = Vehicle().truth("val")
    assert sum(each.probability for each in truth) == pytest.approx(1) and set(truth[0].inputs) == {*INPUTS}
    assert best_guess(truth, INPUTS) == pytest.approx(1) and entropy(truth, INPUTS) == pytest.approx(0, abs=1e-9)
    for name in INPUTS:
        assert entropy(truth, [other for other in INPUTS if other != name]) > 0.1


def test_samples_for_validation_have_the_distribution_of_the_table():
    rows = Vehicle().open("val")
    counted = Counter(value for _, value in rows.numbered("action"))
    expected = Counter()
    for each in Vehicle().truth("val"):
        expected[each.answer] += each.probability
    assert counted.total() == 1000 and all(abs(counted[name] - 1000 * share) < 12 for name, share in expected.items())


@given(st.integers(0, 999), st.sampled_from(["train", "val", "test"]))
@settings(max_examples=60, deadline=None)
def test_sensor_values_show_the_facts(number, split):
    rows = Vehicle().open(split)
    row = rows[number]
    assert {*row} == {*Vehicle.columns} - {"spoken" if "instruction" in row else "instruction"}
    shown = {name: (row[name] > 200).any() for name in ("front", "left", "right")}
    closing = np.ptp(row["radar"]["values"].argmax(1)) > 2.5
    siren = np.abs(np.fft.rfft(row["microphone"][0]))[870:1180].max() > 300
    east, crossing = row["gps"]["values"][:, 0].mean() > 100, row["map"][:, 8].min() < 60
    facts = {"ahead": shown["front"], "left_taken": shown["left"], "right_taken": shown["right"], "closing": closing,
             "siren": siren, "east": east, "crossing_east": crossing, "truck": row["kind"] == "truck",
             "fast": row["bus"]["values"][:, 0].mean() > 75}  # fmt: skip
    facts = {name: bool(held) for name, held in facts.items()}
    orders = [row["instruction"]] if "instruction" in row else list(ORDERS)
    assert row["action"] in {action(facts, order) for order in orders}


def test_noise_does_not_reveal_the_facts():
    """No column is drawn by the generator that draws the facts, nor by that of another column."""
    rows, drawn = Vehicle().open("train"), []
    rows.random = lambda *keys: drawn.append(keys) or np.random.default_rng([0, *keys])
    rows[7]
    streams = [np.random.default_rng([0, *keys]).random(4).tobytes() for keys in set(drawn)]
    assert len(set(streams)) == len(streams) > 8


def test_columns_read_alone_equal_those_of_samples():
    rows = Vehicle(samples=12).open("train")
    for name in ("bus", "kind", "spoken", "action"):
        alone = dict(rows.numbered(name))
        assert {number for number in range(12) if name in rows[number]} == {*alone}
        for number, value in alone.items():
            assert repr(rows[number][name]) == repr(value)


def test_shares_over_some_orders_are_exact_for_additive_inputs_and_always_add_up_to_the_total():
    names = tuple("abcdefgh")
    orders = some_orders(names)
    assert all({*order} == {*names} for order in orders) and orders[1] == orders[0][::-1]
    subsets = subsets_of(names, orders)
    assert subsets[0] == () and subsets[-1] == names and len({*subsets}) == len(subsets) < 2 ** len(names)
    values = {name: 0.1 * number for number, name in enumerate(names)}
    added = Attribution(names, {}, {s: -sum(map(values.get, s)) * np.log(2) for s in subsets}, {}, orders=orders)
    assert all(added.share(name) == pytest.approx(values[name]) for name in names)
    torch.manual_seed(0)
    random = {subset: float(torch.rand(())) for subset in subsets}
    mixed = Attribution(names, {}, random, {}, orders=orders)
    assert sum(map(mixed.share, names)) == pytest.approx(mixed.value(names))
    assert subsets_of(names[:3], ()) == [
        (),
        ("a",),
        ("b",),
        ("c",),
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ("a", "b", "c"),
    ]


@pytest.mark.system
def test_an_input_is_added_and_shares_of_inputs_are_shown_beside_those_of_the_rule(tmp_path, monkeypatch):
    """A small version of the configuration is trained without a radar, then with it; then its inputs are compared."""
    monkeypatch.setattr(Vehicle, "held_back", 6)
    config, small = CONFIGS / "mix" / "vehicle.yaml", ["model.width=16", "model.depth=1", "data.dataset.samples=24"]
    small += ["model.heads=2", "training.steps=2", "training.samples_per_step=4", "evaluation.every=2"]
    train(load_config(config, [*small, "inputs.radar=null", f"out={tmp_path / 'without'}"]))
    train(load_config(config, [*small, f"from={tmp_path / 'without'}", f"out={tmp_path / 'with'}"]))
    run = load_run(tmp_path / "with")
    attribution = run.attribution("val")["drive"]
    assert attribution.inputs == tuple(run.config.inputs) and len(attribution.orders) == 12
    assert sum(map(attribution.share, attribution.inputs)) == pytest.approx(attribution.value(attribution.inputs))
    shown_tables = tables("drive", attribution, run.dataset().truth("val"))
    truth = run.dataset().truth("val")
    rule = {each: entropy(truth, each) * np.log(2) for each in subsets_of(attribution.inputs, attribution.orders)}
    ideal = Attribution(attribution.inputs, {}, rule, {}, orders=attribution.orders)
    assert len(shown_tables[1].rows) == 11
    for column, of in zip(shown_tables[1].columns[1:4], (ideal.share, ideal.alone, ideal.added)):
        beside = [float(cell.split(" of ")[1]) for cell in column.cells]
        assert beside == pytest.approx([of(name) for name in attribution.inputs], abs=0.0051)
    shown = list(shown_tables[0].columns[0].cells)
    assert shown[0] == "none" and shown[-1] == "all" and "all but radar" in shown and len(shown) == 24


def test_situations_contain_every_combination_of_facts_and_orders():
    every, sums = situations()
    assert len(every) == 2 ** len(LIKELY) * len(ORDERS) * 2 and sums[-1] == pytest.approx(1)
