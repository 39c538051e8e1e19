"""The task `forecast`: baselines, losses and metrics compared with loops and scikit-learn, and its report."""

import math

import numpy as np
import pytest
import torch
from chopmix.data.samples import Listed
from chopmix.experiment.build import TrainingData
from chopmix.files.reading import DataError
from chopmix.models.batch import Targets
from chopmix.tasks import forecast
from chopmix.tasks.baselines.forecast_rules import fit_ridge, ridge_forecast
from chopmix.tasks.forecast import Forecast, Spread
from chopmix.tasks.measuring.forecast_report import ForecastReporter
from chopmix.tokenizers.sensor import SensorChopper
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import mean_absolute_error, mean_pinball_loss
from untrained import untrained

NUMBER = st.one_of(st.just(math.nan), st.floats(-50, 50, width=32))


def task_of(channels=("a", "b"), window=1, period=3, steps=4, baseline="last_period", relative=True, **options):
    """A fitted task; its input has these channels, its mean and scale are 0.5 and 2."""
    names = dict.fromkeys(channels)
    chopper = SensorChopper(channels=names, window=window, period=period, relative=relative, mean=0.5, scale=2)
    task = Forecast(target="future", input="wave", **options)
    task.choppers = {"wave": chopper}
    task.learned = Spread(
        baseline=[baseline] * len(task.channels), error=[[2.0] * steps] * len(task.channels), tokens=(1, 99)
    )
    return task


@given(st.lists(NUMBER, min_size=1, max_size=12), st.integers(1, 6) | st.none(), st.integers(1, 9), st.integers(1, 3))
def test_baselines_are_those_of_a_loop(past, period, steps, window):
    task = task_of(["a"], window, period, steps)
    past += [math.nan] * (-len(past) % window)  # the chopper pads the last token with missing values
    tokens = task.chopper.chop(task.chopper.decode(past)).values[None]
    last = next((value for value in reversed(past) if not math.isnan(value)), 0.5)
    expected = []
    for step in range(steps):
        earlier = [] if not period else [
            past[index] for index in range(len(past) - period + step % period, -1, -period)
            if index - step % period >= 0 and not math.isnan(past[index])
        ]  # fmt: skip
        expected.append(earlier[0] if earlier else last)
    baselines = task.naive(tokens, steps)[0]
    assert baselines[0, :, 0].tolist() == pytest.approx([last] * steps, abs=1e-4)
    assert baselines[1, :, 0].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("baseline", ["last_value", "last_period"])
def test_losses_and_metrics_are_those_of_scikit_learn(baseline, relative):
    task = task_of(baseline=baseline, relative=relative, quantiles=(0.2, 0.5, 0.9))
    random = np.random.default_rng(0)
    samples, steps, error = 5, 4, 2.0
    values = torch.full((samples, 4, steps, 2), math.nan)
    past = [random.normal(size=(6, 2)).astype(np.float32) for _ in range(samples)]
    future = torch.from_numpy(random.normal(size=(samples, steps, 2)).astype(np.float32))
    future[1, 2, 0] = future[3, :, 1] = math.nan
    for number, each in enumerate(past):
        tokens = task.chopper.chop(task.chopper.decode(each)).values[None]
        values[number, 2:], values[number, 1] = task.naive(tokens, steps)[0], task.scale(tokens)[0]
    base = values[:, 2 + (baseline == "last_period")]
    values[:, 0] = (future - base) / error
    numbers = torch.from_numpy(random.normal(size=(samples, 16)).astype(np.float32))
    head = task.head({}, 16)
    torch.nn.init.normal_(head.linear.weight)
    targets = Targets(values=values, groups=torch.arange(samples), count=int((~future.isnan()).sum()))
    output = head(numbers, targets).detach()
    season = [each[3:] - each[:-3] if baseline == "last_period" else each - each[-1:] for each in past]
    scale = np.array([np.sqrt((each**2).mean(0)) / error if relative else [1.0, 1.0] for each in season])
    linear = (numbers @ head.linear.weight.T + head.linear.bias).detach().numpy().reshape(samples, steps, 2, 3)
    gaps, each = np.log1p(np.exp(linear)), scale[:, None, :, None]
    spread = np.concatenate([-gaps[..., :1], np.zeros_like(gaps[..., :1]), gaps[..., 2:]], -1)
    quantiles = base.numpy()[..., None] + (linear[..., 1:2] * each + spread * np.sqrt(each)) * error
    known = ~future.isnan().numpy()
    pinball = [
        2 * mean_pinball_loss(future.numpy()[known], quantiles[..., n][known], alpha=q) / error
        for n, q in enumerate(task.quantiles)
    ]
    sums = task.measure(output, targets) | task.terms(output, targets) | {"count": torch.tensor(targets.count)}
    metrics = {name: metric.of_sums(sums) for name, metric in task.metrics.items()}
    assert metrics["loss"] == pytest.approx(np.mean(pinball), rel=1e-5)
    for number, channel in enumerate("ab"):
        there = known[..., number]
        true = future.numpy()[..., number][there]
        for name, predicted in (
            ("mae", quantiles[..., 1]), ("mae_last_value", values[:, 2].numpy()),
            ("mae_last_period", values[:, 3].numpy()),
        ):  # fmt: skip
            expected = mean_absolute_error(true, predicted[..., number][there])
            assert metrics[f"{name}_{channel}"] == pytest.approx(expected, rel=1e-4), (name, channel)
        low, high = quantiles[..., number, 0][there], quantiles[..., number, 2][there]
        assert metrics[f"coverage_{channel}"] == pytest.approx(((low <= true) & (true <= high)).mean())


