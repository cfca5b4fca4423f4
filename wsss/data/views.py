"""Views of an image, cut from the original beside the training crop: two that overlap, or one
of a window of random area and shape.

Geometry and pixels on the host; colour is jittered a batch at once on the device.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ASPECT = (3 / 4, 4 / 3)  # of a resized window, width over height
TRIES = 10


class ViewRequest(Protocol):
    """What a method asks for."""

    def cut(
        self, rng: np.random.Generator, image: np.ndarray, flip: bool
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Cut views of one image.

        Args:
            image: (H, W, 3) uint8, the original.
            flip: the training crop is mirrored; so are views that are compared with it or with
                each other place by place.

        Returns:
            (V, S, S, 3) uint8, and what else the sample holds of them.
        """


class Views(NamedTuple):
    """Two windows that overlap.

    Attributes:
        size: side of a view in pixels.
        least: an image with a side shorter than this is first squashed to a square of it.
    """

    size: int
    least: int

    def cut(
        self, rng: np.random.Generator, image: np.ndarray, flip: bool
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Cut (2, size, size, 3), see :func:`draw_pair`; says where they overlap."""
        pair = draw_pair(rng, (image.shape[0], image.shape[1]), self)
        overlap = {"overlap": torch.tensor(pair.overlap), "overlaps": pair.overlap}
        return cut_pair(image, pair, flip), overlap


class ResizedView(NamedTuple):
    """One window of random area and shape, resized to a square.

    Attributes:
        size: side of the view in pixels.
        area: bounds of the window's share of the image.
        flip: half of the windows are mirrored, whatever the training crop is: nothing compares
            their places with it.
    """

    size: int
    area: tuple[float, float]
    flip: bool

    def cut(
        self,
        rng: np.random.Generator,
        image: np.ndarray,
        flip: bool,  # noqa: ARG002
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Cut (1, size, size, 3), see :func:`draw_window`."""
        window = draw_window(rng, (image.shape[0], image.shape[1]), self.area)
        mirrored = self.flip and bool(rng.random() < 0.5)
        return cut_window(image, window, self.size, mirrored)[None], {}


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


class Window(NamedTuple):
    """Rows and columns of an image."""

    top: int
    left: int
    height: int
    width: int


def draw_window(
    rng: np.random.Generator, size: tuple[int, int], area: tuple[float, float]
) -> Window:
    """Draw a window of an image of ``size`` (H, W).

    Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6; the
    distribution is that of torchvision's RandomResizedCrop.

    Args:
        area: bounds of its share of the image.
    """
    height, width = size
    for _ in range(TRIES):
        wanted = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        tall, wide = round(math.sqrt(wanted / aspect)), round(math.sqrt(wanted * aspect))
        if 0 < tall <= height and 0 < wide <= width:
            top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
            return Window(int(top), int(left), tall, wide)
    return _middle(height, width)


def _middle(height: int, width: int) -> Window:
    """The largest centred window of an allowed shape."""
    tall = min(height, max(1, round(width / ASPECT[0])))
    wide = min(width, max(1, round(height * ASPECT[1])))
    return Window((height - tall) // 2, (width - wide) // 2, tall, wide)


def cut_window(image: np.ndarray, window: Window, size: int, flip: bool) -> np.ndarray:
    """Cut (H, W, 3) uint8 to (size, size, 3), bicubic, mirrored if ``flip``."""
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    resized = np.asarray(
        Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box)
    )
    return np.ascontiguousarray(resized[:, ::-1]) if flip else resized
