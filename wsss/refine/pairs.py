"""Pairs of grid cells within a radius: the neighbourhood of the affinity and of the walk.

A pair is a cell and one of P offsets (dy, dx) in a half-disc, so each unordered pair occurs
once. Everything about pairs has shape (..., P, h, w), with a fill value where the offset leaves
the grid: any grid size works, down to one cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Offset = tuple[int, int]


def half_disc_offsets(radius: int) -> list[Offset]:
    """Offsets (dy, dx) at a distance below ``radius`` in cells, one of each opposite two.

    34 for radius 5 (Ahn & Kwak, CVPR 2018, section 4).

    Raises:
        ValueError: ``radius`` is below 1.
    """
    if radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
    return [
        (dy, dx)
        for dy in range(radius)
        for dx in range(-radius + 1, radius)
        if (dy > 0 or dx > 0) and dy * dy + dx * dx < radius * radius
    ]


def overlap(offset: Offset, height: int, width: int) -> tuple[tuple[slice, slice], ...]:
    """The cells whose partner at ``offset`` is in the grid, and those partners, as slices.

    Both are empty when the offset is larger than the grid.
    """
    rows, partner_rows = _overlap(offset[0], height)
    columns, partner_columns = _overlap(offset[1], width)
    return (rows, columns), (partner_rows, partner_columns)


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    start = min(max(0, -step), length)
    stop = max(min(length, length - step), start)
    if stop == start:
        return slice(0, 0), slice(0, 0)
    return slice(start, stop), slice(start + step, stop + step)


def partners(grid: Tensor, offsets: Sequence[Offset], fill: float) -> Tensor:
    """What lies at each offset: (..., h, w) -> (..., P, h, w), ``fill`` outside the grid."""
    height, width = grid.shape[-2:]
    shape = (*grid.shape[:-2], len(offsets), height, width)
    result = torch.full(shape, fill, dtype=grid.dtype, device=grid.device)
    for index, offset in enumerate(offsets):
        here, there = overlap(offset, height, width)
        result[..., index, :, :][..., *here] = grid[..., *there]
    return result