@given(st.lists(st.integers(1, 99), min_size=0, max_size=5, unique=True), st.integers(0, 2**31 - 1))
def test_quantiles_never_cross_and_the_median_is_linear(levels, seed):
    quantiles = sorted({0.5, *(level / 100 for level in levels)})
    task = task_of(quantiles=quantiles)
    torch.manual_seed(seed)
    head = task.head({}, 8)
    torch.nn.init.normal_(head.linear.weight, std=9.0)
    values = torch.full((3, 4, 4, 2), math.nan)
    values[:, 1] = torch.tensor([1e-6, 1.0, 1e4])[:, None, None]
    x = torch.randn(3, 8)
    output = head(x, Targets(values=values, groups=torch.arange(3))).detach()
    assert output.shape == (3, 4, 2, len(quantiles)) and output.isfinite().all()
    assert (output.diff(dim=-1) >= 0).all()
    middle = quantiles.index(0.5)
    linear = head.linear(x).detach().view(3, 4, 2, -1)[..., middle]
    torch.testing.assert_close(output[..., middle], linear * values[:, 1])


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("baseline", ["last_value", "last_period"])
def test_the_scale_depends_on_no_unit_and_is_1_without_differences(unit, baseline):
    """The same stream in other units has the same scale; so has its token, whose values are normalised."""
    random = np.random.default_rng(0)
    stream = random.normal(size=(2, 6, 2))
    stream[1, :3] = math.nan  # no value has one of the period before
    stream[1, 3:, 1] = math.nan
    chopper = SensorChopper(channels={"a": None, "b": None}, period=3, relative=True, mean=5 * unit, scale=2 * unit)
    task = Forecast(target="future", input="wave")
    task.choppers = {"wave": chopper}
    task.learned = Spread(baseline=[baseline] * 2, error=[[2 * unit] * 4] * 2, tokens=(1, 99))
    tokens = torch.stack([chopper.chop(chopper.decode(each * unit)).values for each in stream])
    differences = stream[0, 3:] - stream[0, :-3] if baseline == "last_period" else stream[0] - stream[0, -1]
    scale = task.scale(tokens)
    assert scale[0].tolist() == pytest.approx((np.sqrt((differences**2).mean(0)) / 2).tolist(), rel=1e-3)
    assert scale[1, 1] == 1 and scale.isfinite().all()
    assert scale[1, 0] == 1 or baseline == "last_value"


