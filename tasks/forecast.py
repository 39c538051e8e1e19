"""Forecasting: predicts the next measurements of a stream directly, all steps at once, with quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor, nn

from ..files.reading import DataError
from ..files.records import Record, as_numbers
from ..models.batch import Batch, Targets
from ..models.heads import MeanPooling, PooledLinear, Pooling, slots_read
from ..tokenizers.base import Example
from ..tokenizers.media.relative import differences
from ..tokenizers.sensor import SensorChopper
from .base import Metric, Needs, Task, TrainingColumns, known_values, per_target
from .baselines.forecast_rules import fit_ridge, forecast_baselines, ridge_forecast
from .baselines.simple_models import Baseline
from .measuring.forecast_report import ForecastReporter
from .measuring.report import Reporter

BASELINES = ("last_value", "last_period", "ridge")
"""The baselines: the last value, the value at the same time in the last period, and a ridge regression."""

FITTED = 256
"""The number of items from which `fit` computes at a time."""
MOST_NUMBERS = 2**24
"""The largest number of measurements from which the ridge regression is fitted; they are spread evenly."""
MOST_DIFFERENCES, MOST_COEFFICIENTS = 1024, 2**20
"""The largest number of differences in a window from which a ridge regression forecasts, and of all its coefficients.
Longer windows and more channels have no ridge regression."""


class Spread(Record):
    """The content of the assets file `spread.json`: for each channel, the baseline with the smallest mean absolute
    error in the training data (of the ridge regression: in a cross-validation), and for each step ahead the root mean
    square error of this baseline."""

    baseline: Annotated[list[Literal["last_value", "last_period", "ridge"]], Field(min_length=1)]
    error: Annotated[
        list[Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=1)]], Field(min_length=1)
    ]
    """One list per channel, with one number per step ahead."""
    tokens: tuple[int, int]
    """The smallest and the largest number of tokens of an item. Others have no forecast."""
    ridge: list[list[list[FiniteFloat]]] | None = None
    """The coefficients (c, k, h) of the ridge regression (`forecast_rules.fit_ridge`); None: it was not fitted."""
    typical: list[Annotated[FiniteFloat, Field(gt=0)]] | None = None
    """For each channel the root mean square error by which the scale of an item is divided: that of the last value if
    this is the baseline of the channel or if there is no period, else that of the last period. None: that of the chosen
    baseline."""

    @model_validator(mode="after")
    def shapes(self) -> Spread:
        """Checks the record. Raises ValueError if the ridge regression does not fit the channels and steps."""
        channels, steps = len(self.error), len(self.error[0])
        if self.typical is not None and len(self.typical) != channels:
            raise ValueError(f"typical has {len(self.typical)} numbers for {channels} channels")
        if self.ridge is None and "ridge" in self.baseline:
            raise ValueError("the ridge regression has no coefficients")
        if self.ridge is not None:
            inputs = {len(rows) for rows in self.ridge}
            if (
                len(self.ridge) != channels
                or len(inputs) != 1
                or {len(row) for rows in self.ridge for row in rows} != {steps}
            ):
                raise ValueError(f"the ridge regression is not for {channels} channels and {steps} steps")
        return self


class QuantileHead(PooledLinear):
    """Predicts increasing quantiles (s, h, c, q) for each step and channel from pooled vectors. The median is a linear
    function; the other quantiles are at a distance from it that is a sum of positive numbers (compare Park et al. 2022,
    arXiv:2111.06581). The median is multiplied by the scale of the item (`targets.values[:, 1]`), the distances by its
    square root, since errors grow more slowly than the scale. `median` is the index of the median. The weights are zero
    at the start, so that a training begins with the forecast of the baseline."""

    def __init__(self, pooling: Pooling, width: int, shape: tuple[int, int, int], median: int):
        super().__init__(pooling, width, math.prod(shape))
        self.shape, self.median = shape, median
        self.linear.weight.role = "zero"

    def forward(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s h c q"]:
        numbers = self.linear(self.pooled(x, targets)).float().unflatten(1, self.shape)
        gaps, scale = F.softplus(numbers), targets.values[:, 1, ..., None]
        below = -gaps[..., : self.median].flip(-1).cumsum(-1).flip(-1)
        above = gaps[..., self.median + 1 :].cumsum(-1)
        median = numbers[..., self.median : self.median + 1]
        return median * scale + torch.cat([below, torch.zeros_like(median), above], -1) * scale.sqrt()


class Forecast(Task):
    """Predicts the measurements of the input `input` (`use: sensor`) after its last one, which are in the data column
    `target`, with the shape (steps, channels). A stream of the data set `table` with a `horizon` has such a column.

        inputs: {air: {use: sensor, channels: {temp: °F}, window: 6, period: 24, relative: true}}
        tasks: {next: {use: forecast, target: air_future, input: air}}

    All steps are predicted at once: the first `horizon` (null: all in the column) of the named `channels` (null: all),
    each with the `quantiles`; the forecast itself is their median. The metrics compare it with baselines: the last
    value; if the input has a `period`, the value at the same time in the last period; and with `ridge`, if all training
    items have the same length, a ridge regression on the differences in the item, without a constant (if values are
    missing, the last period replaces it). For each channel, the model predicts the difference from the baseline that is
    best in the training data, in units of its error. If the input is `relative`, these units are multiplied by the
    scale of its differences.

    The loss is the mean over the quantiles q of twice the pinball loss max(q (y - p), (q - 1) (y - p)) of the
    prediction p for the true value y (Koenker & Bassett 1978); for the median it is the absolute error. Missing values
    (NaN) are excluded. `pooling`: see `classification`. Raises ValueError for options that contradict each other.
    """

    Learned = Spread

    def __init__(
        self, *, target: str, input: str, channels: list[str] | None = None, horizon: int | None = None,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9), ridge: bool = True,
        pooling: Callable[..., Pooling] = MeanPooling, weight: float = 1.0,
    ):  # fmt: skip
        if sorted(set(quantiles)) != list(quantiles) or not all(0 < q < 1 for q in quantiles) or 0.5 not in quantiles:
            raise ValueError(f"quantiles must increase from above 0 to below 1 and include 0.5, not {list(quantiles)}")
        if horizon is not None and horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, not {horizon}")
        if channels is not None and (not channels or len(set(channels)) < len(channels)):
            raise ValueError("channels must name at least one channel, each once")
        self.target, self.input, self.named, self.first = target, input, channels, horizon
        self.quantiles, self.ridge, self.pooling, self.weight = tuple(quantiles), ridge, pooling, weight

    @property
    def needs(self) -> Needs:
        return Needs(columns={self.target: self.check}, supervised_at=(self.input,), at_is_optional=True)

    def problems(self, name, wiring):
        if self.input not in wiring.inputs:
            yield ("tasks", name, "input"), f"no input is named {self.input!r}; possible: {', '.join(wiring.inputs)}"
        elif not issubclass(wiring.inputs[self.input].target.Chopper, SensorChopper):
            yield ("tasks", name, "input"), f"the input {self.input!r} must be a stream of numbers, `use: sensor`"
        elif wiring.inputs[self.input].options.get("augment_stream"):
            message = "changes the measurements, but not the future that the task {name!r} predicts; remove it"
            yield ("inputs", self.input, "augment_stream"), message.format(name=name)

    @property
    def chopper(self) -> SensorChopper:
        """The chopper of the input. Raises ValueError if some of its channels are categories."""
        chopper = self.choppers[self.input]
        if not chopper.numbers:
            raise ValueError(f"the input {self.input!r} has channels of categories; forecasts need numbers")
        return chopper

    @property
    def period(self) -> int | None:
        """The number of measurements in a period, the option of the input."""
        return self.chopper.period

    @cached_property
    def channels(self) -> list[str]:
        """The names of the predicted channels. Raises DataError if the input lacks one of them."""
        names = self.chopper.names
        if missing := [name for name in self.named or () if name not in names]:
            raise DataError(f"the input {self.input!r} has no channel {missing[0]!r}; possible: {', '.join(names)}")
        return self.named or names

    @cached_property
    def columns(self) -> list[int]:
        """The numbers of the predicted channels among those of the input."""
        return [self.chopper.names.index(name) for name in self.channels]

    @property
    def horizon(self) -> int:
        """The number of predicted steps."""
        return len(self.learned.error[0])

    @cached_property
    def learned_tensors(self) -> tuple[Int[Tensor, "c"], Float[Tensor, "h c"]]:
        """The number among BASELINES of that of each channel, and the errors of these baselines. Raises DataError if
        they belong to other channels."""
        learned = self.learned
        if len({len(row) for row in learned.error}) != 1 or not len(learned.error) == len(learned.baseline):
            raise DataError(
                "spread.json must have one baseline for each channel, and the same number of errors for all channels"
            )
        if len(learned.error) != len(self.channels):
            raise DataError(f"spread.json has {len(learned.error)} channels, but the task {len(self.channels)}")
        chosen = [BASELINES.index(name) for name in learned.baseline]
        return torch.tensor(chosen), torch.tensor(learned.error).T

    @cached_property
    def coefficients(self) -> Float[np.ndarray, "c k h"]:
        """The coefficients of the ridge regression. Raises DataError if they are for items of another length."""
        coefficients, (low, high) = np.array(self.learned.ridge, dtype=np.float64), self.learned.tokens
        measurements = low * self.chopper.window
        if low != high or coefficients.shape[1] != measurements - (self.period or 1):
            raise DataError(f"spread.json: its ridge regression is not for items of {measurements} measurements")
        return coefficients

    @property
    def names_of_baselines(self) -> list[str]:
        """The names of the baselines that answers and metrics contain."""
        has = {"last_value": True, "last_period": bool(self.period), "ridge": self.learned.ridge is not None}
        return [name for name in BASELINES if has[name]]

    def future(self, value: Any) -> Float[Tensor, "h c"]:
        """Returns the predicted steps and channels of a value of the target column. Raises DataError if it is no array
        of numbers (steps, channels), or has too few steps."""
        try:
            array = torch.as_tensor(np.asarray(as_numbers(value), dtype=np.float32))
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"column {self.target!r} must have arrays of numbers (steps, channels)") from None
        array = array[:, None] if array.dim() == 1 else array
        channels = self.chopper.names
        if array.dim() != 2 or array.shape[1] != len(channels) or not len(array):
            expected = f"(steps, {len(channels)}), with the channels {', '.join(channels)}"
            raise DataError(f"column {self.target!r} must have the shape {expected}, not {tuple(array.shape)}")
        steps = self.horizon if self.learned else self.first or len(array)
        if len(array) < steps:
            raise DataError(f"column {self.target!r} has {len(array)} steps, fewer than the horizon, {steps}")
        return array[:steps, self.columns].masked_fill(array[:steps, self.columns].isinf(), math.nan)

    def check(self, value: Any) -> None:
        """Raises DataError if a value of the target column is not valid (see `future`)."""
        self.future(value)

    def fit(self, data: TrainingColumns) -> Spread:
        """Returns the better baseline of each channel and its errors. Raises DataError if no sample has both the input
        and the target, if the input is shorter than a period, or if its last token would be padded."""
        sums = squares = count = torch.zeros((), dtype=torch.float64)
        lengths, kept, items = set(), [], 0
        for tokens, futures in self.stacked(data):
            lengths.add(tokens.shape[1])
            past = self.past(tokens)
            every = math.ceil(len(data) * past[0].numel() / MOST_NUMBERS)
            kept.append((past[-items % every :: every], futures[-items % every :: every]))
            items += len(past)
            difference = (futures[:, None] - self.naive(tokens, futures.shape[1])).double()
            sums = sums + difference.abs().nansum((0, 2))
            squares = squares + difference.square().nansum(0)
            count = count + (~futures.isnan()).sum(0)
        if not count.dim():
            raise DataError(f"no training sample has both the input {self.input!r} and the column {self.target!r}")
        if empty := [name for name, known in zip(self.channels, count.sum(0).tolist()) if not known]:
            raise DataError(f"column {self.target!r}: {empty[0]!r} has no value in the training data")
        known, steps = count.sum(0), count.clamp(min=1)
        absolute = sums / known
        squared, ridge = squares / steps, None
        if self.ridge and len(lengths) == 1 and (fitted := self.fit_ridge(kept)) is not None:
            ridge, cross_validated, of_ridge = fitted
            absolute = torch.cat([absolute, cross_validated[None]])
            squared = torch.cat([squared, of_ridge[None]])
        best = absolute.nan_to_num(torch.inf).argmin(0)  # a tie is that of the first one
        error = squared[best, :, torch.arange(len(best))].T.sqrt()  # (h, c)
        mean = error.square().mean(0).sqrt()
        differences = torch.where(best > 0, squares[int(bool(self.period))].sum(0), squares[0].sum(0))
        typical = (differences / known).sqrt()
        error = torch.where(error > 1e-6 * mean, error, torch.where(mean > 0, mean, torch.ones_like(mean)))
        return Spread(
            baseline=[BASELINES[number] for number in best.tolist()], error=error.T.tolist(), ridge=ridge,
            tokens=(min(lengths), max(lengths)), typical=torch.where(typical > 0, typical, 1.0).tolist(),
        )  # fmt: skip

    def fit_ridge(
        self, kept: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[list, Float[Tensor, "c"], Float[Tensor, "h c"]] | None:  # fmt: skip
        """Returns (coefficients, mean absolute errors in a cross-validation, mean squared errors) of the ridge
        regression, from windows without missing values; None if there are too few."""
        windows, futures = (torch.cat(column).double().numpy() for column in zip(*kept))
        complete = ~np.isnan(windows).any((1, 2))
        windows, futures = windows[complete], futures[complete]
        count, size = windows.shape[1] - (self.period or 1), windows.shape[2] * futures.shape[1]
        if len(windows) < 2 or not 1 <= count <= MOST_DIFFERENCES or count * size > MOST_COEFFICIENTS:
            return None
        coefficients, constants, errors = fit_ridge(windows, futures, self.period)
        if np.isnan(errors).all():
            return None
        errors_of_steps = futures - ridge_forecast(coefficients, constants, windows, futures.shape[1], self.period)
        known = (~np.isnan(errors_of_steps)).sum(0).clip(min=1)
        squares = np.nansum(errors_of_steps**2, axis=0) / known
        return coefficients.tolist(), torch.from_numpy(errors), torch.from_numpy(squares)

    def stacked(self, data: TrainingColumns) -> Iterator[tuple[Float[Tensor, "s t p"], Float[Tensor, "s h c"]]]:
        """Yields the values of the tokens of training items and their futures, of FITTED items of the same length
        together. Raises DataError like `fit`."""
        waiting: dict[int, list[tuple[Tensor, Tensor]]] = {}
        chopper, steps, _ = self.chopper, 0, self.columns
        for raw, value in data.pairs(self.input, self.target):
            try:
                item, future = chopper.decode(raw), self.future(value)
            except ValueError:  # reported as a bad sample when it is read
                continue
            if len(item) % chopper.window:
                raise DataError(
                    f"input {self.input!r}: its {len(item)} measurements are not a multiple of window "
                    f"({chopper.window}), so its last token would not end where the forecast begins"
                )
            if self.period and self.period > len(item):
                raise DataError(f"period {self.period} is longer than the {len(item)} measurements of {self.input!r}")
            if len(future) != (steps := steps or len(future)):
                raise DataError(f"column {self.target!r}: its values have {steps} and {len(future)} steps")
            group = waiting.setdefault(len(item), [])
            group.append((chopper.chop(item).values, future))
            if len(group) == FITTED:
                yield tuple(map(torch.stack, zip(*waiting.pop(len(item)))))
        for group in waiting.values():
            yield tuple(map(torch.stack, zip(*group)))

    def past(self, tokens: Float[Tensor, "s t p"]) -> Float[Tensor, "s m c"]:
        """Returns the values of the predicted channels in the unit of the data, one row per measurement."""
        values = self.chopper.measured(tokens.flatten(0, 1))
        return values.reshape(len(tokens), -1, len(self.chopper.names))[..., self.columns]

    def naive(self, tokens: Float[Tensor, "s t p"], steps: int) -> Float[Tensor, "s 2 h c"]:
        """Returns the first two BASELINES for the steps after items of the input, from the values of their tokens. A
        missing value of the last period is replaced by that of an earlier period, or if there is none by the last known
        value, and this one, if the item has none, by the channel's mean in the training data."""
        past = self.past(tokens)
        mean = self.past(torch.zeros_like(tokens[:1, :1]))[0, 0]
        known, count = ~past.isnan(), past.shape[1]
        latest = (known * torch.arange(1, count + 1)[:, None]).argmax(1, keepdim=True)
        last = torch.where(known.any(1, keepdim=True), past.gather(1, latest), mean).expand(-1, steps, -1)
        if not self.period or self.period > count:
            return torch.stack([last, last], 1)
        first, season = count - self.period + torch.arange(steps) % self.period, torch.full_like(last, math.nan)
        for start in range(0, count - self.period + 1, self.period):
            season = torch.where(season.isnan(), past[:, first - start], season)
        return torch.stack([last, torch.where(season.isnan(), last, season)], 1)

    def forecasts(self, tokens: Float[Tensor, "s t p"]) -> Float[Tensor, "s b h c"]:
        """Returns the forecasts of the baselines that this task has. The last period replaces a ridge regression if a
        value of the channel is missing."""
        naive = self.naive(tokens, self.horizon)
        if self.learned.ridge is None:
            return naive
        past = self.past(tokens)
        windows = past.double().numpy()
        ridge = ridge_forecast(self.coefficients, 0.0, windows, self.horizon, self.period)
        is_complete = ~past.isnan().any(1, keepdim=True)
        return torch.cat([naive, torch.where(is_complete, torch.from_numpy(ridge).float(), naive[:, 1])[:, None]], 1)

    def summary(self, values: Sequence[Any]) -> str:
        return f"{len(values):,} futures of {self.horizon} steps of {', '.join(self.channels)}" if self.learned else ""

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        shape = self.horizon, len(self.channels), len(self.quantiles)
        return QuantileHead(self.pooling(width), width, shape, self.quantiles.index(0.5))

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the unchanged batch and the targets. Their slots are those that the pooling reads. Their values have
        the shape (s, 2 + b, h, c). For each sample, step and channel, the numbers are: the difference of the future
        value from the chosen baseline, in units of the baseline's error (NaN if it is missing); the scale of the
        predicted differences; the b baselines (NaN without the input). The baselines are computed only from the tokens
        of the input, which the model reads. `count` is the number of known differences."""
        slots, groups = slots_read(self.pooling, batch.first)
        count = 2 + (self.learned.ridge is not None)
        values = torch.full((batch.first.samples, 2 + count, self.horizon, len(self.channels)), math.nan)
        values[:, 1] = 1.0
        for planned in batch.sets.values():
            if (chunk := planned.chunks.get(self.input)) is not None:
                items = planned.tokens.sample.flatten()[chunk.slots[chunk.counts.cumsum(0) - 1]] - 1
                low, high = self.learned.tokens
                for count in chunk.counts[(chunk.counts >= low) & (chunk.counts <= high)].unique().tolist():
                    of_items = chunk.counts == count
                    tokens = chunk.values[of_items.repeat_interleave(chunk.counts)].unflatten(0, (-1, count))
                    values[items[of_items], 2:] = self.forecasts(tokens)
                    values[items[of_items], 1] = self.scale(tokens)[:, None].expand(-1, self.horizon, -1)
        base, error = self.predicted_from(values)
        for sample, value in enumerate(batch.first.labels[self.target]):
            if value is not None:
                values[sample, 0] = (self.future(value) - base[sample]) / error
        count = int((~values[:, 0].isnan()).sum())
        return batch, Targets(
            values=values, slots=slots, groups=groups, count=count, of_encoder=batch.encoder is not None
        )

    def scale(self, tokens: Float[Tensor, "s t p"]) -> Float[Tensor, "s c"]:
        """Returns the factors by which the predicted differences of items are multiplied. If the input is `relative`, a
        factor is the root mean square of the differences in the item (see `media/relative.py`), divided by that of such
        differences in the training data (`Spread.typical`). Otherwise, and if no difference is known, it is 1."""
        chosen, error = self.learned_tensors
        if not self.chopper.relative:
            return torch.ones(len(tokens), len(chosen))
        past = tokens.reshape(len(tokens), -1, len(self.chopper.names))[..., self.columns]  # normalised
        items, count = past.shape[:2]
        item, index = torch.arange(items).repeat_interleave(count), torch.arange(count).repeat(items)
        found = differences(past.flatten(0, 1), item, index, items, self.period)
        zero, one = (self.past(torch.full_like(tokens[:1, :1], value))[0, 0] for value in (0.0, 1.0))
        typical = self.learned.typical
        typical = error.square().mean(0).sqrt() if typical is None else torch.tensor(typical)
        has_season = (chosen > 0) & bool(self.period)
        scale = torch.where(has_season, found.season_scale, found.change_scale)
        return (scale / (typical / (one - zero))).nan_to_num(1.0)

    def supervised(self, batch: Batch, targets: Targets) -> Bool[Tensor, "s"]:
        return known_values(targets.values[:, 0])

    def terms(self, output: Float[Tensor, "s h c q"], targets: Targets) -> dict[str, Tensor]:
        difference, predicted = targets.values[:, 0], output.float()
        is_present = ~difference.isnan()
        loss = output.new_zeros((), dtype=torch.float32)
        for number, quantile in enumerate(self.quantiles):
            error = torch.where(is_present, difference - predicted[..., number], 0.0)
            loss = loss + torch.maximum(quantile * error, (quantile - 1) * error).sum()
        return {"loss": loss * (2 / len(self.quantiles))}

    def measure(self, output: Float[Tensor, "s h c q"], targets: Targets) -> dict[str, Tensor]:
        """Returns sums over the samples and steps for each channel (c), in the unit of the data: the absolute errors of
        the median (`median`) and of the baselines, the count of values between the lowest and the highest quantile
        (`inside`), and the count of known values (`known`)."""
        difference, _, *baselines = targets.values.unbind(1)
        base, error = self.predicted_from(targets.values)
        is_present, predicted = ~difference.isnan(), output.float()
        future = base + difference * error
        errors = {"median": (predicted[..., self.quantiles.index(0.5)] - difference) * error}
        errors |= {name: each - future for name, each in zip(BASELINES, baselines)}
        sums = {name: torch.where(is_present, each.abs(), 0.0).sum((0, 1)) for name, each in errors.items()}
        inside = is_present & (predicted[..., 0] <= difference) & (difference <= predicted[..., -1])
        return {**sums, "inside": inside.sum((0, 1)), "known": is_present.sum((0, 1))}

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss`; for each channel the mean absolute error of the forecast in the unit of the data (`mae`) and those of
        the baselines (`mae_last_value`, with a `period` `mae_last_period`, with a ridge regression `mae_ridge`), and
        the share of the true values between the lowest and the highest quantile (`coverage`). With several channels:
        `mae_NAME` and so on."""
        metrics = {"loss": Metric("pinball loss, in errors of the baseline", of_sums=per_target)}
        errors = {"mae": "median"} | {f"mae_{name}": name for name in self.names_of_baselines}
        for number, channel in enumerate(self.channels):
            ending = f"_{channel}" if len(self.channels) > 1 else ""
            for name, kind in errors.items():
                ranked = False if kind == "median" else None
                mean = partial(channel_mean, name=kind, number=number)
                metrics[name + ending] = Metric("of the channel", ranked, of_sums=mean)
            inside = partial(channel_mean, name="inside", number=number)
            metrics[f"coverage{ending}"] = Metric("share of values", None, of_sums=inside)
        return metrics

    @property
    def true_vectors(self) -> list[str]:
        return self.channels

    @property
    def vectors(self) -> list[str]:
        levels = [f"quantiles.{channel}.{quantile:g}" for channel in self.channels for quantile in self.quantiles]
        keys = ("values", *self.names_of_baselines)
        return [*(f"{key}.{channel}" for key in keys for channel in self.channels), *levels]

    @property
    def headline(self) -> str:
        return "loss" if len(self.channels) > 1 else "mae"

    @property
    def baselines(self) -> Sequence[Baseline]:
        shortest = self.learned.tokens[0] * self.chopper.window
        return forecast_baselines(len(self.channels), self.period, shortest, self.quantiles)

    def baseline_features(self, items: Mapping[str, Any]) -> dict[str, np.ndarray | str]:
        """Returns the last measurements of the predicted channels, as many as the shortest training item has."""
        low, high = self.learned.tokens
        if self.input not in items or not low <= self.chopper.count(items[self.input]) <= high:
            return {}
        past = self.past(self.chopper.chop(items[self.input]).values[None])[0]
        return {self.input: past[-low * self.chopper.window :].numpy()}

    def baseline_target(self, targets: Targets) -> np.ndarray:
        """Returns the future (h, c) in the unit of the data."""
        base, error = self.predicted_from(targets.values)
        return (base + targets.values[:, 0] * error)[0].double().numpy()

    def baseline_output(self, prediction: np.ndarray, targets: Targets) -> Float[Tensor, "1 h c q"]:
        base, error = self.predicted_from(targets.values)
        return (torch.as_tensor(prediction, dtype=torch.float32) - base[..., None]) / error[..., None]

    def predicted_from(self, values: Float[Tensor, "s v h c"]) -> tuple[Float[Tensor, "s h c"], Float[Tensor, "h c"]]:
        """Returns the forecasts of the chosen baselines, from which the head predicts differences, and the units of the
        differences. `values` are those of the targets."""
        chosen, error = (each.to(values.device, non_blocking=True) for each in self.learned_tensors)
        numbers = (2 + chosen).expand(len(values), 1, *values.shape[2:])
        return values.gather(1, numbers).squeeze(1), error

    def as_answer(self, value: Any) -> Any:
        """Returns a value of the target column as lists of numbers by channel."""
        return by_channel(self.channels, self.future(value))

    def reporter(self) -> Reporter:
        return ForecastReporter(self.channels, self.quantiles, self.learned.error, self.names_of_baselines)

    @property
    def reason(self) -> str:
        """Why a sample has no forecast."""
        low, high = (number * self.chopper.window for number in self.learned.tokens)
        count = f"{low}" if low == high else f"{low} to {high}"
        return f"the input {self.input!r} is missing, or does not have {count} measurements as in the training data"

    def answers(self, output: Float[Tensor, "s h c q"], targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns for every sample the forecast in the unit of the data, {"values": {"air": [12.5, ...]}} with one
        number per step, in the same form the baselines (`last_value`, `last_period`, `ridge`), and {"quantiles":
        {"air": {"0.1": [11.0, ...], ...}}}. The answer to a sample without the input, or with another number of tokens
        than in the training data, is an error."""
        values = targets.values.cpu()
        base, error = self.predicted_from(values)
        baselines = dict(zip(BASELINES, values[:, 2:].unbind(1)))
        quantiles = base[..., None] + output.float().cpu() * error[..., None]
        answers: list[dict[str, Any]] = []
        for sample in range(batch.first.samples):
            if base[sample].isnan().any():
                answers.append({"error": self.reason})
                continue
            answer = {"values": by_channel(self.channels, quantiles[sample, ..., self.quantiles.index(0.5)])}
            answer |= {name: by_channel(self.channels, baselines[name][sample]) for name in self.names_of_baselines}
            answer["quantiles"] = {
                channel: by_channel([f"{quantile:g}" for quantile in self.quantiles], quantiles[sample, :, number])
                for number, channel in enumerate(self.channels)
            }
            answers.append(answer)
        return answers


def by_channel(names: Sequence[str], values: Float[Tensor, "h c"]) -> dict[str, list[float | None]]:
    """Returns the columns of an array by name; a missing number becomes None."""
    columns = values.T.tolist()
    return {name: [None if math.isnan(x) else x for x in column] for name, column in zip(names, columns, strict=True)}


def channel_mean(sums: Mapping[str, Tensor], name: str, number: int) -> float:
    """Returns the mean of the sum `name` over the known values of the channel with index `number`."""
    return float(sums[name][number] / sums["known"][number].clamp(min=1))


EXAMPLE = Example(
    options={"target": "future", "input": "wave"},
    inputs={
        "wave": {
            "use": "sensor",
            "channels": {"a": "m", "b": "m"},
            "rate": 2,
            "window": 2,
            "period": 3,
            "relative": True,
        },
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
    },
)
