"""Optimal transport between the cells of two patches, and the matching of patches by it.

Source: MuSCLe, region-level contrast, as in the official code, with Sinkhorn's algorithm in the
log domain (Cuturi, NeurIPS 2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.views import Overlap

Masses = Literal["raw", "normalised"]
# Cells that stay cells; larger patches are pooled (official code).
LARGEST_PATCH, POOLING = 28, 4


@dataclass(frozen=True)
class Transport:
    """Constants of the transport and of the patches, those of the official code by default.

    Attributes:
        epsilon: entropic regularisation.
        iterations: of Sinkhorn's algorithm.
        floor: added to the masses.
        masses: ``raw``: x_m . mean(Y) as it is; ``normalised``: divided by its sum.
        alternate: the second potential is updated from the new first one, as Sinkhorn's algorithm
            does and as convergence needs; the official code updates both from the old ones.
        least_overlap: smaller overlaps (pixels a side) are skipped.
        largest_aspect: longer overlaps are skipped.
        least_patch: patches of fewer cells a side are skipped.
    """

    epsilon: float = 0.1
    iterations: int = 10
    floor: float = 1e-6
    masses: Masses = "raw"
    alternate: bool = False
    least_overlap: int = 15
    largest_aspect: float = 5.0
    least_patch: int = 7


DEFAULT = Transport()


class Patches(NamedTuple):
    """Size and stride of the sliding patches of one image, rows before columns."""

    size: tuple[int, int]
    stride: tuple[int, int]


def cosine_cost(first: Tensor, second: Tensor) -> Tensor:
    """1 - x_m . y_n: (..., M, D) and (..., N, D) unit vectors to (..., M, N)."""
    return 1 - first @ second.mT


def masses_of(first: Tensor, second: Tensor, kind: Masses = "raw") -> tuple[Tensor, Tensor]:
    """How much each cell has in common with the other patch: mu_m = x_m . mean(Y), nu likewise.

    Constants: no gradient reaches the cells through them.

    Args:
        first: (..., M, D), second: (..., N, D), both non-negative.
        kind: see :class:`Transport`.

    Returns:
        (..., M) and (..., N).
    """
    first, second = first.detach(), second.detach()
    mine = (first * second.mean(-2, keepdim=True)).sum(-1)
    theirs = (second * first.mean(-2, keepdim=True)).sum(-1)
    if kind == "normalised":
        mine, theirs = mine / mine.sum(-1, keepdim=True), theirs / theirs.sum(-1, keepdim=True)
    return mine, theirs


def sinkhorn(cost: Tensor, mine: Tensor, theirs: Tensor, how: Transport = DEFAULT) -> Tensor:
    """Return the transport plan (..., M, N) of ``cost`` (..., M, N) in the log domain.

    Potentials u and v start at 0. Each iteration adds epsilon (log mu - lse_n z) to u and
    epsilon (log nu - lse_m z) to v, z = (u + v - C) / epsilon, and the plan is exp(z).

    Args:
        cost: gradient passes through it.
        mine, theirs: masses (..., M) and (..., N).
        how: epsilon, iterations, floor and ``alternate``.
    """
    kernel = -cost / how.epsilon
    log_mine, log_theirs = (mine + how.floor).log(), (theirs + how.floor).log()
    u, v = torch.zeros_like(log_mine), torch.zeros_like(log_theirs)  # divided by epsilon
    for _ in range(how.iterations):
        scaled = kernel + u[..., :, None] + v[..., None, :]
        u_next = log_mine - scaled.logsumexp(-1) + u
        if how.alternate:
            scaled = kernel + u_next[..., :, None] + v[..., None, :]
        v = log_theirs - scaled.logsumexp(-2) + v
        u = u_next
    return (kernel + u[..., :, None] + v[..., None, :]).exp()


def transport_distance(first: Tensor, second: Tensor, how: Transport = DEFAULT) -> Tensor:
    """Cost of the plan between two patches, divided by its M x N entries.

    The cost in this product is a constant: gradient reaches the cells through the plan alone.

    Args:
        first: (..., M, D), second: (..., N, D): unit vectors, non-negative.

    Returns:
        (...).
    """
    cost = cosine_cost(first, second)
    plan = sinkhorn(cost, *masses_of(first, second, how.masses), how)
    return (plan * cost.detach()).mean((-2, -1))


@torch.no_grad()
def transport_search(first: Tensor, second: Tensor, how: Transport = DEFAULT) -> Tensor:
    """As :func:`transport_distance`, in a tenth of the time, to compare many pairs.

    exp(-C / epsilon) is made once, and the logarithms of sums become products with it. It must
    not underflow: for cosines of non-negative vectors, epsilon above 0.02.
    """
    cost = cosine_cost(first, second)
    mine, theirs = masses_of(first, second, how.masses)
    kernel = (-cost / how.epsilon).exp()
    log_mine, log_theirs = (mine + how.floor).log(), (theirs + how.floor).log()
    u, v = torch.zeros_like(log_mine), torch.zeros_like(log_theirs)
    for _ in range(how.iterations):
        u_next = log_mine - _log_product(kernel, v)
        v = log_theirs - _log_product(kernel.mT, u_next if how.alternate else u)
        u = u_next
    left, right = u.amax(-1, keepdim=True), v.amax(-1, keepdim=True)
    spent = ((kernel * cost) @ (v - right).exp()[..., None])[..., 0]
    total = (spent * (u - left).exp()).sum(-1) * (left + right)[..., 0].exp()
    return total / (cost.shape[-2] * cost.shape[-1])


def _log_product(kernel: Tensor, potential: Tensor) -> Tensor:
    top = potential.amax(-1, keepdim=True)
    return (kernel @ (potential - top).exp()[..., None])[..., 0].log() + top


def draw_patches(rng: np.random.Generator, height: int, width: int) -> Patches:
    """Draw the patches of an overlap: a third to a half of it, moved by half to all of their size.

    Size and stride are drawn for each axis (official code).
    """
    sizes = [int(rng.integers(length // 3, length // 2 + 1)) for length in (height, width)]
    strides = [int(rng.integers(size // 2, size + 1)) for size in sizes]
    return Patches((sizes[0], sizes[1]), (strides[0], strides[1]))


def sliding_cells(maps: Tensor, patches: Patches) -> Tensor:
    """Cut (K, h, w) into overlapping patches, resized to the stride: (R, M, K).

    Patches larger than 28 cells a side are averaged over 4 x 4 cells (official code).
    """
    (height, width), (down, across) = patches.size, patches.stride
    windows = maps.unfold(1, height, down).unfold(2, width, across)
    windows = windows.permute(1, 2, 0, 3, 4).flatten(0, 1)
    cells = F.interpolate(windows, patches.stride, mode="bilinear", align_corners=True)
    if max(patches.stride) > LARGEST_PATCH:
        cells = F.avg_pool2d(cells, POOLING)
    return cells.flatten(2).mT


def quadrant_cells(maps: Tensor) -> Tensor:
    """Cut (K, h, w) into quadrants averaged over 4 x 4 cells: (4, N, K)."""
    height, width = maps.shape[1] // 2, maps.shape[2] // 2
    quadrants = torch.stack(
        [maps[:, y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    )
    return F.avg_pool2d(quadrants, POOLING).flatten(2).mT


def region_matching(
    first: Tensor,
    second: Tensor,
    overlaps: Sequence[Overlap],
    generators: Sequence[np.random.Generator],
    how: Transport = DEFAULT,
) -> Tensor:
    """Distance of the closest pair of a first view's patch and a second view's quadrant.

    The closest pair is found without gradient; its distance alone is minimised.

    Args:
        first: (B, K, S, S) non-negative maps, unit vectors over K.
        second: (B, K, S, S) the same of the second views; no gradient reaches them.
        overlaps: of the views, on the host.
        generators: one an image, for the size and the stride of its patches.
        how: constants.

    Returns:
        Mean over the images that have patches; 0 if none has.
    """
    distances = []
    for index, (overlap, rng) in enumerate(zip(overlaps, generators, strict=True)):
        cells = _cells(first[index], second[index].detach(), overlap, rng, how)
        if cells is not None:
            distances.append(_closest(*cells, how))
    if not distances:
        return first.sum() * 0
    return torch.stack(distances).mean()


def _cells(
    first: Tensor, second: Tensor, overlap: Overlap, rng: np.random.Generator, how: Transport
) -> tuple[Tensor, Tensor] | None:
    sides = sorted((overlap.height, overlap.width))
    if sides[0] < how.least_overlap or sides[1] > how.largest_aspect * sides[0]:
        return None
    patches = draw_patches(rng, overlap.height, overlap.width)
    if min(patches.stride) < how.least_patch:
        return None
    mine, theirs = overlap.cut(first, second)
    return sliding_cells(mine, patches), quadrant_cells(theirs)


def _closest(patches: Tensor, quadrants: Tensor, how: Transport) -> Tensor:
    count = len(quadrants)
    found = transport_search(patches.detach()[:, None], quadrants[None], how)
    # An index that stays on the device.
    best = found.flatten().argmin().reshape(1)
    one = patches.index_select(0, best // count)
    other = quadrants.index_select(0, best % count)
    return transport_distance(one, other, how)[0]
