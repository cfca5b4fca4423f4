"""SEAM: activation maps that follow their image when it is scaled, spread over similar cells.

Source: Wang, Zhang, Kan, Shan & Chen, "Self-supervised Equivariant Attention Mechanism for Weakly
Supervised Semantic Segmentation", CVPR 2020, section 3, and its official code, which the constants
are from.

- Two views, a crop and its reduced copy, go through one network; scaling the image shall scale
  its activation maps (equivariant regularisation, equation 6).
- A pixel correlation module spreads the maps over cells with similar features, of the image and
  of two levels of the network.
- The refined maps of one view learn from the maps of the other (equivariant cross
  regularisation, equation 7).

Seeds are the refined maps. AffinityNet follows in the paper (``refine.method: affinitynet``).

Deviations:

- The classifier has no background channel: the official one is never read.
- Dropout masks depend on (sample, view, layer), not on a global generator.
- Losses are computed in float32 under mixed precision.
- Seeds are never below 0; the official export leaves cells at a class's minimum slightly below.
- Any timm network will do: conv4 to conv6 are then its last three maps. The paper's is
  ``wide_resnet38``.
- Scaled sizes at inference are multiples of the output stride, as in the whole system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from wsss.config.schema import Count, NonNegative, PositiveFraction
from wsss.data.training import Batch
from wsss.engine.task import Losses, Progress
from wsss.losses.normalisation import max_norm, rival_maps
from wsss.losses.siamese import (
    Pooling,
    View,
    averaged,
    classification_terms,
    equivariance_terms,
    framed,
    resize,
    view_of,
)
from wsss.methods.base import Method, MethodInfo, MethodParams, Output
from wsss.models.backbones import Backbone
from wsss.models.dropout import KeyedDropout, set_keys
from wsss.randomness import keys_of_pass
from wsss.refine.pcm import pcm


class SeamParams(MethodParams):
    """Constants of SEAM; all from the official code.

    A weight of 0 leaves the term out: with both ``min_weight`` and ``ecr_weight`` 0 the pixel
    correlation module stays as it starts.
    """

    view_size: Annotated[int, Field(ge=16)] = 134  # px of the second view; 0.3 of the crop of 448
    pooling: Pooling = "pixels"  # "cells" for maps of few cells
    shallow_width: Count = 64  # of conv4 in the pixel correlation module
    deep_width: Count = 128  # of conv5
    min_weight: NonNegative = 1.0  # adaptive minimum pooling
    min_share: PositiveFraction = 0.25  # of the pixels, the lowest
    er_weight: NonNegative = 1.0  # equivariant regularisation, equation 6
    ecr_weight: NonNegative = 1.0  # equivariant cross regularisation, equation 7
    ecr_share: PositiveFraction = 0.2  # of the entries, those that differ most


class PixelCorrelation(nn.Module):
    """The pixel correlation module; trains its own 1x1 convolutions alone: maps and features come
    without gradient."""

    def __init__(self, conv4: int, conv5: int, shallow: int, deep: int) -> None:
        super().__init__()
        self.shallow = nn.Conv2d(conv4, shallow, 1, bias=False)
        self.deep = nn.Conv2d(conv5, deep, 1, bias=False)
        self.merge = nn.Conv2d(3 + shallow + deep, shallow + deep, 1, bias=False)
        for layer in (self.shallow, self.deep):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.merge.weight, gain=4)

    def forward(self, cam: Tensor, images: Tensor, conv4: Tensor, conv5: Tensor) -> Tensor:
        """Refine raw CAMs.

        Args:
            cam: (B, C, h, w).
            images: (B, 3, H, W), normalised.
            conv4, conv5: features (B, D, h', w').

        Returns:
            (B, C + 1, h, w) float32, background first.
        """
        grid = cam.shape[2:]
        shallow = self.shallow(resize(conv4.detach(), grid)).relu()
        deep = self.deep(resize(conv5.detach(), grid)).relu()
        colours = resize(images.to(deep.dtype), grid)
        return pcm(rival_maps(cam), self.merge(torch.cat([colours, shallow, deep], 1)))


class Seam(Method):
    """A siamese classifier with a pixel correlation module."""

    info = MethodInfo(
        title="SEAM",
        paper="Wang et al., Self-supervised Equivariant Attention Mechanism for Weakly Supervised "
        "Semantic Segmentation, CVPR 2020",
        status="faithful",
        roads=("two-stage",),
        expected={
            "VOC train, CAM": "55.41, 56.83 with CRF (WR38, official repository)",
            "VOC train, pseudo masks": "63.61 (AffinityNet, official repository)",
            "VOC val": "64.5 (DeepLabV1 on WR38, paper)",
            "VOC test": "65.7 (DeepLabV1 on WR38, paper)",
        },
        deviations=(
            "no background channel in the classifier, which is never read",
            "float32 losses, keyed dropout, sizes in multiples of the output stride",
            "seeds are never below 0",
        ),
        terms={
            "cls": "multi-label soft margin of both views' averaged CAMs",
            "min": "adaptive minimum pooling of the refined maps: somewhere is background",
            "er": "equivariance: plain maps of both views agree",
            "ecr": "cross regularisation: refined maps learn from the plain ones of the other view",
        },
    )
    Params: ClassVar[type[MethodParams]] = SeamParams
    seed_kinds: ClassVar[tuple[str, ...]] = ("refined", "cam")
    params: SeamParams

    def __init__(
        self, backbone: Backbone, num_classes: int, params: SeamParams, dropout: float
    ) -> None:
        super().__init__(backbone, num_classes, params, dropout)
        conv4, conv5, conv6 = (backbone.channels[i] for i in backbone.last(3))
        self.drop = KeyedDropout(dropout, channels=True)
        self.classifier = nn.Conv2d(conv6, num_classes, 1, bias=False)
        nn.init.xavier_uniform_(self.classifier.weight)
        self.correlation = PixelCorrelation(conv4, conv5, params.shallow_width, params.deep_width)

    # Inference

    def forward(self, images: Tensor) -> Output:
        """Map (B, 3, H, W) to logits (B, C), CAMs (B, C, h, w) and features (B, D, h, w)."""
        features, cam = self.activate(self.backbone(images))
        return Output(averaged(cam, images.shape[2:], self.params.pooling), cam, features)

    def activate(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the features (B, D, h, w) that maps are made of and the raw CAM (B, C, h, w),
        float32, of the backbone's levels."""
        features = self.drop(levels[-1])
        return features, self.classifier(features).float()

    def _refine(self, cam: Tensor, images: Tensor, levels: list[Tensor]) -> Tensor:
        """Return the refined CAMs (B, C + 1, h, w), float32."""
        conv4, conv5, _ = (levels[i] for i in self.backbone.last(3))
        refined: Tensor = self.correlation(cam, self.backbone.normalise(images), conv4, conv5)
        return refined

    def seed_maps(self, images: Tensor) -> Tensor:
        """Return the refined CAMs (B, C, h, w)."""
        levels = self.backbone(images)
        return self._refine(self.activate(levels)[1], images, levels)[:, 1:]

    def seeds(self, kind: str | None) -> Callable[[Tensor], Tensor]:
        """``refined`` or ``cam``, the plain ones."""
        if kind == "cam":
            return lambda images: self(images).cam.relu()
        return super().seeds(kind)

    def normalise_seeds(self, total: Tensor) -> Tensor:
        """Stretch each class between its minimum and its maximum (official code)."""
        return max_norm(total)

    # Training

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """The sum of all terms; each is logged with its weight."""
        one = self._look(batch["image"])
        set_keys(self, keys_of_pass(batch["key"], 1))
        size = self.params.view_size
        two = self._look(resize(batch["image"], (size, size)))
        terms = self._terms(one, two, batch)
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    def _look(self, images: Tensor) -> View:
        levels = self.backbone(images)
        features, cam = self.activate(levels)
        refined = self._refine(cam, images, levels)
        return view_of(images, levels, features, cam, refined, self.params.pooling)

    def _terms(self, one: View, two: View, batch: Batch) -> dict[str, Tensor]:
        p, label, views = self.params, batch["label"].float(), (one, two)
        maps = [framed(view.wide_cam, two.size, label) for view in views]
        return {
            **classification_terms(views, label, p.min_weight, p.min_share),
            **equivariance_terms(views, maps, label, p.er_weight, p.ecr_weight, p.ecr_share),
        }


METHOD = Seam
