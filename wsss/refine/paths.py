"""Affinities from a boundary map: two cells belong together unless a boundary lies between them.

Source: Ahn et al., "Weakly Supervised Learning of Instance Segmentation with Inter-pixel
Relations", CVPR 2019, section 4.2, equation 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wsss.refine.pairs import Offset, overlap


@cache
def path_cells(offset: Offset) -> tuple[Offset, ...]:
    """Cells on the way from (0, 0) to ``offset``, both ends included.

    Those of the rectangle between the two whose distance from the segment is below one cell, as
    in the published code.
    """
    dy, dx = offset
    length = dy * dy + dx * dx
    rows = range(min(dy, 0), max(dy, 0) + 1)
    columns = range(min(dx, 0), max(dx, 0) + 1)
    return tuple(
        (y, x)
        for y in rows
        for x in columns
        if length == 0 or (dy * x - dx * y) ** 2 < length  # squared distance times length
    )


def boundary_affinity(boundary: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """1 - the strongest boundary on the way to each partner (equation 2).

    Args:
        boundary: (B, h, w) in [0, 1].
        offsets: P of them, see :func:`wsss.refine.pairs.half_disc_offsets`.

    Returns:
        (B, P, h, w) float32 in [0, 1]; 0 where the partner is outside the grid.
    """
    apply: Any = _PathMaximum.apply  # untyped in torch
    strongest: Tensor = apply(boundary.float(), tuple(offsets))
    return 1 - strongest


class _PathMaximum(torch.autograd.Function):
    """Maximum of a map along each path; 1 where the path leaves the grid.

    Autograd over the dozen cells of each of some 150 paths would keep every partial maximum;
    which cell won, a byte a pair, is all that the gradient needs.
    """

    @staticmethod
    def forward(ctx: Any, boundary: Tensor, offsets: tuple[Offset, ...]) -> Tensor:
        batch, height, width = boundary.shape
        result = boundary.new_ones(batch, len(offsets), height, width)
        winners = torch.zeros(result.shape, dtype=torch.uint8, device=boundary.device)
        for index, offset in enumerate(offsets):
            (rows, columns), _ = overlap(offset, height, width)
            first, *others = path_cells(offset)
            best = boundary[:, _shift(rows, first[0]), _shift(columns, first[1])]
            winner = torch.zeros_like(best, dtype=torch.uint8)
            for number, cell in enumerate(others, 1):
                value = boundary[:, _shift(rows, cell[0]), _shift(columns, cell[1])]
                winner.masked_fill_(value > best, number)
                best = torch.maximum(best, value)
            result[:, index, rows, columns] = best
            winners[:, index, rows, columns] = winner
        ctx.save_for_backward(winners)
        ctx.offsets = offsets
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (winners,) = ctx.saved_tensors
        batch, _, height, width = gradient.shape
        result = gradient.new_zeros(batch, height, width)
        for index, offset in enumerate(ctx.offsets):
            (rows, columns), _ = overlap(offset, height, width)
            share, winner = gradient[:, index, rows, columns], winners[:, index, rows, columns]
            for number, cell in enumerate(path_cells(offset)):
                there = (slice(None), _shift(rows, cell[0]), _shift(columns, cell[1]))
                result[there] += share * (winner == number)
        return result, None


def _shift(part: slice, step: int) -> slice:
    if part.start == part.stop:
        return slice(0, 0)
    return slice(part.start + step, part.stop + step)
