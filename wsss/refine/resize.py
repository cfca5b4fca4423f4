"""Bilinear resizing of float maps with NumPy alone, so that CRF workers need no torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def resize_bilinear(array: npt.ArrayLike, size: tuple[int, int]) -> FloatArray:
    """Resize K maps to ``size`` with half-pixel centres and clamped edges.

    The numbers are those of ``torch.nn.functional.interpolate(mode="bilinear",
    align_corners=False)``; like it, shrinking does not average (no antialiasing).

    Args:
        array: K x h x w, any float type (float16 is read exactly); K may be 0.
        size: (H, W) in pixels.

    Returns:
        float32 K x H x W, C-contiguous and not shared with ``array``.

    Raises:
        ValueError: ``array`` is not K x h x w with h, w > 0, or ``size`` is not positive.
    """
    maps = np.asarray(array)
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"expected K x h x w with h, w > 0, got shape {maps.shape}")
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"expected a positive size, got {size}")
    # Rows first: they are contiguous, so the larger of the two passes reads whole lines.
    tall = _stretch(maps.astype(np.float32, copy=False), height, axis=1)
    return np.ascontiguousarray(_stretch(tall, width, axis=2))


def _stretch(maps: FloatArray, length: int, axis: int) -> FloatArray:
    """Linear interpolation of K x h x w along one axis to ``length`` samples."""
    if maps.shape[axis] == length:
        return maps.copy()
    low, high, fraction = _taps(maps.shape[axis], length)
    shape = [1, 1, 1]
    shape[axis] = length
    weight = fraction.reshape(shape)
    result = maps.take(low, axis=axis)
    result *= 1 - weight
    upper = maps.take(high, axis=axis)
    upper *= weight
    result += upper
    return result


def _taps(
    source: int, target: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """The two source samples of each target sample and the weight of the second."""
    # float32 on purpose: these are torch's own roundings, so both sides agree to the last digits.
    scale = np.float32(source) / np.float32(target)
    centres = np.arange(target, dtype=np.float32) + np.float32(0.5)
    position = np.maximum(scale * centres - np.float32(0.5), np.float32(0))
    low = np.minimum(position.astype(np.intp), source - 1)
    high = np.minimum(low + 1, source - 1)
    return low, high, np.clip(position - low.astype(np.float32), 0, 1).astype(np.float32)
