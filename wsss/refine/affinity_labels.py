"""Training labels of AffinityNet from two label maps (Ahn & Kwak, CVPR 2018, section 4.2).

The low-alpha map is generous with background: its foreground is reliable. The high-alpha map is
sparing with background: its background is reliable. Where neither speaks the label is 255.

Deviation: the published code keeps the soft CRF results, crops them and averages the
probabilities over a cell; here the full-resolution argmax is kept and the pixels of a cell vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from wsss.labels import BACKGROUND, IGNORE
from wsss.refine.pairs import Offset, partners


def affinity_labels(low: Tensor, high: Tensor, stride: int = 8) -> Tensor:
    """Combine two label maps into labels of the cells of a coarser grid.

    In this order, as in the published code: each map votes in its cells; take the low-alpha
    winner; where that is background, 255; where the high-alpha winner is background, 0, which
    overrides the foreground of the low-alpha map; where a map has no valid pixel, 255.

    Args:
        low: (..., H, W) uint8 label map of the low alpha; 255 marks padding.
        high: the same of the high alpha.
        stride: pixels a cell, in each direction. The last row and column of cells may be
            smaller.

    Returns:
        (..., ceil(H / stride), ceil(W / stride)) uint8.

    Raises:
        ValueError: the maps differ in shape or are not uint8.
    """
    if low.shape != high.shape or low.dtype != torch.uint8 or high.dtype != torch.uint8:
        raise ValueError(
            f"expected two uint8 maps of one shape, got {tuple(low.shape)} {low.dtype} "
            f"and {tuple(high.shape)} {high.dtype}"
        )
    low_vote, high_vote = majority(low, stride), majority(high, stride)
    labels = low_vote.masked_fill(low_vote == BACKGROUND, IGNORE)
    labels = labels.masked_fill(high_vote == BACKGROUND, BACKGROUND)
    return labels.masked_fill((low_vote == IGNORE) | (high_vote == IGNORE), IGNORE)


def majority(mask: Tensor, stride: int) -> Tensor:
    """The most frequent valid id of each cell; the lowest id on a tie, 255 without any.

    Args:
        mask: (..., H, W) uint8.
        stride: pixels a cell.

    Returns:
        (..., ceil(H / stride), ceil(W / stride)) uint8.
    """
    height, width = mask.shape[-2:]
    padding = (0, -width % stride, 0, -height % stride)
    padded = functional.pad(mask.reshape(-1, height, width), padding, value=IGNORE)
    cells = padded.unfold(1, stride, stride).unfold(2, stride, stride)
    rows, columns = cells.shape[1:3]
    votes = _count(cells.reshape(-1, stride * stride).long())
    winner = votes.argmax(dim=1).masked_fill(votes.sum(dim=1) == 0, IGNORE)
    return winner.to(torch.uint8).reshape(*mask.shape[:-2], rows, columns)


def _count(cells: Tensor) -> Tensor:
    """How often each valid id occurs: N x pixels -> N x ids."""
    valid = cells != IGNORE
    ids = int(cells.masked_fill(~valid, 0).max()) + 1 if cells.numel() else 1
    index = torch.arange(len(cells), device=cells.device)[:, None] * ids + cells
    return torch.bincount(index[valid], minlength=len(cells) * ids).reshape(-1, ids)


class PairMasks(NamedTuple):
    """Which pairs count in which term of the loss: each (B, P, h, w) bool, disjoint.

    A pair in none of them has an ignored cell or leaves the grid.
    """

    background: Tensor
    foreground: Tensor
    negative: Tensor


def pair_masks(labels: Tensor, offsets: Sequence[Offset]) -> PairMasks:
    """Sort the pairs of a label grid (equations 4 and 5).

    Args:
        labels: (B, h, w) uint8 from :func:`affinity_labels`.
        offsets: P of them, see :func:`wsss.refine.pairs.half_disc_offsets`.
    """
    other = partners(labels, offsets, IGNORE)
    label = labels.unsqueeze(-3)
    valid = (label != IGNORE) & (other != IGNORE)
    same = valid & (label == other)
    background = same & (label == BACKGROUND)
    return PairMasks(background, same & ~background, valid & ~same)
