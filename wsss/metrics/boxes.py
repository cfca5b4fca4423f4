"""Weakly supervised localisation: do boxes around a class's activations meet ground-truth boxes?

Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020,
and its extension (arXiv 2007.04178), section 4.1: at every threshold of the score map boxes are
drawn around all of its connected regions; an object counts as localised if any of them reaches an
IoU delta with any ground-truth box of the class; MaxBoxAccV2 averages delta = 0.3, 0.5, 0.7.

Differences: the unit is an image and one of its tagged classes, since an image may have several;
regions are 8-connected components, without boxes around their holes; boxes are half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# The paper's delta.
IOUS = (0.3, 0.5, 0.7)
_EIGHT = np.ones((3, 3), bool)


class Regions(NamedTuple):
    """N connected regions, the largest first: boxes (N, 4) as x0, y0, x1, y1 in pixels, the right
    and lower edge excluded; ``areas`` (N,) in pixels; ``labels`` (H, W), n + 1 in the n-th."""

    boxes: IntArray
    areas: IntArray
    labels: IntArray


def regions(binary: npt.NDArray[np.bool_], min_area: float = 1) -> Regions:
    """The 8-connected regions of an (H, W) mask of at least ``min_area`` pixels.

    Regions of equal size keep the order of their first pixels.
    """
    labels, count = ndimage.label(binary, _EIGHT)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.int64)
    slices = ndimage.find_objects(labels)
    order = [n for n in np.argsort(-areas, kind="stable") if areas[n] >= min_area]
    boxes = [(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in slices]
    table = np.zeros(count + 1, np.int64)
    for place, n in enumerate(order, start=1):
        table[n + 1] = place
    chosen = np.array([boxes[n] for n in order], np.int64).reshape(-1, 4)
    return Regions(chosen, areas[order], table[labels])


def iou_table(first: IntArray, second: IntArray) -> FloatArray:
    """The (N, M) IoU of half-open boxes (N, 4) and (M, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    table: FloatArray = common / union
    return table


def best_ious(
    scores: npt.NDArray[np.float32], truth: IntArray, edges: npt.NDArray[np.float32]
) -> FloatArray:
    """The best IoU of any region's box with any true box, at each threshold.

    Args:
        scores: (H, W) activations of one class; a pixel is in where they exceed the threshold.
        truth: (M, 4) boxes, M > 0.
        edges: (B,) rising thresholds.

    Returns:
        (B,) in [0, 1]; 0 where nothing exceeds the threshold.
    """
    result = np.zeros(len(edges))
    shift = np.zeros(2, np.int64)
    for index, edge in enumerate(edges):
        inside = scores > edge
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not len(rows):
            break
        # A higher threshold keeps a part of this: the rest need not be labelled again.
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        scores, inside = scores[window], inside[window]
        shift = shift + np.array([columns[0], rows[0]])
        found = regions(inside).boxes + np.tile(shift, 2)
        result[index] = iou_table(found, truth).max()
    return result


class BoxCounts(NamedTuple):
    """Per class (C,) image-class pairs and pairs without a true box; ``hits`` (C, B, 3) pairs
    localised at each threshold and each of :data:`IOUS`."""

    pairs: IntArray
    bare: IntArray
    hits: IntArray

    @classmethod
    def empty(cls, classes: int, bins: int) -> BoxCounts:
        """No pair yet."""
        shape = (classes, bins, len(IOUS))
        return cls(
            np.zeros(classes, np.int64), np.zeros(classes, np.int64), np.zeros(shape, np.int64)
        )

    def add(self, other: BoxCounts) -> None:
        """Count the pairs of ``other``, of the same classes and bins, in place."""
        for mine, theirs in zip(self, other, strict=True):
            mine += theirs


def count_image(
    counts: BoxCounts,
    maps: npt.NDArray[np.float32],
    classes: Sequence[int],
    mask: npt.NDArray[np.uint8],
    edges: npt.NDArray[np.float32],
    min_area: float,
) -> None:
    """Add one image: (K, H, W) activations of ``classes`` (0..C-1) and its (H, W) true mask.

    True boxes are those of the class's regions of at least ``min_area`` times the image's pixels,
    so parts of one object that something hides are objects of their own, and objects of a class
    that touch are one. A pair whose class has no such region is counted apart.
    """
    for scores, class_id in zip(maps, classes, strict=True):
        truth = regions(mask == class_id + 1, min_area * mask.size).boxes
        if not len(truth):
            counts.bare[class_id] += 1
            continue
        counts.pairs[class_id] += 1
        best = best_ious(scores, truth, edges)
        counts.hits[class_id] += best[:, None] >= np.array(IOUS)


def accuracies(counts: BoxCounts) -> FloatArray:
    """The (B, 3) share of all pairs that are localised, nan without any pair."""
    with np.errstate(invalid="ignore"):
        shares: FloatArray = counts.hits.sum(0) / counts.pairs.sum()
    return shares
