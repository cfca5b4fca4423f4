"""The confusion matrix of a split and the scores read off it.

One matrix is summed over all pixels of all images and IoU is taken per class from the sum: the
mIoU of PASCAL VOC (Everingham et al., IJCV 2015, Sec. 4.3). A mean of per-image IoUs is another
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsss.errors import UserError
from wsss.labels import IGNORE

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says; every number is a fraction in [0, 1].

    ``iou``, ``precision`` and ``recall`` are (n,), one value a class. A class that is neither in
    the ground truth nor in the prediction is ``absent``: its three values are nan and the means
    ``miou``, ``mean_precision`` and ``mean_recall`` leave it out. A class that is only in one of
    the two counts with 0 where its ratio is 0/0, so that the three means cover the same classes.
    The means are nan if every class is absent.
    """

    iou: FloatArray
    precision: FloatArray
    recall: FloatArray
    gt_pixels: IntArray
    pred_pixels: IntArray
    absent: tuple[int, ...]
    miou: float
    mean_precision: float
    mean_recall: float


def check_pair(
    gt: npt.NDArray[np.integer], pred: npt.NDArray[np.integer], n: int, image_id: str
) -> None:
    """Raise :class:`UserError` unless ``pred`` can be scored against ``gt``.

    Args:
        gt: (H, W) ids 0..n-1, or 255 where the truth is unknown.
        pred: (H, W) ids 0..n-1. 255 is refused: a prediction that abstains would be counted
            as wrong by one script and left out by the next.
        n: number of classes, background included.
        image_id: named in the error.
    """
    if gt.shape != pred.shape:
        raise UserError(
            f"image {image_id}: the ground truth is {_size(gt.shape)} but the prediction "
            f"{_size(pred.shape)} pixels: rerun the stage that made the prediction"
        )
    if pred.size and (low := int(pred.min())) < 0:
        raise UserError(f"image {image_id}: the prediction holds the id {low}; ids start at 0")
    if pred.size and (high := int(pred.max())) >= n:
        meaning = " (ignore)" if high == IGNORE else ""
        raise UserError(
            f"image {image_id}: the prediction holds the id {high}{meaning} but the classes are "
            f"0..{n - 1}: a prediction must give every pixel a class"
        )
    wrong = (gt != IGNORE) & ((gt >= n) | (gt < 0))
    if wrong.any():
        raise UserError(
            f"image {image_id}: the ground truth holds the id {int(gt[wrong].max())} but the "
            f"classes are 0..{n - 1} and {IGNORE} (ignore): check the data set's classes"
        )


def confusion(
    gt: npt.NDArray[np.integer], pred: npt.NDArray[np.integer], n: int, image_id: str = "?"
) -> IntArray:
    """Count pixels by true and predicted class.

    Args:
        gt: (H, W) ids 0..n-1; pixels with 255 are not counted.
        pred: (H, W) ids 0..n-1.
        n: number of classes, background included.
        image_id: named in errors.

    Returns:
        int64 (n, n), rows the truth, columns the prediction.

    Raises:
        UserError: sizes differ, or an id is out of range (255 in ``pred`` included).
    """
    check_pair(gt, pred, n, image_id)
    known = gt != IGNORE
    index = gt[known].astype(np.intp) * n + pred[known]
    return np.bincount(index, minlength=n * n).reshape(n, n).astype(np.int64, copy=False)


def scores(matrix: IntArray) -> Scores:
    """IoU, precision and recall per class and their means, from an (n, n) confusion matrix."""
    hit = matrix.diagonal()
    gt_pixels, pred_pixels = matrix.sum(axis=1), matrix.sum(axis=0)
    union = gt_pixels + pred_pixels - hit
    seen = union > 0
    iou = _ratio(hit, union, seen)
    precision = _ratio(hit, pred_pixels, seen)
    recall = _ratio(hit, gt_pixels, seen)
    return Scores(
        iou=iou,
        precision=precision,
        recall=recall,
        gt_pixels=gt_pixels,
        pred_pixels=pred_pixels,
        absent=tuple(int(c) for c in np.flatnonzero(~seen)),
        miou=mean(iou),
        mean_precision=mean(precision),
        mean_recall=mean(recall),
    )


def mean(values: FloatArray) -> float:
    """Mean of the values of any shape that are not nan; nan if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def pairs(matrix: IntArray) -> list[tuple[int, int, int]]:
    """The (truth, prediction, count) triples of the nonzero cells, in row order."""
    rows, columns = np.nonzero(matrix)
    counts = matrix[rows, columns]
    return list(zip(rows.tolist(), columns.tolist(), counts.tolist(), strict=True))


def _ratio(part: IntArray, whole: IntArray, seen: npt.NDArray[np.bool_]) -> FloatArray:
    values = part / np.maximum(whole, 1)
    return np.where(seen, values, np.nan)


def _size(shape: Sequence[int]) -> str:
    """Width x height, as image sizes are commonly read."""
    return "x".join(str(side) for side in reversed(shape))
