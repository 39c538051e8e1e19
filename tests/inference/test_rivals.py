"""What learning in the context is compared with, beside independent implementations of it."""

import numpy as np
import pytest
import torch
from chopmix.inference.in_time.in_context import Seen, curves, probe
from chopmix.inference.in_time.rivals import (
    HIDDEN,
    RATE,
    RIVALS,
    STEPS,
    WEIGHTS,
    errors_of,
    greedy_tree,
    lasso,
    least_squares,
    neighbours,
    network,
    ridge,
)
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


def test_the_fitted_network_is_that_of_pytorchs_modules():
    """One function at a time, by torch.nn and AdamW, from the same first weights."""
    x, y, asked, _ = drawn(2, 6, 3)
    found = network(x, y, asked, decay=0.1)
    random = torch.Generator().manual_seed(0)
    first = torch.randn((2, 3, HIDDEN), generator=random, dtype=torch.float64) * 3**-0.5
    torch.randn((2, 1, HIDDEN), generator=random, dtype=torch.float64)
    last = torch.randn((2, HIDDEN, 1), generator=random, dtype=torch.float64) * HIDDEN**-0.5
    for number in range(2):
        up = torch.nn.Linear(3, HIDDEN, dtype=torch.float64)
        down = torch.nn.Linear(HIDDEN, 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            up.weight.copy_(first[number].T)
            up.bias.zero_()
            down.weight.copy_(last[number].T)
        made = torch.nn.Sequential(up, torch.nn.ReLU(), down)
        optimizer = torch.optim.AdamW(made.parameters(), lr=RATE, weight_decay=0.1)
        for _ in range(STEPS):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(made(x[number])[:, 0], y[number]).backward()
            optimizer.step()
        assert float(found[number]) == pytest.approx(float(made(asked[number]).detach()), rel=1e-4)


def test_settings_are_chosen_on_other_functions():
    """The best setting of the first functions is used for the others, though another would have been better there."""
    x, y, asked, truth = drawn(40, 6, 3)
    whole, values = torch.cat([x, asked[:, None]], 1), torch.cat([y, truth[:, None]], 1)
    settings_ = RIVALS["ridge"]
    errors = torch.stack([(each(x, y, asked) - truth).square() for each in settings_])
    chosen = errors[:, :20].mean(1).argmin()
    assert errors_of(settings_, whole, values, 20)[6] == pytest.approx(float(errors[chosen, 20:].mean()))


def test_curves_and_probe():
    """A model that predicts by ridge has ridge's curve, and layers that hold its weights are read perfectly."""
    x, y, asked, truth = drawn(200, 6, 3)
    whole, values = torch.cat([x, asked[:, None]], 1), torch.cat([y, truth[:, None]], 1)
    predicted = torch.stack([ridge(whole[:, :k], values[:, :k], whole[:, k], weight=1.0) for k in range(7)], 1)
    axes = torch.eye(3, dtype=torch.float64)
    weights = torch.stack([ridge(x, y, axis.expand(200, -1), weight=1.0) for axis in axes], 1)
    mixed = weights @ torch.randn(3, 5, dtype=torch.float64)
    hidden = torch.zeros(2, 200, 7, 5, dtype=torch.float64)
    hidden[1, :, 6] = mixed
    hidden[0, :, 6] = torch.randn(200, 5, dtype=torch.float64)
    at_values = torch.randn(2, 200, 7, 5, dtype=torch.float64)
    at_values[1] -= at_values[1, :, :6].mean(1, keepdim=True) - mixed[:, None]  # on average, and none of them alone
    found = Seen(x=whole, y=values, predicted=predicted, hidden={"point": hidden, "value": at_values})
    told: list[str] = []
    lines = curves(found, ["zero", "ridge"], 100, told.append)
    assert told == ["zero", "ridge"]
    assert lines["model"] == pytest.approx([float(e) for e in (predicted - values)[100:].square().mean(0)])
    assert lines["zero"] == pytest.approx([float(e) for e in values[100:].square().mean(0)])
    for none, all_of_it in probe(found, 6, 1.0).values():
        assert none < 0.2 and all_of_it > 0.97


@pytest.mark.filterwarnings("error")
def test_lasso_converges_at_its_smallest_weight():
    x, y, asked, _ = drawn(100, 5, 8)
    assert lasso(x, y, asked, weight=WEIGHTS[1]).isfinite().all()
