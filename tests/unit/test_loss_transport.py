"""Sinkhorn's algorithm and the matching of patches against loops and linear programming."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import Tensor

from wsss.losses.transport import (
    DEFAULT,
    Transport,
    cosine_cost,
    masses_of,
    sinkhorn,
    transport_distance,
    transport_search,
)


def cells(count: int, seed: int, channels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.rand(count, channels, generator=generator), dim=1)


def naive_distance(first: Tensor, second: Tensor, how: Transport) -> float:
    """Every number by itself, as the equations have it."""
    x, y = first.double().numpy(), second.double().numpy()
    m, n, eps = len(x), len(y), how.epsilon
    cost = [[1 - float(x[i] @ y[j]) for j in range(n)] for i in range(m)]
    mu = [float(x[i] @ y.mean(0)) for i in range(m)]
    nu = [float(y[j] @ x.mean(0)) for j in range(n)]
    if how.masses == "normalised":
        mu, nu = [v / sum(mu) for v in mu], [v / sum(nu) for v in nu]
    u, v = [0.0] * m, [0.0] * n

    def z(i: int, j: int, a: list[float], b: list[float]) -> float:
        return (-cost[i][j] + a[i] + b[j]) / eps

    def lse(values: list[float]) -> float:
        top = max(values)
        return top + math.log(sum(math.exp(value - top) for value in values))

    for _ in range(how.iterations):
        new_u = [
            eps * (math.log(mu[i] + 1e-6) - lse([z(i, j, u, v) for j in range(n)])) + u[i]
            for i in range(m)
        ]
        basis = new_u if how.alternate else u
        v = [
            eps * (math.log(nu[j] + 1e-6) - lse([z(i, j, basis, v) for i in range(m)])) + v[j]
            for j in range(n)
        ]
        u = new_u
    total = sum(math.exp(z(i, j, u, v)) * cost[i][j] for i in range(m) for j in range(n))
    return total / (m * n)


@pytest.mark.parametrize("masses", ["raw", "normalised"])
@pytest.mark.parametrize("alternate", [False, True])
def test_the_distance_is_the_loop_and_so_is_the_search(masses: str, alternate: bool) -> None:
    how = Transport(masses=masses, alternate=alternate)  # type: ignore[arg-type]
    first, second = cells(6, 0), cells(4, 1)
    expected = naive_distance(first, second, how)
    assert float(transport_distance(first, second, how)) == pytest.approx(expected, rel=1e-4)
    assert float(transport_search(first, second, how)) == pytest.approx(expected, rel=1e-4)


def test_the_search_compares_many_pairs_at_once() -> None:
    first = torch.stack([cells(9, s) for s in range(3)])
    second = torch.stack([cells(5, s + 10) for s in range(2)])
    got = transport_search(first[:, None], second[None])
    for i in range(3):
        for j in range(2):
            torch.testing.assert_close(got[i, j], transport_distance(first[i], second[j]))


def test_masses_are_what_cells_have_in_common() -> None:
    first, second = cells(3, 0), cells(5, 1)
    mine, theirs = masses_of(first, second)
    for i in range(3):
        assert float(mine[i]) == pytest.approx(
            sum(float(first[i] @ second[j]) for j in range(5)) / 5, rel=1e-5
        )
    torch.testing.assert_close(theirs, second @ first.mean(0))
    one, two = masses_of(first, second, "normalised")
    assert float(one.sum()) == pytest.approx(1)
    assert float(two.sum()) == pytest.approx(1)


@pytest.mark.parametrize("masses", ["raw", "normalised"])
def test_constant_equal_patches_cost_nothing(masses: str) -> None:
    how = Transport(masses=masses)  # type: ignore[arg-type]
    cell = cells(1, 0)
    first, second = cell.expand(9, -1), cell.expand(4, -1)
    assert float(transport_distance(first, second, how)) == pytest.approx(0, abs=1e-6)
    assert float(transport_search(first, second, how)) == pytest.approx(0, abs=1e-6)


def test_the_plan_is_that_of_linear_programming() -> None:
    how = Transport(masses="normalised", alternate=True, epsilon=1e-3, iterations=4000, floor=0.0)
    first, second = (cells(n, s).double() for n, s in ((5, 0), (4, 3)))
    cost = cosine_cost(first, second)
    mine, theirs = masses_of(first, second, "normalised")
    plan = sinkhorn(cost, mine, theirs, how).numpy()
    rows = [np.kron(np.eye(5)[i], np.ones(4)) for i in range(5)]
    columns = [np.kron(np.ones(5), np.eye(4)[j]) for j in range(4)]
    found = linprog(
        cost.numpy().ravel(),
        A_eq=np.array([*rows, *columns]),
        b_eq=np.concatenate([mine.numpy(), theirs.numpy()]),
    )
    assert found.success
    np.testing.assert_allclose(plan, found.x.reshape(5, 4), atol=2e-3)
    assert float((plan * cost.numpy()).sum()) == pytest.approx(found.fun, rel=1e-2)


def test_both_potentials_from_the_old_ones_end_off_the_masses() -> None:
    """Why `alternate` exists: the official update converges to a multiple of the plan."""
    first, second = cells(5, 0), cells(4, 3)
    masses = masses_of(first, second, "normalised")
    plans = [
        sinkhorn(
            cosine_cost(first, second),
            *masses,
            Transport(masses="normalised", alternate=alternate, iterations=200),
        )
        for alternate in (False, True)
    ]
    assert float(plans[1].sum()) == pytest.approx(1, abs=1e-4)
    shapes = [plan / plan.sum() for plan in plans]
    torch.testing.assert_close(shapes[0], shapes[1], atol=1e-5, rtol=1e-3)


def test_gradient_passes_through_the_plan_alone() -> None:
    """Numerically: with masses and the last cost held, the gradient is that of the plan."""
    first, second = cells(4, 0).double().requires_grad_(), cells(3, 1).double()
    transport_distance(first, second).backward()
    assert first.grad is not None
    with torch.no_grad():
        held, masses = cosine_cost(first, second), masses_of(first, second)
        step = 1e-6
        for i, d in ((0, 0), (2, 3)):
            values = []
            for sign in (1, -1):
                moved = first.clone()
                moved[i, d] += sign * step
                plan = sinkhorn(cosine_cost(moved, second), *masses)
                values.append(float((plan * held).mean()))
            expected = (values[0] - values[1]) / (2 * step)
            assert float(first.grad[i, d]) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_padding_changes_nothing() -> None:
    """Cells that are not there get and give nothing, in value and in gradient."""
    first, second = cells(6, 0), cells(4, 1)
    for how in (DEFAULT, Transport(masses="normalised", alternate=True)):
        bare, padded = first.clone().requires_grad_(), first.clone().requires_grad_()
        plain = transport_distance(bare, second, how)
        plain.backward()
        valid = torch.arange(9) < 6, torch.arange(5) < 4
        one, two = F.pad(padded, (0, 0, 0, 3)), F.pad(second, (0, 0, 0, 1))
        value = transport_distance(one, two, how, valid)
        value.backward()
        torch.testing.assert_close(value, plain)
        torch.testing.assert_close(padded.grad, bare.grad)
        torch.testing.assert_close(transport_search(one, two, how, valid), plain.detach())
