"""What learning in the context is compared with, beside independent implementations of it."""

import numpy as np
import pytest
import torch
from chopmix.projects.in_context.curves import RIGHT
from chopmix.projects.in_context.datasets.in_context import InContext
from chopmix.projects.in_context.functions import Network
from chopmix.projects.in_context.rivals import (
    RIVALS,
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
from chopmix.projects.in_context.scoring import Seen, errors_by_name, probe, rows_of
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
def test_linear_rivals_are_numpys_and_scikit_learns(k, d, weight, seed):
    x, y, asked, _ = drawn(3, k, d, seed)
    for number, (points, values, at) in enumerate(zip(x.numpy(), y.numpy(), asked.numpy())):
        found = [rival(x, y, asked)[number] for rival in (least_squares, lambda *a: ridge(*a, weight=weight))]
        if not k:
            assert found == [0, 0]
            continue
        squares = np.linalg.lstsq(points, values, rcond=None)[0] @ at
        shrunk = Ridge(alpha=weight, fit_intercept=False).fit(points, values).predict(at[None])[0]
        assert found == pytest.approx([squares, shrunk], rel=1e-6, abs=1e-8)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_neighbours_and_trees_are_scikit_learns(k, count, seed):
    x, y, asked, _ = drawn(2, k, 3, seed)
    near, tree = neighbours(x, y, asked, count=count), greedy_tree(x, y, asked, depth=2)
    for number, (points, values, at) in enumerate(zip(x.numpy(), y.numpy(), asked.numpy())):
        expected = KNeighborsRegressor(min(count, k)).fit(points, values).predict(at[None])[0]
        assert float(near[number]) == pytest.approx(expected)
        fitted = DecisionTreeRegressor(max_depth=2, random_state=0).fit(points, values)
        assert float(tree[number]) == pytest.approx(fitted.predict(at[None])[0])


def test_lasso_is_a_smallest_sum():
    """No small change of its weights, read off by asking along each axis, gives a smaller mean square plus sum."""
    x, y, _, _ = drawn(1, 12, 4)
    axes = torch.eye(4, dtype=torch.float64)
    weights = torch.stack([lasso(x, y, axis[None], weight=0.2)[0] for axis in axes])

    def cost(w):
        return ((x[0] @ w - y[0]) ** 2).mean() / 2 + 0.2 * w.abs().sum()

    for _ in range(200):
        assert cost(weights + 0.01 * torch.randn(4, dtype=torch.float64)) >= cost(weights) - 1e-6


def test_the_kernel_is_the_covariance_of_random_networks():
    """Of the functions that models are trained on, whatever their width."""
    random = np.random.default_rng(0)
    points = random.normal(size=(5, 3))
    for hidden in (2, 40):
        values = np.stack([Network(hidden=hidden).drawn(3, random)(points) for _ in range(20_000)])
        expected = relu_covariance(*[torch.tensor(points)[None]] * 2)[0].numpy()
        assert np.abs(values.T @ values / len(values) - expected).max() < 0.05 * expected.max()


@given(st.integers(1, 9), st.integers(1, 4), st.sampled_from([1e-6, 0.1]), st.floats(0.5, 4), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_network_kernel_is_a_gaussian_process(k, d, noise, scale, seed):
    """scikit-learn's, with this covariance; larger points and values change only the size of what is predicted."""
    x, y, asked, _ = drawn(2, k, d, seed)
    found = network_kernel(x, y, asked, noise=noise)
    for number in range(2):
        every = torch.cat([x[number], asked[number][None]])[None]
        covariance = relu_covariance(every, every)[0].numpy()
        own = covariance[:k, :k] + noise * covariance[:k, :k].diagonal().mean() * np.eye(k)
        assert float(found[number]) == pytest.approx(
            covariance[k, :k] @ np.linalg.solve(own, y[number].numpy()), abs=1e-6
        )
    larger = network_kernel(scale * x, 3 * y, scale * asked, noise=noise)
    torch.testing.assert_close(larger, 3 * found, atol=1e-6, rtol=1e-5)


def test_the_network_kernel_predicts_networks_better_than_other_rivals():
    """Better than eight networks fitted to the examples, too (0.70 of these functions; benchmarks/LOG.md)."""
    samples = InContext(function=lambda: Network(hidden=20), dimension=4, examples=9).open("val")
    rows = [samples[number] for number in range(300)]
    x, y = (torch.tensor(np.stack([row[name] for row in rows])).double() for name in "xy")
    errors = {name: float(errors_of(RIVALS[name], x, y[..., 0], 100)[:, 8].mean()) for name in RIGHT[Network]}
    assert errors["network kernel"] < 0.7 * errors["nearest neighbours"] < 0.7 * errors["ridge"]


def test_settings_are_chosen_on_other_functions():
    """The best setting of the first functions is used for the others, though another would have been better there."""
    x, y, asked, truth = drawn(40, 6, 3)
    whole, values = torch.cat([x, asked[:, None]], 1), torch.cat([y, truth[:, None]], 1)
    settings_ = RIVALS["ridge"]
    errors = torch.stack([(each(x, y, asked) - truth).square() for each in settings_])
    chosen = errors[:, :20].mean(1).argmin()
    found = errors_of(settings_, whole, values, 20)
    assert found.shape == (20, 7)
    torch.testing.assert_close(found[:, 6], errors[chosen, 20:])


def test_errors_are_those_of_the_same_functions():
    """A model that predicts by ridge has ridge's errors, function by function."""
    x, y, asked, truth = drawn(200, 6, 3)
    whole, values = torch.cat([x, asked[:, None]], 1), torch.cat([y, truth[:, None]], 1)
    predicted = torch.stack([ridge(whole[:, :k], values[:, :k], whole[:, k], weight=1.0) for k in range(7)], 1)
    told: list[str] = []
    errors = errors_by_name(Seen(x=whole, y=values, predicted=predicted), ["zero", "ridge"], 100, told.append)
    assert told == ["zero", "ridge"]
    torch.testing.assert_close(errors["model"], (predicted - values)[100:].square())
    torch.testing.assert_close(errors["zero"], values[100:].square())
    (row,) = [each for each in rows_of({"here": errors}) if each["examples"] == 6]
    assert row["where"] == "here" and row["functions"] == 100
    model, zero = errors["model"][:, 6].numpy(), errors["zero"][:, 6].numpy()
    for name, each in {"model": model, "zero": zero, "model - zero": model - zero}.items():
        assert row[name] == pytest.approx(each.mean())
        assert row[f"{name} se"] == pytest.approx(each.std(ddof=1) / 10)


def test_differences_are_paired():
    """Of two that err on the same functions the difference is known much better than each error."""
    random = torch.Generator().manual_seed(0)
    hard = torch.randn(400, 3, generator=random, dtype=torch.float64).square()
    errors = {"model": hard + 0.01 * torch.rand(400, 3, generator=random), "ridge": hard}
    for row in rows_of({"here": errors}):
        assert row["model - ridge"] == pytest.approx(0.005, abs=0.001)
        assert row["model - ridge se"] < 0.01 * row["model se"]


def read_off(n: int, share: float, seed: int) -> Seen:
    """Functions whose weights stand in the vectors of the last layer, where `share` of their variance is left when the
    rest is noise; those of the first layer are noise alone."""
    x, y, *_ = drawn(n, 6, 3, seed)
    axes = torch.eye(3, dtype=torch.float64)
    weights = torch.stack([ridge(x, y, axis.expand(n, -1), weight=1.0) for axis in axes], 1)
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 3, generator=random, dtype=torch.float64) * weights.std(0) * ((1 - share) / share) ** 0.5
    mixed = (weights + noise) @ torch.linalg.qr(torch.randn(3, 3, generator=random, dtype=torch.float64)).Q
    empty = torch.randn(n, 3, generator=random, dtype=torch.float64)
    vectors = {name: torch.stack([empty, mixed]).float() for name in ("the next point", "the mean of the values")}
    return Seen(x=x, y=y, predicted=y, depth=6, vectors=vectors)


@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_the_probe_reads_what_is_there_and_its_error_is_that_of_many_probes(share):
    scores = [probe(read_off(700, share, seed), 1.0, 400)["the next point"] for seed in range(60)]
    values, errors = (np.array([each[1][which] for each in scores]) for which in (0, 1))
    assert values.mean() == pytest.approx(share, abs=0.02)
    assert values.std() == pytest.approx(errors.mean(), rel=0.35, abs=1e-3)
    assert max(abs(each[0][0]) for each in scores) < 0.1


@pytest.mark.filterwarnings("error")
def test_lasso_converges_at_its_smallest_weight():
    x, y, asked, _ = drawn(100, 5, 8)
    assert lasso(x, y, asked, weight=WEIGHTS[1]).isfinite().all()
