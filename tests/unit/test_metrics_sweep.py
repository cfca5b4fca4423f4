"""One pass over the histogram gives what an argmax at every threshold gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.errors import UserError
from wsss.labels import IGNORE
from wsss.metrics.confusion import confusion, scores
from wsss.metrics.sweep import (
    apply_threshold,
    best,
    confusions,
    histogram,
    sweep,
    thresholds,
    top_foreground,
)


def explicit(maps: np.ndarray, classes: list[int], threshold: np.float32) -> np.ndarray:
    """Background gets the threshold as its score and wins ties: the textbook argmax."""
    background = np.full((1, *maps.shape[1:]), threshold, np.float32)
    ids = np.array([0, *(c + 1 for c in classes)], np.uint8)
    return ids[np.concatenate([background, maps]).argmax(axis=0)]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bins=st.sampled_from([2, 7, 10, 100]),
    present=st.sets(st.integers(0, 3), max_size=3),
    coarse=st.booleans(),
)
def test_equals_explicit_argmax(seed: int, bins: int, present: set[int], coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    classes, n = sorted(present), 5
    maps = rng.random((len(classes), 6, 7)).astype(np.float32)
    if coarse:  # scores exactly on the edges, and ties
        maps = rng.choice(np.append(thresholds(bins), np.float32(1)), maps.shape)
    gt = rng.integers(0, n, (6, 7)).astype(np.uint8)
    gt[rng.random(gt.shape) < 0.2] = IGNORE
    edges = thresholds(bins)
    top, score = top_foreground(maps, classes)
    hist = histogram(gt, top, score, edges, n)
    assert hist.sum() == (gt != IGNORE).sum()
    swept = confusions(hist)
    assert swept.shape == (bins, n, n)
    for edge, matrix in zip(edges, swept, strict=True):
        pred = explicit(maps, classes, edge)
        np.testing.assert_array_equal(apply_threshold(top, score, float(edge)), pred)
        np.testing.assert_array_equal(matrix, confusion(gt, pred, n))
    curve = [scores(confusion(gt, explicit(maps, classes, e), n)).miou for e in edges]
    np.testing.assert_array_equal([point.miou for point in sweep(hist)], curve)


def test_histograms_add_up() -> None:
    rng = np.random.default_rng(0)
    edges, total = thresholds(10), np.zeros((3, 3, 11), np.int64)
    expected = np.zeros((10, 3, 3), np.int64)
    for _ in range(4):
        gt = rng.integers(0, 3, (5, 5)).astype(np.uint8)
        maps = rng.random((2, 5, 5)).astype(np.float32)
        total += histogram(gt, *top_foreground(maps, [0, 1]), edges, 3)
        expected += [confusion(gt, explicit(maps, [0, 1], edge), 3) for edge in edges]
    np.testing.assert_array_equal(confusions(total), expected)


def test_thresholds() -> None:
    edges = thresholds(100)
    assert edges.dtype == np.float32
    assert len(edges) == 100
    assert edges[0] == 0
    assert edges[29] == np.float32(0.29)
    assert edges[-1] == np.float32(0.99)
    third = thresholds(3)[1]
    assert third == np.float32(round(float(third), 6))


def test_an_image_without_classes_is_background() -> None:
    top, score = top_foreground(np.zeros((0, 2, 3), np.float32), [])
    assert not apply_threshold(top, score, 0.0).any()
    hist = histogram(np.zeros((2, 3), np.uint8), top, score, thresholds(4), 3)
    assert [m[0, 0] for m in confusions(hist)] == [6] * 4


def test_a_score_on_the_threshold_is_background() -> None:
    maps = np.full((1, 1, 1), 0.3, np.float32)
    top, score = top_foreground(maps, [1])
    assert apply_threshold(top, score, 0.3)[0, 0] == 0
    assert apply_threshold(top, score, 0.29)[0, 0] == 2


def test_best_takes_the_lowest_of_equals() -> None:
    gt = np.array([[0, 1]], np.uint8)
    maps = np.array([[[0.15, 0.85]]], np.float32)
    curve = sweep(histogram(gt, *top_foreground(maps, [0]), thresholds(10), 2))
    assert best(curve) == 2
    assert curve[2].miou == curve[8].miou == 1


def test_sizes_must_agree() -> None:
    top, score = top_foreground(np.zeros((1, 3, 3), np.float32), [0])
    with pytest.raises(UserError, match=r"image x: .*2x3 .*3x3"):
        histogram(np.zeros((3, 2), np.uint8), top, score, thresholds(4), 2, "x")
