"""Multi-scale, flipped inference on batches of equally sized images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Literal["bilinear", "bicubic"]


def aligned(length: int, scale: float, multiple: int) -> int:
    """Return a scaled length rounded to a multiple of the output stride.

    Feature cells then tile the image exactly, and their maps need no shift when upsampled.
    """
    return max(1, round(length * scale / multiple)) * multiple


def multi_scale(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float],
    flip: bool,
    grid: tuple[int, int],
    multiple: int,
    antialias: bool = True,
    resize: Resize = "bilinear",
) -> Iterator[Tensor]:
    """Yield the maps of each pass, resized to ``grid`` and flipped back.

    Args:
        network: (B, 3, H, W) -> (B, K, h, w).
        images: (B, 3, H, W) in [0, 1], all of one size.
        scales: factors on the image size.
        flip: also run the mirrored images; the pass follows its unflipped twin.
        grid: (h, w) of the result.
        multiple: output stride that scaled sizes are rounded to.
        antialias: of images made smaller.
        resize: of images; maps are resized bilinearly.

    Yields:
        (B, K, h, w) float32, one a pass.
    """
    height, width = images.shape[2:]
    for scale in scales:
        size = (aligned(height, scale, multiple), aligned(width, scale, multiple))
        # Bicubically as PIL, whose kernel is the same both ways; torch's own is a sharper one.
        smooth = antialias and (scale < 1 or resize == "bicubic")
        scaled = F.interpolate(images, size, mode=resize, align_corners=False, antialias=smooth)
        if resize == "bicubic":  # overshoots at edges, which bytes cannot
            scaled = scaled.clamp(0, 1)
        batch = torch.cat([scaled, scaled.flip(3)]) if flip else scaled
        maps = network(batch).float()
        passes = maps.chunk(2) if flip else (maps,)
        for mirrored, part in enumerate(passes):
            unflipped = part.flip(3) if mirrored else part
            yield F.interpolate(unflipped, grid, mode="bilinear", align_corners=False)


def by_scale(
    passes: Iterable[Tensor], flip: bool, combine: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[Tensor]:
    """Yield one map a scale: of :func:`multi_scale`'s passes, each combined with its mirrored twin
    if there is one."""
    rest = iter(passes)
    for maps in rest:
        yield combine(maps, next(rest)) if flip else maps
