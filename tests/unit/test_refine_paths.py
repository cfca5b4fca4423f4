"""Affinities from boundaries, against loops that follow the definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.refine.pairs import half_disc_offsets
from wsss.refine.paths import boundary_affinity, path_cells


def distance(cell: tuple[int, int], end: tuple[int, int]) -> float:
    """Distance of a cell from the line through (0, 0) and ``end``."""
    return abs(end[0] * cell[1] - end[1] * cell[0]) / math.hypot(*end)


@pytest.mark.parametrize("offset", half_disc_offsets(7))
def test_a_path_is_a_connected_band_between_its_ends(offset: tuple[int, int]) -> None:
    cells = path_cells(offset)
    assert (0, 0) in cells
    assert offset in cells
    assert len(set(cells)) == len(cells)
    assert all(distance(cell, offset) < 1 for cell in cells)
    # Nothing of the rectangle that is near the line is left out.
    box = [
        (y, x)
        for y in range(min(0, offset[0]), max(0, offset[0]) + 1)
        for x in range(min(0, offset[1]), max(0, offset[1]) + 1)
    ]
    assert {cell for cell in box if distance(cell, offset) < 1 - 1e-9} == set(cells)


def naive(boundary: torch.Tensor, offsets: list[tuple[int, int]]) -> torch.Tensor:
    """1 - max along the path, cell by cell, pair by pair."""
    batch, height, width = boundary.shape
    result = torch.zeros(batch, len(offsets), height, width, dtype=boundary.dtype)
    for b in range(batch):
        for p, (dy, dx) in enumerate(offsets):
            for y in range(height):
                for x in range(width):
                    if not (0 <= y + dy < height and 0 <= x + dx < width):
                        continue
                    way = [boundary[b, y + v, x + u] for v, u in path_cells((dy, dx))]
                    result[b, p, y, x] = 1 - max(float(value) for value in way)
    return result


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31), st.booleans()
)
def test_affinities_equal_the_definition(
    height: int, width: int, radius: int, seed: int, ties: bool
) -> None:
    boundary = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed))
    if ties:
        boundary = boundary.round()
    offsets = half_disc_offsets(radius)
    torch.testing.assert_close(boundary_affinity(boundary, offsets), naive(boundary, offsets))


def test_the_gradient_is_that_of_the_maximum() -> None:
    boundary = torch.rand(2, 5, 6, dtype=torch.float64, requires_grad=True)
    offsets = half_disc_offsets(4)
    weights = torch.rand(2, len(offsets), 5, 6)
    (boundary_affinity(boundary, offsets) * weights).sum().backward()
    mine = boundary.grad
    reference = boundary.detach().clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for p, (dy, dx) in enumerate(offsets):
        for y in range(5):
            for x in range(6):
                if 0 <= y + dy < 5 and 0 <= x + dx < 6:
                    for b in range(2):
                        way = torch.stack(
                            [reference[b, y + v, x + u] for v, u in path_cells((dy, dx))]
                        )
                        total = total + weights[b, p, y, x] * (1 - way.max())
    total.backward()
    assert mine is not None
    torch.testing.assert_close(mine, reference.grad, atol=1e-5, rtol=1e-5)


def test_a_wall_separates_and_open_ground_does_not() -> None:
    boundary = torch.zeros(1, 5, 7)
    boundary[0, :, 3] = 1
    offsets = half_disc_offsets(5)
    affinities = boundary_affinity(boundary, offsets)
    right = offsets.index((0, 4))
    assert affinities[0, right, 2, 1] == 0  # across the wall
    below = offsets.index((3, 0))
    assert affinities[0, below, 0, 1] == 1  # along it
    assert affinities[0, right, 2, 4] == 0  # leaves the grid
