"""Answers on pages are numbers with four digits, curves of forecasts and regressions, and panels of channels."""

import math
import warnings

import numpy as np
import pytest
from chopmix.files.pictures import picture
from chopmix.inference.shown_answers import LONGEST, answer_cell, short_text, value_text
from chopmix.tokenizers.media.stream_picture import PANELS, SIMILAR, draw_channels, draw_measurement, magnitudes
from hypothesis import given, settings
from hypothesis import strategies as st

FORECAST = {
    "values": {"air": [12.512345, 12.4], "sea": [7.0, None]},
    "quantiles": {"air": {"0.1": [12.0, 11.0], "0.9": [13.0, 14.0]}, "sea": {"0.1": [6.0, None], "0.9": [8.0, None]}},
    "last_value": {"air": [12.0, 12.0], "sea": [6.9, 6.9]},
}


@pytest.mark.parametrize("answer, text", [
    (FORECAST, "air: 12.51, 12.4; sea: 7, null"),
    ({"values": [7.575249195098877]}, "7.575"), ({"values": {"x": 1.5, "y": 2e-9}}, "x 1.5, y 2e-09"),
    ({"values": [1.0] * 9}, "1, 1, 1, 1, 1, 1, ... (9 numbers)"), ({"values": [math.nan, 1e20]}, "nan, 1e+20"),
    ({"value": 3.5}, "value 3.5"), ({"values": ["a", True, 3]}, "a, true, 3"),
    ({"other": {"a": [1.25]}}, "other: a: 1.25"),
    ({"values": "x\x1b[2J"}, "x\\x1b[2J"),
])  # fmt: skip
def test_numbers_of_answers_have_four_digits(answer, text):
    """An earlier page had `{"values": {"current": [7.575249195098877, ...` and `{'current': [7.860000133514404`."""
    assert short_text(answer) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=30,
)  # fmt: skip


@given(JSON)
def test_every_value_has_a_short_text(value):
    text = value_text(value)
    assert len(text) <= LONGEST and text.isprintable()


def drawn(answer, true):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return answer_cell("next", answer, true)


@pytest.mark.parametrize("answer, true", [
    (FORECAST, {"air": [12.0, 12.1], "sea": [None, 1.0]}), (FORECAST, None), (FORECAST, {"air": [1.0]}),
    ({"values": [1.0, 2.0, math.nan]}, [1.0, None, 3.0]), ({"values": {"a": 1.0, "b": 2.0, "c": 3.0}}, (1, 2, 3)),
    ({"values": [0.5] * 100}, None), ({"values": {f"channel {n}": [1e30 * n] * 40 for n in range(9)}}, None),
    ({"values": {"$a_b$ 日本\x1b": [1.0, 2.0]}}, None),
])  # fmt: skip
def test_numbers_are_drawn_as_curves(answer, true):
    cell = drawn(answer, true)
    assert cell.is_plot and cell.drawing.startswith("data:image/png;base64,")


def test_the_true_values_are_in_the_picture():
    assert drawn(FORECAST, None) != drawn(FORECAST, {"air": [12.0, 12.1], "sea": [7.0, 1.0]})


@pytest.mark.parametrize("answer", [
    {"class": "cat"}, {"text": "a"}, {"values": [1.0, 2.0]}, {"values": "abc"}, {"values": {"x": 1.0}},
    {"error": "none"},
])  # fmt: skip
def test_other_answers_have_no_curves(answer):
    assert drawn(answer, None) is None


def channel(low, high):
    return st.lists(st.floats(low, high) | st.just(math.nan), min_size=5, max_size=5)


@given(st.lists(st.one_of(channel(0, 1), channel(95, 100), channel(-1e6, 1e6), channel(3, 3)), min_size=1, max_size=12),
       st.data())  # fmt: skip
def test_no_channel_of_a_panel_looks_like_a_constant(columns, data):
    values = np.array(columns).T
    units = [data.draw(st.sampled_from([None, "K", "m"])) for _ in columns]
    groups = magnitudes(values, units)
    assert (
        sorted(channel for group in groups for channel in group) == list(range(len(columns))) and len(groups) <= PANELS
    )
    for group in groups[: PANELS - 1] if len(groups) == PANELS else groups:
        assert len({units[number] for number in group}) == 1
        known = [column[~np.isnan(column)] for column in values[:, group].T if not np.isnan(column).all()]
        ranges = [np.ptp(column) for column in known if np.ptp(column) > 0]
        common = np.ptp(np.concatenate(known)) if known else 0
        assert common == 0 or common <= SIMILAR * min(ranges, default=0)


@pytest.mark.system
@settings(max_examples=12, deadline=None)
@given(st.integers(1, 30), st.integers(2, 12), st.sampled_from([1.0, 1e-9, 1e12]), st.booleans())
def test_every_sensor_is_drawn_without_a_warning(rows, channels, scale, bare):
    """An earlier version printed "constrained_layout not applied" for 12 channels and 7 to 29 measurements."""
    values = np.random.default_rng(rows).normal(size=(rows, channels)) * scale * 10.0 ** np.arange(channels)
    names = [f"a long name of a channel {number} (µmol/l) 日本" for number in range(channels)]

    def draw(figure):
        canvas = figure.add_axes((0, 0, 1, 1)) if bare else figure.subplots()
        if rows == 1:
            draw_measurement(canvas, values[0], values[0] / scale, names)
        else:
            draw_channels(canvas, values, np.arange(rows) * 10.0 ** (rows % 9 - 3), names, [None] * channels, 3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture(draw, (3.6, 1.7), bare=bare).startswith(b"\x89PNG")
