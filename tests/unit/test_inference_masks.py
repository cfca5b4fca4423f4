"""From probabilities to masks: the stages' own pixels, tags, full size, confidence."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.artifacts import Entry
from wsss.inference.masks import Found, MaskJob, make_mask
from wsss.refine.crf import CrfParams, LabelCrf, crf_labels
from wsss.refine.resize import resize_bilinear
from wsss.stages import crf
from wsss.stages.refining import Job

PARAMS = CrfParams(3, 1, 3, 20, 5, 4)
SIZE = (24, 32)


def entry(classes: list[int], seed: int = 0) -> Entry:
    raw = np.random.default_rng(seed).random((len(classes), 6, 8)) ** 4
    return Entry((raw / raw.sum(0)).astype(np.float16), classes, SIZE)


def image() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.mark.parametrize("params", [None, PARAMS])
@pytest.mark.parametrize("classes", [[0, 1, 3], [2], [0]])
def test_masks_are_those_of_the_crf_stage(params: CrfParams | None, classes: list[int]) -> None:
    stored = entry(classes)
    (expected,) = crf.refine(Job(image(), stored), params)
    masked = make_mask(MaskJob(image(), stored, None, SIZE), params)
    np.testing.assert_array_equal(masked.full, expected)
    np.testing.assert_array_equal(masked.small, expected)


def test_a_crf_of_labels_trusts_the_best_class_alone() -> None:
    """Doubt is shared by all classes that there are, stored for this image or not."""
    stored, refiner = entry([0, 1, 3]), LabelCrf(PARAMS, 0.7, 21)
    winners = resize_bilinear(stored.array, SIZE).argmax(0)
    expected = crf_labels(image(), winners, 21, 0.7, PARAMS)[:3].argmax(0)
    (mask,) = crf.refine(Job(image(), stored), refiner)
    np.testing.assert_array_equal(mask, np.array([0, 1, 3], np.uint8)[expected])
    masked = make_mask(MaskJob(image(), stored, None, SIZE), refiner)
    np.testing.assert_array_equal(masked.full, mask)


def test_tags_leave_fewer_labels_to_doubt() -> None:
    stored, refiner = entry([0, 1, 3]), LabelCrf(PARAMS, 0.7, 21)
    masked = make_mask(MaskJob(image(), stored, frozenset({0, 4}), SIZE), refiner)
    winners = resize_bilinear(stored.array, SIZE)[:2].argmax(0)
    expected = crf_labels(image(), winners, 3, 0.7, PARAMS)[:2].argmax(0)
    np.testing.assert_array_equal(masked.full, expected.astype(np.uint8))


def test_larger_photos_get_their_own_size() -> None:
    stored, full = entry([0, 1, 3]), (60, 90)
    masked = make_mask(MaskJob(image(), stored, None, full), None)
    scores = resize_bilinear(resize_bilinear(stored.array, SIZE), full)
    np.testing.assert_array_equal(masked.full, np.array([0, 1, 3], np.uint8)[scores.argmax(0)])
    assert masked.small.shape == SIZE
    assert sum(row.pixels for row in masked.found) == (masked.full > 0).sum()


def test_tags_rule_classes_out() -> None:
    stored = entry([0, 1, 3])
    free = make_mask(MaskJob(image(), stored, None, SIZE), None)
    assert {row.id for row in free.found} == {1, 3}
    masked = make_mask(MaskJob(image(), stored, frozenset({0, 4}), SIZE), None)
    assert set(np.unique(masked.full)) == {0, 1}
    tags = {row.id: row.tag for row in masked.found}
    assert tags == {1: "found", 3: "ruled out", 5: "missed"}
    gone = next(row for row in masked.found if row.id == 3)
    assert gone.pixels == (free.full == 3).sum()
    assert masked.found[-1] == Found(5, 0, None, None, "missed")


def test_nothing_left_is_background() -> None:
    masked = make_mask(MaskJob(image(), entry([2]), frozenset(), (30, 40)), PARAMS)
    assert masked.full.shape == (30, 40)
    assert not masked.full.any()
    assert not masked.small.any()
    assert [(row.id, row.tag, row.pixels) for row in masked.found] == [(2, "ruled out", 1200)]


def test_confidence_is_the_networks_own() -> None:
    stored = entry([0, 1, 3])
    scores = resize_bilinear(stored.array, SIZE)
    for params in (None, PARAMS):
        masked = make_mask(MaskJob(image(), stored, None, SIZE), params)
        assert masked.found
        for row in masked.found:
            own = scores[[0, 1, 3].index(row.id)][masked.small == row.id]
            assert row.mean == pytest.approx(own.mean(), abs=1e-6)
            assert row.top == pytest.approx(own.max())
            assert row.pixels == own.size
