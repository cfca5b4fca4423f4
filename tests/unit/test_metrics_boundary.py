"""The boundary F-measure: closed forms, a naive loop, void."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.labels import IGNORE
from wsss.metrics.boundary import boundary_counts, boundary_f, fill_thin_void

seeds = st.integers(0, 2**32 - 1)


def naive(gt: np.ndarray, pred: np.ndarray, n: int, tolerance: float) -> np.ndarray:
    """Every boundary pixel against every other; void is never filled."""
    height, width = gt.shape
    reach = tolerance * math.hypot(height, width)

    def around(y: int, x: int, diagonal: bool) -> list[tuple[int, int]]:
        steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)] if diagonal else []
        near = [(y + dy, x + dx) for dy, dx in steps]
        return [(a, b) for a, b in near if 0 <= a < height and 0 <= b < width]

    def edge(mask: np.ndarray, c: int) -> list[tuple[int, int]]:
        inside = [(int(y), int(x)) for y, x in np.argwhere(mask == c)]
        return [p for p in inside if any(mask[q] != c for q in around(*p, diagonal=False))]

    def counted(p: tuple[int, int]) -> bool:
        return all(gt[q] != IGNORE for q in [p, *around(*p, diagonal=True)])

    result = np.zeros((n, 4), np.int64)
    for c in range(1, n):
        edges = edge(pred, c), edge(gt, c)
        for side in (0, 1):
            points = [p for p in edges[side] if counted(p)]
            near = [any(math.dist(p, q) <= reach for q in edges[1 - side]) for p in points]
            result[c, 2 * side : 2 * side + 2] = sum(near), len(points)
    return result


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    tolerance=st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.5]),
    void=st.sampled_from([0.0, 0.05]),
)
def test_equals_a_loop(seed: int, tolerance: float, void: float) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 13, 2))
    gt = rng.choice([0, 0, 0, 1, 2], shape).astype(np.uint8)
    pred = np.where(rng.random(shape) < 0.6, gt, rng.integers(0, 4, shape)).astype(np.uint8)
    gt[rng.random(shape) < void] = IGNORE
    result = boundary_counts(gt, pred, 4, tolerance, void_band=0)
    np.testing.assert_array_equal(result, naive(gt, pred, 4, tolerance))


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_perfect_is_one_and_swapping_swaps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gt, pred = rng.integers(0, 3, (2, 9, 11)).astype(np.uint8)
    per_class, mean = boundary_f(boundary_counts(gt, gt, 3))
    assert mean == 1
    assert math.isnan(per_class[0])
    forth, back = boundary_counts(gt, pred, 3, 0.1), boundary_counts(pred, gt, 3, 0.1)
    np.testing.assert_array_equal(forth, back[:, [2, 3, 0, 1]])


def square(shift: int = 0, side: int = 120) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[30:70, 30 + shift : 70 + shift] = 1
    return mask


@pytest.mark.parametrize(("shift", "inside"), [(1, True), (3, True), (4, False), (10, False)])
def test_shift_against_the_tolerance(shift: int, inside: bool) -> None:
    reach = 3.5 / math.hypot(120, 120)
    counts = boundary_counts(square(), square(shift), 2, reach)
    f, mean = boundary_f(counts)
    if inside:
        assert mean == 1
    else:
        # The vertical sides no longer match, apart from their ends.
        assert counts[1, 0] < counts[1, 1] == 4 * 39
        assert mean < 0.7
    assert f[1] == mean


def test_distance_equal_to_the_tolerance_matches() -> None:
    gt, pred = np.zeros((2, 30, 40), np.uint8)  # the diagonal is 50
    gt[10, 5], pred[10, 10] = 1, 1
    assert boundary_counts(gt, pred, 2, 0.1)[1].tolist() == [1, 1, 1, 1]
    assert boundary_counts(gt, pred, 2, 0.0999)[1].tolist() == [0, 1, 0, 1]


def test_absent_missed_and_invented_classes() -> None:
    gt, pred = square(), np.where(square() == 1, 2, 0).astype(np.uint8)
    per_class, mean = boundary_f(boundary_counts(gt, pred, 4))
    np.testing.assert_array_equal(per_class, [np.nan, 0, 0, np.nan])
    assert mean == 0


def test_no_boundary_at_all() -> None:
    full = np.ones((5, 5), np.uint8)  # the edge of the image is no boundary
    per_class, mean = boundary_f(boundary_counts(full, full, 2))
    assert np.isnan(per_class).all()
    assert math.isnan(mean)


def ringed(width: int) -> np.ndarray:
    """A square whose outline hides under a ring of void, as VOC draws it."""
    mask = square()
    half = width // 2
    ring = np.zeros_like(mask, bool)
    ring[30 - half : 70 + half, 30 - half : 70 + half] = True
    ring[30 + width - half : 70 - width + half, 30 + width - half : 70 - width + half] = False
    mask[ring] = IGNORE
    return mask


def test_an_outline_of_void_is_read_at_its_middle() -> None:
    gt = ringed(5)
    tolerance = 1.5 / math.hypot(120, 120)
    assert boundary_f(boundary_counts(gt, square(), 2, tolerance))[1] == 1
    far = boundary_counts(gt, square(6), 2, tolerance)
    assert boundary_f(far)[1] < 0.8
    # Taken literally, nothing of such a mask would be left to score.
    assert not boundary_counts(gt, square(), 2, tolerance, void_band=0).any()


def test_thick_void_stays_void_as_a_whole() -> None:
    gt = np.zeros((40, 60), np.uint8)
    gt[:, :10] = 1
    gt[:, 10:30] = IGNORE
    np.testing.assert_array_equal(fill_thin_void(gt, 3), gt)
    pred = np.zeros_like(gt)
    pred[:, :20] = 1  # its outline lies in the void: neither right nor wrong
    assert not boundary_counts(gt, pred, 2).any()


@settings(max_examples=40, deadline=None)
@given(seed=seeds, depth=st.integers(0, 4))
def test_filling_only_touches_void(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    gt = rng.integers(0, 3, (12, 12)).astype(np.uint8)
    gt[rng.random(gt.shape) < rng.random()] = IGNORE
    filled = fill_thin_void(gt, depth)
    known = gt != IGNORE
    np.testing.assert_array_equal(filled[known], gt[known])
    assert set(np.unique(filled)) <= set(np.unique(gt))
    # A perfect prediction scores 1 whatever is void.
    guess = np.where(filled == IGNORE, 0, filled)
    mean = boundary_f(boundary_counts(gt, guess, 3, void_band=depth))[1]
    assert math.isnan(mean) or mean == 1


def test_only_void() -> None:
    gt = np.full((4, 4), IGNORE, np.uint8)
    assert not boundary_counts(gt, np.eye(4, dtype=np.uint8), 2).any()
