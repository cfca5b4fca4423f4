"""Localisation scores against naive loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss.metrics.boxes import (
    IOUS,
    BoxCounts,
    accuracies,
    best_ious,
    count_image,
    iou_table,
    regions,
)
from wsss.metrics.sweep import thresholds

Box = tuple[int, int, int, int]


def flood(binary: np.ndarray) -> list[set[tuple[int, int]]]:
    """Connected regions by an explicit search over the eight neighbours."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(binary), strict=True)}
    found = []
    while left:
        queue, region = [min(left)], set()
        while queue:
            y, x = queue.pop()
            if (y, x) not in left:
                continue
            left.remove((y, x))
            region.add((y, x))
            queue += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        found.append(region)
    return found


def box_of(region: set[tuple[int, int]]) -> Box:
    rows, columns = [y for y, _ in region], [x for _, x in region]
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


def naive_iou(a: Box, b: Box) -> float:
    """Count the pixels that are in both boxes and in any."""
    first, second = ({(y, x) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (a, b))
    return len(first & second) / len(first | second)


binaries = st.tuples(st.integers(0, 2**16), st.integers(1, 9), st.integers(1, 9)).map(
    lambda t: np.random.default_rng(t[0]).random((t[1], t[2])) < 0.4
)


@given(binary=binaries, least=st.integers(1, 4))
def test_regions_are_those_of_a_search(binary: np.ndarray, least: int) -> None:
    expected = [region for region in flood(binary) if len(region) >= least]
    got = regions(binary, least)
    assert sorted(map(tuple, got.boxes.tolist())) == sorted(map(box_of, expected))
    assert got.areas.tolist() == sorted((len(r) for r in expected), reverse=True)
    for number, area in enumerate(got.areas, start=1):
        inside = {(int(y), int(x)) for y, x in zip(*np.nonzero(got.labels == number), strict=True)}
        assert inside in expected
        assert len(inside) == area
        assert box_of(inside) == tuple(got.boxes[number - 1])
    assert got.labels.max(initial=0) == len(expected)


def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    return x, y, x + draw(st.integers(1, 6)), y + draw(st.integers(1, 6))


box_lists = st.lists(st.composite(boxes)(), min_size=1, max_size=4)


@given(first=box_lists, second=box_lists)
def test_iou_is_that_of_pixel_sets(first: list[Box], second: list[Box]) -> None:
    table = iou_table(np.array(first), np.array(second))
    expected = [[naive_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(table, expected, rtol=1e-12)


@given(seed=st.integers(0, 1000), truth=box_lists)
def test_best_iou_at_every_threshold(seed: int, truth: list[Box]) -> None:
    scores = np.random.default_rng(seed).random((10, 12)).astype(np.float32) ** 3
    edges = thresholds(8)
    got = best_ious(scores, np.array(truth), edges)
    for index, edge in enumerate(edges):
        pairs = [naive_iou(box_of(r), t) for r in flood(scores > edge) for t in truth]
        assert got[index] == pytest.approx(max(pairs, default=0), abs=1e-12)


def test_nothing_above_a_threshold_hits_nothing() -> None:
    scores = np.full((4, 4), 0.25, np.float32)
    found = best_ious(scores, np.array([[0, 0, 4, 4]]), thresholds(4))
    # Equality does not exceed.
    assert found.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_an_image_counts_each_tagged_class_once() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[0:4, 0:4] = 1
    mask[9, 9] = 2  # too small to be a box
    mask[5:, :5] = 255
    maps = np.zeros((3, 10, 10), np.float32)
    maps[0, 0:4, 0:2] = 0.6  # half of the true box
    maps[1, 9, 9] = 1
    counts = BoxCounts.empty(3, 10)
    count_image(counts, maps, [0, 1, 2], mask, thresholds(10), min_area=0.02)
    assert counts.pairs.tolist() == [1, 0, 0]
    assert counts.bare.tolist() == [0, 1, 1]
    # IoU 0.5 reaches the first two levels while the threshold is below 0.6.
    assert counts.hits[0].tolist() == [[1, 1, 0]] * 6 + [[0, 0, 0]] * 4
    assert not counts.hits[1:].any()
    total = BoxCounts.empty(3, 10)
    total.add(counts)
    total.add(counts)
    np.testing.assert_array_equal(accuracies(total)[:, 1], [1] * 6 + [0] * 4)
    assert IOUS == (0.3, 0.5, 0.7)