def test_missing_values_do_not_change_the_gradient():
    task = task_of()
    values = torch.ones(2, 4, 4, 2)
    values[1, 0] = math.nan
    output = torch.randn(2, 4, 2, 3, requires_grad=True)
    task.terms(output, Targets(values=values))["loss"].backward()
    assert output.grad[1].abs().sum() == 0 and output.grad[0].abs().sum() > 0 and output.grad.isfinite().all()


def training(pairs) -> TrainingData:
    """Training samples with these values of the input and of the target."""
    rows = [{"wave": wave, "future": future} for wave, future in pairs]
    return TrainingData(Listed([str(number) for number in range(len(rows))], rows), print)


def test_the_better_baseline_of_each_channel_is_learned():
    """`a` repeats after 3 measurements, `b` hardly changes."""
    task = Forecast(target="future", input="wave", ridge=False)
    task.choppers = {"wave": SensorChopper(channels={"a": None, "b": None}, period=3, mean=0, scale=1)}
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(20):
        time = np.arange(10) + random.integers(9)
        stream = np.stack([np.sin(time * 2 * math.pi / 3) + 0.01 * random.normal(size=10), 0.1 * time], axis=1)
        pairs.append((stream[:6], stream[6:]))
    pairs.append((np.zeros((6, 2)), np.full((4, 2), math.nan)))  # a future without values teaches nothing
    learned = task.fit(training([*pairs, ("unreadable", np.zeros((4, 2)))]))
    assert learned.baseline == ["last_period", "last_value"]
    assert max(learned.error[0]) < 0.1 and learned.error[1] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-3)
    task.ridge, task.learned = True, None
    learned = task.fit(training([*pairs, ("unreadable", np.zeros((4, 2)))]))
    assert learned.baseline[1] == "ridge" and max(learned.error[1]) < 1e-3, "0.1 per step is linear"
    assert np.shape(learned.ridge) == (2, 3, 4) and len(learned.typical) == 2


@pytest.mark.parametrize("period", [None, 3])
def test_a_ridge_regression_is_the_start_of_the_training(period):
    """Weights of the head are zero at the start, so the median is the ridge regression; with missing values, the last
    period."""
    sensor = SensorChopper(channels={"a": None}, period=period, mean=1, scale=2)
    task = Forecast(target="future", input="wave")
    task.choppers = {"wave": sensor}
    random = np.random.default_rng(0)
    streams = [np.cumsum(random.normal(size=10))[:, None] + 3 for _ in range(40)]
    streams = [stream * 0.5 + stream[::-1] for stream in streams]
    task.learned = task.fit(training([(stream[:6], stream[6:]) for stream in streams]))
    assert task.learned.baseline == ["ridge"] and "mae_ridge" in task.metrics
    windows = np.stack([stream[:6] for stream in streams])
    futures = np.stack([stream[6:] for stream in streams])
    coefficients, constants, _ = fit_ridge(windows, futures, period)
    expected = ridge_forecast(coefficients, constants, windows, 4, period)
    tokens = torch.stack([sensor.chop(sensor.decode(window)).values for window in windows])
    np.testing.assert_allclose(task.forecasts(tokens)[:, 2], expected, rtol=1e-3, atol=1e-3)
    moved = torch.stack([sensor.chop(sensor.decode(window + 100)).values for window in windows])
    np.testing.assert_allclose(task.forecasts(moved)[:, 2], expected + 100, rtol=1e-3, atol=1e-2)
    tokens[0, 2] = math.nan
    torch.testing.assert_close(task.forecasts(tokens)[0, 2], task.naive(tokens, 4)[0, 1])
    head = task.head({}, 8)
    assert head.linear.weight.role == "zero"


def test_items_of_several_lengths_have_no_ridge_regression():
    task = Forecast(target="future", input="wave")
    task.choppers = {"wave": SensorChopper(channels={"a": None}, mean=0, scale=1)}
    random = np.random.default_rng(0)
    learned = task.fit(training([(random.normal(size=(6 + n % 2, 1)), random.normal(size=(3, 1))) for n in range(40)]))
    assert learned.ridge is None and learned.baseline == ["last_value"] and learned.tokens == (6, 7)


