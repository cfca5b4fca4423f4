"""Makes images and masks smaller."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from wsss.artifacts import encode_mask
from wsss.data import images


def shrunk(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The (H, W) at which the longer side is ``side``; a smaller image stays as it is."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrink_image(data: bytes, name: str, side: int, quality: int) -> bytes:
    """A JPEG of a smaller, upright image; the same bytes where it is small enough.

    Raises :class:`wsss.data.images.FileError`.
    """
    height, width = shrunk(images.image_size(data, name), side)
    if (height, width) == images.image_size(data, name):
        return data
    # Lanczos keeps the most detail of Pillow's antialiasing filters.
    picture = Image.fromarray(images.decode_image(data, name))
    buffer = io.BytesIO()
    picture.resize((width, height), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def shrink_ids(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An (H, W) uint8 mask at another size: each pixel has the id of the nearest one."""
    height, width = size
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def shrink_mask(data: bytes, name: str, side: int) -> bytes:
    """A palette PNG of a smaller mask with the same ids; the same bytes if it is small enough.

    Raises :class:`wsss.data.images.FileError`.
    """
    mask = images.decode_mask(data, name)
    height, width = mask.shape
    size = shrunk((height, width), side)
    return data if size == mask.shape else encode_mask(shrink_ids(mask, size))
