"""Multi-scale attention: CAMs that grow towards those of another network at several scales.

Source: Yoon et al., "Exploring Pixel-level Self-supervision for Weakly Supervised Semantic
Segmentation" (PSS), arXiv 2112.05351, abstract: CAMs of the support network at several scales
supervise those of the main network, based on the dissimilarity of the two. The equations are not
public: those here are a reconstruction.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dissimilarity(main: Tensor, support: Tensor) -> Tensor:
    """1 - cosine of the flattened maps, (B, C) in [0, 1] for non-negative ones.

    Args:
        main, support: (B, C, h, w). A map of zeros is as unlike as can be: 1.
    """
    return 1 - F.cosine_similarity(main.flatten(2), support.flatten(2), dim=2)


def scale_weights(distances: Tensor) -> Tensor:
    """(1 + d_s) / sum over scales of (1 + d_s): the more unlike, the more weight.

    They sum to 1, so that a target is a mean of what the support network sees and cannot grow by
    itself.

    Args:
        distances: (S, B, C), one a scale of the support network.
    """
    raised = 1 + distances
    return raised / raised.sum(0)


def attentive_target(main: Tensor, support: Tensor, weighted: bool = True) -> Tensor:
    """Weighted mean over scales of the support network's maps.

    Args:
        main: (B, C, h, w), the map to be taught; only its shape over the image counts.
        support: (S, B, C, h, w).
        weighted: by dissimilarity; otherwise all scales alike.

    Returns:
        (B, C, h, w); no gradient.
    """
    main, support = main.detach(), support.detach()
    if not weighted:
        return support.mean(0)
    weights = scale_weights(torch.stack([dissimilarity(main, one) for one in support]))
    return (weights[..., None, None] * support).sum(0)


def attentive_loss(
    main: Tensor,
    support: Tensor,
    label: Tensor,
    valid: Tensor,
    weighted: bool = True,
    grow: bool = True,
) -> Tensor:
    """Sum over the main network's scales of the mean distance of CAM and target over the cells of
    present classes.

    The distance is max(target - CAM, 0), so that maps above their target are not drawn down to it;
    without ``grow`` it is |CAM - target|.

    Args:
        main: (M, B, C, h, w) non-negative maps at M scales, brought to one grid.
        support: (S, B, C, h, w), likewise; no gradient reaches them.
        label: (B, C) of 0 and 1.
        valid: (B, h, w) of 0 and 1; other cells are left out everywhere.
        weighted: see :func:`attentive_target`.
        grow: count only cells below their target.

    Returns:
        Scalar; 0 if all maps are equal or no class is present.
    """
    counted = label[:, :, None, None] * valid[:, None].to(label.dtype)
    main, support = main.float() * counted, support.detach().float() * counted
    lacking = [attentive_target(one, support, weighted) - one for one in main]
    terms = [(lack.relu() if grow else lack.abs()).sum() for lack in lacking]
    return torch.stack(terms).sum() / counted.sum().clamp(min=1)
