"""Masks made while training, from activations at two background levels, and their loss.

Source: Wang et al., "Boosting Weakly-Supervised Image Segmentation via Representation,
Transform, and Compensator" (RTC), IEEE TCSVT 2024, published code; the class-balanced loss is
that of Araslanov & Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.labels import IGNORE
from wsss.losses.normalisation import with_constant


def present_softmax(scores: Tensor, presence: Tensor) -> Tensor:
    """Softmax over the present channels alone; absent ones are 0.

    Args:
        scores: (B, K, h, w).
        presence: (B, K) of 0 and 1, at least one of them 1.
    """
    absent = presence[:, :, None, None] == 0
    return scores.masked_fill(absent, -torch.inf).softmax(1)


def two_level_masks(
    maps: Tensor,
    label: Tensor,
    high: float,
    low: float,
    refine: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    grid: tuple[int, int],
) -> Tensor:
    """Surely foreground above ``high``, surely background below ``low``, 255 in between.

    The two backgrounds compete with the classes as constant channels, in a softmax that flattens
    all of them, and after a local refinement.

    Args:
        maps: (B, C, H, W) in [0, 1], absent classes 0.
        label: (B, C) of 0 and 1.
        high, low: constants of the background.
        refine: maps (B, M, *grid) to the same shape, channel by channel.
        size: (H, W) of the result.
        grid: where the refinement works.

    Returns:
        (B, *size) int64 class ids; no gradient.
    """
    presence = F.pad(label, (1, 0), value=1.0)
    planes = []
    for value in (high, low):
        scores = F.interpolate(
            with_constant(maps.detach().float(), value), grid, mode="bilinear", align_corners=False
        )
        planes.append(present_softmax(scores, presence))
    # Both at once: the refinement's weights are those of the image.
    refined = refine(torch.cat(planes, 1))
    refined = F.interpolate(refined, size, mode="bilinear", align_corners=False)
    # The same as argmax, several times faster across a dimension that is not the last.
    sure, possible = (part.max(1).indices for part in refined.chunk(2, 1))
    background = (sure == 0) & (possible == 0)
    return torch.where(sure > 0, sure, torch.where(background, 0, IGNORE))


def complete(masks: Tensor, label: Tensor) -> Tensor:
    """Whether a mask shows background and every class of its image: (B,) bool.

    Args:
        masks: (B, H, W) class ids of labelled classes, 255 ignored.
        label: (B, C) of 0 and 1.
    """
    counts = class_counts(masks, label.shape[1] + 1)
    wanted = F.pad(label, (1, 0), value=1.0) > 0
    return ((counts > 0) == wanted).all(1)


def class_counts(masks: Tensor, classes: int) -> Tensor:
    """Pixels of each class: (B, classes) float32; 255 counts nowhere.

    Args:
        masks: (B, H, W) int64 ids below ``classes``, or 255.
    """
    ids = masks.flatten(1).clamp(max=classes)
    counts = torch.zeros(len(ids), classes + 1, device=ids.device)
    counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=counts.dtype))
    return counts[:, :classes]


def self_supervised_loss(logits: Tensor, masks: Tensor, label: Tensor) -> Tensor:
    """Balanced cross-entropy of online masks; incomplete masks weigh 0 and stay in the mean.

    A pixel of class c weighs (N - N_c) / (1 + N), with N labelled pixels in its image, N_c of
    them of c. Mean over all pixels, those of 255 included as 0, then over the batch.

    Args:
        logits: (B, C + 1, H, W).
        masks: (B, H, W) int64; 255 is ignored.
        label: (B, C) of 0 and 1.

    Returns:
        Scalar.
    """
    logits = logits.float()
    classes = logits.shape[1]
    counts = class_counts(masks, classes)
    labelled = counts.sum(1, keepdim=True)
    weights = F.pad((labelled - counts) / (1 + labelled), (0, 1))  # last: of ignored pixels
    pixels = weights.gather(1, masks.flatten(1).clamp(max=classes)).view_as(masks)
    values = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none")
    means = (values * pixels).mean((1, 2))
    return (means * complete(masks, label)).mean()
