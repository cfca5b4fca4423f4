"""Training augmentation: geometry a sample on the CPU, colour a batch on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsss.config.schema import Training
from wsss.constants import constant


class Crop(NamedTuple):
    """Where a training crop comes from: a resize, a window that may overhang, a flip.

    ``top`` and ``left`` are negative where the window starts outside the resized image.
    """

    height: int
    width: int
    top: int
    left: int
    size: int
    flip: bool

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Rows [0:1] and columns [2:3] of the window that lie inside the image."""
        top, left = max(0, -self.top), max(0, -self.left)
        bottom = min(self.size, self.height - self.top)
        right = min(self.size, self.width - self.left)
        if self.flip:
            left, right = self.size - right, self.size - left
        return top, bottom, left, right


def draw_crop(rng: np.random.Generator, size: tuple[int, int], config: Training) -> Crop:
    """Draw the geometry of one sample from an image of ``size`` (H, W)."""
    height, width = size
    if config.long_side:
        low, high = config.long_side
        factor = float(rng.integers(round(low), round(high) + 1)) / max(height, width)
    else:
        factor = _scale(rng, config.scale or (1.0, 1.0))
    height, width = max(1, round(height * factor)), max(1, round(width * factor))
    top = _offset(rng, height, config.crop)
    left = _offset(rng, width, config.crop)
    flip = bool(config.flip and rng.random() < 0.5)
    return Crop(height, width, top, left, config.crop, flip)


def _scale(rng: np.random.Generator, scales: Sequence[float]) -> float:
    """Draw between two bounds, or one of more than two values."""
    if len(scales) == 2:
        return float(rng.uniform(scales[0], scales[1]))
    return float(scales[int(rng.integers(len(scales)))])


def _offset(rng: np.random.Generator, length: int, window: int) -> int:
    slack = length - window
    low, high = min(0, slack), max(0, slack)
    return int(rng.integers(low, high + 1))


def apply_crop(
    array: np.ndarray, crop: Crop, fill: Sequence[int], resample: Image.Resampling
) -> np.ndarray:
    """Cut (H, W) or (H, W, 3) uint8 to (size, size[, 3]), padding with ``fill``."""
    resized = np.asarray(Image.fromarray(array).resize((crop.width, crop.height), resample))
    out = np.empty((crop.size, crop.size, *array.shape[2:]), np.uint8)
    out[...] = fill if array.ndim == 3 else fill[0]
    top, left = max(0, crop.top), max(0, crop.left)
    part = resized[top : crop.top + crop.size, left : crop.left + crop.size]
    y, x = top - crop.top, left - crop.left
    out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return np.ascontiguousarray(out[:, ::-1]) if crop.flip else out


def crop_scores(maps: np.ndarray, crop: Crop, cells: int) -> np.ndarray:
    """Sample (K, h, w) maps of a whole image at the cells of a crop.

    Args:
        maps: any float type, any grid that spans the image.
        crop: of the image; its window becomes ``cells`` by ``cells``.

    Returns:
        (K, cells, cells) float32, bilinear at the centres of the cells; 0 where a centre lies
        outside the image.
    """
    centres = (np.arange(cells) + 0.5) * crop.size / cells
    across = crop.size - centres if crop.flip else centres
    tall = _sample(maps.astype(np.float32), centres + crop.top, crop.height, axis=1)
    return _sample(tall, across + crop.left, crop.width, axis=2)


def shares(scores: np.ndarray) -> np.ndarray:
    """Divide (K, h, w) non-negative scores by their sum over K; where that is 0 they stay 0."""
    scores = scores.astype(np.float32)
    total = scores.sum(0, keepdims=True)
    parts: np.ndarray = np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
    return parts


