"""The confusion matrix and its scores against a naive loop, closed forms and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.errors import UserError
from wsss.labels import IGNORE
from wsss.metrics.confusion import confusion, pairs, scores

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(2, 6)


def random_pair(seed: int, n: int, void: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 2))
    gt = rng.integers(0, n, shape).astype(np.uint8)
    gt[rng.random(shape) < void] = IGNORE
    return gt, rng.integers(0, n, shape).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, n=counts)
def test_equals_a_loop(seed: int, n: int) -> None:
    gt, pred = random_pair(seed, n)
    expected = np.zeros((n, n), np.int64)
    for true, predicted in zip(gt.ravel(), pred.ravel(), strict=True):
        if true != IGNORE:
            expected[true, predicted] += 1
    result = confusion(gt, pred, n)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, expected)
    rebuilt = np.zeros_like(expected)
    for row, column, count in pairs(result):
        assert count > 0
        rebuilt[row, column] = count
    np.testing.assert_array_equal(rebuilt, expected)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, n=counts)
def test_scores_equal_set_arithmetic(seed: int, n: int) -> None:
    gt, pred = random_pair(seed, n)
    result = scores(confusion(gt, pred, n))
    known = gt != IGNORE
    for c in range(n):
        true, found = (gt == c) & known, (pred == c) & known
        hit, union = int((true & found).sum()), int((true | found).sum())
        if not union:
            assert c in result.absent
            assert math.isnan(result.iou[c])
            continue
        assert result.iou[c] == pytest.approx(hit / union)
        assert result.precision[c] == pytest.approx(hit / found.sum() if found.any() else 0)
        assert result.recall[c] == pytest.approx(hit / true.sum() if true.any() else 0)
    present = [c for c in range(n) if c not in result.absent]
    expected = np.mean(result.iou[present]) if present else math.nan
    assert result.miou == pytest.approx(expected, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=counts)
def test_additive_and_blind_to_ignored_pixels(seed: int, n: int) -> None:
    gt, pred = random_pair(seed, n)
    cut = gt.shape[0] // 2
    halves = confusion(gt[:cut], pred[:cut], n) + confusion(gt[cut:], pred[cut:], n)
    np.testing.assert_array_equal(halves, confusion(gt, pred, n))
    other = np.where(gt == IGNORE, (pred + 1) % n, pred)
    np.testing.assert_array_equal(confusion(gt, other, n), confusion(gt, pred, n))


def test_golden() -> None:
    gt = np.array([[0, 0, 1, 1], [0, 255, 1, 2]], np.uint8)
    pred = np.array([[0, 1, 1, 1], [0, 2, 0, 0]], np.uint8)
    result = scores(confusion(gt, pred, 5))
    np.testing.assert_allclose(result.iou, [2 / 5, 2 / 4, 0, np.nan, np.nan])
    np.testing.assert_allclose(result.precision, [2 / 4, 2 / 3, 0, np.nan, np.nan])
    np.testing.assert_allclose(result.recall, [2 / 3, 2 / 3, 0, np.nan, np.nan])
    assert result.absent == (3, 4)
    assert result.miou == pytest.approx((0.4 + 0.5 + 0) / 3)
    assert result.gt_pixels.tolist() == [3, 3, 1, 0, 0]
    assert result.pred_pixels.tolist() == [4, 3, 0, 0, 0]


def test_perfect() -> None:
    gt, _ = random_pair(7, 4, void=0)
    result = scores(confusion(gt, gt, 4))
    assert result.miou == result.mean_precision == result.mean_recall == 1


def test_nothing_known() -> None:
    gt = np.full((2, 2), IGNORE, np.uint8)
    result = scores(confusion(gt, np.zeros_like(gt), 3))
    assert math.isnan(result.miou)
    assert result.absent == (0, 1, 2)


@pytest.mark.parametrize("stray", [255, 3, 200])
def test_a_prediction_outside_the_classes_is_refused(stray: int) -> None:
    gt = np.array([[0, 255]], np.uint8)
    pred = np.array([[0, stray]], np.uint8)  # even where the truth is unknown
    with pytest.raises(UserError, match=rf"image cat_7: .*{stray}"):
        confusion(gt, pred, 3, "cat_7")


def test_negative_predictions_are_refused() -> None:
    with pytest.raises(UserError, match=r"image x: .*-1"):
        confusion(np.zeros((1, 1), np.int64), np.full((1, 1), -1), 3, "x")


def test_a_stray_id_in_the_truth_is_refused() -> None:
    with pytest.raises(UserError, match="image x: the ground truth holds the id 9"):
        confusion(np.full((1, 1), 9, np.uint8), np.zeros((1, 1), np.uint8), 3, "x")


def test_sizes_must_agree() -> None:
    with pytest.raises(UserError, match=r"image x: .*4x3 .*5x3"):
        confusion(np.zeros((3, 4), np.uint8), np.zeros((3, 5), np.uint8), 3, "x")


def test_equals_torchmetrics() -> None:
    # First: beside a CPU-only torch torchmetrics cannot import torchvision without it.
    import wsss.torchvision_shim  # noqa: F401, I001
    import torch
    from torchmetrics.classification import MulticlassJaccardIndex

    n = 5
    gauges = {
        average: MulticlassJaccardIndex(n, average=average, ignore_index=IGNORE)
        for average in ("none", "macro")
    }
    total = np.zeros((n, n), np.int64)
    for seed in range(6):
        # The last class never occurs: torchmetrics' macro average leaves it out as well.
        gt, pred = random_pair(seed, n - 1)
        total += confusion(gt, pred, n)
        for gauge in gauges.values():
            gauge.update(torch.from_numpy(pred).long(), torch.from_numpy(gt).long())
    result = scores(total)
    np.testing.assert_allclose(np.nan_to_num(result.iou), gauges["none"].compute(), atol=1e-6)
    assert result.miou == pytest.approx(float(gauges["macro"].compute()), abs=1e-6)
