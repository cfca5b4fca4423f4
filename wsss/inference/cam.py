"""Multi-scale class activation maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from wsss.inference.scales import Resize, by_scale, multi_scale


def multi_scale_cam(
    seed_maps: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float],
    flip: bool,
    grid: tuple[int, int],
    multiple: int,
    normalise: Callable[[Tensor], Tensor],
    flip_combine: Literal["sum", "max"] = "sum",
    resize: Resize = "bilinear",
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
        flip_combine: what of an image and its mirrored twin counts; ``max``: the higher of both
            (Ru et al., ToCo, CVPR 2023, official code).
        resize: of images, see :func:`wsss.inference.scales.multi_scale`.

    Returns:
        (B, C, *grid) in [0, 1].
    """
    total = torch.zeros(())
    passes = multi_scale(seed_maps, images, scales, flip, grid, multiple, resize=resize)
    if flip_combine == "max":
        passes = by_scale(passes, flip, torch.maximum)
    for maps in passes:
        total = maps if total.dim() == 0 else total + maps
    return normalise(total)
