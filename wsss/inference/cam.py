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
) -> Tensor:
    """Sum the maps of all passes and divide by each class's maximum.

    Source: Ahn & Kwak, CVPR 2018, section 3.1 and its inference protocol (sum over scales and
    flips, division by the maximum).

    Args:
        seed_maps: (B, 3, H, W) -> non-negative (B, C, h, w).
        images: (B, 3, H, W) in [0, 1], one size.
        scales, flip, grid, multiple: see :func:`wsss.inference.scales.multi_scale`.

    Returns:
        (B, C, *grid) in [0, 1].
    """
    total = torch.zeros(())
    for maps in multi_scale(seed_maps, images, scales, flip, grid, multiple):
        total = maps if total.dim() == 0 else total + maps
    peak = total.amax((2, 3), keepdim=True)
    # The paper's pipeline adds 1e-5 so that a class without any evidence stays at zero.
    return total / (peak + 1e-5)
