"""What the CRF stages do with one image and with shards."""

from __future__ import annotations

import numpy as np
import pytest
from pydensecrf import densecrf

from wsss.artifacts import Entry
from wsss.config import Params
from wsss.data.manifest import Item
from wsss.refine.crf import CrfParams, DoubtfulCrf, LabelCrf, refine_scores
from wsss.refine.crf_config import optional_crf
from wsss.stages.crf import refine
from wsss.stages.refining import Job, take_shard
from wsss.stages.seeds import alpha_seeds, class_ids, label_seeds

PARAMS = CrfParams(3, 3, 3, 50, 5, 10)
SIZE = (24, 31)


def job(classes: list[int], maps: np.ndarray) -> Job:
    """An image with a bright right half and maps at stride 4."""
    image = np.full((*SIZE, 3), 40, np.uint8)
    image[:, 16:] = 210
    return Job(image, Entry(maps.astype(np.float16), classes, SIZE))


def right_half(value: float) -> np.ndarray:
    maps = np.zeros((6, 8))
    maps[:, 4:] = value
    return maps


def test_class_ids_are_one_above_labels() -> None:
    np.testing.assert_array_equal(class_ids(np.array([[0, 1, 2]]), [3, 7]), [[0, 4, 8]])


def test_alpha_seeds_hold_present_classes_only() -> None:
    low, high = alpha_seeds(
        job([4, 9], np.stack([right_half(0.9), right_half(0.2)])), [4, 32], PARAMS
    )
    for mask in (low, high):
        assert mask.shape == SIZE
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 5, 10}
        assert (mask[:, 20:] == 5).all()
    assert (high == 0).sum() <= (low == 0).sum()


def test_label_seeds_follow_the_image_edge() -> None:
    (mask,) = label_seeds(job([4], right_half(0.9)[None]), 0.2, 0.7, PARAMS)
    np.testing.assert_array_equal(mask == 5, np.arange(31)[None].repeat(24, 0) >= 16)


def test_images_without_tags_are_background() -> None:
    empty = job([], np.zeros((0, 6, 8)))
    masks = [*alpha_seeds(empty, [4, 32], PARAMS), *label_seeds(empty, 0.2, 0.7, PARAMS)]
    assert all(mask.shape == SIZE and not mask.any() for mask in masks)
    assert len(masks) == 3


@pytest.mark.parametrize("params", [None, PARAMS])
def test_scores_become_the_ids_of_their_classes(params: CrfParams | None) -> None:
    scores = np.stack([1 - right_half(0.9), right_half(0.9)])
    (mask,) = refine(job([0, 7], scores), params)
    assert mask.dtype == np.uint8
    assert (mask[:, :12] == 0).all()
    assert (mask[:, 20:] == 7).all()


def test_no_iterations_are_no_crf(tiny_params: Params) -> None:
    config = tiny_params.base.crf
    assert optional_crf(config, 7) == CrfParams(10, 1, 3, 67, 3, 4)
    assert optional_crf(config.model_copy(update={"iterations": 0}), 7) is None
    doubtful = optional_crf(config.model_copy(update={"certainty": 0.5}), 7)
    assert doubtful == DoubtfulCrf(CrfParams(10, 1, 3, 67, 3, 4), 0.5, 7)


def test_doubt_is_spread_over_all_classes() -> None:
    """Without iterations what comes out is the unary itself."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 5, 3), np.uint8)
    scores = rng.random((3, 4, 5)).astype(np.float32)
    scores /= scores.sum(0)
    crf = DoubtfulCrf(CrfParams(0, 1, 3, 67, 3, 4), 0.5, 21)
    mixed = 0.5 * scores + 0.5 / 21
    total = mixed.sum(0) + 18 * 0.5 / 21
    np.testing.assert_allclose(refine_scores(image, scores, crf), mixed / total, rtol=1e-4)


@pytest.mark.parametrize("present", [[0], [0, 7], [0, 3, 20]])
def test_doubtful_scores_run_against_all_labels(present: list[int]) -> None:
    """The labels without scores take part in the inference: -log(clip(p/2 + 1/42, 1e-5, 1))."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 15, 3), np.uint8)
    scores = rng.random((len(present), 12, 15)).astype(np.float32)
    scores /= scores.sum(0)
    every = np.zeros((21, 12, 15), np.float32)
    every[present] = scores
    naive = densecrf.DenseCRF2D(15, 12, 21)
    naive.setUnaryEnergy(-np.log(np.clip(0.5 * every + 0.5 / 21, 1e-5, 1)).reshape(21, -1))
    naive.addPairwiseGaussian(2, 1)
    naive.addPairwiseBilateral(21.333, 10, image, 10)
    expected = np.array(naive.inference(4)).reshape(21, 12, 15)[present]
    crf = DoubtfulCrf(CrfParams(4, 2, 1, 21.333, 10, 10), 0.5, 21)
    np.testing.assert_allclose(refine_scores(image, scores, crf), expected, rtol=1e-4, atol=1e-6)


def test_a_confidence_makes_it_a_crf_of_labels(tiny_params: Params) -> None:
    config = tiny_params.base.crf.model_copy(update={"confidence": 0.7})
    assert optional_crf(config, 7) == LabelCrf(CrfParams(10, 1, 3, 67, 3, 4), 0.7, 7)


@pytest.mark.parametrize("number", [1, 2, 3, 7, 12])
def test_shards_are_contiguous_and_complete(number: int) -> None:
    items = [Item(str(i), "", None, (), ()) for i in range(10)]
    shards = [take_shard(items, (index, number)) for index in range(number)]
    assert [item for shard in shards for item in shard] == items
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
