"""MuSCLe: contrast of images, pixels and regions on top of a classifier with refined CAMs.

Source: Yuan, Schaefer, Lai, Wang, Liu, Guan & Fang, "A Multi-Strategy Contrastive Learning
Framework for Weakly Supervised Semantic Segmentation", arXiv:2201.07021, 2022, and its official
code, which the constants are from. This module is its first stage; IRNet (``refine.method:
irnet``) is the second, BiFPN with the boundary contrast BEACON (``segment.net: bifpn``,
``segment.boundary``) the third. docs/methods/muscle.md writes out the equations.

A training step has up to two optimiser steps. The first one, on the training crop, minimises

    focal + soft + rank (classification) + er (refinement) + imc (images, from a quarter on)

and the second one, from half of training on, on two overlapping views of the original image and
with normalisation and dropout as at inference,

    pix (pixels) + emd (regions, from three quarters on).

Deviations, with the switch that takes the code's way where there is one:

- The learning rate follows a fixed schedule; the official code lowers it by the mIoU against the
  masks of the training list, after every epoch.
- The classifier has no row for the background: the official code's gets no gradient but weight
  decay, yet its map is compared between the views. Here the background of those maps is 1 minus
  the largest present class (``background: row``).
- The refinement loss takes its largest differences by the labels of each image, not of the whole
  batch (``er_count: batch``).
- Seeds are refined CAMs at the grid of the features, summed at stride 4, and never below 0.
- Pixels are normalised as the backbone's weights expect, not by ImageNet's mean for all, and
  convolutions of stride 2 pad by the size of their input; the official EfficientNet pads as for
  one nominal size (300 pixels, B3; 600, B7), whatever it is given.
- Random erasing has the size of a rectangle clipped to the image instead of drawn again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from wsss.config.schema import (
    BelowOne,
    Count,
    Fraction,
    NonNegative,
    Number,
    Positive,
    PositiveFraction,
    Training,
)
from wsss.data.training import Batch
from wsss.data.transforms import erase
from wsss.data.views import Views
from wsss.distributed.collectives import gathered, total
from wsss.engine.task import Losses, Progress
from wsss.losses.image_contrast import image_contrast
from wsss.losses.normalisation import max_norm, softmax_norm, with_background
from wsss.losses.pixel_consistency import pixel_consistency
from wsss.losses.ranking import focal, pairwise_ranking
from wsss.losses.refinement import refinement_loss
from wsss.losses.regions import Regions, region_matching
from wsss.losses.transport import Masses, Transport
from wsss.methods.base import Method, MethodInfo, MethodParams, Output
from wsss.models.backbones import Backbone
from wsss.models.dropout import KeyedDropout, set_drop_path
from wsss.precision import full_precision
from wsss.randomness import keyed_uniform
from wsss.refine.pcm import pcm

# Of the seven maps p1..p7: those that say which cells are alike (official code).
_SHALLOW, _MIDDLE, _DEEP = 0, 2, 4
# Of the stretching of maps (official code).
EPSILON = 1e-6
# Random layers and streams, apart from those of dropout.
_ERASE, _PATCHES = 1001, 1


class MuscleParams(MethodParams):
    """Constants, those of the official code where no other source is named.

    Attributes:
        focal, soft, rank, er, imc, pix, emd: weights of the terms; 0 leaves one out.
        focal_alpha, focal_gamma: factor and exponent of the focal loss (Lin et al., ICCV 2017,
            equation 5).
        imc_from, pix_from, emd_from: shares of training after which a term is there (epochs 4, 8
            and 12 of 16).
        projection: channels of the features that refine CAMs.
        drop_path: of the last residual branch (EfficientNet's drop connect).
        erase, erase_least, erase_most, erase_aspect: random erasing (Zhong et al., AAAI 2020):
            share of images, bounds of the area, least ratio of the shorter to the longer side.
        er_share: of the pixels, a label, whose differences are the largest.
        er_count: whose labels count, see the module's deviations.
        temperature: of the contrast of images.
        view: side of a view as a share of the crop (224 of 448).
        background: of the maps that pixels are compared by, see the module's deviations.
        epsilon, iterations, masses, sinkhorn: of the transport between regions, see
            :class:`wsss.losses.transport.Transport`; ``sinkhorn: alternate`` is the algorithm as
            Cuturi (NeurIPS 2013) has it.
        overlap_least, overlap_aspect, patch_smallest, patch_largest, patch_step, patch_least,
            patch_pooled, patch_pooling: of the regions, in the order of
            :class:`wsss.losses.regions.Regions`.
    """

    focal: NonNegative = 1.0
    soft: NonNegative = 1.0
    rank: NonNegative = 1.0
    er: NonNegative = 1.0
    imc: NonNegative = 1.0
    pix: NonNegative = 1.0
    emd: NonNegative = 1.0
    focal_alpha: Positive = 0.5
    focal_gamma: NonNegative = 2.0
    imc_from: Fraction = 0.25
    pix_from: Fraction = 0.5
    emd_from: Fraction = 0.75
    projection: Count = 128
    drop_path: BelowOne = 0.2
    erase: Fraction = 0.5
    erase_least: Fraction = 0.02
    erase_most: Fraction = 0.2
    erase_aspect: PositiveFraction = 0.3
    er_share: Fraction = 0.2
    er_count: Literal["image", "batch"] = "image"
    temperature: Positive = 0.1
    view: PositiveFraction = 0.5
    background: Literal["complement", "row"] = "complement"
    epsilon: Annotated[Number, Field(ge=0.02)] = 0.1
    iterations: Count = 10
    masses: Masses = "raw"
    sinkhorn: Literal["together", "alternate"] = "together"
    overlap_least: Count = 15
    overlap_aspect: Positive = 5.0
    patch_smallest: Count = 3
    patch_largest: Count = 2
    patch_step: Count = 2
    patch_least: Count = 7
    patch_pooled: Count = 28
    patch_pooling: Count = 4

    @model_validator(mode="after")
    def _order(self) -> MuscleParams:
        if self.patch_smallest < self.patch_largest:
            raise ValueError(
                f"1/patch_smallest is 1/{self.patch_smallest}: more than 1/patch_largest, "
                f"1/{self.patch_largest}"
            )
        return self


class Maps(NamedTuple):
    """Of a batch: ``last`` (B, D, h, w) features, ``plain`` (B, K, h, w) non-negative CAMs and
    ``refined`` (B, K, h, w), K the classifier's rows."""

    last: Tensor
    plain: Tensor
    refined: Tensor


class Muscle(Method):
    """A classifier whose CAMs are refined by the similarity of cells, and its contrasts."""

    info = MethodInfo(
        title="MuSCLe",
        paper="Yuan et al., A Multi-Strategy Contrastive Learning Framework for Weakly Supervised "
        "Semantic Segmentation, arXiv:2201.07021, 2022",
        status="faithful",
        roads=("two-stage",),
        deviations=(
            "Fixed learning-rate schedule; the official code's follows the mIoU of training masks.",
            "No unsupervised background row of the classifier (background: row has it).",
            "Labels of each image decide how many pixels the refinement loss takes "
            "(er_count: batch takes those of the batch).",
            "Seeds are summed at stride 4 and never negative.",
            "Pixels are normalised as the backbone's weights expect.",
            "Convolutions pad by the size of their input, not for one nominal size.",
        ),
        terms={
            "focal": "focal loss of the tags",
            "soft": "multi-label soft margin of the tags",
            "rank": "present classes score above absent ones",
            "er": "refined CAMs learn from the plain ones where both differ most",
            "imc": "image contrast: features of images with equal tags are alike",
            "pix": "pixel consistency of two views where they overlap",
            "emd": "region contrast: transport between patches of both views",
        },
    )
    Params = MuscleParams
    couples_batch = True
    seed_kinds: ClassVar[tuple[str, ...]] = ("refined", "cam")
    params: MuscleParams

    def __init__(
        self, backbone: Backbone, num_classes: int, params: MethodParams, dropout: float
    ) -> None:
        super().__init__(backbone, num_classes, params, dropout)
        set_drop_path(backbone, self.params.drop_path)
        channels = backbone.tap_channels
        guides = channels[_SHALLOW] + channels[_MIDDLE] + channels[_DEEP]
        self.first = int(self.params.background == "row")
        self.drop = KeyedDropout(dropout)
        self.classifier = nn.Conv2d(channels[-1], num_classes + self.first, 1, bias=False)
        self.project = nn.Conv2d(guides, self.params.projection, 1)
        self.regions = _regions(self.params)

    def forward(self, images: Tensor) -> Output:
        """Map (B, 3, H, W) to logits (B, C), CAMs (B, C, h, w) and features (B, D, h, w)."""
        features = self.backbone(images)[-1]
        cam = self.classifier(features)[:, self.first :]
        return Output(self._logits(features), cam, features)

    def _logits(self, features: Tensor) -> Tensor:
        pooled = self.drop(features.mean((2, 3)))
        return F.linear(pooled, self.classifier.weight[self.first :, :, 0, 0])

    def maps(self, images: Tensor) -> Maps:
        """Map (B, 3, H, W) to features, CAMs and refined CAMs, the background's row included.

        CAMs read a copy of the classifier, so that losses on them reach the features alone, and
        the features that refine them are constants: of the refinement, its projection learns.
        """
        taps = self.backbone.taps(images)
        last = taps[-1]
        plain = F.conv2d(last, self.classifier.weight.detach()).float().relu()
        size = last.shape[2:]
        # ReLU comes after resizing (official code): what is negative takes part in the average.
        guides = [
            F.interpolate(taps[index].detach(), size, mode="bilinear", align_corners=True).relu()
            for index in (_SHALLOW, _MIDDLE, _DEEP)
        ]
        projected = self.project(torch.cat(guides, dim=1)).float()
        return Maps(last, plain, pcm(plain, projected))

    def seed_maps(self, images: Tensor) -> Tensor:
        """Return refined CAMs (B, C, h, w)."""
        return self.maps(images).refined[:, self.first :]

    def seeds(self, kind: str | None) -> Callable[[Tensor], Tensor]:
        """``refined`` or ``cam``, the plain ones."""
        if kind == "cam":
            return lambda images: self(images).cam.float().relu()
        return super().seeds(kind)

    def normalise_seeds(self, total: Tensor) -> Tensor:
        """Stretch each class between its minimum and its maximum (official code).

        A class that an image is not tagged with is stretched, too; a map without any contrast
        becomes 0.
        """
        return max_norm(total, EPSILON)

    def views(self, training: Training, fraction: float) -> Views | None:
        """Two views of half the crop's side, from an image squashed to the crop if smaller."""
        if fraction <= self._second_from():
            return None
        return Views(max(1, round(self.params.view * training.crop)), training.crop)

    def _second_from(self) -> float:
        """The share of training after which the views have a loss."""
        p = self.params
        starts = [start for weight, start in ((p.pix, p.pix_from), (p.emd, p.emd_from)) if weight]
        return min(starts, default=1.0)

    def phases(self, progress: Progress) -> int:
        """A second optimiser step from where the views have a loss."""
        return 2 if progress.fraction >= self._second_from() else 1

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:
        """Return the objective of one of the two steps, see the module."""
        terms = (self._crop_terms if phase == 0 else self._view_terms)(batch, progress)
        parts = torch.stack([getattr(self.params, name) * term for name, term in terms.items()])
        # As in the official code, the classifier's gradient in the second step is zero, not absent:
        # the optimiser's momentum and decay move it.
        return Losses(parts.sum() + 0 * self.classifier.weight.sum(), terms)

    def _crop_terms(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        p, labels = self.params, batch["label"]
        images = batch["image"]
        if p.erase:
            uniform = keyed_uniform(batch["key"], _ERASE, 5)
            bounds = (p.erase_least, p.erase_most)
            sides = (p.erase_aspect, 1 / p.erase_aspect)
            images = erase(images, uniform, self.backbone.mean, p.erase, bounds, sides)
        maps = self.maps(images)
        logits = self._logits(maps.last).float()
        with full_precision(images):
            terms = {
                "focal": focal(logits, labels, p.focal_alpha, p.focal_gamma),
                "soft": F.multilabel_soft_margin_loss(logits, labels),
                "rank": pairwise_ranking(logits, labels),
            }
            if p.er:
                plain, refined = (_spread(m[:, self.first :], images) for m in maps[1:])
                counted = total(labels.sum()) if p.er_count == "batch" else None
                terms["er"] = refinement_loss(plain, refined, labels, p.er_share, counted)
            if p.imc and progress.fraction >= p.imc_from:
                pooled = maps.last.float().mean((2, 3))
                terms["imc"] = image_contrast(gathered(pooled), gathered(labels), p.temperature)
        return {name: term for name, term in terms.items() if getattr(p, name)}

    def _view_terms(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        p, labels, views = self.params, batch["label"], batch["views"]
        training = self.training
        self.eval()
        try:
            refined = self.maps(views[:, 0]).refined
            with torch.no_grad():
                plain = self.maps(views[:, 1]).plain
        finally:
            self.train(training)
        terms = {}
        with full_precision(views):
            first, second = (_spread(maps, views) for maps in (refined, plain))
            if p.pix and progress.fraction >= p.pix_from:
                mine, theirs = (self._compared(maps, labels) for maps in (first, second))
                terms["pix"] = pixel_consistency(mine, theirs, batch["overlap"])
            if p.emd and progress.fraction >= p.emd_from:
                mine, theirs = (
                    F.normalize(softmax_norm(maps[:, self.first :]), dim=1)
                    for maps in (first, second)
                )
                generators = [np.random.default_rng([key, _PATCHES]) for key in batch["host_keys"]]
                found = region_matching(mine, theirs, batch["overlaps"], generators, self.regions)
                # Which images have patches is up to chance: the mean is over those of the batch.
                everywhere = gathered(found)
                terms["emd"] = everywhere.mean() if len(everywhere) else everywhere.sum()
        return terms

    def _compared(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Stretched maps of the present classes and of the background: (B, C + 1, H, W)."""
        stretched = max_norm(maps, EPSILON)
        if not self.first:
            return with_background(stretched * labels[:, :, None, None])
        present = torch.cat([labels.new_ones(len(labels), 1), labels], dim=1)
        return stretched * present[:, :, None, None]


def _regions(p: MuscleParams) -> Regions:
    alternate = p.sinkhorn == "alternate"
    return Regions(
        Transport(epsilon=p.epsilon, iterations=p.iterations, masses=p.masses, alternate=alternate),
        least_overlap=p.overlap_least,
        largest_aspect=p.overlap_aspect,
        smallest=p.patch_smallest,
        largest=p.patch_largest,
        step=p.patch_step,
        least_patch=p.patch_least,
        largest_patch=p.patch_pooled,
        pooling=p.patch_pooling,
    )


def _spread(maps: Tensor, images: Tensor) -> Tensor:
    """Resize (B, K, h, w) to the size of ``images``."""
    return F.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=True)


METHOD = Muscle
