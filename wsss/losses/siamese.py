"""Terms on two views of one image that SEAM, PPC and RTC share.

Source: Wang et al., "Self-supervised Equivariant Attention Mechanism for Weakly Supervised
Semantic Segmentation" (SEAM), CVPR 2020, section 3; sizes and order of operations as in
its published code, which PPC and RTC go on with.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from wsss.losses.equivariance import cross_equivariance, equivariance, minimum_pooling
from wsss.losses.normalisation import max_norm

# What raw CAMs are averaged over. `pixels`: all of the image, once maps are brought to it (official
# code). Corners are aligned in that, so cells at the border weigh half: little of 56 cells a side,
# much of 8. `cells`: those of the map.
Pooling = Literal["pixels", "cells"]


class View(NamedTuple):
    """What the losses need of one view of the batch.

    ``size`` (H, W) of its images; ``levels`` of the backbone; ``features`` (B, D, h, w); ``cam``
    (B, C, h, w), raw, and ``refined`` (B, C + 1, h, w), float32; the ``wide`` ones are brought to
    (H, W); ``logits`` (B, C).
    """

    size: tuple[int, int]
    levels: list[Tensor]
    features: Tensor
    cam: Tensor
    refined: Tensor
    wide_cam: Tensor
    wide_refined: Tensor
    logits: Tensor


def view_of(
    images: Tensor,
    levels: list[Tensor],
    features: Tensor,
    cam: Tensor,
    refined: Tensor,
    pooling: Pooling,
) -> View:
    """Bring the maps of ``images`` (B, 3, H, W) to their size."""
    size = (images.shape[2], images.shape[3])
    wide = resize(cam, size)
    logits = (wide if pooling == "pixels" else cam).mean((2, 3))
    return View(size, levels, features, cam, refined, wide, resize(refined, size), logits)


def averaged(cam: Tensor, size: tuple[int, ...], pooling: Pooling) -> Tensor:
    """Average raw CAMs (B, C, h, w) of images of ``size`` to logits (B, C)."""
    return (resize(cam, size) if pooling == "pixels" else cam).mean((2, 3))


def resize(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bring (B, C, h, w) maps to (B, C, *size): bilinear, corners aligned, as everywhere in SEAM's
    line of code; maps of that size come back as they are."""
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)


def framed(maps: Tensor, common: tuple[int, int], presence: Tensor) -> Tensor:
    """Normalise (B, K, H, W) maps at their view's size, bring them to the common one, and set
    absent classes to 0."""
    return resize(max_norm(maps), common) * presence[:, :, None, None]


def classification_terms(
    views: tuple[View, View], label: Tensor, min_weight: float, min_share: float
) -> dict[str, Tensor]:
    """Soft margin on averaged CAMs, and adaptive minimum pooling of the refined ones at the size of
    the view, both averaged over views.

    Args:
        label: (B, C) of 0 and 1.
        min_weight: of the pooling; 0 leaves it out.
        min_share: see :func:`wsss.losses.equivariance.minimum_pooling`.
    """
    found, lowest = [], []
    for view in views:
        found.append(F.multilabel_soft_margin_loss(view.logits, label))
        if min_weight:
            maps = view.wide_refined[:, 1:] * label[:, :, None, None]
            lowest.append(minimum_pooling(maps, min_share))
    terms = {"cls": (found[0] + found[1]) / 2}
    if lowest:
        terms["min"] = min_weight * (lowest[0] + lowest[1]) / 2
    return terms


def equivariance_terms(
    views: tuple[View, View],
    maps: list[Tensor],
    label: Tensor,
    er_weight: float,
    ecr_weight: float,
    ecr_share: float,
) -> dict[str, Tensor]:
    """Equivariant regularisation and its crossed form, both in the frame of the second view.

    Args:
        maps: raw CAMs of both views as :func:`framed` returns them, (B, C, h, w).
        label: (B, C) of 0 and 1.
        er_weight, ecr_weight: 0 leaves a term out.
        ecr_share: see :func:`wsss.losses.equivariance.cross_equivariance`.
    """
    terms = {}
    if er_weight:
        terms["er"] = er_weight * equivariance(*maps)
    if ecr_weight:
        presence = F.pad(label, (1, 0), value=1.0)
        refined = [framed(view.wide_refined, views[1].size, presence) for view in views]
        crossed = [
            cross_equivariance(theirs, ours, ecr_share)
            for theirs, ours in zip(reversed(maps), refined, strict=True)
        ]
        terms["ecr"] = ecr_weight * (crossed[0] + crossed[1])
    return terms
