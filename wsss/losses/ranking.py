"""Multi-label losses that push the scores of present classes above those of absent ones.

Source: MuSCLe (Yuan et al., citation in :mod:`wsss.methods.muscle`), classification loss of its
official code: focal, soft margin and log-sum-exp pairwise terms, summed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def focal(
    logits: Tensor,
    labels: Tensor,
    weight: float = 0.5,
    gamma: float = 2.0,
    epsilon: float = 1e-9,
) -> Tensor:
    """Sum over classes of -weight (1 - q)^gamma log(q + epsilon), mean over images.

    q is the probability of what is true: sigmoid(z) for a present class, 1 - sigmoid(z) for an
    absent one (Lin et al., ICCV 2017, equation 5, summed over independent classes).

    Args:
        logits, labels: (B, C); labels are 0 or 1.
        weight: the factor alpha, alike for both (official code: 0.5).
        gamma: focusing exponent (official code: 2).
        epsilon: keeps the logarithm finite (official code: 1e-9).
    """
    # sigmoid(-z) is 1 - sigmoid(z) without its rounding.
    likely = torch.where(labels > 0, logits, -logits).sigmoid()
    values = -weight * (1 - likely) ** gamma * (likely + epsilon).log()
    return values.sum(1).mean()


def pairwise_ranking(logits: Tensor, labels: Tensor) -> Tensor:
    """log(1 + mean over class pairs (i, j) of exp(n_j - p_i)), mean over images.

    p holds the probabilities of present classes, 0 elsewhere, n those of absent ones, 0
    elsewhere; the zeros stay in the mean over all C x C pairs, as in the official code
    (log-sum-exp pairwise, Li, Song & Luo, CVPR 2017, equation 5).

    Args:
        logits, labels: (B, C); labels are 0 or 1.
    """
    scores = logits.sigmoid()
    present, absent = scores * labels, scores * (1 - labels)
    # The double sum of a product is the product of the sums.
    pairs = absent.exp().mean(1) * (-present).exp().mean(1)
    return pairs.log1p().mean()
