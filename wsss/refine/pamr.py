"""Pixel-adaptive mask refinement: soft masks spread along the colours of the image.

Source: Araslanov & Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020,
section 3.4; constants from the published code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
EPSILON = 1e-8


def pamr_weights(
    images: Tensor, dilations: Sequence[int] = DILATIONS, scale: float = 0.1
) -> Tensor:
    """Softmax over all neighbours of -|I_q - I_p| / (scale * std), mean over colours.

    The spread is that of the windows of nine cells, the centre included, at all dilations
    together, unbiased, per colour.

    Args:
        images: (B, 3, h, w) RGB.
        dilations: distances of the neighbours in cells.

    Returns:
        (B, 8 * len(dilations), h, w) float32 that sum to 1; no gradient.
    """
    images, places = images.detach().float(), _offsets(dilations)
    count = len(places) + len(dilations)  # each window holds the centre once more
    mean = (sum(_shifted(images, places)) + len(dilations) * images) / count
    squares = sum((one - mean).square() for one in _shifted(images, places))
    squares = squares + len(dilations) * (images - mean).square()
    spread = scale * (squares / (count - 1)).sqrt() + EPSILON
    contrast = [((one - images).abs() / spread).mean(1) for one in _shifted(images, places)]
    return (-torch.stack(contrast, 1)).softmax(1)


@torch.no_grad()
def refine_by_weights(
    maps: Tensor, weights: Tensor, iterations: int = 10, dilations: Sequence[int] = DILATIONS
) -> Tensor:
    """Replace each cell by the weighted sum of its neighbours, ``iterations`` times.

    Args:
        maps: (B, M, h, w).
        weights: (B, 8 * len(dilations), h, w).

    Returns:
        (B, M, h, w) float32; no gradient.
    """
    places, maps = _offsets(dilations), maps.float()
    for _ in range(iterations):
        result = torch.zeros_like(maps)
        for index, neighbour in enumerate(_shifted(maps, places)):
            result.addcmul_(neighbour, weights[:, index : index + 1])
        maps = result
    return maps


def _offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    return [(y * d, x * d) for d in dilations for y, x in DIRECTIONS]


def _shifted(maps: Tensor, places: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """Yield the (B, C, h, w) values of each neighbour, borders repeated, as views of one copy."""
    height, width = maps.shape[2:]
    margin = max(max(abs(y), abs(x)) for y, x in places)
    padded = F.pad(maps, (margin,) * 4, mode="replicate")
    for y, x in places:
        top, left = margin + y, margin + x
        yield padded[:, :, top : top + height, left : left + width]
