"""Per-image counts of an evaluation, from the cells of each image's confusion matrix."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wsss.errors import UserError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
COLUMNS = ("id", "gt", "pred", "count")


class Counts(NamedTuple):
    """Pixels of each image and class, (I, n) int64: hit, in truth, predicted.

    ``ids`` names the first images; those after them have no pixel of known class.
    """

    ids: tuple[str, ...]
    hit: Ints
    truth: Ints
    predicted: Ints

    @property
    def union(self) -> Ints:
        """True positives, false positives and false negatives."""
        return self.truth + self.predicted - self.hit


def count(cells: Iterable[tuple[str, int, int, int]], n: int, images: int) -> Counts:
    """Add up (id, truth, prediction, pixels) cells of ``images`` images and ``n`` classes.

    Raises ValueError: an id beyond the classes, or more images than there are.
    """
    found = list(cells)
    ids = tuple(sorted({cell[0] for cell in found}))
    if len(ids) > images:
        raise ValueError(f"{len(ids)} images where the scores are of {images}")
    if any(not (0 <= truth < n and 0 <= pred < n) for _, truth, pred, _ in found):
        raise ValueError(f"a class beyond 0..{n - 1}")
    index = {identifier: i for i, identifier in enumerate(ids)}
    hit, truth, predicted = (np.zeros((images, n), np.int64) for _ in range(3))
    for identifier, row, column, pixels in found:
        i = index[identifier]
        truth[i, row] += pixels
        predicted[i, column] += pixels
        if row == column:
            hit[i, row] += pixels
    return Counts(ids, hit, truth, predicted)


def read_counts(path: Path, n: int, images: int, miou: float | None) -> Counts:
    """Read ``WHAT.images.csv`` and check it against the score that stands beside it.

    Raises UserError: it cannot be read or belongs to another evaluation.
    """
    again = f"delete {path} and evaluate again"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, strict=True))
        cells = [(r["id"], int(r["gt"]), int(r["pred"]), int(r["count"])) for r in rows]
        counts = count(cells, n, images)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is no table of image counts ({error}): {again}") from error
    found = float(mean_iou(counts.hit.sum(0), counts.union.sum(0)))
    if miou is not None and not abs(found - miou) < 2e-6:
        raise UserError(
            f"{path} gives an mIoU of {found:.6f}, the json beside it {miou:.6f}: {again}"
        )
    return counts


def mean_iou(hit: npt.NDArray[np.generic], union: npt.NDArray[np.generic]) -> Floats:
    """The mIoU of summed counts (..., n) -> (...); classes of an empty union are left out.

    nan where every class is.
    """
    seen = union > 0  # type: ignore[operator]
    ratio = np.divide(hit, union, out=np.zeros(np.shape(hit)), where=seen)
    classes = seen.sum(-1)
    mean: Floats = np.where(classes > 0, ratio.sum(-1) / np.maximum(classes, 1), np.nan)
    return mean


def image_iou(counts: Counts) -> Floats:
    """Each image's own IoU, (I,): mean over the foreground classes it shows or is said to show.

    For choosing and labelling pictures: the mean of it is not the mIoU. nan where neither truth
    nor prediction holds a foreground class.
    """
    return mean_iou(counts.hit[:, 1:], counts.union[:, 1:])


def mean_image_iou(runs: Sequence[Counts]) -> dict[str, float]:
    """Mean over ``runs`` of each image's own IoU; images without any are left out."""
    values: dict[str, list[float]] = {}
    for counts in runs:
        for identifier, value in zip(counts.ids, image_iou(counts), strict=False):
            if not np.isnan(value):
                values.setdefault(identifier, []).append(float(value))
    return {identifier: sum(found) / len(found) for identifier, found in values.items()}
