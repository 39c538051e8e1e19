"""Streams relative to their level and scale: differences equal those of loops, and invalid settings are refused."""

import math

import numpy as np
import pytest
import torch
from chopmix.experiment.settings.config import config_from_tree
from chopmix.experiment.settings.document import ConfigError
from chopmix.models.batch import Chunks
from chopmix.tokenizers.media.relative import SMALLEST, differences, relative
from chopmix.tokenizers.sensor import SensorChopper, SensorTokenizer
from hypothesis import given
from hypothesis import strategies as st

NUMBER = st.one_of(st.just(math.nan), st.floats(-100, 100, width=32))


def mean_square(values: list[float]) -> float:
    known = [value**2 for value in values if not math.isnan(value)]
    return max(math.sqrt(sum(known) / len(known)), SMALLEST) if known else math.nan


@given(st.lists(st.lists(NUMBER, min_size=1, max_size=9), min_size=1, max_size=4), st.integers(1, 5) | st.none())
def test_differences_equal_those_of_a_loop(items, period):
    values = torch.tensor([[value] for item in items for value in item], dtype=torch.float64)
    item = torch.tensor([number for number, each in enumerate(items) for _ in each])
    index = torch.tensor([number for each in items for number in range(len(each))])
    changes = differences(values, item, index, len(items), period)
    changed = relative(values, item, index, len(items), period)[:, 0].tolist()
    for number, each in enumerate(items):
        last = next((value for value in reversed(each) if not math.isnan(value)), math.nan)
        change = [value - last for value in each]
        season = [value - each[n - period] if period and n >= period else math.nan for n, value in enumerate(each)]
        expected = [
            s / mean_square(season) if period and n >= period else c / mean_square(change)
            for n, (c, s) in enumerate(zip(change, season))
        ]
        rows = [n for n, of in enumerate(item.tolist()) if of == number]
        assert changes.change[rows, 0].tolist() == pytest.approx(change, nan_ok=True)
        assert changes.season[rows, 0].tolist() == pytest.approx(season, nan_ok=True)
        assert [changed[row] for row in rows] == pytest.approx(expected, nan_ok=True, rel=1e-9)


@pytest.mark.parametrize("period", [None, 4])
def test_vectors_of_a_relative_stream_do_not_depend_on_level_and_scale(period):
    """The vectors of a stream and of 3 times the stream plus 100 are equal. The vectors of another stream differ."""
    chopper = SensorChopper(channels=2, window=2, period=period, relative=True, mean=0, scale=1, categories={"1": 3})
    torch.manual_seed(0)
    tokenizer = SensorTokenizer(chopper, 16, 8)
    random = np.random.default_rng(0)
    stream = np.stack([random.normal(size=12), random.integers(3, size=12)], axis=1)
    stream[5, 0] = math.nan

    def vectors(*streams):
        chunks = [chopper.chop(chopper.decode(each)) for each in streams]
        index = torch.cat([torch.arange(chunk.count) for chunk in chunks])
        counts = torch.tensor([chunk.count for chunk in chunks])
        return tokenizer(Chunks(values=chopper.collate(chunks), index=index, counts=counts)).detach()

    moved = stream * [3, 1] + [100, 0]
    other = np.where(np.arange(12)[:, None] == 7, [5.0, 1.0], stream)
    first, second, third = vectors(stream, moved, other).split(6)
    torch.testing.assert_close(first, second, atol=2e-4, rtol=0)
    assert (first - third).abs().max() > 0.1
    assert torch.equal(vectors(moved), second), "the items of a batch are independent"


@pytest.mark.parametrize(
    "tasks, attention, message",
    [({"next": {"use": "next_item", "target": "a", "at": "a"}}, "causal & same_sample",
      "inputs.a: the task 'next' predicts it, so its tokens must not depend on each other: relative: false"),
     ({"label": {"use": "classification", "target": "label"}}, "causal(seconds) & same_sample",
      "inputs.a: each token depends on the complete item, but")],
)  # fmt: skip
def test_a_relative_stream_is_refused_if_the_future_must_be_hidden(tasks, attention, message):
    tree = {
        "inputs": {"a": {"use": "sensor", "channels": 1, "relative": True}}, "tasks": tasks,
        "data": {"dataset": "motions"}, "training": {"steps": 1, "samples_per_step": 1},
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 8, "attention": attention},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        config_from_tree(tree)


def test_a_period_below_one_is_refused():
    with pytest.raises(ValueError, match="period must be at least 1 measurement, not 0"):
        SensorChopper(channels=1, period=0)
