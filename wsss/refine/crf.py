"""Fully connected CRF with Gaussian edge potentials (Krähenbühl & Koltun, NeurIPS 2011).

Cost grows with the number of labels: pass only the classes that are present in the image.
The interpreter lock is held throughout, so parallel work needs processes
(:func:`wsss.parallel.ordered_map`); nothing here needs torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydensecrf import densecrf

FloatArray = npt.NDArray[np.float32]

# Scores below this count as this: the logarithm of 0 is not an energy.
MIN_PROBABILITY = 1e-5


class CrfParams(NamedTuple):
    """Constants of the mean-field inference.

    ``sxy`` are standard deviations in pixels and ``srgb`` in grey levels (theta_gamma,
    theta_alpha and theta_beta of the paper's equation 3), the weights its w(2) and w(1) with
    Potts compatibility.
    """

    iterations: int
    gaussian_sxy: float
    gaussian_weight: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_weight: float


class LabelCrf(NamedTuple):
    """A CRF of the best class of each pixel, right with probability ``confidence``.

    ``labels`` is how many share the rest, background included.
    """

    params: CrfParams
    confidence: float
    labels: int


class DoubtfulCrf(NamedTuple):
    """A CRF of scores that are right with probability ``certainty``; the rest is spread evenly.

    ``labels`` is how many share it, background included. All of them take part: those that have no
    scores have their share of the rest everywhere (MuSCLe's official code).
    """

    params: CrfParams
    certainty: float
    labels: int


ScoreCrf = CrfParams | LabelCrf | DoubtfulCrf


def refine_scores(image: npt.NDArray[np.uint8], scores: FloatArray, crf: ScoreCrf) -> FloatArray:
    """Refine K x H x W class scores, by their own values or by the best class alone.

    Labels of a :class:`LabelCrf` or :class:`DoubtfulCrf` beyond the K given ones take their share
    of doubt and nothing else: no pixel starts as one of them, and none is returned.

    Returns:
        K x H x W float32; sums to less than 1 where there are labels beyond K.
    """
    if isinstance(crf, CrfParams):
        return crf_probabilities(image, scores, crf)
    labels = max(crf.labels, len(scores))
    if isinstance(crf, DoubtfulCrf):
        absent = np.zeros((labels - len(scores), *scores.shape[1:]), np.float32)
        every = np.concatenate([scores, absent])
        mixed = crf.certainty * every + (1 - crf.certainty) / labels
        return crf_probabilities(image, mixed.astype(np.float32), crf.params)[: len(scores)]
    return crf_labels(image, scores.argmax(0), labels, crf.confidence, crf.params)[: len(scores)]


def crf_probabilities(
    image: npt.NDArray[np.uint8], probs: FloatArray, params: CrfParams
) -> FloatArray:
    """Refine class scores with the unary energy -log(score).

    Args:
        image: H x W x 3 uint8 RGB.
        probs: K x H x W, in [0, 1]. A common factor per pixel changes nothing, so they need
            not sum to 1.
        params: the constants; with 0 iterations the scores are only normalised.

    Returns:
        K x H x W float32 that sums to 1 over K; a single label has probability 1 everywhere.

    Raises:
        ValueError: shapes or types do not fit each other.
    """
    _check_image(image, probs.shape[1:])
    if probs.ndim != 3 or len(probs) == 0:
        raise ValueError(f"expected K x H x W with K > 0, got shape {probs.shape}")
    if not np.isfinite(probs).all():
        raise ValueError("scores must be finite")
    if len(probs) == 1:
        return np.ones_like(probs, dtype=np.float32)
    return _infer(image, -np.log(np.clip(probs, MIN_PROBABILITY, 1), dtype=np.float32), params)


def crf_labels(
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    num_labels: int,
    confidence: float,
    params: CrfParams,
) -> FloatArray:
    """Refine hard labels that are right with probability ``confidence``.

    The rest, 1 - confidence, is shared by the other labels, so the number of labels matters:
    it is that of the classes present plus background.

    Args:
        image: H x W x 3 uint8 RGB.
        labels: H x W integers in 0..num_labels-1.
        num_labels: K.
        confidence: in (0, 1).
        params: the constants.

    Returns:
        K x H x W float32 that sums to 1 over K; a single label has probability 1 everywhere.

    Raises:
        ValueError: shapes, types or ranges do not fit each other.
    """
    _check_image(image, labels.shape)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if labels.min() < 0 or labels.max() >= num_labels:
        raise ValueError(f"labels must be in 0..{num_labels - 1}")
    if num_labels == 1:
        return np.ones((1, *labels.shape), dtype=np.float32)
    right = np.float32(-np.log(confidence))
    wrong = np.float32(-np.log((1 - confidence) / (num_labels - 1)))
    hit = np.arange(num_labels)[:, None, None] == labels
    return _infer(image, np.where(hit, right, wrong), params)


def alpha_scores(cams: FloatArray, alpha: float) -> FloatArray:
    """Put a background score (1 - max over classes)^alpha before the class activations.

    A larger alpha means less background (Ahn & Kwak, CVPR 2018, equation 2).

    Args:
        cams: K x H x W in [0, 1]; with K = 0 everything is background.
        alpha: positive.

    Returns:
        (K+1) x H x W float32; channel 0 is background.
    """
    strongest = np.clip(cams.max(axis=0, initial=0), 0, 1)
    background = (1 - strongest.astype(np.float32)) ** np.float32(alpha)
    return np.concatenate([background[None], cams.astype(np.float32, copy=False)])


def threshold_labels(cams: FloatArray, threshold: float) -> npt.NDArray[np.intp]:
    """Hard labels from a constant background score: H x W in 0..K, 0 where no class is above it.

    Args:
        cams: K x H x W in [0, 1].
        threshold: score of the background plane; equality is background.
    """
    plane = np.full((1, *cams.shape[1:]), threshold, dtype=np.float32)
    labels: npt.NDArray[np.intp] = np.concatenate([plane, cams]).argmax(axis=0)
    return labels


def _check_image(image: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an H x W x 3 uint8 image, got {image.shape} {image.dtype}")
    if image.shape[:2] != shape:
        raise ValueError(f"the image is {image.shape[:2]} but the scores are {shape}")


def _infer(image: npt.NDArray[np.uint8], energy: FloatArray, params: CrfParams) -> FloatArray:
    """Mean-field inference on a K x H x W unary energy."""
    labels, height, width = energy.shape
    crf = densecrf.DenseCRF2D(width, height, labels)
    # The binding reads raw memory: float32, contiguous and writable, or it refuses.
    crf.setUnaryEnergy(np.array(energy.reshape(labels, -1), dtype=np.float32, order="C"))
    crf.addPairwiseGaussian(sxy=params.gaussian_sxy, compat=params.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=params.bilateral_sxy,
        srgb=params.bilateral_srgb,
        rgbim=np.array(image, order="C"),
        compat=params.bilateral_weight,
    )
    result = np.array(crf.inference(params.iterations), dtype=np.float32)
    return result.reshape(labels, height, width)
