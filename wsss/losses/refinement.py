"""How far the refinement of class activation maps leads away from them.

Source: MuSCLe (Yuan et al., citation in :mod:`wsss.methods.muscle`), self-guided CAMs, as in the
official code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsss.losses.normalisation import softmax_norm


def hardest_mean(values: Tensor, counts: Tensor, most: int | None = None) -> Tensor:
    """Mean of each row's largest values, then over rows.

    Args:
        values: (B, N).
        counts: (B,) how many of each row; less than 1 counts as 1, more than N as N.
        most: no count is larger, as the host knows; only so many are put in order.
    """
    most = max(1, min(values.shape[1] if most is None else most, values.shape[1]))
    ordered = values.topk(most, dim=1).values
    counts = counts.long().clamp(1, most)
    taken = torch.arange(most, device=values.device) < counts[:, None]
    return (torch.where(taken, ordered, 0).sum(1) / counts).mean()


def refinement_loss(
    plain: Tensor,
    refined: Tensor,
    labels: Tensor,
    share: float = 0.2,
    counted: Tensor | None = None,
) -> Tensor:
    """Largest absolute differences between a CAM, as the target, and its refinement.

    Source: MuSCLe, equivariance/refinement loss: the mean of the top K differences of each image
    over all C + 1 maps.

    Args:
        plain: (B, C, H, W) non-negative CAMs; no gradient reaches them.
        refined: (B, C, H, W).
        labels: (B, C), 0 or 1; maps of absent classes do not count.
        share: K is ``share`` x labels x H x W (official code: 0.2).
        counted: labels that count for every image, those of the whole batch in the official
            code; None for its own.
    """
    channels = torch.cat([labels.new_ones(len(labels), 1), labels], 1)[:, :, None, None]
    target = softmax_norm(plain.detach())
    differences = ((target - softmax_norm(refined)) * channels).abs().flatten(1)
    area = plain.shape[2] * plain.shape[3]
    if counted is not None:
        return hardest_mean(differences, (share * area * counted).floor().expand(len(labels)))
    most = int(share * area * labels.shape[1])
    return hardest_mean(differences, (share * area * labels.sum(1)).floor(), most)
