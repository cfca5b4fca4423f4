"""The dense CRF against its own binding, a naive mean field and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydensecrf import densecrf
from pydensecrf import utils as binding

from wsss.refine.crf import (
    CrfParams,
    alpha_scores,
    crf_labels,
    crf_probabilities,
    threshold_labels,
)

PARAMS = CrfParams(5, 3, 3, 50, 5, 10)


def two_halves(height: int, width: int) -> np.ndarray:
    """An image whose left half is dark and whose right half is bright."""
    image = np.full((height, width, 3), 30, dtype=np.uint8)
    image[:, width // 2 :] = 220
    return image


def random_scores(k: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((k, height, width), dtype=np.float32)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def binding_inference(image: np.ndarray, unary: np.ndarray, params: CrfParams) -> np.ndarray:
    height, width = image.shape[:2]
    crf = densecrf.DenseCRF2D(width, height, len(unary))
    crf.setUnaryEnergy(np.ascontiguousarray(unary))
    crf.addPairwiseGaussian(params.gaussian_sxy, params.gaussian_weight)
    crf.addPairwiseBilateral(
        params.bilateral_sxy, params.bilateral_srgb, image, params.bilateral_weight
    )
    return np.array(crf.inference(params.iterations)).reshape(-1, height, width)


def naive_mean_field(image: np.ndarray, probs: np.ndarray, params: CrfParams) -> np.ndarray:
    """Algorithm 1 of the paper with explicit N x N kernels, normalised symmetrically."""
    height, width = image.shape[:2]
    ys, xs = np.mgrid[:height, :width].reshape(2, -1)
    place = np.stack([ys, xs], 1) / 1.0
    colour = image.reshape(-1, 3) / 1.0
    unary = -np.log(np.clip(probs.reshape(len(probs), -1), 1e-5, 1))

    def kernel(features: np.ndarray) -> np.ndarray:
        distance = ((features[:, None] - features[None]) ** 2).sum(-1)
        weights = np.exp(-distance / 2)
        scale = 1 / np.sqrt(weights.sum(1) + 1e-20)
        return scale[:, None] * weights * scale[None]

    smooth = params.gaussian_weight * kernel(place / params.gaussian_sxy)
    appearance = params.bilateral_weight * kernel(
        np.concatenate([place / params.bilateral_sxy, colour / params.bilateral_srgb], 1)
    )
    belief = softmax(-unary)
    for _ in range(params.iterations):
        belief = softmax(-unary + belief @ (smooth + appearance))
    return belief.reshape(probs.shape)


def softmax(values: np.ndarray) -> np.ndarray:
    exponent = np.exp(values - values.max(0))
    return exponent / exponent.sum(0)


def test_probabilities_equal_the_binding() -> None:
    image, probs = random_image(31, 40), random_scores(4, 31, 40)
    expected = binding_inference(image, binding.unary_from_softmax(probs), PARAMS)
    np.testing.assert_allclose(crf_probabilities(image, probs, PARAMS), expected, atol=1e-6)


@pytest.mark.parametrize("k", [2, 5])
def test_labels_equal_the_binding(k: int) -> None:
    image = random_image(31, 40)
    labels = np.random.default_rng(1).integers(0, k, (31, 40))
    unary = binding.unary_from_labels(labels, k, gt_prob=0.7, zero_unsure=False)
    expected = binding_inference(image, unary, PARAMS)
    np.testing.assert_allclose(crf_labels(image, labels, k, 0.7, PARAMS), expected, atol=1e-6)


def test_close_to_the_naive_mean_field() -> None:
    image, probs = two_halves(16, 20), random_scores(3, 16, 20)
    params = CrfParams(5, 2, 1, 8, 20, 1)
    expected = naive_mean_field(image, probs, params)
    result = crf_probabilities(image, probs, params)
    # The binding filters on a permutohedral lattice, an approximation of these kernels.
    assert np.abs(result - expected).mean() < 0.03
    assert (result.argmax(0) == expected.argmax(0)).mean() > 0.95


def test_noise_is_removed_and_the_edge_kept() -> None:
    image = two_halves(40, 60)
    truth = (np.arange(60) >= 30).astype(int)[None].repeat(40, 0)
    noisy = np.where(np.random.default_rng(0).random((40, 60)) < 0.25, 1 - truth, truth)
    result = crf_labels(image, noisy, 2, 0.7, PARAMS)
    np.testing.assert_array_equal(result.argmax(0), truth)


@settings(max_examples=25, deadline=None)
@given(
    h=st.integers(1, 12), w=st.integers(1, 12), k=st.integers(1, 4), iterations=st.integers(0, 3)
)
def test_result_is_a_distribution(h: int, w: int, k: int, iterations: int) -> None:
    params = PARAMS._replace(iterations=iterations)
    result = crf_probabilities(random_image(h, w), random_scores(k, h, w), params)
    assert result.shape == (k, h, w)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.sum(0), 1, atol=1e-4)


def test_no_iterations_only_normalise() -> None:
    image, probs = random_image(9, 11), random_scores(3, 9, 11) * 0.9 + 0.05
    result = crf_probabilities(image, probs, PARAMS._replace(iterations=0))
    np.testing.assert_allclose(result, probs / probs.sum(0), atol=1e-3)


def test_common_factor_changes_nothing() -> None:
    image, probs = random_image(9, 11), random_scores(3, 9, 11) * 0.5 + 0.1
    once, twice = (crf_probabilities(image, p, PARAMS) for p in (probs, probs * 1.5))
    np.testing.assert_allclose(once, twice, atol=1e-4)


def test_views_and_read_only_inputs() -> None:
    image = random_image(9, 22)[:, ::2]
    probs = random_scores(3, 9, 22)[:, :, ::2]
    image.flags.writeable = probs.flags.writeable = False
    expected = crf_probabilities(image.copy(), probs.copy(), PARAMS)
    np.testing.assert_array_equal(crf_probabilities(image, probs, PARAMS), expected)


def test_single_label_needs_no_inference() -> None:
    image = random_image(5, 6)
    probs = np.zeros((1, 5, 6), np.float32)
    assert (crf_probabilities(image, probs, PARAMS) == 1).all()
    assert (crf_labels(image, np.zeros((5, 6), int), 1, 0.7, PARAMS) == 1).all()


def test_alpha_scores() -> None:
    cams = random_scores(2, 3, 4)
    scores = alpha_scores(cams, 4)
    np.testing.assert_allclose(scores[0], (1 - np.maximum(cams[0], cams[1])) ** 4, rtol=1e-5)
    np.testing.assert_array_equal(scores[1:], cams)
    assert scores.dtype == np.float32


def test_larger_alpha_means_less_background() -> None:
    cams = random_scores(2, 30, 30)
    low, high = ((alpha_scores(cams, a).argmax(0) == 0).mean() for a in (4, 32))
    assert high < low


def test_alpha_scores_without_classes_are_background() -> None:
    np.testing.assert_array_equal(
        alpha_scores(np.zeros((0, 3, 4), np.float32), 4), np.ones((1, 3, 4))
    )


def test_threshold_labels() -> None:
    cams = np.array([[[0.1, 0.2, 0.6]], [[0.0, 0.1, 0.9]]], dtype=np.float32)
    np.testing.assert_array_equal(threshold_labels(cams, 0.2), [[0, 0, 2]])


@pytest.mark.parametrize(
    ("image", "probs", "message"),
    [
        (random_image(4, 5), random_scores(2, 5, 4), "the scores are"),
        (random_image(4, 5).astype(float), random_scores(2, 4, 5), "uint8 image"),
        (random_image(4, 5), random_scores(0, 4, 5), "K > 0"),
        (random_image(4, 5), np.full((2, 4, 5), np.nan, np.float32), "finite"),
    ],
)
def test_bad_probabilities(image: np.ndarray, probs: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crf_probabilities(image, probs, PARAMS)


def test_bad_labels() -> None:
    image, labels = random_image(2, 2), np.full((2, 2), 2)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        crf_labels(image, labels, 2, 0.7, PARAMS)
    with pytest.raises(ValueError, match="confidence"):
        crf_labels(image, labels, 3, 1.0, PARAMS)
