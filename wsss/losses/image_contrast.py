"""Contrast of whole images by their labels."""

from __future__ import annotations

import torch
from torch import Tensor


def image_contrast(
    embeddings: Tensor,
    labels: Tensor,
    temperature: float = 0.1,
    start: float = 1e-6,
    epsilon: float = 1e-6,
) -> Tensor:
    """InfoNCE between images with exactly the same labels and images without a common one.

    Source: MuSCLe, image-level contrast, as in the official code: the anchor of each pair is the
    earlier image of the batch, images that share some labels are left out, and an anchor counts
    only if it has a positive and more negatives than positives.

    Args:
        embeddings: (B, D), normalised here.
        labels: (B, C), 0 or 1.
        temperature: divides the cosine (official code: 0.1).
        start: what both sums start from (official code).
        epsilon: added to the norms (official code).

    Returns:
        Sum over anchors divided by B; 0 where no two images have the same labels.
    """
    units = embeddings / (embeddings.norm(dim=1, keepdim=True) + epsilon)
    terms = (units @ units.T / temperature).exp()
    common = labels @ labels.T
    counts = labels.sum(1)
    later = torch.ones_like(common, dtype=torch.bool).triu(1)
    same = later & (common == counts[:, None]) & (common == counts[None])
    apart = later & (common == 0)
    # Two images without any label would be both.
    apart &= ~same
    positive = start + torch.where(same, terms, 0).sum(1)
    negative = start + torch.where(apart, terms, 0).sum(1)
    values = (positive + negative).log() - positive.log()
    counted = same.any(1) & (apart.sum(1) > same.sum(1))
    return torch.where(counted, values, 0).sum() / len(labels)
