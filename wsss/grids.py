"""Grids of cells over images."""

from __future__ import annotations


def grid_of(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the (h, w) of a map at ``stride`` of an image of ``size`` (H, W), rounded up."""
    return -(-size[0] // stride), -(-size[1] // stride)
