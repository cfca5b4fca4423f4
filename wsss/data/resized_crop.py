"""A window of random area and shape, resized to a square: one more view of an image.

Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6; the distribution is
that of torchvision's RandomResizedCrop, with a generator of the sample's own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

TRIES = 10
ASPECT = (3 / 4, 4 / 3)


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
