"""Small crops of a batch around cells of little or uncertain evidence, on the device.

Source: Ru et al., "Token Contrast for Weakly-Supervised Semantic Segmentation" (ToCo), CVPR 2023,
section 3.4 and official code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_corners(values: Tensor, uniform: Tensor, count: int, size: int) -> Tensor:
    """Draw windows whose centre is no sure object.

    Where an image has fewer such places than windows are wanted, all its places will do.

    Args:
        values: (B, H, W): 0 background, 1 uncertain, 2 object.
        uniform: (B, H - size + 1, W - size + 1) in [0, 1): the highest are taken.
        count: windows an image.
        size: side of a window in pixels, at most H and W.

    Returns:
        (B, count, 2) int64 rows and columns of the upper left corners.
    """
    margin = size // 2
    rows, columns = uniform.shape[1:]
    centres = values[:, margin : margin + rows, margin : margin + columns]
    allowed = (centres <= 1).flatten(1)
    enough = allowed.sum(1, keepdim=True) >= count
    rank = torch.where(allowed | ~enough, uniform.flatten(1), -1.0)
    # A place may be asked for more than once where there are fewer than windows.
    places = rank.topk(min(count, rank.shape[1]), 1).indices
    places = places[:, torch.arange(count, device=places.device) % places.shape[1]]
    return torch.stack([places // columns, places % columns], 2)


def cut(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """Cut windows out of maps.

    Args:
        images: (B, K, H, W).
        corners: (B, n, 2) of :func:`crop_corners`.

    Returns:
        (B, n, K, size, size).
    """
    line = torch.arange(size, device=images.device)
    rows = (corners[..., 0, None] + line)[:, :, :, None]
    columns = (corners[..., 1, None] + line)[:, :, None, :]
    first = torch.arange(len(images), device=images.device)[:, None, None, None]
    return images.permute(0, 2, 3, 1)[first, rows, columns].permute(0, 1, 4, 2, 3)


def crop_positive(values: Tensor, corners: Tensor, size: int, ratio: float) -> Tensor:
    """Whether each window shows an object: its mean value exceeds ``ratio``.

    Args:
        values: (B, H, W) as for :func:`crop_corners`.

    Returns:
        (B, n) bool.
    """
    # Sums over windows as differences of running sums, whole numbers that float32 holds exactly.
    table = F.pad(values.float().cumsum(1).cumsum(2), (1, 0, 1, 0))
    top, left = corners[..., 0], corners[..., 1]
    first = torch.arange(len(values), device=values.device)[:, None]
    total = (
        table[first, top + size, left + size]
        - table[first, top, left + size]
        - table[first, top + size, left]
        + table[first, top, left]
    )
    return total > ratio * size * size
