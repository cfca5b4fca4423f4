"""PSS: a network whose slow copy teaches it where classes are, cell by cell.

Source: Yoon, Kweon, Jeong, Kim, Kim & Yoon, "Exploring Pixel-level Self-supervision for Weakly
Supervised Semantic Segmentation", arXiv 2112.05351, abstract.

- MainNet is trained; SupportNet, of the same architecture, supervises it and gets no gradient.
- Regional contrast (RCM), against impreciseness: region masks from SupportNet's CAMs, class
  prototypes from its features according to them; every cell of MainNet's features is drawn to its
  prototype.
- Multi-scale attention (MAM), against sparseness: SupportNet's CAMs at several scales are what
  MainNet's CAMs at several scales grow towards, the unlike ones more.

Deviations: this is a reconstruction. No code is published, and the abstract is all that this
implementation has of the paper, so that beyond the three points above everything is a choice of
ours. Numbers and simple alternatives are parameters; forms of equations (cosine dissimilarity, L1
distance, means of unit vectors) are not. The choices:

- SupportNet is an exponential moving average, with the momentum 0.996 that networks of the same
  authors use. It starts as a copy and follows faster in the first steps (``support_ramp``).
- A 1x1 convolution and a ReLU make the contrasted features; CAMs are 1x1 convolutions of them,
  without background channel.
- Region masks: CAMs of all scales summed, per-class maximum, threshold 0.3, on the grid of the
  features. Padding is ignored.
- Prototypes keep a momentum over batches (0.9), so that a class that is not in the batch still
  is a negative; a class never seen is left out of the softmax.
- MAM: cosine dissimilarity, weights that sum to 1, L1 distance of maps that are not divided by
  their maximum, counted where they are below their target, on half the batch, at a tenth of the
  other terms' weight. The direction and the weight were chosen by measurement: drawn both ways,
  maps shrink; at the full weight, they drown the tags.
- RCM starts before MAM; before both, CAMs of an untrained classifier would teach noise.
- All resizing while training is bilinear, has unaligned corners and no filter against aliasing;
  at inference images are scaled as in the whole system, with that filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from wsss.config.schema import Count, Fraction, NonNegative, Positive, PositiveFraction, Scales
from wsss.data.training import Batch
from wsss.distributed.collectives import gathered, mine, total
from wsss.engine.task import Losses, Progress
from wsss.inference.scales import aligned
from wsss.losses.attentive import attentive_loss
from wsss.losses.region_contrast import (
    Prototypes,
    region_contrast,
    region_masks,
    region_prototypes,
    remember,
)
from wsss.methods.base import Method, MethodInfo, MethodParams, Output
from wsss.models.backbones import Backbone
from wsss.models.dropout import KeyedDropout, set_keys
from wsss.models.teacher import follow, ramped, teacher_of
from wsss.randomness import keys_of_pass


class PssParams(MethodParams):
    """Constants of the reconstruction; all are ours unless said otherwise.

    ``rcm_weight`` or ``mam_weight`` 0 leaves that module out. Starts are fractions of training.
    """

    width: Count = 256  # channels of the contrasted features
    support_momentum: Fraction = 0.996  # of SupportNet, as in other networks of the same authors
    support_ramp: bool = True  # a plain average of the first steps (Tarvainen & Valpola 2017)
    support_scales: Scales = Field(default=[0.5, 1.0, 1.5, 2.0])
    main_scales: Scales = Field(default=[0.5, 1.0, 2.0])

    rcm_weight: NonNegative = 1.0
    rcm_start: Fraction = 0.2
    region_threshold: Fraction = 0.3  # share of a class's maximum; below it is background
    temperature: Positive = 0.1
    memory: Fraction | None = 0.9  # momentum of prototypes over batches; null: this batch's alone
    background: bool = True  # background is a region, too; false: foreground cells alone

    # At 1, what it asks of the size of activations outweighs what the tags ask (docs/results.md).
    mam_weight: NonNegative = 0.1
    mam_start: Fraction = 0.4
    mam_weighted: bool = True  # by dissimilarity; false: all scales alike
    mam_grow: bool = True  # only cells below their target are moved; false: the others, too
    mam_share: PositiveFraction = 0.5  # of the batch
    mam_stride: Count = 4  # px of the crop per cell that maps are compared at

    @field_validator("support_scales")
    @classmethod
    def _contains_one(cls, scales: list[float]) -> list[float]:
        if 1.0 not in scales:
            raise ValueError("it must contain 1.0, where prototypes are taken")
        return scales


class CamHead(nn.Module):
    """Contrasted features and the CAMs made of them."""

    def __init__(self, channels: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, 1, bias=False)
        self.drop = KeyedDropout(dropout)
        self.classifier = nn.Conv2d(width, classes, 1, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, D, h, w) to features (B, width, h, w) and raw CAMs (B, classes, h, w)."""
        projected = self.project(features).relu()
        return projected, self.classifier(self.drop(projected))


