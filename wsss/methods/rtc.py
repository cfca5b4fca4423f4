"""RTC: a siamese network whose activation maps and masks of its own improve each other.

Source: Wang, Zhang & Yan, "Boosting Weakly-Supervised Image Segmentation via Representation,
Transform, and Compensator", IEEE TCSVT 2024, and its official code; the parts it takes over from
SEAM (Wang et al., CVPR 2020), PPC (Du et al., CVPR 2022) and 1-stage (Araslanov & Roth, CVPR 2020)
say so where they stand.

- Representation: activation maps are spread over cells that look alike in deep and in shallow
  features (two pixel correlation modules).
- Transform: a crop and its reduced copy must agree, in their maps and in a contrast of cells with
  class prototypes, which take weights from one view and features from the other.
- Compensator: the maps of an image learn from similar cells of the whole batch.
- A decoder learns masks that are made while training, and predicts by itself.

Deviations:

- Decoder and L_seg start together; the official decoder runs idle before, to no effect on it.
- The classifier has no background channel: the official one is never read.
- Dropout masks depend on (sample, view, layer), not on a global generator.
- Losses are computed in float32 under mixed precision.
- Scaled sizes at inference are multiples of the output stride, and mean scores are kept at stride
  4 until they are compared or refined by a CRF, as in the whole system.
- Colours are jittered in one order, and hue by turning chroma, for a whole batch at once;
  torchvision draws the order and turns hue in HSV.
- Momentum is the configuration's, 0 in the paper's preset; the official optimiser ends up with
  5e-4, its weight decay in the wrong place.
- Seeds of activation maps, which the official code does not make, are the refined ones less their
  lowest value, as SEAM's.
- Any timm network will do: conv3 is then the map of stride 4, conv4 to conv6 the last three. The
  paper's is ``wide_resnet38``.
- Where released code and intention differ, the code is followed in what it computes, since the
  published numbers are its: the background prototype is the mean of arbitrary cells, and
  prototypes of absent classes serve as negatives. ``background_cells: lowest`` and
  ``absent_negatives: false`` give what was meant. Maps are not overwritten between two losses.
- The class-relation term, which the official code logs but does not add, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wsss.config.schema import Count, Fraction, Natural, NonNegative, Positive, PositiveFraction
from wsss.data.training import Batch
from wsss.distributed.collectives import gathered
from wsss.engine.task import Losses, Progress
from wsss.labels import IGNORE
from wsss.losses.compensation import compensate, compensation_loss
from wsss.losses.normalisation import max_norm, rival_maps, with_constant
from wsss.losses.online_masks import self_supervised_loss, two_level_masks
from wsss.losses.prototypes import (
    Cells,
    Selection,
    cells_of,
    classes_present,
    prototype_contrast,
    prototypes,
    ranked_scores,
    select_cells,
)
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
from wsss.refine.local import DILATIONS, neighbour_weights, refine_locally
from wsss.refine.pcm import pcm


class RtcParams(MethodParams):
    """Constants of RTC; all from the official code unless said otherwise.

    Numbers of equations are those of the paper that a term is taken over from. Those of RTC's own
    paper are not known here: docs/methods/rtc.md writes its terms out as the code computes them.

    A weight of 0 leaves the term out: its part of the network, if it trains no other, then stays
    as it starts.
    """

    view_size: Annotated[int, Field(ge=16)] = 128  # px of the second view; 2/7 of the crop of 448
    pooling: Pooling = "pixels"  # SEAM's code; "cells" for maps of few cells
    cam_width: Count = 256  # channels of f
    deep_width: Count = 128  # of each of conv5 and conv6 in the deep representation
    shallow_width: Count = 64  # of conv4 in the shallow one
    decoder_width: Count = 256  # twice that between its two dilated convolutions
    low_width: Count = 48  # of conv3 in the decoder
    dilation: Count = 12  # of the decoder, at output stride 8

    min_weight: NonNegative = 1.0  # SEAM's code: adaptive minimum pooling
    min_share: PositiveFraction = 0.25  # SEAM's code: lowest pixels
    er_weight: NonNegative = 1.0  # SEAM, equation 6
    ecr_weight: NonNegative = 1.0  # SEAM, equation 7
    ecr_share: PositiveFraction = 0.2  # SEAM's code: entries that differ most
    nce_weight: NonNegative = 0.1  # PPC, section 3: of each of the three contrasts
    temperature: Positive = 0.1  # PPC
    background: PositiveFraction = 0.2  # PPC: score of the background in the contrast
    prototype_share: PositiveFraction = 0.125  # PPC: cells a class, of those of one view's map
    background_cells: Literal["constant", "lowest"] = "constant"
    absent_negatives: bool = True
    com_weight: NonNegative = 1.0  # compensator
    com_share: PositiveFraction = 0.8  # entries that differ most

    seg_weight: NonNegative = 1.0  # 1-stage's balanced cross-entropy
    seg_start: Fraction = 0.28  # fraction of training: epoch 7 of 25
    seg_high: PositiveFraction = 0.55  # background that surely-foreground pixels exceed
    seg_low: PositiveFraction = 0.2  # background that surely-background pixels do not reach
    seg_iterations: Natural = 10  # VARM
    seg_dilations: list[Count] = Field(min_length=1, default=list(DILATIONS))
    seg_contrast: Positive = 4.0  # VARM: factor on the differences of colours
    seg_variation: NonNegative = 0.01  # VARM: weight of a neighbour's variation

    score_background: PositiveFraction = 0.17  # at inference


class CrossRepresentation(nn.Module):
    """Cross-representation refinement: the mean of two pixel correlation modules.

    Trains only its own 1x1 convolutions: maps and features come without gradient.
    """

    def __init__(self, conv4: int, conv5: int, conv6: int, deep: int, shallow: int) -> None:
        super().__init__()
        self.deep5 = nn.Conv2d(conv5, deep, 1, bias=False)
        self.deep6 = nn.Conv2d(conv6, deep, 1, bias=False)
        self.deep = nn.Conv2d(2 * deep, deep, 1, bias=False)
        self.shallow4 = nn.Conv2d(conv4, shallow, 1, bias=False)
        self.shallow = nn.Conv2d(3 + shallow, shallow, 1, bias=False)
        for layer in (self.deep5, self.deep6, self.shallow4):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.deep.weight, gain=4)
        nn.init.xavier_uniform_(self.shallow.weight)

    def forward(self, cam: Tensor, images: Tensor, levels: list[Tensor]) -> Tensor:
        """Refine raw CAMs.

        Args:
            cam: (B, C, h, w).
            images: (B, 3, H, W), normalised.
            levels: conv4, conv5 and conv6.

        Returns:
            (B, C + 1, h, w) float32, background first.
        """
        grid = cam.shape[2:]
        conv4, conv5, conv6 = (resize(level.detach(), grid) for level in levels)
        maps = rival_maps(cam)
        deep = self.deep(torch.cat([self.deep5(conv5).relu(), self.deep6(conv6).relu()], 1))
        colours = resize(images.to(deep.dtype), grid)
        shallow = self.shallow(torch.cat([colours, self.shallow4(conv4).relu()], 1))
        return (pcm(maps, deep) + pcm(maps, shallow)) / 2


class Decoder(nn.Module):
    """Segmentation logits at the grid of conv3, from conv6 and conv3."""

    def __init__(
        self, conv3: int, conv6: int, classes: int, width: int, low: int, dilation: int
    ) -> None:
        super().__init__()
        self.wide = nn.Sequential(
            nn.Conv2d(conv6, 2 * width, 3, padding=dilation, dilation=dilation),
            nn.Conv2d(2 * width, width, 3, padding=dilation, dilation=dilation),
        )
        self.near = nn.Conv2d(conv6, width, 3, padding=1, bias=False)
        self.merge = nn.Conv2d(2 * width, width, 1, bias=False)
        self.low = nn.Conv2d(conv3, low, 3, padding=1, bias=False)
        self.project = nn.Conv2d(width + low, width, 1, bias=False)
        self.classifier = nn.Conv2d(width, classes, 1, bias=False)
        for layer in (self.near, self.merge, self.low, self.project, self.classifier):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, conv3: Tensor, conv6: Tensor) -> Tensor:
        """Map (B, D3, h3, w3) and (B, D6, h6, w6) to logits (B, classes, h3, w3)."""
        merged = self.merge(torch.cat([self.wide(conv6), self.near(conv6)], 1))
        low = self.low(conv3)
        both = torch.cat([resize(merged, low.shape[2:]), low], 1)
        logits: Tensor = self.classifier(self.project(both).relu())
        return logits


class Rtc(Method):
    """A classifier with refined activation maps and a decoder on one backbone."""

    info = MethodInfo(
        title="RTC",
        paper="Wang, Zhang & Yan, Boosting Weakly-Supervised Image Segmentation via "
        "Representation, Transform, and Compensator, IEEE TCSVT 2024",
        status="faithful",
        roads=("single-stage", "two-stage"),
        expected={
            "VOC val": "65.34 without CRF, 67.20 with (WR38, single-stage; evaluation log)",
            "VOC test": "66.90 without CRF, 68.76 with (README)",
        },
        deviations=(
            "decoder and L_seg start together",
            "no background channel in the classifier, which is never read",
            "float32 losses, keyed dropout, sizes in multiples of the output stride",
            "scores kept at stride 4, colours jittered in one order, momentum 0 for 5e-4",
            "seeds of activation maps as SEAM's: refined, less their lowest value",
        ),
        terms={
            "cls": "multi-label soft margin of both views' averaged CAMs",
            "min": "adaptive minimum pooling of the refined maps (SEAM)",
            "er": "equivariance: plain maps of both views agree (SEAM)",
            "ecr": "refined maps learn from the plain ones of the other view (SEAM)",
            "nce_intra": "contrast with prototypes of crossed views, own labels (PPC)",
            "nce_cross_label": "the same by the labels of the other view (PPC)",
            "nce_cross_prototype": "the same with the prototypes of the other view (PPC)",
            "com": "compensator: plain maps learn from similar cells of the batch",
            "seg": "cross-entropy of the decoder against masks made while training",
        },
    )
    Params = RtcParams
    couples_batch = True
    seed_kinds: ClassVar[tuple[str, ...]] = ("refined", "cam", "decoder")
    params: RtcParams

    def __init__(
        self, backbone: Backbone, num_classes: int, params: RtcParams, dropout: float
    ) -> None:
        super().__init__(backbone, num_classes, params, dropout)
        conv3, conv4, conv5, conv6 = (backbone.channels[i] for i in self._taps())
        self.drop = KeyedDropout(dropout, channels=True)
        self.project = nn.Conv2d(conv6, params.cam_width, 1, bias=False)
        self.classifier = nn.Conv2d(params.cam_width, num_classes, 1, bias=False)
        for layer in (self.project, self.classifier):
            nn.init.xavier_uniform_(layer.weight)
        self.crr = CrossRepresentation(conv4, conv5, conv6, params.deep_width, params.shallow_width)
        self.decoder = Decoder(
            *(conv3, conv6, num_classes + 1),
            *(params.decoder_width, params.low_width, params.dilation),
        )

    def _taps(self) -> tuple[int, int, int, int]:
        """Where conv3 to conv6 are among the backbone's levels."""
        reductions = self.backbone.reductions
        count = len(reductions)
        fine = min(range(count), key=lambda i: (abs(reductions[i] - 4), -i))
        conv4, conv5, conv6 = self.backbone.last(3)
        return fine, conv4, conv5, conv6

    def deep_levels(self, levels: list[Tensor]) -> list[Tensor]:
        """Return conv4, conv5 and conv6 of the backbone's levels: what `crr` reads."""
        return [levels[i] for i in self._taps()[1:]]

    # Inference

    def forward(self, images: Tensor) -> Output:
        """Map (B, 3, H, W) to logits (B, C), CAMs (B, C, h, w) and f (B, D, h, w)."""
        features, cam = self.activate(self.backbone(images))
        return Output(averaged(cam, images.shape[2:], self.params.pooling), cam, features)

    def activate(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return f (B, D, h, w) and the raw CAM (B, C, h, w), float32, of the backbone's levels."""
        features = self.project(self.drop(levels[-1])).relu()
        return features, self.classifier(features).float()

    def _look(self, images: Tensor) -> View:
        levels = self.backbone(images)
        features, cam = self.activate(levels)
        refined = self._refine(cam, images, levels)
        return view_of(images, levels, features, cam, refined, self.params.pooling)

    def _refine(self, cam: Tensor, images: Tensor, levels: list[Tensor]) -> Tensor:
        """Return the refined CAMs (B, C + 1, h, w), float32."""
        refined: Tensor = self.crr(cam, self.backbone.normalise(images), self.deep_levels(levels))
        return refined

    def _decode(self, levels: list[Tensor]) -> Tensor:
        logits: Tensor = self.decoder(levels[self._taps()[0]], levels[-1])
        return logits.float()

    def segment(self, images: Tensor) -> Tensor:
        """Return the decoder's logits (B, C + 1, h, w)."""
        return self._decode(self.backbone(images))

    def scores(self, images: Tensor) -> Tensor:
        """Return (B, C + 1, H, W): the decoder's probabilities of the classes, each times the
        probability that the network's own classifier gives it in the image; the background is a
        constant."""
        levels, size = self.backbone(images), images.shape[2:]
        _, cam = self.activate(levels)
        gate = averaged(cam, size, self.params.pooling).sigmoid()[:, :, None, None]
        foreground = resize(self._decode(levels), size).softmax(1)[:, 1:] * gate
        return with_constant(foreground, self.params.score_background)

    def seed_maps(self, images: Tensor) -> Tensor:
        """Return the refined CAMs (B, C, h, w), from their lowest value up, as SEAM and PPC."""
        levels = self.backbone(images)
        refined = self._refine(self.activate(levels)[1], images, levels)[:, 1:]
        return refined - refined.amin((2, 3), keepdim=True)

    def seeds(self, kind: str | None) -> Callable[[Tensor], Tensor]:
        """``refined``, ``cam`` (plain) or ``decoder`` (the scores of its prediction)."""
        if kind == "cam":
            return lambda images: self(images).cam.relu()
        if kind == "decoder":
            return lambda images: self.scores(images)[:, 1:]
        return super().seeds(kind)

    def normaliser(self, kind: str | None, count: int) -> Callable[[Tensor], Tensor]:
        """The decoder's scores are averaged, as in its prediction: they compare with a constant."""
        if kind == "decoder":
            return lambda total: total / count
        return super().normaliser(kind, count)

    # Training

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """The sum of all terms; each is logged with its weight."""
        p, label = self.params, batch["label"].float()
        one = self._look(batch["image"])
        set_keys(self, keys_of_pass(batch["key"], 1))
        two = self._look(resize(batch["image"], (p.view_size, p.view_size)))
        views = (one, two)
        terms = classification_terms(views, label, p.min_weight, p.min_share)
        maps = [framed(view.wide_cam, two.size, label) for view in views]
        terms |= equivariance_terms(views, maps, label, p.er_weight, p.ecr_weight, p.ecr_share)
        if p.nce_weight or p.com_weight:
            terms |= self._transform(one, two, maps, label)
        if p.seg_weight:
            started = progress.fraction >= p.seg_start
            seg = self._segmentation(one, batch, label) if started else one.cam.new_zeros(())
            terms["seg"] = p.seg_weight * seg
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    def _transform(
        self, one: View, two: View, maps: list[Tensor], label: Tensor
    ) -> dict[str, Tensor]:
        """Three contrasts with crossed prototypes, and the compensator; what they compare with is
        chosen from the global batch."""
        p, grid = self.params, (two.features.shape[2], two.features.shape[3])
        first, second = (
            cells_of(view.refined, view.features, grid, label, p.background) for view in (one, two)
        )
        ranked = [ranked_scores(v.scores, label, p.background_cells) for v in (first, second)]
        count = max(1, int(grid[0] * grid[1] * p.prototype_share))
        # Weights of one view, features of the other.
        chosen1 = _select(ranked[0], second.features, count)
        chosen2 = _select(ranked[1], first.features, count)
        terms: dict[str, Tensor] = {}
        if p.nce_weight:
            terms |= self._contrasts(first, second, prototypes(chosen1), prototypes(chosen2), label)
        if p.com_weight:
            pairs = (
                (maps[0], first.scores, second.features, chosen1),
                (maps[1], second.scores, first.features, chosen2),
            )
            parts = [
                compensation_loss(
                    *(own, compensate(scores[:, 1:], crossed, _foreground(chosen))),
                    *(label, p.com_share),
                )
                for own, scores, crossed, chosen in pairs
            ]
            terms["com"] = p.com_weight * (parts[0] + parts[1])
        return terms

    def _contrasts(
        self, first: Cells, second: Cells, centres1: Tensor, centres2: Tensor, label: Tensor
    ) -> dict[str, Tensor]:
        p = self.params
        present = None if p.absent_negatives else classes_present(gathered(label))

        def nce(view: Cells, centres: Tensor, labels: Tensor) -> Tensor:
            return prototype_contrast(view.features, centres, labels, p.temperature, present)

        half = p.nce_weight / 2
        return {
            "nce_intra": half
            * (nce(first, centres1, first.labels) + nce(second, centres2, second.labels)),
            "nce_cross_label": half
            * (nce(first, centres1, second.labels) + nce(second, centres2, first.labels)),
            "nce_cross_prototype": half
            * (nce(first, centres2, first.labels) + nce(second, centres1, second.labels)),
        }

    def _segmentation(self, one: View, batch: Batch, label: Tensor) -> Tensor:
        """Cross-entropy of the decoder against masks of the refined CAMs of the same step."""
        p, size = self.params, one.size
        half = (size[0] // 2, size[1] // 2)
        colours = F.interpolate(batch["image"].float(), half, mode="bilinear", align_corners=False)
        weights = neighbour_weights(
            colours, "varm", p.seg_dilations, contrast=p.seg_contrast, share=p.seg_variation
        )
        maps = max_norm(one.refined[:, 1:].detach()) * label[:, :, None, None]
        masks = two_level_masks(
            *(resize(maps, size), label, p.seg_high, p.seg_low),
            lambda soft: refine_locally(soft, weights, p.seg_iterations, p.seg_dilations),
            *(size, half),
        )
        masks = torch.where(batch["valid"][:, 0], masks, IGNORE)
        return self_supervised_loss(resize(self._decode(one.levels), size), masks, label)


def _select(scores: Tensor, features: Tensor, count: int) -> Selection:
    return select_cells(gathered(scores), gathered(features.detach()), count)


def _foreground(chosen: Selection) -> Selection:
    return Selection(chosen.weights[1:], chosen.features[1:])


METHOD = Rtc
