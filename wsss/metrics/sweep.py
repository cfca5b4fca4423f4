"""The score of class activations at every threshold, from one pass over the images.

A pixel belongs to its top-scoring foreground class if that score exceeds the threshold, else to
the background. Which class is on top does not depend on the threshold, so a histogram over (true
class, top class, score bin) holds the confusion matrix of every threshold at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsss.labels import IGNORE
from wsss.metrics.confusion import IntArray, Scores, check_pair, scores

ScoreArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]


def thresholds(bins: int) -> ScoreArray:
    """The ``bins`` thresholds 0, 1/bins, ..., (bins-1)/bins, to six decimals.

    Six, so that the number written to a report is the number that was used. They are float32
    like the scores: compared in another precision, a score that equals a threshold would fall on
    either side of it.
    """
    return np.round(np.arange(bins) / bins, 6).astype(np.float32)


def top_foreground(maps: ScoreArray, classes: Sequence[int]) -> tuple[Mask, ScoreArray]:
    """The best foreground class of every pixel and its score.

    Args:
        maps: (K, H, W) scores; K may be 0.
        classes: K foreground classes as label ids 0..C-1. Among equal scores the first wins.

    Returns:
        (H, W) uint8 mask ids 1..C and (H, W) float32 scores; id 1 and score 0 if K is 0, which
        no threshold lets through.
    """
    if not len(classes):
        return np.ones(maps.shape[1:], np.uint8), np.zeros(maps.shape[1:], np.float32)
    winner = maps.argmax(axis=0)
    score = np.take_along_axis(maps, winner[None], axis=0)[0]
    return (np.asarray(classes, np.uint8) + np.uint8(1))[winner], score


def apply_threshold(top: Mask, score: ScoreArray, threshold: float) -> Mask:
    """The (H, W) mask at one threshold: ``top`` where ``score`` exceeds it, else background 0."""
    return np.where(score > np.float32(threshold), top, np.uint8(0))


def histogram(
    gt: Mask, top: Mask, score: ScoreArray, edges: ScoreArray, n: int, image_id: str = "?"
) -> IntArray:
    """Count pixels by true class, top class and score bin.

    Args:
        gt: (H, W) ids 0..n-1, 255 is not counted.
        top: (H, W) ids 1..n-1, the best foreground class.
        score: (H, W) its score.
        edges: (B,) rising thresholds.
        n: number of classes, background included.
        image_id: named in errors.

    Returns:
        int64 (n, n, B+1). Bin k holds the scores that exceed exactly the first k thresholds.

    Raises:
        UserError: sizes differ, or an id is out of range.
    """
    check_pair(gt, top, n, image_id)
    known = gt != IGNORE
    # side="left" counts the edges strictly below the score: the ones that it exceeds.
    bins = np.searchsorted(edges, score[known], side="left")
    depth = len(edges) + 1
    index = (gt[known].astype(np.intp) * n + top[known]) * depth + bins
    counts = np.bincount(index, minlength=n * n * depth).reshape(n, n, depth)
    return counts.astype(np.int64, copy=False)


def confusions(hist: IntArray) -> IntArray:
    """The confusion matrices of all thresholds: (n, n, B+1) histogram -> int64 (B, n, n)."""
    # Bins above b exceed threshold b: a running sum from the highest bin down.
    above = np.cumsum(hist[:, :, ::-1], axis=2)[:, :, ::-1]
    matrices = np.moveaxis(above[:, :, 1:], 2, 0).copy()
    total = hist.sum(axis=(1, 2))
    matrices[:, :, 0] += total - matrices.sum(axis=2)
    return matrices


def sweep(hist: IntArray) -> list[Scores]:
    """The scores at each of the B thresholds of an (n, n, B+1) histogram."""
    return [scores(matrix) for matrix in confusions(hist)]


def best(curve: Sequence[Scores]) -> int:
    """The index of the highest mIoU of a sweep; the lowest threshold among equals."""
    return int(np.nanargmax([point.miou for point in curve]))
