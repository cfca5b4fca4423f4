"""Cross-entropy of segmentation logits, plain or class-balanced, against hard or soft labels.

Every loss is a mean over one or two groups of pixels. Sums and sizes of the groups are apart, so
that a batch worked on in parts can be divided by the sizes of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.distributed import collectives
from wsss.labels import IGNORE

PLAIN, BACKGROUND, FOREGROUND = "ce", "background", "foreground"


def hard_sizes(masks: Tensor, balanced: bool) -> dict[str, float]:
    """Pixels in each group; those of 255 are in none.

    Args:
        masks: (B, H, W) class ids, 0 the background.
        balanced: groups are background and foreground instead of all pixels.
    """
    labelled = float((masks != IGNORE).sum())
    if not balanced:
        return {PLAIN: labelled}
    background = float((masks == 0).sum())
    return {BACKGROUND: background, FOREGROUND: labelled - background}


def hard_sums(logits: Tensor, masks: Tensor, balanced: bool) -> dict[str, Tensor]:
    """Summed cross-entropy of each group's pixels.

    Args:
        logits: (B, K, H, W).
        masks: (B, H, W) int64 class ids; 255 is ignored.
    """
    values = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none")
    if not balanced:
        return {PLAIN: values.sum()}
    background = torch.where(masks == 0, values, 0).sum()
    # Ignored pixels are 0 already.
    return {BACKGROUND: background, FOREGROUND: torch.where(masks == 0, 0, values).sum()}


def soft_sizes(targets: Tensor, balanced: bool) -> dict[str, float]:
    """Total probability in each group; pixels whose probabilities are all 0 have none.

    Args:
        targets: (B, K, H, W) that sum to 1 over K, channel 0 the background, or to 0 where the
            pixel is to be ignored.
    """
    total = float(targets.sum(dtype=torch.float64))
    if not balanced:
        return {PLAIN: total}
    background = float(targets[:, 0].sum(dtype=torch.float64))
    return {BACKGROUND: background, FOREGROUND: total - background}


def soft_sums(logits: Tensor, targets: Tensor, balanced: bool) -> dict[str, Tensor]:
    """Summed cross-entropy -t log p of each group's probability.

    With targets of 0 and 1 this equals :func:`hard_sums`.

    Args:
        logits, targets: (B, K, H, W).
    """
    values = -(targets * logits.log_softmax(1))
    if not balanced:
        return {PLAIN: values.sum()}
    return {BACKGROUND: values[:, 0].sum(), FOREGROUND: values[:, 1:].sum()}


def mean_of_groups(sums: Mapping[str, Tensor], sizes: Mapping[str, float]) -> Tensor:
    """Average the groups' means; a group without pixels counts as 0.

    Two groups weigh half each however many pixels they have: the class-balanced cross-entropy
    of Huang et al., "Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region
    Growing", CVPR 2018, equation 2, with the halves that make it a mean.
    """
    means = [value / (sizes[name] or 1.0) for name, value in sums.items()]
    return torch.stack(means).mean()


def balanced_by_image(logits: Tensor, masks: Tensor) -> Tensor:
    """Half of each image's mean over background and over foreground pixels, averaged over images.

    A group without pixels counts as 0, so that an image whose mask is all 255 gives 0.

    Source: Ru et al., "Token Contrast for Weakly-Supervised Semantic Segmentation" (ToCo), CVPR
    2023, official code, with one image at a time as there.

    Args:
        logits: (B, K, H, W).
        masks: (B, H, W) int64 class ids; 255 is ignored.
    """
    values = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none")
    means = []
    for group in (masks == 0, (masks != 0) & (masks != IGNORE)):
        total = torch.where(group, values, 0).sum((1, 2))
        means.append(total / group.sum((1, 2)).clamp(min=1))
    return (torch.stack(means).sum(0) / 2).mean()


def balanced_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Half the mean over background and half the mean over foreground, as
    :func:`mean_of_groups`, but counted on the device. Means are over the cells of the global
    batch.

    Args:
        logits: (B, K, h, w).
        masks: (B, h, w) int64; 255 is ignored.

    Returns:
        Scalar; a part without cells is 0.
    """
    values = F.cross_entropy(logits.float(), masks, ignore_index=IGNORE, reduction="none")
    parts = [masks == 0, (masks != 0) & (masks != IGNORE)]
    sums = [collectives.total(torch.where(part, values, 0).sum()) for part in parts]
    sizes = [collectives.total(part.sum()).clamp(min=1) for part in parts]
    return torch.stack([s / size for s, size in zip(sums, sizes, strict=True)]).mean()
