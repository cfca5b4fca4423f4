"""Semantic affinity of neighbouring cells and its loss (Ahn & Kwak, CVPR 2018, section 4.2).

Deviation: the published code leaves out pairs whose first cell is within radius - 1 of the
left, right or bottom border; here every pair inside the grid counts, so that any grid works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wsss.refine.affinity_labels import PairMasks
from wsss.refine.pairs import Offset, overlap

# Added to counts and logarithms, as in the published code.
EPSILON = 1e-5


def affinity(features: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """exp(-mean over channels of |f_i - f_j|) for each pair (equation 3).

    Computed in float32 and one offset at a time: the memory is that of the result and of one
    copy of the features, also in the backward pass. The paper sums over channels; the published
    code, followed here, averages, so the scale does not depend on the width.

    Args:
        features: (B, D, h, w), any float type.
        offsets: P of them, see :func:`wsss.refine.pairs.half_disc_offsets`.

    Returns:
        (B, P, h, w) float32 in [0, 1]; 0 where the partner is outside the grid.
    """
    apply: Any = _PairDistance.apply  # untyped in torch
    distance: Tensor = apply(features.float(), tuple(offsets))
    return torch.exp(-distance)


def pair_sizes(pairs: PairMasks) -> dict[str, float]:
    """Return how many pairs there are of each kind, by its name."""
    return {name: float(mask.sum()) for name, mask in pairs._asdict().items()}


def pair_loss(values: Tensor, pairs: PairMasks, sizes: Mapping[str, float]) -> Tensor:
    """1/4 background + 1/4 foreground + 1/2 negative (equations 6 to 9; in IRNet, Ahn et al., CVPR
    2019, equation 3, of the affinities between boundaries).

    The first two are the mean of -log a, the last of -log(1 - a), over all such pairs of the
    batch. A term without pairs is 0.

    Args:
        values: (B, P, h, w) affinities in [0, 1].
        pairs: the masks of :func:`wsss.refine.affinity_labels.pair_masks`.
        sizes: :func:`pair_sizes` of the whole batch, of which this may be a part.

    Returns:
        Scalar.
    """
    attract = -torch.log(values + EPSILON)
    repel = -torch.log(1 + EPSILON - values)
    background = masked_mean(attract, pairs.background, sizes["background"])
    foreground = masked_mean(attract, pairs.foreground, sizes["foreground"])
    negative = masked_mean(repel, pairs.negative, sizes["negative"])
    return background / 4 + foreground / 4 + negative / 2


def masked_mean(values: Tensor, mask: Tensor, size: float) -> Tensor:
    """Divide the sum of the values under a mask by ``size``, the entries of the whole batch.

    ``mask`` is bool, of the shape of ``values``; the result a scalar, 0 where ``size`` is.
    """
    # where and not a product: an infinity under the mask must not become a NaN.
    return torch.where(mask, values, 0).sum() / (size + EPSILON)


class _PairDistance(torch.autograd.Function):
    """Mean absolute difference of each pair; infinite outside the grid.

    Autograd would keep the difference of every offset for the backward pass, P copies of the
    features; its sign is cheaper to compute again.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, offsets: tuple[Offset, ...]) -> Tensor:
        ctx.save_for_backward(features)
        ctx.offsets = offsets
        batch, _, height, width = features.shape
        result = features.new_full((batch, len(offsets), height, width), torch.inf)
        for index, offset in enumerate(offsets):
            here, there = overlap(offset, height, width)
            difference = features[..., *here] - features[..., *there]
            result[:, index, *here] = difference.abs_().mean(dim=1)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        result = torch.zeros_like(features)
        _, channels, height, width = features.shape
        for index, offset in enumerate(ctx.offsets):
            here, there = overlap(offset, height, width)
            share = (features[..., *here] - features[..., *there]).sign_()
            share *= gradient[:, index, *here].unsqueeze(1) / channels
            result[..., *here] += share
            result[..., *there] -= share
        return result, None
