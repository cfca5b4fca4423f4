"""Local refinement of soft masks by the colours of the image: PAR and VARM.

Each step replaces a pixel's values by a weighted sum of those of its neighbours, 8 directions at
several distances. The weights come from the image alone and are the same in every step.

Sources: PAR, Ru et al., "Learning Affinity from Attention" (AFA), CVPR 2022, section 3.4; VARM,
Wang et al., "Boosting Weakly-Supervised Image Segmentation via Representation, Transform, and
Compensator" (RTC), IEEE TCSVT 2024; constants from the published code of both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.constants import constant

DILATIONS = (1, 2, 4, 8, 12, 24)
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
EPSILON = 1e-8


def offsets(dilations: Sequence[int] = DILATIONS) -> list[tuple[int, int]]:
    """Return (rows, columns) to each of the 8 * len(dilations) neighbours."""
    return [(y * d, x * d) for d in dilations for y, x in DIRECTIONS]


def shifted(maps: Tensor, places: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """Yield for each offset the (B, C, h, w) values of that neighbour; borders repeat.

    Views of one padded copy, so that nothing is gathered.
    """
    height, width = maps.shape[2:]
    margin = max(max(abs(y), abs(x)) for y, x in places)
    padded = F.pad(maps, (margin,) * 4, mode="replicate")
    for y, x in places:
        top, left = margin + y, margin + x
        yield padded[:, :, top : top + height, left : left + width]


def _contrast(images: Tensor, places: Sequence[tuple[int, int]], factor: float) -> Tensor:
    """-(factor |I_q - I_p| / std)^2, mean over colours; std over the neighbours, unbiased."""
    neighbours = torch.stack(list(shifted(images, places)), 1)  # (B, Q, 3, h, w)
    # By hand: torch's own is several times slower across a dimension that is not the last.
    deviation = neighbours - neighbours.mean(1, keepdim=True)
    variance = deviation.square().sum(1, keepdim=True) / (len(places) - 1)
    ratio = (neighbours - images[:, None]) * (factor / (variance.sqrt() + EPSILON))
    return -ratio.square().mean(2)


def _variation(images: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """Squared forward differences of the neighbour-shifted image, down plus right, mean over
    colours; those of the last row and column are 0."""
    found = []
    for neighbour in shifted(images, places):
        down = F.pad(neighbour.diff(dim=2), (0, 0, 0, 1))
        right = F.pad(neighbour.diff(dim=3), (0, 1))
        found.append((down.square() + right.square()).mean(1))
    return torch.stack(found, 1)


def _distance(images: Tensor, places: Sequence[tuple[int, int]], scale: float) -> Tensor:
    """-(d / (std of all distances) / scale)^2 of each neighbour: (1, Q, 1, 1)."""
    lengths = [math.hypot(y, x) for y, x in places]
    spread = statistics.stdev(lengths) + EPSILON
    values = [-((length / spread / scale) ** 2) for length in lengths]
    return constant(values, images)[None, :, None, None]


def neighbour_weights(
    images: Tensor,
    kind: Literal["varm", "par"] = "varm",
    dilations: Sequence[int] = DILATIONS,
    contrast: float = 4.0,
    scale: float = 0.3,
    share: float = 0.01,
) -> Tensor:
    """Weights of all neighbours of every pixel.

    - ``varm``: softmax(-(contrast |dI| / std)^2) - share * softmax(total variation), which sums
      to 1 - share;
    - ``par``: softmax(-(|dI| / std / scale)^2) + share * softmax(-(d / std_d / scale)^2), which
      sums to 1 + share.

    Args:
        images: (B, 3, h, w) RGB in [0, 1].
        dilations: distances of the neighbours in pixels.

    Returns:
        (B, 8 * len(dilations), h, w) float32; no gradient.
    """
    images, places = images.detach().float(), offsets(dilations)
    if kind == "varm":
        colour = _contrast(images, places, contrast).softmax(1)
        return colour - share * _variation(images, places).softmax(1)
    colour = _contrast(images, places, 1 / scale).softmax(1)
    return colour + share * _distance(images, places, scale).softmax(1)


def refine_locally(
    maps: Tensor, weights: Tensor, iterations: int = 10, dilations: Sequence[int] = DILATIONS
) -> Tensor:
    """Apply the weights ``iterations`` times; every channel by itself.

    One neighbour at a time: the memory is that of the maps, not of 48 copies.

    Args:
        maps: (B, M, h, w).
        weights: (B, 8 * len(dilations), h, w) of :func:`neighbour_weights`.

    Returns:
        (B, M, h, w) float32; no gradient.
    """
    places = offsets(dilations)
    with torch.no_grad():
        maps = maps.detach().float()
        for _ in range(iterations):
            result = torch.zeros_like(maps)
            for index, neighbour in enumerate(shifted(maps, places)):
                result.addcmul_(neighbour, weights[:, index : index + 1])
            maps = result
    return maps
