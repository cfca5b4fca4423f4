"""Pixel correlation module: maps spread to cells with similar features.

Source: Wang et al., "Self-supervised Equivariant Attention Mechanism for Weakly Supervised
Semantic Segmentation" (SEAM), CVPR 2020, section 3.4, in the form of its published code.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from wsss.precision import full_precision

EPSILON = 1e-5


def correlation(features: Tensor, epsilon: float = EPSILON) -> Tensor:
    """ReLU of the cosine similarity of all pairs of cells, each column divided by its sum.

    Args:
        features: (B, D, h, w), any float type.
        epsilon: added to norms and sums.

    Returns:
        (B, h * w, h * w) float32. Columns sum to 1, less ``epsilon``; that of a cell whose
        feature is 0 is 0.
    """
    flat = features.float().flatten(2)
    flat = flat / (flat.norm(dim=1, keepdim=True) + epsilon)
    with full_precision(flat):
        similar = (flat.transpose(1, 2) @ flat).relu()
    columns: Tensor = similar / (similar.sum(1, keepdim=True) + epsilon)
    return columns


def pcm(maps: Tensor, features: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Replace each cell's activations by the mean of all cells, weighted by their similarity.

    Args:
        maps: (B, C, H, W); brought to the grid of the features, corners aligned.
        features: (B, D, h, w), any float type.

    Returns:
        (B, C, h, w) float32.
    """
    grid = features.shape[2:]
    maps = maps.float()
    if maps.shape[2:] != grid:
        maps = F.interpolate(maps, grid, mode="bilinear", align_corners=True)
    with full_precision(maps):
        spread: Tensor = maps.flatten(2) @ correlation(features, epsilon)
    return spread.view(*maps.shape[:2], *grid)
