"""Multi-scale class activation maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wsss.inference.scales import multi_scale


def multi_scale_cam(
    seed_maps: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float],
    flip: bool,
    grid: tuple[int, int],
    multiple: int,
    normalise: Callable[[Tensor], Tensor],
) -> Tensor:
    """Sum the maps of all passes and bring them to [0, 1].

    Source: Ahn & Kwak, CVPR 2018, section 3.1 and its inference protocol (sum over scales and
    flips).

    Args:
        seed_maps: (B, 3, H, W) -> non-negative (B, C, h, w).
        images: (B, 3, H, W) in [0, 1], one size.
        scales, flip, grid, multiple: see :func:`wsss.inference.scales.multi_scale`.
        normalise: maps the sum (B, C, *grid) to [0, 1], as
            :meth:`wsss.methods.base.Method.normaliser` says.

    Returns:
        (B, C, *grid) in [0, 1].
    """
    total = torch.zeros(())
    for maps in multi_scale(seed_maps, images, scales, flip, grid, multiple):
        total = maps if total.dim() == 0 else total + maps
    return normalise(total)
