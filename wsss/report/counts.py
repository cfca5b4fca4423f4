"""Per-image counts of an evaluation, from the cells of each image's confusion matrix."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from wsss.errors import UserError

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
COLUMNS = ("id", "gt", "pred", "count")


class Counts(NamedTuple):
    """Pixels of each image and class, (I, n) int32: hit, in truth, predicted.

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

    ``cells`` are read once and not kept: a data set of COCO's size has half a million.
    Raises ValueError: an id beyond the classes, or more images than there are.
    """
    index: dict[str, int] = {}
    # An image has fewer than 2^31 pixels; sums over images are of 64 bits.
    hit, truth, predicted = (np.zeros((images, n), np.int32) for _ in range(3))
    for identifier, row, column, pixels in cells:
        if not (0 <= row < n and 0 <= column < n):
            raise ValueError(f"a class beyond 0..{n - 1}")
        i = index.setdefault(identifier, len(index))
        if i >= images:
            raise ValueError(f"more images than the {images} of the scores")
        truth[i, row] += pixels
        predicted[i, column] += pixels
        if row == column:
            hit[i, row] += pixels
    ids = tuple(sorted(index))
    order = [*(index[identifier] for identifier in ids), *range(len(ids), images)]
    if order != list(range(images)):
        hit, truth, predicted = hit[order], truth[order], predicted[order]
    return Counts(ids, hit, truth, predicted)


def _cells(stream: TextIO) -> Iterator[tuple[str, int, int, int]]:
    """The rows of a table of image counts. Raises ValueError if it is another table."""
    rows = csv.reader(stream, strict=True)
    if tuple(next(rows, ())) != COLUMNS:
        raise ValueError(f"the columns are not {','.join(COLUMNS)}")
    for identifier, truth, predicted, pixels in rows:
        yield identifier, int(truth), int(predicted), int(pixels)


def read_counts(path: Path, n: int, images: int, miou: float | None) -> Counts:
    """Read ``WHAT.images.csv`` and check it against the score that stands beside it.

    Raises UserError: it cannot be read or belongs to another evaluation.
    """
    again = f"delete {path} and evaluate again"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            counts = count(_cells(stream), n, images)
    except (OSError, ValueError, csv.Error) as error:
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
