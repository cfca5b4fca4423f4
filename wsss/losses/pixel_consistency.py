"""Agreement of two views of an image, pixel by pixel, where they overlap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def align(second: Tensor, overlaps: Tensor) -> tuple[Tensor, Tensor]:
    """Move the maps of second views onto the pixels of first views.

    Args:
        second: (B, K, S, S) maps of the second views.
        overlaps: (B, 6) int64: height and width of the common rectangle, its top and left in the
            first view, its top and left in the second (:class:`wsss.data.views.Overlap`).

    Returns:
        (B, K, S, S) and (B, S, S) bool, which says where the first view overlaps the second;
        values elsewhere mean nothing.
    """
    size = second.shape[-1]
    height, width, top, left, other_top, other_left = overlaps.T[..., None]
    line = torch.arange(size, device=second.device)
    rows = (line + other_top - top).clamp(0, size - 1)
    columns = (line + other_left - left).clamp(0, size - 1)
    shape = second.shape
    moved = second.gather(2, rows[:, None, :, None].expand(shape))
    moved = moved.gather(3, columns[:, None, None, :].expand(shape))
    tall = (line >= top) & (line < top + height)
    wide = (line >= left) & (line < left + width)
    return moved, tall[:, :, None] & wide[:, None, :]


def pixel_consistency(first: Tensor, second: Tensor, overlaps: Tensor) -> Tensor:
    """1 minus the mean cosine of corresponding pixels, over each overlap, then over images.

    Source: MuSCLe, pixel-level contrast; one direction: the first view learns from the second.

    Args:
        first: (B, K, S, S) maps of the first views.
        second: (B, K, S, S) of the second ones; no gradient reaches them.
        overlaps: (B, 6), see :func:`align`.
    """
    moved, inside = align(second.detach(), overlaps)
    cosines = F.cosine_similarity(first, moved, dim=1)
    return 1 - (torch.where(inside, cosines, 0).sum((1, 2)) / inside.sum((1, 2))).mean()
