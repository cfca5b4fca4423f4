"""Sinkhorn's algorithm and the matching of patches against loops and linear programming."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import Tensor

from wsss.data.views import Overlap
from wsss.losses.transport import (
    DEFAULT,
    Patches,
    Transport,
    cosine_cost,
    draw_patches,
    masses_of,
    quadrant_cells,
    region_matching,
    sinkhorn,
    sliding_cells,
    transport_distance,
    transport_search,
)


def cells(count: int, seed: int, channels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.rand(count, channels, generator=generator), dim=1)


def view(size: int, seed: int, count: int = 1, channels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.rand(count, channels, size, size, generator=generator), dim=1)


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


def test_patches_are_drawn_in_their_bounds() -> None:
    seen = set()
    for seed in range(300):
        patches = draw_patches(np.random.default_rng(seed), 15, 40)
        for size, stride, length in zip(patches.size, patches.stride, (15, 40), strict=True):
            assert length // 3 <= size <= length // 2
            assert size // 2 <= stride <= size
        seen.add(patches.size[0])
    assert seen == {5, 6, 7}


@pytest.mark.parametrize("stride", [(7, 9), (30, 9)])
def test_sliding_patches_are_windows_resized_to_the_stride(stride: tuple[int, int]) -> None:
    maps = torch.rand(3, 75, 30)
    patches = Patches((31, 10), stride)
    windows = []
    for y in range(0, 75 - 31 + 1, stride[0]):
        for x in range(0, 30 - 10 + 1, stride[1]):
            window = maps[None, :, y : y + 31, x : x + 10]
            window = F.interpolate(window, stride, mode="bilinear", align_corners=True)
            if max(stride) > 28:
                window = F.avg_pool2d(window, 4)
            windows.append(window[0].flatten(1).T)
    torch.testing.assert_close(sliding_cells(maps, patches), torch.stack(windows))


def test_quadrants_are_quarters_averaged_over_four() -> None:
    maps = torch.rand(2, 17, 19)
    got = quadrant_cells(maps)
    assert got.shape == (4, 4, 2)
    for number, (top, left) in enumerate([(0, 0), (0, 9), (8, 0), (8, 9)]):
        for cell, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
            part = maps[:, top + y : top + y + 4, left + x : left + x + 4]
            torch.testing.assert_close(got[number, cell], part.mean((1, 2)))


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(k) for k in range(count)]


def naive_matching(first: Tensor, second: Tensor, overlaps: list[Overlap]) -> float:
    kept = []
    for b, (o, rng) in enumerate(zip(overlaps, generators(len(overlaps)), strict=True)):
        low, high = sorted((o.height, o.width))
        if low < 15 or high > 5 * low:
            continue
        patches = draw_patches(rng, o.height, o.width)
        if min(patches.stride) < 7:
            continue
        mine = first[b, :, o.top : o.top + o.height, o.left : o.left + o.width]
        theirs = second[
            b, :, o.other_top : o.other_top + o.height, o.other_left : o.other_left + o.width
        ]
        kept.append(
            min(
                float(transport_distance(x, y))
                for x in sliding_cells(mine, patches)
                for y in quadrant_cells(theirs)
            )
        )
    return sum(kept) / len(kept)


def test_the_closest_pair_of_each_image_counts() -> None:
    overlaps = [
        Overlap(40, 36, 0, 4, 0, 0),
        Overlap(14, 40, 0, 0, 26, 0),  # too low
        Overlap(30, 40, 10, 0, 0, 0),
        Overlap(40, 40, 0, 0, 0, 0),
    ]
    first, second = view(40, 0, 4), view(40, 1, 4)
    got = region_matching(first, second, overlaps, generators(4))
    assert float(got) == pytest.approx(naive_matching(first, second, overlaps), rel=1e-4)


def test_the_first_view_learns_inside_the_overlap() -> None:
    first, second = view(40, 0).requires_grad_(), view(40, 1).requires_grad_()
    overlap = Overlap(30, 32, 10, 0, 0, 8)
    region_matching(first, second, [overlap], generators(1)).backward()
    assert second.grad is None
    assert first.grad is not None
    assert first.grad.isfinite().all()
    assert first.grad.any()
    assert not first.grad[..., :10, :].any()
    assert not first.grad[..., 32:].any()


@pytest.mark.parametrize(
    "overlap",
    [
        Overlap(1, 1, 0, 0, 39, 39),
        Overlap(14, 30, 0, 0, 0, 0),
        Overlap(40, 7, 0, 0, 0, 0),
    ],
)
def test_overlaps_too_small_give_zero(overlap: Overlap) -> None:
    first = view(40, 0).requires_grad_()
    value = region_matching(first, view(40, 1), [overlap], generators(1))
    value.backward()
    assert value == 0
    assert first.grad is not None
    assert not first.grad.any()


def test_an_overlap_too_long_is_skipped() -> None:
    first, second = view(100, 0), view(100, 1)
    long = Overlap(100, 16, 0, 0, 0, 0)
    assert region_matching(first, second, [long], generators(1)) == 0
    patient = replace(DEFAULT, largest_aspect=9.0, least_patch=1)
    assert region_matching(first, second, [long], generators(1), patient) > 0
