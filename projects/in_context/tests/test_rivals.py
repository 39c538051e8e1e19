"""The baselines of learning in context, compared with independent implementations."""

import numpy as np
import pytest
import torch
from chopmix.projects.in_context.datasets.in_context import InContext
from chopmix.projects.in_context.functions import Network
from chopmix.projects.in_context.rivals import (
    BASELINES,
    WEIGHTS,
    errors_of,
    greedy_tree,
    lasso,
    least_squares,
    neighbours,
    network_kernel,
    relu_covariance,
    ridge,
)
from chopmix.projects.in_context.scoring import ModelOutputs, error_rows, errors_by_name, probe
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor


def drawn(n: int, k: int, d: int, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, k + 1, d, generator=random, dtype=torch.float64)
    weights = torch.randn(n, d, generator=random, dtype=torch.float64)
    y = (x @ weights[..., None])[..., 0] + 0.3 * torch.randn(n, k + 1, generator=random, dtype=torch.float64)
    return x[:, :k], y[:, :k], x[:, k], y[:, k]


@given(st.integers(0, 9), st.integers(1, 5), st.sampled_from([0.03, 1.0, 10.0]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_linear_baselines_equal_numpy_and_scikit_learn(k, d, weight, seed):
    x, y, query, _ = drawn(3, k, d, seed)
    for number, (points, values, at) in enumerate(zip(x.numpy(), y.numpy(), query.numpy())):
        predictions = [
            baseline(x, y, query)[number] for baseline in (least_squares, lambda *a: ridge(*a, weight=weight))
        ]
        if not k:
            assert predictions == [0, 0]
            continue
        squares = np.linalg.lstsq(points, values, rcond=None)[0] @ at
        shrunk = Ridge(alpha=weight, fit_intercept=False).fit(points, values).predict(at[None])[0]
        assert predictions == pytest.approx([squares, shrunk], rel=1e-6, abs=1e-8)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_neighbours_and_trees_equal_scikit_learn(k, count, seed):
    x, y, query, _ = drawn(2, k, 3, seed)
    near, tree = neighbours(x, y, query, count=count), greedy_tree(x, y, query, depth=2)
    for number, (points, values, at) in enumerate(zip(x.numpy(), y.numpy(), query.numpy())):
        expected = KNeighborsRegressor(min(count, k)).fit(points, values).predict(at[None])[0]
        assert float(near[number]) == pytest.approx(expected)
        fitted = DecisionTreeRegressor(max_depth=2, random_state=0).fit(points, values)
        assert float(tree[number]) == pytest.approx(fitted.predict(at[None])[0])


def test_lasso_minimizes_its_objective():
    """No small change of the weights reduces it. The weights are the predictions for the unit vectors."""
    x, y, _, _ = drawn(1, 12, 4)
    axes = torch.eye(4, dtype=torch.float64)
    weights = torch.stack([lasso(x, y, axis[None], weight=0.2)[0] for axis in axes])

    def cost(w):
        return ((x[0] @ w - y[0]) ** 2).mean() / 2 + 0.2 * w.abs().sum()

    for _ in range(200):
        assert cost(weights + 0.01 * torch.randn(4, dtype=torch.float64)) >= cost(weights) - 1e-6


def test_the_kernel_is_the_covariance_of_random_networks():
    """It is the covariance of the functions on which models are trained, for every width."""
    random = np.random.default_rng(0)
    points = random.normal(size=(5, 3))
    for hidden in (2, 40):
        values = np.stack([Network(hidden=hidden).drawn(3, random)(points) for _ in range(20_000)])
        expected = relu_covariance(*[torch.tensor(points)[None]] * 2)[0].numpy()
        assert np.abs(values.T @ values / len(values) - expected).max() < 0.05 * expected.max()


@given(st.integers(1, 9), st.integers(1, 4), st.sampled_from([1e-6, 0.1]), st.floats(0.5, 4), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_network_kernel_is_a_gaussian_process(k, d, noise, scale, seed):
    """Predictions are those of the formula. Larger points and values only scale the predictions."""
    x, y, query, _ = drawn(2, k, d, seed)
    predictions = network_kernel(x, y, query, noise=noise)
    for number in range(2):
        points = torch.cat([x[number], query[number][None]])[None]
        covariance = relu_covariance(points, points)[0].numpy()
        noisy = covariance[:k, :k] + noise * covariance[:k, :k].diagonal().mean() * np.eye(k)
        assert float(predictions[number]) == pytest.approx(
            covariance[k, :k] @ np.linalg.solve(noisy, y[number].numpy()), abs=1e-6
        )
    larger = network_kernel(scale * x, 3 * y, scale * query, noise=noise)
    torch.testing.assert_close(larger, 3 * predictions, atol=1e-6, rtol=1e-5)


def test_the_network_kernel_predicts_networks_better_than_other_baselines():
    """It is also better than eight networks fitted to the examples (0.70 on these functions; benchmarks/LOG.md)."""
    samples = InContext(function=lambda: Network(hidden=20), dimension=4, examples=9).open("val")
    rows = [samples[number] for number in range(300)]
    x, y = (torch.tensor(np.stack([row[name] for row in rows])).double() for name in "xy")
    errors = {name: float(errors_of(BASELINES[name], x, y[..., 0], 100)[:, 8].mean()) for name in Network.baselines}
    assert errors["network kernel"] < 0.7 * errors["nearest neighbours"] < 0.7 * errors["ridge"]


def test_settings_are_selected_on_other_functions():
    """The best setting for the first functions is used for the others, even if it is not the best there."""
    x, y, query, truth = drawn(40, 6, 3)
    points, values = torch.cat([x, query[:, None]], 1), torch.cat([y, truth[:, None]], 1)
    settings_ = BASELINES["ridge"]
    errors = torch.stack([(setting(x, y, query) - truth).square() for setting in settings_])
    chosen = errors[:, :20].mean(1).argmin()
    remaining = errors_of(settings_, points, values, 20)
    assert remaining.shape == (20, 7)
    torch.testing.assert_close(remaining[:, 6], errors[chosen, 20:])


def test_errors_are_those_of_the_same_functions():
    """A model that predicts with ridge regression has the errors of ridge regression for each function."""
    x, y, query, truth = drawn(200, 6, 3)
    points, values = torch.cat([x, query[:, None]], 1), torch.cat([y, truth[:, None]], 1)
    predicted = torch.stack([ridge(points[:, :k], values[:, :k], points[:, k], weight=1.0) for k in range(7)], 1)
    lines: list[str] = []
    errors = errors_by_name(ModelOutputs(x=points, y=values, predicted=predicted), ["zero", "ridge"], 100, lines.append)
    assert lines == ["zero", "ridge"]
    torch.testing.assert_close(errors["model"], (predicted - values)[100:].square())
    torch.testing.assert_close(errors["zero"], values[100:].square())
    (row,) = [row for row in error_rows({"data": errors}) if row["examples"] == 6]
    assert row["where"] == "data" and row["functions"] == 100
    model, zero = errors["model"][:, 6].numpy(), errors["zero"][:, 6].numpy()
    for name, squares in {"model": model, "zero": zero, "model - zero": model - zero}.items():
        assert row[name] == pytest.approx(squares.mean())
        assert row[f"{name} se"] == pytest.approx(squares.std(ddof=1) / 10)


def test_differences_are_paired():
    """If two methods have errors on the same functions, the standard error of the difference is much smaller."""
    random = torch.Generator().manual_seed(0)
    hard = torch.randn(400, 3, generator=random, dtype=torch.float64).square()
    errors = {"model": hard + 0.01 * torch.rand(400, 3, generator=random), "ridge": hard}
    for row in error_rows({"data": errors}):
        assert row["model - ridge"] == pytest.approx(0.005, abs=0.001)
        assert row["model - ridge se"] < 0.01 * row["model se"]


def outputs_with_weights(n: int, share: float, seed: int) -> ModelOutputs:
    """Returns outputs in which the vectors of the last layer contain the weights of the functions with noise. `share`
    is the explained share of the variance. The vectors of the first layer are only noise."""
    x, y, *_ = drawn(n, 6, 3, seed)
    axes = torch.eye(3, dtype=torch.float64)
    weights = torch.stack([ridge(x, y, axis.expand(n, -1), weight=1.0) for axis in axes], 1)
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 3, generator=random, dtype=torch.float64) * weights.std(0) * ((1 - share) / share) ** 0.5
    mixed = (weights + noise) @ torch.linalg.qr(torch.randn(3, 3, generator=random, dtype=torch.float64)).Q
    empty = torch.randn(n, 3, generator=random, dtype=torch.float64)
    vectors = {name: torch.stack([empty, mixed]).float() for name in ("the next point", "the mean of the values")}
    return ModelOutputs(x=x, y=y, predicted=y, depth=6, vectors=vectors)


@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_the_probe_measures_the_explained_share_and_its_standard_error(share):
    scores = [probe(outputs_with_weights(700, share, seed), 1.0, 400)["the next point"] for seed in range(60)]
    values, errors = (np.array([layers[1][which] for layers in scores]) for which in (0, 1))
    assert values.mean() == pytest.approx(share, abs=0.02)
    assert values.std() == pytest.approx(errors.mean(), rel=0.35, abs=1e-3)
    assert max(abs(layers[0][0]) for layers in scores) < 0.1


@pytest.mark.filterwarnings("error")
def test_lasso_converges_at_its_smallest_weight():
    x, y, query, _ = drawn(100, 5, 8)
    assert lasso(x, y, query, weight=WEIGHTS[1]).isfinite().all()