class SupportNet(nn.Module):
    """A copy of MainNet that follows it: no gradient, always in eval mode."""

    def __init__(self, backbone: Backbone, head: CamHead) -> None:
        super().__init__()
        self.backbone, self.head = teacher_of(backbone), teacher_of(head)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 3, H, W) to features (B, width, h, w) and raw CAMs (B, C, h, w)."""
        found: tuple[Tensor, Tensor] = self.head(self.backbone(images)[-1])
        return found

    def train(self, mode: bool = True) -> SupportNet:  # noqa: ARG002
        """Stay in eval mode."""
        return super().train(False)


class _Support(NamedTuple):
    """What SupportNet sees of a batch: non-negative ``cams`` (B, C, h, w), one a scale, and
    ``features`` (B, D, h, w) at scale 1."""

    cams: list[Tensor]
    features: Tensor


class Pss(Method):
    """A classifier taught by its moving average."""

    info = MethodInfo(
        title="PSS",
        paper="Yoon et al., Exploring Pixel-level Self-supervision for Weakly Supervised Semantic "
        "Segmentation, arXiv 2112.05351",
        status="reconstruction",
        roads=("two-stage",),
        deviations=(
            "reconstructed from the abstract: all equations and constants are choices of ours",
        ),
        terms={
            "cls": "multi-label soft margin of MainNet's averaged CAMs",
            "rcm": "regional contrast: cells are drawn to their class's prototype",
            "mam": "multi-scale attention: CAMs grow towards SupportNet's at other scales",
            "peak": "mean largest activation of present classes; logged, not minimised",
        },
    )
    Params = PssParams
    couples_batch = True
    seed_kinds: ClassVar[tuple[str, ...]] = ("main", "support")
    params: PssParams
    vectors: Tensor
    known: Tensor

    def __init__(
        self, backbone: Backbone, num_classes: int, params: PssParams, dropout: float
    ) -> None:
        super().__init__(backbone, num_classes, params, dropout)
        self.head = CamHead(backbone.channels[-1], params.width, num_classes, dropout)
        self.support = SupportNet(backbone, self.head)
        self.register_buffer("vectors", torch.zeros(num_classes + 1, params.width))
        self.register_buffer("known", torch.zeros(num_classes + 1, dtype=torch.bool))

    def forward(self, images: Tensor) -> Output:
        """Map (B, 3, H, W) to MainNet's logits (B, C), CAMs (B, C, h, w) and contrasted features
        (B, width, h, w)."""
        features, cam = self.head(self.backbone(images)[-1])
        return Output(cam.mean((2, 3)), cam, features)

    def seeds(self, kind: str | None) -> Callable[[Tensor], Tensor]:
        """CAMs of MainNet (``main``) or of its average (``support``)."""
        if kind == "support":
            return lambda images: self.support(images)[1].relu()
        return super().seeds(kind)

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """Classification, regional contrast and multi-scale attention, each with its weight.

        ``peak``, the mean of the present classes' largest activations, is logged alone: it should
        not run away.
        """
        p, label = self.params, batch["label"].float()
        main = self(batch["image"])
        cam, zero = main.cam.float(), main.cam.new_zeros((), dtype=torch.float32)
        terms = {"cls": F.multilabel_soft_margin_loss(main.logits.float(), label)}
        rcm = p.rcm_weight > 0 and progress.fraction >= p.rcm_start
        mam = p.mam_weight > 0 and progress.fraction >= p.mam_start
        support = self._look(batch["image"]) if rcm or mam else None
        if p.rcm_weight:
            value = self._contrast(main, support, batch) if rcm and support else zero
            terms["rcm"] = p.rcm_weight * value
        if p.mam_weight:
            value = self._attend(cam, support, batch) if mam and support else zero
            terms["mam"] = p.mam_weight * value
        objective = torch.stack(list(terms.values())).sum()
        peaks = total((cam.detach().amax((2, 3)) * label).sum())
        peak = peaks / total(label.sum()).clamp(min=1)
        return Losses(objective, {**terms, "peak": peak})

    def fewest(self, batch: int) -> int:
        """Those that multi-scale attention looks at."""
        p = self.params
        return math.ceil(batch * p.mam_share) if p.mam_weight else batch

    def after_step(self, progress: Progress) -> None:
        """Let SupportNet follow."""
        p = self.params
        momentum = p.support_momentum
        if p.support_ramp:
            momentum = ramped(momentum, progress.step)
        follow(self.support.backbone, self.backbone, momentum)
        follow(self.support.head, self.head, momentum)

    def _scaled(self, images: Tensor, scale: float) -> Tensor:
        """Resize (B, 3, H, W) to multiples of the output stride."""
        if scale == 1:
            return images
        multiple = self.backbone.reductions[-1]
        size = [aligned(length, scale, multiple) for length in images.shape[2:]]
        return _resize(images, size)

    def _look(self, images: Tensor) -> _Support:
        cams, features = [], images
        for scale in self.params.support_scales:
            found, cam = self.support(self._scaled(images, scale))
            cams.append(cam.float().relu())
            features = found if scale == 1 else features
        return _Support(cams, features)

    def _contrast(self, main: Output, support: _Support, batch: Batch) -> Tensor:
        """RCM of the global batch on the grid of the features; the memory moves while training."""
        p, label, grid = self.params, batch["label"].float(), main.features.shape[2:]
        summed = torch.stack([_resize(cam, grid) for cam in support.cams]).sum(0)
        valid = _resize(batch["valid"].float(), grid)[:, 0] >= 0.5
        masks = gathered(region_masks(summed, label, p.region_threshold, valid))
        if not p.background:
            masks = torch.where(masks == 0, 255, masks)
        found = region_prototypes(gathered(support.features), masks, self.num_classes + 1)
        if p.memory is not None:
            found = remember(Prototypes(self.vectors, self.known), found, p.memory)
            if self.training:
                self.vectors.copy_(found.vectors)
                self.known.copy_(found.known)
        return region_contrast(gathered(main.features), found, masks, p.temperature)

    def _attend(self, cam: Tensor, support: _Support, batch: Batch) -> Tensor:
        """MAM on the first images of the global batch, whose order is random; processes share
        them."""
        p, label = self.params, gathered(batch["label"])
        count = self.fewest(len(label))
        images, keys = (mine(gathered(batch[name])[:count]) for name in ("image", "key"))
        grid = [-(-length // p.mam_stride) for length in images.shape[2:]]
        own = []
        for number, scale in enumerate(p.main_scales):
            if scale == 1:
                maps = _resize(cam.relu(), grid)
            else:
                set_keys(self, keys_of_pass(keys, number + 1))
                maps = _resize(self(self._scaled(images, scale)).cam.float().relu(), grid)
            own.append(gathered(maps)[:count])
        theirs = [gathered(_resize(one, grid))[:count] for one in support.cams]
        valid = gathered(_resize(batch["valid"].float(), grid)[:, 0] >= 0.5)[:count]
        label = label[:count].float()
        own_maps, their_maps = torch.stack(own), torch.stack(theirs)
        return attentive_loss(
            own_maps, their_maps, label, valid.float(), p.mam_weighted, p.mam_grow
        )


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


METHOD = Pss
