"""Two overlapping views of an image, cut from the original beside the training crop.

Geometry and pixels on the host; colour is jittered a batch at once on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor


class Views(NamedTuple):
    """What a method asks for.

    Attributes:
        size: side of a view in pixels.
        least: an image with a side shorter than this is first squashed to a square of it.
    """

    size: int
    least: int


class Overlap(NamedTuple):
    """The rectangle that two views have in common, in pixels.

    ``top`` and ``left`` are its corner in the first view, ``other_top`` and ``other_left`` in the
    second.
    """

    height: int
    width: int
    top: int
    left: int
    other_top: int
    other_left: int

    def cut(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rectangle of maps (..., S, S) of both views."""
        rows, columns = (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )
        other = slice(self.other_top, self.other_top + self.height)
        across = slice(self.other_left, self.other_left + self.width)
        return first[..., rows, columns], second[..., other, across]


class ViewPair(NamedTuple):
    """Where two views come from: a resize, two windows inside it.

    ``first`` and ``second`` are the (top, left) of windows of ``size`` pixels a side.
    """

    height: int
    width: int
    size: int
    first: tuple[int, int]
    second: tuple[int, int]

    @property
    def overlap(self) -> Overlap:
        """What both windows hold; at least one pixel."""
        (y, x), (v, u) = self.first, self.second
        top, left = max(y, v), max(x, u)
        return Overlap(
            self.size - abs(y - v), self.size - abs(x - u), top - y, left - x, top - v, left - u
        )


def draw_pair(rng: np.random.Generator, size: tuple[int, int], views: Views) -> ViewPair:
    """Draw two windows that overlap from an image of ``size`` (H, W).

    Source: MuSCLe, pixel-level contrast: random crops of the image at its own resolution, drawn
    again until they overlap. That distribution is drawn from at once here: axis by axis, since
    windows overlap when they do on both axes.

    Raises ValueError if the views are larger than ``views.least``, so that they may not fit.
    """
    if views.size > views.least:
        raise ValueError(f"views of {views.size} pixels do not fit into {views.least}")
    height, width = size
    if min(size) < views.least:
        height = width = views.least
    rows = _two_starts(rng, height - views.size, views.size)
    columns = _two_starts(rng, width - views.size, views.size)
    return ViewPair(height, width, views.size, (rows[0], columns[0]), (rows[1], columns[1]))


def _two_starts(rng: np.random.Generator, last: int, window: int) -> tuple[int, int]:
    """Draw uniformly among the pairs in 0..last whose distance is less than ``window``."""
    starts = np.arange(last + 1)
    low, high = np.maximum(starts - window + 1, 0), np.minimum(starts + window - 1, last)
    partners = high - low + 1
    ends = partners.cumsum()
    drawn = int(rng.integers(ends[-1]))
    first = int(np.searchsorted(ends, drawn, side="right"))
    return first, int(low[first] + drawn - (ends[first] - partners[first]))


def cut_pair(image: np.ndarray, pair: ViewPair, flip: bool) -> np.ndarray:
    """Cut (H, W, 3) uint8 to (2, size, size, 3), mirrored before it is cut if ``flip``."""
    if image.shape[:2] != (pair.height, pair.width):
        resized = Image.fromarray(image).resize((pair.width, pair.height), Image.Resampling.BICUBIC)
        image = np.asarray(resized)
    if flip:
        image = image[:, ::-1]
    windows = [
        image[top : top + pair.size, left : left + pair.size]
        for top, left in (pair.first, pair.second)
    ]
    return np.stack(windows)