def test_coefficients_for_items_of_another_length_are_refused():
    task = task_of(["a"], period=3, steps=2)
    window = torch.zeros(1, 6, 1)
    for count, tokens, fits in ((3, (6, 6), True), (4, (6, 6), False), (3, (5, 6), False)):
        task.__dict__.pop("coefficients", None)
        task.learned = Spread(baseline=["ridge"], error=[[1.0, 1.0]], ridge=[[[0.0, 0.0]] * count], tokens=tokens)
        if fits:
            assert task.forecasts(window).shape == (1, 3, 2, 1)
        else:
            with pytest.raises(DataError, match="spread.json: its ridge regression is not for items of"):
                task.forecasts(window)


@pytest.mark.parametrize("limit", ["MOST_DIFFERENCES", "MOST_COEFFICIENTS"])
def test_long_windows_and_missing_futures(monkeypatch, limit):
    """A step without any future value causes no warning, and a regression that is too large is not fitted."""
    random = np.random.default_rng(0)
    pairs = [(random.normal(size=(6, 2)), random.normal(size=(3, 2))) for _ in range(40)]
    for _, future in pairs:
        future[2, 1] = math.nan
    task = Forecast(target="future", input="wave")
    task.choppers = {"wave": SensorChopper(channels={"a": None, "b": None}, mean=0, scale=1)}
    learned = task.fit(training(pairs))
    assert np.shape(learned.ridge) == (2, 5, 3) and not np.any(learned.ridge[1]) and np.isfinite(learned.error).all()
    monkeypatch.setattr(forecast, limit, 4)
    assert task.fit(training(pairs)).ridge is None


@pytest.mark.parametrize(
    "changes", [{"ridge": None}, {"ridge": [[[1.0]]]}, {"ridge": [[]]}, {"typical": [1.0, 2.0]}, {"error": []}]
)
def test_stored_regressions_that_do_not_fit_are_refused(changes):
    stored = {"baseline": ["ridge"], "error": [[1.0, 1.0]], "ridge": [[[1.0, 2.0]]], "typical": [1.0], "tokens": (1, 1)}
    assert Spread(**stored)
    with pytest.raises(ValidationError):
        Spread(**stored | changes)


@pytest.mark.parametrize(
    "options, pairs, message",
    [({}, [], "no training sample has both the input 'wave' and the column 'future'"),
     ({"window": 4}, [(np.zeros((6, 2)), np.zeros((4, 2)))], "its 6 measurements are not a multiple of window"),
     ({"period": 7}, [(np.zeros((6, 2)), np.zeros((4, 2)))], "period 7 is longer than the 6 measurements of 'wave'"),
     ({}, [(np.zeros((6, 2)), np.zeros((n, 2))) for n in (4, 5)], "its values have 4 and 5 steps"),
     ({}, [(np.zeros((6, 2)), np.full((4, 2), math.nan))], "'a' has no value in the training data")],
)  # fmt: skip
def test_data_that_cannot_be_forecast_are_refused(options, pairs, message):
    task = task_of(**options)
    task.learned = None
    with pytest.raises(DataError, match=message):
        task.fit(training(pairs))


