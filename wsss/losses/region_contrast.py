"""Regional contrast: pixels against class prototypes that another network found.

Source: Yoon et al., "Exploring Pixel-level Self-supervision for Weakly Supervised Semantic
Segmentation" (PSS), arXiv 2112.05351, abstract: region masks from the CAMs of a support network,
class-wise prototypes from its features according to these masks, every pixel-wise feature of the
main network trained by the prototypes in a contrastive manner. The equations are not public: those
here are a reconstruction. The memory follows Zhou et al., "Regional Semantic Contrast and
Aggregation for Weakly Supervised Semantic Segmentation" (RCA), CVPR 2022.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.labels import IGNORE
from wsss.precision import full_precision

EPSILON = 1e-5


class Prototypes(NamedTuple):
    """``vectors`` (K, D) of length 1, background first; ``known`` (K,) bool: which exist."""

    vectors: Tensor
    known: Tensor


def region_masks(
    total: Tensor, label: Tensor, threshold: float, valid: Tensor | None = None
) -> Tensor:
    """The best class of each cell, background where no class reaches the threshold.

    S = sum over scales of the CAMs; S_c / (max S_c + 1e-5) >= threshold.

    Args:
        total: (B, C, h, w), non-negative, summed over scales.
        label: (B, C) of 0 and 1.
        threshold: share of a class's maximum.
        valid: (B, h, w) bool; elsewhere 255.

    Returns:
        (B, h, w) int64 class ids; no gradient.
    """
    present = total.detach().float() * label[:, :, None, None]
    scaled = present / (present.amax((2, 3), keepdim=True) + EPSILON)
    score, best = scaled.max(1)
    masks = torch.where(score >= threshold, best + 1, 0)
    return masks if valid is None else torch.where(valid, masks, IGNORE)


def region_prototypes(features: Tensor, masks: Tensor, classes: int) -> Prototypes:
    """Means of unit features over each class's region in the whole batch, brought to length 1.

    Args:
        features: (B, D, h, w).
        masks: (B, h, w) ids below ``classes``, or 255.

    Returns:
        float32 on the device of ``features``; no gradient. A class without a cell, or whose
        features are all 0, is not known and has a vector of zeros.
    """
    unit = F.normalize(features.detach().float(), dim=1).flatten(2)  # (B, D, n)
    member = masks.flatten(1)[..., None] == torch.arange(classes, device=masks.device)
    with full_precision(unit):
        total = torch.einsum("bdn,bnk->kd", unit, member.float())
    vectors = F.normalize(total, dim=1)
    return Prototypes(vectors, vectors.norm(dim=1) > 0.5)


def remember(memory: Prototypes, new: Prototypes, momentum: float) -> Prototypes:
    """Move remembered prototypes towards those of a batch.

    P <- normalise(momentum P + (1 - momentum) P_batch); a class of which nothing is remembered
    takes the batch's, one that is not in the batch stays.
    """
    mixed = F.normalize(momentum * memory.vectors + (1 - momentum) * new.vectors, dim=1)
    moved = torch.where(memory.known[:, None], mixed, new.vectors)
    vectors = torch.where(new.known[:, None], moved, memory.vectors)
    return Prototypes(vectors, memory.known | new.known)


def region_contrast(
    features: Tensor, prototypes: Prototypes, masks: Tensor, temperature: float
) -> Tensor:
    """Cross-entropy of softmax_k(<f, P_k> / t) over the known prototypes, mean over cells.

    Args:
        features: (B, D, h, w), raw; compared at length 1.
        prototypes: K of them; no gradient reaches them.
        masks: (B, h, w) int64 ids below K; 255 and classes without prototype are left out.

    Returns:
        Scalar, 0 without any cell.
    """
    cells = F.normalize(features.float(), dim=1)
    with full_precision(cells):
        similar = torch.einsum("bdhw,kd->bkhw", cells, prototypes.vectors.detach())
    logits = similar / temperature
    # A finite value: a row without any known prototype must not become NaN.
    unknown = ~prototypes.known[None, :, None, None]
    logits = logits.masked_fill(unknown, torch.finfo(logits.dtype).min)
    own = masks.clamp(max=len(prototypes.known) - 1)
    counted = (masks != IGNORE) & prototypes.known[own]
    values = -logits.log_softmax(1).gather(1, own[:, None])[:, 0]
    return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)
