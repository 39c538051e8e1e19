"""Functions in context: every sample has a different function of the requested kind, and samples are reproducible."""

import time

import numpy as np
import pytest
import torch
from chopmix.data.collate import Inputs
from chopmix.data.datasets.arithmetic import Arithmetic
from chopmix.data.mixture import MixedSamples, Source
from chopmix.data.reader import Reader
from chopmix.data.samples import Chosen, Hidden, Listed, Renamed
from chopmix.data.skipped import Skipped
from chopmix.projects.in_context.datasets.in_context import InContext
from chopmix.projects.in_context.datasets.rules import Rules
from chopmix.projects.in_context.functions import Linear, Network, Sparse, Tree
from chopmix.tokenizers.sensor import SensorChopper
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.sampled_from([Linear, Sparse, Network, Tree]), st.integers(3, 8), st.integers(0, 10**6 - 1))
@settings(max_examples=60, deadline=None)
def test_a_sample_depends_only_on_its_number(kind, dimension, number):
    samples = InContext(function=kind, dimension=dimension, examples=9, noise=0.1).open("train")
    row, again, other = samples[number], samples[number], samples[(number + 1) % 10**6]
    assert row["x"].shape == (9, dimension) and row["y"].shape == (9, 1) and len(samples) == 10**6
    assert np.array_equal(row["x"], again["x"]) and np.array_equal(row["y"], again["y"])
    assert not np.array_equal(row["y"], other["y"]) and samples.keys[number] == f"train function {number}"


def test_weights_of_linear_functions_follow_from_points_without_noise():
    row = InContext(examples=40).open("val")[0]
    weights, _error, *_ = np.linalg.lstsq(row["x"], row["y"][:, 0], rcond=None)
    assert np.abs(row["x"] @ weights - row["y"][:, 0]).max() < 1e-5
    noisy = InContext(examples=400, noise=0.5).open("val")[0]
    residual = noisy["y"][:, 0] - noisy["x"] @ np.linalg.lstsq(noisy["x"], noisy["y"][:, 0], rcond=None)[0]
    assert residual.std() == pytest.approx(0.5, rel=0.1)


def test_other_kinds_have_their_properties():
    random, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=(500, 6))
    f = Sparse(nonzero=2).drawn(6, random)
    assert sum(abs(f(row[None])[0]) > 0 for row in np.eye(6)) == 2
    assert len(set(Tree(depth=2).drawn(6, random)(x).tolist())) <= 4
    f = Network(hidden=5).drawn(6, random)
    assert f(2 * x) == pytest.approx(2 * f(x)) and not np.allclose(f(-x), -f(x))
    sizes = [Network(hidden=50).drawn(6, random)(x).std() for _ in range(50)]
    assert np.mean(np.square(sizes)) == pytest.approx(6, rel=0.5)


def test_scale_and_weights_multiply_points_and_values():
    one, two, three = (InContext(**o).open("val")[3] for o in ({}, {"scale": 2.0}, {"weights": 3.0}))
    assert np.allclose(two["x"], 2 * one["x"]) and np.allclose(two["y"], 2 * one["y"], atol=1e-5)
    assert np.array_equal(three["x"], one["x"]) and np.allclose(three["y"], 3 * one["y"], atol=1e-5)


def read(samples, numbers) -> Reader:
    """Returns a reader that has read these samples twice."""
    inputs = Inputs(columns={"y": "y"}, labels=())
    reader = Reader(
        samples, {"y": SensorChopper(channels=1, mean=0, scale=1)}, inputs, Skipped.of("train", [], 0, print).bad
    )
    for number in numbers:
        assert torch.equal(reader.item(number)[0]["y"], reader.item(number)[0]["y"])
    return reader


def test_generated_samples_are_not_cached():
    """Also not inside other samples; samples from files are cached."""
    functions, stored = InContext().open("train"), Listed(["a", "b"], [{"y": np.zeros((3, 1))}] * 2)
    others = [
        Chosen(functions, range(5)),
        Hidden(functions, "x", {1}),
        Renamed(functions, {"y": lambda row: row["y"]}, {"y": "y"}),
    ]
    for samples in (functions, *others):
        assert not read(samples, range(5)).cache.items
    assert list(read(stored, range(2)).cache.items) == [0, 1]
    mixed = MixedSamples([Source("files", stored, 1.0), Source("made", functions, 1.0)])
    assert list(read(mixed, range(7)).cache.items) == [0, 1]
    assert not Rules().open("train").caches(0) and Arithmetic().open("train").caches(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 0}, "dimension and examples must be at least 1, not 0 and 16"),
        (
            {"dimension": 10**30},
            "dimension . examples must be at most 16,777,216, not 1,000",
        ),
        ({"function": lambda: Network(hidden=2**40)}, "hidden must be at most 16,777,216, not 5 "),
        ({"noise": float("nan")}, "noise must be at least 0, not nan"),
        ({"scale": 0.0}, "scale and weights must be positive and samples at least 1; they are 0, 1 and 1000000"),
        ({"samples": 0}, "samples at least 1; they are 1, 1 and 0"),
        ({"function": lambda: Sparse(nonzero=9)}, "nonzero must be at most the dimension, 5, not 9"),
        ({"function": lambda: Sparse(nonzero=0)}, "nonzero must be at least 1, not 0"),
        ({"function": lambda: Network(hidden=0)}, "hidden must be at least 1, not 0"),
        ({"function": lambda: Tree(depth=17)}, "depth must be from 1 to 16, not 17"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        InContext(**options)


def test_many_functions_are_fingerprinted_quickly():
    started = time.process_time()
    fingerprints = [InContext(samples=count).open("train").fingerprint() for count in (10**9, 10**9, 10**9 + 1)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2] and time.process_time() - started < 5
