"""Contrast of anchors with several positives each.

Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, in the form in which each
positive stands alone against the negatives (Wang et al., "Exploring Cross-Image Pixel Contrast for
Semantic Segmentation", ICCV 2021, equation 3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Stands for minus infinity where an anchor has no negative: its logarithm of a sum stays finite.
_NEVER = -1e4


def info_nce(similar: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Mean over an anchor's positives u of -log[ e^u / ( e^u + sum over its negatives of e^n ) ].

    Args:
        similar: (..., N) similarities, divided by the temperature.
        positives, negatives: bool, broadcast to the same shape.

    Returns:
        (...): 0 for an anchor without a positive or without a negative.
    """
    against = similar.masked_fill(~negatives, _NEVER).logsumexp(-1, keepdim=True)
    each = F.softplus(against - similar)
    counted = positives.expand_as(each)
    return torch.where(counted, each, 0).sum(-1) / counted.sum(-1).clamp(min=1)
