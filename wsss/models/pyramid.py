"""A segmentation network on an image pyramid, fused by the maximum."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pyramid_logits(
    network: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float]
) -> list[Tensor]:
    """Run the images at full size and at each of ``scales``, and take the maximum.

    Source: Chen et al., TPAMI 2017, section 4.1 ("multi-scale inputs": the network sees the image
    at 1, 0.75 and 0.5 and fuses the score maps by the maximum a position and class; each
    scale and the fusion have a loss).

    Args:
        network: (B, 3, H, W) -> (B, K, h, w).
        images: (B, 3, H, W) in [0, 1].
        scales: factors on the image size, 1 left out.

    Returns:
        Logits of the full size, of each scale, and last their maximum (B, K, h, w).
    """
    full = network(images)
    scaled = [network(_scale(images, scale)) for scale in scales]
    best = full
    for logits in scaled:
        resized = F.interpolate(logits, full.shape[2:], mode="bilinear", align_corners=False)
        best = torch.maximum(best, resized)
    return [full, *scaled, best]


def _scale(images: Tensor, scale: float) -> Tensor:
    size = [max(1, round(length * scale)) for length in images.shape[2:]]
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=scale < 1)
