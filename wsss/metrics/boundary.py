"""How well the outlines of a mask fit: the boundary F-measure.

After Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic
segmentation?", BMVC 2013, Sec. 3. Per class, the boundary of a mask is its pixels with a
4-neighbour of another class (the image's edge is no boundary). Precision is the share of
predicted boundary pixels with a true one within the tolerance, recall the converse, F their
harmonic mean. The tolerance is a fraction of the image diagonal, 0.75 % there.

Deviations:
- The counts of a class are summed over the split, as those of IoU are; the paper averages F over
  images.
- The mean covers the foreground classes that have a boundary in the truth or in the prediction.
- Void. Boundary pixels that touch void are not counted, though one may match them: the truth
  does not say where the outline runs. But VOC hides nearly every outline (99 % of boundary
  pixels) under a band of void 5 pixels wide. In a band no deeper than ``void_band`` the truth is
  taken to run along its middle: each of its pixels gets the nearest known class. 0 turns that off.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from wsss.labels import IGNORE
from wsss.metrics.confusion import FloatArray, IntArray, mean

Mask = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Window = tuple[slice, slice]

TOLERANCE = 0.0075
VOID_BAND = 3  # pixels: the depth of a band 5 to 6 wide
_SQUARE = np.ones((3, 3), bool)


def boundary_counts(
    gt: Mask, pred: Mask, n: int, tolerance: float = TOLERANCE, void_band: int = VOID_BAND
) -> IntArray:
    """Count matched boundary pixels per class of one image.

    Args:
        gt: (H, W) ids 0..n-1 and 255 for void.
        pred: (H, W) ids 0..n-1.
        n: number of classes, background included.
        tolerance: largest distance of a match, as a fraction of the image diagonal.
        void_band: depth in pixels up to which a band of void counts as an outline.

    Returns:
        int64 (n, 4): matched and all predicted boundary pixels, matched and all true ones. The
        background's row stays 0. Sum it over images and pass it to :func:`boundary_f`.
    """
    counts = np.zeros((n, 4), np.int64)
    reach = tolerance * float(np.hypot(*gt.shape))
    truth = fill_thin_void(gt, void_band)
    void = truth == IGNORE
    hidden = ndimage.binary_dilation(void, _SQUARE) if void.any() else void
    windows = _windows(truth, pred, n)
    for c, window in windows.items():
        counted = ~hidden[window]
        true_edge = _edge(truth[window] == c)
        pred_edge = _edge(pred[window] == c)
        counts[c, :2] = _matched(pred_edge & counted, true_edge, reach)
        counts[c, 2:] = _matched(true_edge & counted, pred_edge, reach)
    return counts


def boundary_f(counts: IntArray) -> tuple[FloatArray, float]:
    """F per class and its mean over the foreground, from the summed (n, 4) counts.

    A class without any boundary has F nan and is left out of the mean; one whose boundary is
    only in the truth or only in the prediction has F 0.
    """
    matched_pred, all_pred, matched_true, all_true = counts.astype(np.float64).T
    precision = matched_pred / np.maximum(all_pred, 1)
    recall = matched_true / np.maximum(all_true, 1)
    total = precision + recall
    f = 2 * precision * recall / np.where(total > 0, total, 1)
    f[all_pred + all_true == 0] = np.nan
    return f, mean(f[1:])


def fill_thin_void(gt: Mask, depth: int) -> Mask:
    """Give void in bands at most ``depth`` pixels deep the nearest known class.

    Areas with a deeper core stay void as a whole, and so does a mask that is nothing but void.

    Args:
        gt: (H, W) ids 0..n-1 and 255 for void.
        depth: in pixels; below 1 nothing changes.

    Returns:
        (H, W); ``gt`` itself where nothing changes.
    """
    void = gt == IGNORE
    if depth < 1 or not void.any() or void.all():
        return gt
    distance, nearest = ndimage.distance_transform_edt(void, return_indices=True)
    core = distance > depth
    # Everything within reach of a core belongs to it; the reach is that of its outermost pixel.
    thick = ndimage.distance_transform_edt(~core) <= depth + 1 if core.any() else core
    return np.where(void & ~thick, gt[tuple(nearest)], gt)


def _windows(truth: Mask, pred: Mask, n: int) -> dict[int, Window]:
    """Where each foreground class of either mask lies, one pixel wider for its neighbours."""
    boxes: dict[int, list[Window]] = {}
    for mask in (truth, pred):
        labels = np.where(mask < n, mask, 0)
        for c, box in enumerate(ndimage.find_objects(labels, max_label=n - 1), start=1):
            if box is not None:
                boxes.setdefault(c, []).append((box[0], box[1]))
    return {c: _widen(found) for c, found in sorted(boxes.items())}


def _widen(boxes: list[Window]) -> Window:
    rows = _span([box[0] for box in boxes])
    return rows, _span([box[1] for box in boxes])


def _span(sides: list[slice]) -> slice:
    return slice(max(min(s.start for s in sides) - 1, 0), max(s.stop for s in sides) + 1)


def _edge(area: Flags) -> Flags:
    """Pixels of ``area`` with a 4-neighbour outside it; beyond the array there is nothing."""
    inner = area.copy()
    inner[1:] &= area[:-1]
    inner[:-1] &= area[1:]
    inner[:, 1:] &= area[:, :-1]
    inner[:, :-1] &= area[:, 1:]
    return area & ~inner


def _matched(points: Flags, targets: Flags, reach: float) -> tuple[int, int]:
    """How many of ``points`` have one of ``targets`` within ``reach`` pixels, and how many are."""
    found = np.argwhere(points)
    goals = np.argwhere(targets)
    if not len(found) or not len(goals):
        return 0, len(found)
    # A tree of the boundary pixels: for masks with smooth outlines half the time of a distance
    # transform of the window.
    # The bound is exclusive and distances are roots of integers: widen it past rounding.
    bound = np.nextafter(reach, np.inf) + 1e-9
    distance, _ = KDTree(goals).query(found, distance_upper_bound=bound)
    return int(np.isfinite(distance).sum()), len(found)
