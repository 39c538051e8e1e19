"""Simple forecasts of a stream, with which a run is compared (`chopmix baselines`): the last value or period, drifts,
exponential smoothing, and ridge regression. `forecast` uses the ridge regression, too.

A window (t, c) are the last measurements of a stream, of which the last `period` ones are its last period.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from .simple_models import Baseline, Examples

Windows = Float[np.ndarray, "n t c"]
Futures = Float[np.ndarray, "n h c"]
Rule = Callable[[Windows, int, int | None], Futures]
"""Maps (windows without missing values, the number of steps, the period) to the values of the next steps."""

PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""The penalties of the ridge regression that cross-validation compares, for differences with std 1."""
FOLDS = 5
WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""The weights of the latest value in exponential smoothing that are compared on the training data."""
SCORED = 2000
"""The largest number of training samples on which the weights of exponential smoothing are compared."""


def forecast_baselines(
    channels: int, period: int | None, length: int, quantiles: Sequence[float]
) -> list[Baseline]:  # fmt: skip
    """Returns the baselines of a forecast from windows of `length` measurements. Targets are futures (n, h, c) in the
    unit of the data; predictions (n, h, c, q) are their quantiles."""
    has_period = period is not None and period <= length
    fits: dict[str, Callable[..., Rule]] = {"last value": partial(same, last_value)}
    if has_period:
        fits |= {"last period": partial(same, last_period)}
    if has_period and period < length:
        fits |= {"last period plus the last error": partial(same, last_error)}
    if has_period and 2 * period <= length:
        fits |= {"last period plus the mean change": partial(same, mean_change)}
    fits |= {"exponential smoothing": smoothing}
    if length > (period if has_period else 1):
        fits |= {
            "ridge regression": partial(ridge_rule, False),
            "ridge regression with a constant": partial(ridge_rule, True),
        }
    how = {"channels": channels, "period": period if has_period else None, "quantiles": tuple(quantiles)}
    return [Baseline(title, partial(predict_futures, fit, **how)) for title, fit in fits.items()]


def predict_futures(
    fit: Callable[[Windows, Futures, int | None], Rule], train: Examples, others: Sequence[Examples], *, channels: int,
    period: int | None, quantiles: Sequence[float],
) -> list[Float[np.ndarray, "n h c q"]]:  # fmt: skip
    """Fits a rule and predicts by it. The distances of the quantiles from the rule are those of its errors in the
    training data; the median is the rule itself."""
    windows, *parts = (completed(windows_of(each, channels), period) for each in (train, *others))
    futures = train.targets
    rule, steps = fit(windows, futures, period), futures.shape[1]
    errors = futures - rule(windows, steps, period)
    offsets = np.nan_to_num(np.moveaxis(np.nanquantile(errors, quantiles, axis=0), 0, -1))
    offsets = offsets - offsets[..., [list(quantiles).index(0.5)]]
    return [rule(part, steps, period)[..., None] + offsets for part in parts]


def windows_of(examples: Examples, channels: int) -> Windows:
    """Returns the windows of examples whose numbers are the flattened windows."""
    return examples.numbers.reshape(len(examples.numbers), -1, channels).astype(np.float64)


def completed(windows: Windows, period: int | None) -> Windows:
    """Returns windows without missing values: a missing value is replaced by that of a period before it, else by the
    value before it, else by the next known value, and by 0 in a channel without any value."""
    windows = windows.copy()
    count = windows.shape[1]
    for step in range(1, count):
        missing = np.isnan(windows[:, step])
        if missing.any():
            before = windows[:, step - 1]
            season = windows[:, step - period] if period and step >= period else np.full_like(before, np.nan)
            windows[:, step] = np.where(missing, np.where(np.isnan(season), before, season), windows[:, step])
    for step in range(count - 2, -1, -1):
        windows[:, step] = np.where(np.isnan(windows[:, step]), windows[:, step + 1], windows[:, step])
    return np.nan_to_num(windows)


def same(rule: Rule, windows: Windows, futures: Futures, period: int | None) -> Rule:
    """Returns a rule that learns nothing."""
    return rule


def last_value(windows: Windows, steps: int, period: int | None) -> Futures:
    return np.repeat(windows[:, -1:], steps, 1)


def last_period(windows: Windows, steps: int, period: int) -> Futures:
    return windows[:, windows.shape[1] - period + np.arange(steps) % period]


def last_error(windows: Windows, steps: int, period: int) -> Futures:
    """Returns the last period plus the last difference of two periods."""
    return last_period(windows, steps, period) + (windows[:, -1:] - windows[:, [-1 - period]])


def mean_change(windows: Windows, steps: int, period: int) -> Futures:
    """Returns the last period plus the difference of the means of the last two periods."""
    last, previous = windows[:, -period:], windows[:, -2 * period : -period]
    return last_period(windows, steps, period) + (last.mean(1, keepdims=True) - previous.mean(1, keepdims=True))


def smoothing(windows: Windows, futures: Futures, period: int | None) -> Rule:
    """Returns exponential smoothing of the values, or with a period of their differences from the period before. The
    weight of the latest one has the smallest mean absolute error in the training data."""
    chosen = np.linspace(0, len(windows) - 1, min(SCORED, len(windows))).astype(int)
    errors = [
        np.nanmean(np.abs(futures[chosen] - smoothed(weight, windows[chosen], futures.shape[1], period)))
        for weight in WEIGHTS
    ]
    return partial(smoothed, WEIGHTS[int(np.argmin(errors))])


def smoothed(weight: float, windows: Windows, steps: int, period: int | None) -> Futures:
    """Returns exponential smoothing with this weight of the latest value."""
    values = windows[:, period:] - windows[:, :-period] if period and period < windows.shape[1] else windows
    weights = (1 - weight) ** np.arange(values.shape[1])[::-1]
    level = np.einsum("t,ntc->nc", weights / weights.sum(), values)[:, None]
    has_period = period and period < windows.shape[1]
    return last_period(windows, steps, period) + level if has_period else np.repeat(level, steps, 1)


def ridge_rule(has_constant: bool, windows: Windows, futures: Futures, period: int | None) -> Rule:
    """Returns a ridge regression on the differences in a window (see `fit_ridge`)."""
    coefficients, constants, _ = fit_ridge(windows, futures, period, has_constant)
    return partial(ridge_forecast, coefficients, constants)


Coefficients = Float[np.ndarray, "c k h"]
"""For each channel, the factors of the differences in a window, for each step."""


def fit_ridge(
    windows: Windows, futures: Futures, period: int | None, has_constant: bool = False
) -> tuple[Coefficients, Float[np.ndarray, "h c"], Float[np.ndarray, "c"]]:
    """Returns (coefficients, constants, errors) of a ridge regression for each channel, from its differences in the
    window (`differences`) to the difference of the future from the last period or value. The errors are the mean
    absolute errors of a cross-validation on consecutive parts of the training data, by which the penalty is chosen; NaN
    for a channel with too few windows. Windows with a missing future are excluded. Without `has_constant` the constants
    are 0: a constant would learn the trend of the season in which the data were measured."""
    relative, base = differences(windows, futures.shape[1], period)
    coefficients = np.zeros((windows.shape[2], relative.shape[1], futures.shape[1]))
    constants, errors = np.zeros(futures.shape[1:]), np.full(windows.shape[2], np.nan)
    for channel in range(windows.shape[2]):
        changes = futures[..., channel] - base[..., channel]
        known = ~np.isnan(changes).any(1)
        x, y = relative[known, :, channel], changes[known]
        if len(x) >= 2 * FOLDS and (scale := x.std()) > 0:
            penalty, errors[channel] = best_penalty(x / scale, y, has_constant)
            ((weights, constants[:, channel]),) = solutions(x / scale, y, [penalty], has_constant)
            coefficients[channel] = weights / scale
    return coefficients, constants, errors


def differences(
    windows: Windows, steps: int, period: int | None
) -> tuple[Float[np.ndarray, "n k c"], Futures]:  # fmt: skip
    """Returns (the differences of values from those one period before, without a period from the last value; the last
    period or value as the forecast from which they differ)."""
    if period and period < windows.shape[1]:
        return windows[:, period:] - windows[:, :-period], last_period(windows, steps, period)
    return windows[:, :-1] - windows[:, -1:], last_value(windows, steps, period)


def best_penalty(
    x: Float[np.ndarray, "n k"], y: Float[np.ndarray, "n h"], has_constant: bool
) -> tuple[float, float]:  # fmt: skip
    """Returns (the penalty with the smallest mean absolute error in a cross-validation on consecutive parts, this
    error)."""
    errors = np.zeros(len(PENALTIES))
    for part in np.array_split(np.arange(len(x)), FOLDS):
        rest = np.ones(len(x), dtype=bool)
        rest[part] = False
        for number, (weights, constant) in enumerate(solutions(x[rest], y[rest], PENALTIES, has_constant)):
            errors[number] += np.abs(y[part] - x[part] @ weights - constant).sum()
    best = int(errors.argmin())
    return PENALTIES[best], float(errors[best] / y.size)


def solutions(
    x: Float[np.ndarray, "n k"], y: Float[np.ndarray, "n h"], penalties: Sequence[float], has_constant: bool
) -> list[tuple[Float[np.ndarray, "k h"], Float[np.ndarray, "h"]]]:
    """Returns the weights and constants of ridge regressions with several penalties, from one decomposition."""
    means = (x.mean(0), y.mean(0)) if has_constant else (np.zeros(x.shape[1]), np.zeros(y.shape[1]))
    centred = x - means[0]
    values, vectors = np.linalg.eigh(centred.T @ centred)
    target = vectors.T @ (centred.T @ (y - means[1]))
    weights = [vectors @ (target / (values.clip(min=0) + penalty)[:, None]) for penalty in penalties]
    return [(each, means[1] - means[0] @ each) for each in weights]


def ridge_forecast(
    coefficients: Coefficients, constants: Any, windows: Windows, steps: int, period: int | None
) -> Futures:  # fmt: skip
    """Returns the forecast of a fitted ridge regression."""
    relative, base = differences(windows, steps, period)
    return base + np.einsum("nkc,ckh->nhc", relative, coefficients) + constants