def test_values_of_the_target_are_checked():
    task = task_of()
    for value, message in (
        ("x", "must have arrays of numbers"), (np.zeros((4, 3)), r"must have the shape \(steps, 2\), with the"),
        (np.zeros((3, 2)), "has 3 steps, fewer than the horizon, 4"), (np.zeros((0, 2)), "must have the shape"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            task.check(value)
    assert task_of(channels="abc").named is None and Forecast(target="f", input="w", channels=["b"]).named == ["b"]
    task.check([[1, 2]] * 3 + [[math.inf, None]])


def test_meaningless_options_are_refused():
    for options, message in (
        ({"quantiles": (0.1, 0.9)}, "include 0.5"), ({"quantiles": (0.5, 0.1)}, "must increase"),
        ({"quantiles": (0.5, 1.0)}, "below 1"), ({"horizon": 0}, "at least 1 step"), ({"channels": []}, "at least one"),
        ({"channels": ["a", "a"]}, "each once"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Forecast(target="future", input="wave", **options)
    task = Forecast(target="future", input="wave", channels=["z"])
    task.choppers = task_of().choppers
    with pytest.raises(DataError, match="has no channel 'z'; possible: a, b"):
        task.fit(training([(np.zeros((6, 2)), np.zeros((4, 2)))]))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sensor = {"use": "sensor", "channels": {"a": "m", "b": "m"}, "window": 3, "period": 4, "relative": True}
    tasks = {
        "next": {"use": "forecast", "target": "future", "input": "wave", "channels": ["b"], "horizon": 2},
        "label": {"use": "classification", "target": "label"},
    }
    return untrained({"wave": sensor, "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8}}, tasks)


def test_a_forecast_of_one_channel_beside_another_task(run):
    random = np.random.default_rng(0)
    wave = random.normal(size=(12, 2))
    whole, moved, without = run.predict(
        [{"wave": wave}, {"wave": wave * [1, 10] + [0, 100]}, {"image": np.zeros((8, 8, 1), np.uint8)}]
    )
    assert whole["next"].keys() == {"values", "last_value", "last_period", "quantiles"} and "class" in whole["label"]
    assert whole["next"]["last_value"] == {"b": pytest.approx([wave[-1, 1]] * 2, abs=1e-5)}
    assert whole["next"]["last_period"] == {"b": pytest.approx(wave[-4:-2, 1].tolist(), abs=1e-5)}
    levels = whole["next"]["quantiles"]["b"]
    assert [*levels] == ["0.1", "0.5", "0.9"] and levels["0.5"] == whole["next"]["values"]["b"]
    assert all(a <= b <= c for a, b, c in zip(*levels.values()))
    expected = [10 * value + 100 for value in whole["next"]["values"]["b"]]
    assert moved["next"]["values"]["b"] == pytest.approx(expected, abs=1e-2), "level and scale are those of the item"
    reason = "the input 'wave' is missing, or does not have 12 measurements as in the training data"
    assert without["next"] == {"error": reason} and "class" in without["label"]
    assert run.predict({"wave": wave[:6]})["next"] == {"error": reason}
    metrics = run.evaluate("val")
    assert {
        "val/next/mae",
        "val/next/mae_last_value",
        "val/next/mae_last_period",
        "val/next/coverage",
    } <= metrics.keys()


def test_the_report_counts_each_step():
    reporter = ForecastReporter(["a"], (0.1, 0.5, 0.9), [[1.0, 1.0]], baselines=("last_value", "last_period"))
    answer = {
        "values": {"a": [1.0, 2.0]}, "last_value": {"a": [0.0, 0.0]}, "last_period": {"a": [1.0, 1.0]},
        "quantiles": {"a": {"0.1": [0.5, 1.5], "0.5": [1.0, 2.0], "0.9": [1.5, 2.5]}},
    }  # fmt: skip
    reporter.add(0, "first", {"a": [1.0, 4.0]}, answer)
    reporter.add(1, "second", {"a": [2.0, None]}, answer)
    reporter.add(2, "third", {"a": [None, None]}, answer)
    section = reporter.section({}, store=False)
    assert section.samples == 2 and [mistake.key for mistake in section.worst] == ["first", "second"]
    table = section.tables[0]
    assert table.columns[:7] == ["channel", "step", "samples", "mae", "mae_last_value", "mae_last_period", "coverage"]
    assert table.rows[0][:7] == ["a", "", 3, 1.0, 7 / 3, pytest.approx(4 / 3), pytest.approx(1 / 3)]
    assert table.columns[7:] == ["width", "below_0.1", "below_0.5", "below_0.9"]
    assert table.rows[0][7:] == [1.0, 0.0, pytest.approx(1 / 3), pytest.approx(1 / 3)]
    assert table.rows[1][:7] == ["a", 1, 2, 0.5, 1.5, 0.5, 0.5] and table.rows[2][:4] == ["a", 2, 1, 2.0]
    assert "0.75 times that of `same time in the last period`; 33% of the values" in section.lines[0]
    assert ForecastReporter(["a"], (0.5,), [[1.0]], baselines=("last_value",)).section({}, store=False).samples == 0
