"""Rules of forecasts: examples, how forecasts move with their windows, and ridge regression by its normal equations."""

from functools import partial

import numpy as np
import pytest
from chopmix.tasks.baselines.forecast_rules import (
    completed,
    differences,
    fit_ridge,
    forecast_baselines,
    last_error,
    last_period,
    last_value,
    mean_change,
    ridge_forecast,
    ridge_rule,
    same,
    smoothing,
)
from chopmix.tasks.baselines.simple_models import Examples
from hypothesis import given
from hypothesis import strategies as st

FITS = {
    "last_value": partial(same, last_value), "last_period": partial(same, last_period),
    "last_error": partial(same, last_error), "mean_change": partial(same, mean_change), "smoothing": smoothing,
    "ridge": partial(ridge_rule, False),
}  # fmt: skip


def data(seed, windows=12, length=6, horizon=4, channels=2):
    random = np.random.default_rng(seed)
    return random.normal(size=(windows, length, channels)), random.normal(size=(windows, horizon, channels))


def test_rules_of_a_small_window():
    window = np.array([1.0, 2, 3, 5, 6, 9])[None, :, None]
    assert last_value(window, 2, None)[0, :, 0].tolist() == [9, 9]
    assert last_period(window, 4, 3)[0, :, 0].tolist() == [5, 6, 9, 5]
    assert last_error(window, 2, 3)[0, :, 0].tolist() == [5 + 6, 6 + 6]
    assert mean_change(window, 2, 3)[0, :, 0].tolist() == pytest.approx([5 + 14 / 3, 6 + 14 / 3])


@pytest.mark.parametrize("name", FITS)
@given(seed=st.integers(0, 99), shift=st.floats(-50, 50), scale=st.floats(0.5, 2), period=st.sampled_from([None, 2, 3]))
def test_forecasts_move_and_scale_with_their_window(name, seed, shift, scale, period):
    if period is None and name in ("last_period", "last_error", "mean_change"):
        return
    windows, futures = data(seed)
    rule = FITS[name](windows, futures, period)
    moved = rule(windows * scale + shift, 4, period)
    np.testing.assert_allclose(moved, rule(windows, 4, period) * scale + shift, atol=1e-6)


@given(seed=st.integers(0, 99), period=st.sampled_from([None, 2, 3]), has_constant=st.booleans())
def test_ridge_solves_its_normal_equations(seed, period, has_constant):
    windows, futures = data(seed, windows=20)
    coefficients, constants, _ = fit_ridge(windows, futures, period, has_constant)
    relative, base = differences(windows, 4, period)
    for channel in range(2):
        x, y = relative[:, :, channel], (futures - base)[:, :, channel]
        left = y - x @ coefficients[channel] - constants[:, channel]
        assert has_constant or not constants.any()
        penalties = (x.T @ left) / coefficients[channel]  # X'(y - Xw) = penalty * w
        np.testing.assert_allclose(penalties, penalties.flat[0], rtol=1e-5)
        assert penalties.flat[0] > 0 and (not has_constant or np.abs(left.mean(0)).max() < 1e-9)
    np.testing.assert_allclose(ridge_forecast(coefficients, constants, windows, 4, period)[..., 1],
                               base[..., 1] + relative[..., 1] @ coefficients[1] + constants[:, 1])  # fmt: skip


@given(seed=st.integers(0, 99), share=st.floats(0, 1), period=st.sampled_from([None, 2, 4]))
def test_missing_values_are_replaced_and_known_ones_kept(seed, share, period):
    windows, _ = data(seed)
    missing = np.random.default_rng(seed).random(windows.shape) < share
    result = completed(np.where(missing, np.nan, windows), period)
    assert np.isfinite(result).all() and (result == windows)[~missing].all()


def test_a_missing_value_is_that_of_a_period_before_else_the_one_before():
    window = np.array([1.0, 2, 3, np.nan, 5, np.nan])[None, :, None]
    assert completed(window, 2)[0, :, 0].tolist() == [1, 2, 3, 2, 5, 2]
    assert completed(window, None)[0, :, 0].tolist() == [1, 2, 3, 3, 5, 5]
    assert completed(np.array([np.nan, 4.0])[None, :, None], None)[0, :, 0].tolist() == [4, 4]


def test_the_baselines_that_a_window_allows():
    def titles(*arguments):
        return [baseline.title for baseline in forecast_baselines(*arguments, quantiles=(0.1, 0.5, 0.9))]

    assert len(titles(1, 24, 72)) == 7 and len(titles(1, 24, 24)) == 3 and len(titles(1, None, 5)) == 4
    assert titles(1, None, 1) == ["last value", "exponential smoothing"] == titles(1, 9, 1)


def test_quantiles_are_those_of_the_errors_in_the_training_data():
    windows, futures = data(0, windows=200, channels=1)
    train, one = (Examples(windows.reshape(200, -1)[:n], ((6, 1),), (), futures[:n]) for n in (200, 1))
    predict = next(b.predict for b in forecast_baselines(1, None, 6, (0.1, 0.5, 0.9)) if b.title == "last value")
    everything, first = predict(train, [train, one])
    np.testing.assert_array_equal(everything[:1], first)
    np.testing.assert_array_equal(everything[..., 1], last_value(windows, 4, None))
    inside = (everything[..., 0] <= futures) & (futures <= everything[..., 2])
    assert inside.mean() == pytest.approx(0.8, abs=0.02)