def _sample(maps: np.ndarray, positions: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Interpolate (K, h, w) along an axis that spans ``length`` pixels; 0 outside of these."""
    cells = maps.shape[axis]
    place = np.clip(positions / length * cells - 0.5, 0, cells - 1)
    low = place.astype(int)
    inside = (positions >= 0) & (positions < length)
    shape = [1, -1, 1] if axis == 1 else [1, 1, -1]
    upper = ((place - low) * inside).astype(np.float32).reshape(shape)
    lower = ((1 - (place - low)) * inside).astype(np.float32).reshape(shape)
    high = np.minimum(low + 1, cells - 1)
    sampled: np.ndarray = maps.take(low, axis) * lower + maps.take(high, axis) * upper
    return sampled


def draw_jitter(rng: np.random.Generator, strength: Sequence[float]) -> np.ndarray:
    """Draw factors (4,) float32 of brightness, contrast, saturation (about 1) and hue (about 0)."""
    low = [max(0.0, 1 - s) for s in strength[:3]] + [-strength[3]]
    high = [1 + s for s in strength[:3]] + [strength[3]]
    return rng.uniform(low, high).astype(np.float32)


_GREY = (0.299, 0.587, 0.114)
# RGB to YIQ (ITU-R BT.601 luma; NTSC chroma axes).
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
# Its inverse in float32. Asking for it each step would make the host wait for the device.
_RGB = (
    (1, 0.956170678, 0.621432543),
    (1.00000012, -0.272688657, -0.646813214),
    (1, -1.10374391, 1.70062304),
)


def colour_jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Jitter a batch at once: brightness, contrast, saturation, hue, in this order.

    Torchvision draws the order and rotates hue in HSV; one order and a rotation of the chroma
    plane of YIQ treat the whole batch without a loop.

    Args:
        images: (B, 3, H, W) in [0, 1].
        factors: (B, 4) as :func:`draw_jitter` makes them.
    """
    brightness, contrast, saturation, hue = factors.to(images.dtype).T[..., None, None, None]
    weights = constant(_GREY, images)[:, None, None]
    images = (images * brightness).clamp(0, 1)
    mean = (images * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    grey = (images * weights).sum(1, keepdim=True)
    images = (grey + (images - grey) * saturation).clamp(0, 1)
    turned: Tensor = torch.einsum("bij,bjhw->bihw", _hue_matrices(hue.flatten()), images)
    return turned.clamp(0, 1)


def _hue_matrices(hue: Tensor) -> Tensor:
    """Return (B, 3, 3) matrices that turn chroma by ``hue`` (B,) full circles."""
    to_yiq = constant(_YIQ, hue)
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    zero, one = torch.zeros_like(hue), torch.ones_like(hue)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], -1).view(-1, 3, 3)
    matrices: Tensor = constant(_RGB, hue) @ turn @ to_yiq
    return matrices


def erase(
    images: Tensor,
    uniform: Tensor,
    fill: Tensor,
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Tensor:
    """Fill a random rectangle of some images (Zhong et al., "Random Erasing", AAAI 2020).

    Args:
        images: (B, 3, H, W).
        uniform: (B, 5) in [0, 1): whether, area, aspect, top and left.
        fill: (3,) RGB.
        probability: share of images that lose a rectangle.
        area: bounds of its share of the image.
        aspect: bounds of its height over its width, drawn on a logarithmic scale.
    """
    height, width = images.shape[2:]
    whether, share, ratio, top, left = uniform.T[..., None]
    share = area[0] + (area[1] - area[0]) * share
    low, high = math.log(aspect[0]), math.log(aspect[1])
    ratio = torch.exp(low + (high - low) * ratio)
    tall = (share * height * width * ratio).sqrt().round().clamp(1, height)
    wide = (share * height * width / ratio).sqrt().round().clamp(1, width)
    top, left = (top * (height - tall + 1)).floor(), (left * (width - wide + 1)).floor()
    y, x = (torch.arange(n, device=images.device) for n in (height, width))
    rows = (y >= top) & (y < top + tall) & (whether < probability)
    columns = (x >= left) & (x < left + wide)
    gone = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(gone, fill[:, None, None].to(images.dtype), images)


def valid_pixels(boxes: Tensor, size: int) -> Tensor:
    """Return (B, 1, size, size) bool from (B, 4) boxes: inside the image, not padding."""
    line = torch.arange(size, device=boxes.device)
    top, bottom, left, right = boxes.T[..., None]
    rows = (line >= top) & (line < bottom)
    columns = (line >= left) & (line < right)
    inside: Tensor = rows[:, :, None] & columns[:, None, :]
    return inside[:, None]
