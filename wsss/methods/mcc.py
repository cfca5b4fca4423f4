"""MCC: class tokens of an image and of masked parts of it, drawn together or apart; and ToCo.

Source: Wu et al., "Masked Collaborative Contrast for Weakly Supervised Semantic Segmentation",
WACV 2024, and its official code, which is built on ToCo: Ru et al., "Token Contrast for
Weakly-Supervised Semantic Segmentation", CVPR 2023. With ``locals: crops`` this is ToCo.

- A transformer gives activation maps from its last tokens and, by an auxiliary classifier, from
  those of an earlier block.
- Local views are passes in which most keys are hidden in every block (ToCo: small crops). One
  that shows an object, by the activation maps, shall have a class token like the whole image's;
  one that shows none, unlike it.
- Tokens of cells of one class shall be alike, of different ones unlike.
- A decoder learns masks made from the activation maps while training, and predicts by itself.

Deviations:

- View 0 and the source of local views are the same crop unmirrored, so that regions and masks
  speak of the same places; the official code mirrors each by itself, which leaves half of the
  flags on the wrong side. ``literal_flips`` does as it does.
- Padding is excluded from the affinity on the token grid: a cell counts if its centre is inside
  the image, which for edges at multiples of 16 pixels is the box divided by 16. The official code
  compares token indices with pixels. ``literal_box`` does as it does.
- Where the official code does otherwise than it means to, the intention is the default;
  ``literal_flips`` and ``literal_box`` follow its letter.
- Classifiers start at a truncated normal of deviation 0.02, a choice of ours.
- The energy sums over all pairs exactly, on a grid of bounded size; the official code filters on
  the permutohedral lattice.
- Activation maps while training use the backbone's running statistics, where it has any.
- Inference combines scales and flips as the configuration says, which is the system's way unless
  it takes the official code's: ``predict.combine: max_logits``, ``cam.flip_combine: max``.
- A network without transformer weights carries transformer blocks on a CNN: see
  ``wsss.models.tokens``. Through the CNN's receptive field pixels of masked tokens reach visible
  ones; hidden are tokens.
- Hidden tokens, which class tokens depend on in no block, are left out of the masked passes, whose
  class tokens alone are used. For that the visible blocks of a mask are bounded, at a number that
  less than one mask in a million exceeds.
- Padding has the mean colour, not black; sizes at inference are multiples of the output stride,
  and images made smaller there are filtered against aliasing, as in the whole system (while
  training they are not); losses are computed in float32 under mixed precision.
- ToCo's official code pools pairs and pixels of the two images of a process; here, as in MCC's,
  each image has its own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wsss.config.schema import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    PositiveFraction,
    Scales,
    Training,
)
from wsss.data.distortion import DRAWS, Distortion, distort
from wsss.data.local_crops import crop_corners, crop_positive, cut
from wsss.data.training import Batch
from wsss.data.views import ResizedView
from wsss.engine.task import Losses, Progress
from wsss.inference.scales import by_scale, multi_scale
from wsss.labels import IGNORE
from wsss.losses.collaborative import (
    coarse_masks,
    collaborative_contrast,
    most_visible,
    region_values,
    visible_positive,
)
from wsss.losses.dense_energy import dense_energy
from wsss.losses.online_masks import two_level_masks
from wsss.losses.segmentation import balanced_by_image
from wsss.losses.token_affinity import cell_labels, token_affinity_loss
from wsss.methods.base import Configuration, Method, MethodInfo, MethodParams, Output
from wsss.models.backbones import Backbone
from wsss.models.dropout import KeyedDropout
from wsss.models.fov import FovDecoder
from wsss.models.projector import Projector
from wsss.models.teacher import follow, teacher_of
from wsss.models.tokens import Patches, Tokens, token_encoder
from wsss.randomness import keyed_uniform
from wsss.refine.local import DILATIONS, neighbour_weights, refine_locally

# Streams of random numbers; far from those of dropout layers, which count from 0.
_IMAGE, _SECOND, _SOURCE, _FLIPS, _LOCALS = range(1 << 20, (1 << 20) + 5)
# As in the official code: input, second global view, source of local views.
_DISTORTIONS = {
    _IMAGE: Distortion(),
    _SECOND: Distortion(blur_share=0.1, solarise_share=0.2),
    _SOURCE: Distortion(blur_share=0.5),
}
EPSILON = 1e-5


class MccParams(MethodParams):
    """Constants of MCC; all from its official code for VOC unless said otherwise.

    A weight of 0 leaves the term out: its part of the network, if it trains no other, then stays
    as it starts.
    """

    dim: Count = 384  # of the blocks on top of a CNN; ours, as the next two. A transformer has
    depth: Count = 4  # its own
    heads: Count = 6
    aux_block: Annotated[int, Field(le=-1)] = -3  # counted from the end
    projector_hidden: Count = 2048
    projector_bottleneck: Count = 256
    projector_out: Count = 1024
    momentum: Fraction = 0.9  # of the teacher's projector
    decoder_width: Count = 512
    decoder_dilation: Count = 5

    cam_scales: Scales = Field(default=[1.0, 0.5, 1.5])
    cam_flip: bool = True
    high: Fraction = 0.7  # COCO: 0.65
    low: Fraction = 0.25
    region_main_start: Fraction = 0.6  # COCO, ToCo: 1; regions are of the auxiliary maps before
    mask_main_start: Fraction = 0.0  # COCO: 0.15; masks are of the auxiliary maps before

    locals: Literal["masks", "crops", "pixels"] = "masks"  # ToCo: crops; pixels: an ablation
    local_count: Count = 8
    mask_rate: Fraction = 0.95
    mask_block: Count = 4  # cells
    local_size: Count = 96  # px of a crop (ToCo)
    negative_ratio: NonNegative = 0.2
    second_area: list[Fraction] = Field(default=[0.4, 1.0], min_length=2, max_length=2)
    distortion: bool = True  # of colours, of all views

    temperature: Positive = 0.5  # ToCo on COCO: 1
    contrast_weight: NonNegative = 0.5
    contrast_start: Fraction = 0.0  # ToCo on COCO: 0.15
    affinity_weight: NonNegative = 0.2
    affinity_start: Fraction = 0.0  # ToCo on COCO: 0.15
    seg_weight: NonNegative = 0.1
    seg_start: Fraction = 0.1  # iteration 2000 of 20000; COCO 8000 of 80000
    energy_weight: NonNegative = 0.05
    energy_unit: Positive = 1.0e-7
    energy_rgb: Positive = 15
    energy_xy: Positive = 100
    energy_scale: PositiveFraction = 0.5
    energy_cells: Count = 4096  # ours; 50176 is exact for a crop of 448
    par_iterations: Natural = 10
    par_dilations: list[Count] = Field(min_length=1, default=list(DILATIONS))

    literal_flips: bool = False
    literal_box: bool = False


class _Look(NamedTuple):
    """What one step sees: ``image`` is the input and first global view, ``second`` the other if
    there is a contrast, ``source`` what local views are parts of; ``valid`` (B, H, W) the image's
    part of them."""

    image: Tensor
    second: Tensor | None
    source: Tensor
    valid: Tensor


class _Maps(NamedTuple):
    """Activation maps (B, C, H, W) in [0, 1], absent classes 0, of both classifiers."""

    main: Tensor
    aux: Tensor


class _Locals(NamedTuple):
    """Class tokens (n * B, D) of local views, view by view; whether each is positive (B, n)."""

    cls: Tensor
    positive: Tensor


class Mcc(Method):
    """A transformer with two classifiers, a projector and a decoder."""

    info = MethodInfo(
        title="MCC",
        paper="Wu et al., Masked Collaborative Contrast for Weakly Supervised Semantic "
        "Segmentation, WACV 2024",
        status="faithful",
        roads=("single-stage", "two-stage"),
        expected={
            "VOC val, MCC": "70.3 with CRF (DeiT-B, README)",
            "VOC test, MCC": "71.2 with CRF (DeiT-B, README)",
            "VOC val, ToCo": "69.8 with CRF (DeiT-B), 71.1 (ViT-B of ImageNet-21k) (README)",
            "VOC test, ToCo": "70.5 with CRF (DeiT-B), 72.2 (ViT-B of ImageNet-21k) (README)",
            "COCO val, MCC": "42.3 (DeiT-B, README)",
        },
        deviations=(
            "one geometry for input and source of local views; literal_flips for the official",
            "padding is left out on the token grid; literal_box for the official",
            "exact energy on a grid of bounded size",
            "inference combines scales and flips as configured; predict.combine: max_logits and "
            "cam.flip_combine: max for the official",
            "transformer blocks on a CNN where there are no transformer weights",
        ),
        terms={
            "cls": "multi-label soft margin of the tags",
            "cls_aux": "the same, of the auxiliary classifier",
            "aff": "affinity: tokens of one class are alike, of different ones unlike",
            "mcc": "contrast of class tokens of the image and of its masked parts",
            "ctc": "the same with small crops (ToCo: locals: crops)",
            "seg": "cross-entropy of the decoder against masks made while training",
            "reg": "dense energy of the prediction",
        },
        configurations={
            "toco": Configuration(
                title="ToCo",
                paper="Ru et al., Token Contrast for Weakly-Supervised Semantic Segmentation, "
                "CVPR 2023",
                params={"locals": "crops", "region_main_start": 1.0},
            )
        },
    )
    Params = MccParams
    params: MccParams
    seed_kinds: ClassVar[tuple[str, ...]] = ("cam", "aux", "decoder")

    def __init__(
        self, backbone: Backbone, num_classes: int, params: MccParams, dropout: float
    ) -> None:
        super().__init__(backbone, num_classes, params, dropout)
        self.encoder = token_encoder(
            backbone, params.dim, params.depth, params.heads, params.aux_block
        )
        dim = self.encoder.dim
        self.drop = KeyedDropout(dropout)
        self.classifier = nn.Conv2d(dim, num_classes, 1, bias=False)
        self.aux_classifier = nn.Conv2d(dim, num_classes, 1, bias=False)
        for layer in (self.classifier, self.aux_classifier):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        self.projector = Projector(
            dim, params.projector_hidden, params.projector_bottleneck, params.projector_out
        )
        self.teacher = teacher_of(self.projector)
        self.decoder = FovDecoder(
            dim, num_classes + 1, params.decoder_width, params.decoder_dilation
        )

    # Inference

    def _encode(self, images: Tensor) -> Tokens:
        tokens: Tokens = self.encoder(self.backbone, images)
        return tokens

    def forward(self, images: Tensor) -> Output:
        """Map (B, 3, H, W) to logits (B, C), CAMs (B, C, h, w) and tokens (B, D, h, w)."""
        final = self._encode(images).final
        return Output(self._logits(self.classifier, final), self.classifier(final), final)

    def _logits(self, classifier: nn.Conv2d, maps: Tensor) -> Tensor:
        """Scores of the strongest value of each channel (global maximum pooling)."""
        pooled = self.drop(maps.amax((2, 3)))
        return F.linear(pooled, classifier.weight.flatten(1)).float()

    def segment(self, images: Tensor) -> Tensor:
        """Return the decoder's logits (B, C + 1, h, w)."""
        logits: Tensor = self.decoder(self._encode(images).final)
        return logits.float()

    def seeds(self, kind: str | None) -> Callable[[Tensor], Tensor]:
        """``cam``, ``aux`` (of the auxiliary classifier) or ``decoder`` (its probabilities)."""
        if kind == "aux":
            return lambda images: self.aux_classifier(self._encode(images).aux).relu()
        if kind == "decoder":
            return lambda images: self.segment(images).softmax(1)[:, 1:]
        return super().seeds(kind)

    def normalise_seeds(self, total: Tensor) -> Tensor:
        """Bring summed maps (B, C, h, w) to [0, 1]: from their minimum to their maximum."""
        return _from_lowest(total)

    # Training

    def views(self, training: Training, fraction: float) -> ResizedView | None:
        """The second global view, from the original image, once the contrast has started."""
        p = self.params
        if not p.contrast_weight or fraction <= p.contrast_start:
            return None
        area = (p.second_area[0], p.second_area[1])
        return ResizedView(training.crop, area, training.flip)

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """The sum of all terms; each is logged with its weight."""
        p, label, now = self.params, batch["label"].float(), progress.fraction
        look = self._look(batch)
        contrast = p.contrast_weight > 0 and now >= p.contrast_start
        affinity = p.affinity_weight > 0 and now >= p.affinity_start
        segmentation = p.seg_weight > 0 or p.energy_weight > 0
        maps = None
        if contrast or affinity or (segmentation and now > p.seg_start):
            maps = self._activate(look.image, label)
        views = [look.image]
        if contrast:
            assert look.second is not None  # asked for by `views`
            views.append(look.second)
            # Of crops and of hidden pixels the images differ: they are embedded there.
            views += [look.source] if p.locals == "masks" else []
        # One pass embeds all views: it normalises them with the same statistics, too.
        patches = self.encoder.embed(self.backbone, torch.cat(views))
        count = len(label)
        globals_ = self.encoder.encode(self.backbone, patches.take(0, (1 + contrast) * count))
        final, aux = globals_.final[:count], globals_.aux[:count]
        logits = self._logits(self.classifier, final), self._logits(self.aux_classifier, aux)
        terms = {
            "cls": F.multilabel_soft_margin_loss(logits[0], label),
            "cls_aux": F.multilabel_soft_margin_loss(logits[1], label),
        }
        if affinity and maps:
            terms["aff"] = p.affinity_weight * self._affinity(final, maps.aux, look.valid)
        if contrast and maps:
            regions = maps.main if now > p.region_main_start else maps.aux
            locals_ = self._locals(look, patches, regions, batch["key"])
            name = "ctc" if p.locals == "crops" else "mcc"
            terms[name] = p.contrast_weight * self._contrast(globals_.cls, locals_)
        if segmentation:
            terms |= self._segmentation(final, look, maps, label, now)
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    def after_step(self, progress: Progress) -> None:  # noqa: ARG002
        """Let the teacher's projector follow the student's (the encoder is one and the same)."""
        follow(self.teacher, self.projector, self.params.momentum)

    def _look(self, batch: Batch) -> _Look:
        image, valid = batch["image"], batch["valid"]
        views = {_IMAGE: image, _SOURCE: image}
        if "views" in batch:
            views[_SECOND] = batch["views"][:, 0]
        if self.params.distortion:
            for stream, view in views.items():
                draws = keyed_uniform(batch["key"], stream, DRAWS)
                views[stream] = distort(view, draws, _DISTORTIONS[stream])
            mean = self.backbone.mean[:, None, None]
            for stream in (_IMAGE, _SOURCE):
                views[stream] = torch.where(valid, views[stream], mean)
        if self.params.literal_flips:
            draws = keyed_uniform(batch["key"], _FLIPS, 2) < 0.5
            for stream, flipped in zip((_IMAGE, _SOURCE), draws.T, strict=True):
                view = views[stream]
                views[stream] = torch.where(flipped[:, None, None, None], view.flip(3), view)
        return _Look(views[_IMAGE], views.get(_SECOND), views[_SOURCE], valid[:, 0])

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Without gradient, dropout and new statistics."""
        mode = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(mode)

    def _activate(self, images: Tensor, label: Tensor) -> _Maps:
        """Multi-scale activation maps: maximum over the flips, sum over the scales."""

        def both(scaled: Tensor) -> Tensor:
            tokens = self._encode(scaled)
            return torch.cat([self.classifier(tokens.final), self.aux_classifier(tokens.aux)], 1)

        p, size = self.params, (images.shape[2], images.shape[3])
        stride = self.backbone.reductions[-1]
        with self._still():
            found = multi_scale(both, images, p.cam_scales, p.cam_flip, size, stride, False)
            passes = by_scale(found, p.cam_flip, torch.maximum)
            total = torch.stack([one.relu() for one in passes]).sum(0)
            maps = _from_lowest(total) * label.repeat(1, 2)[:, :, None, None]
        return _Maps(*maps.chunk(2, 1))

    def _affinity(self, final: Tensor, maps: Tensor, valid: Tensor) -> Tensor:
        grid = final.shape[2:]
        cells = F.interpolate(maps, grid, mode="bilinear", align_corners=False)
        if self.params.literal_box:
            # A box in pixels, compared with rows and columns of cells.
            inside = valid[:, : grid[0], : grid[1]]
        else:
            inside = _centres(valid, (grid[0], grid[1]))
        labels = cell_labels(cells, self.params.low, self.params.high, inside)
        return token_affinity_loss(final, labels)

    def _contrast(self, cls: Tensor, locals_: _Locals) -> Tensor:
        """Contrast of two global views, (2 * B, D), and local ones."""
        count = len(locals_.positive)
        student = self.projector(torch.cat([cls, locals_.cls]))
        with torch.no_grad():
            teacher = self.teacher(cls.detach())
        positive = F.pad(locals_.positive, (2, 0), value=True)
        return collaborative_contrast(
            *(_by_image(teacher, count), _by_image(student, count)),
            *(positive, self.params.temperature),
        )

    def _locals(self, look: _Look, patches: Patches, regions: Tensor, keys: Tensor) -> _Locals:
        """Local views; ``patches`` are those of all views, the source last if it is one."""
        if self.params.locals == "crops":
            return self._crops(look, regions, keys)
        count = len(keys)
        return self._masked(look, patches.take(-count, len(patches.tokens)), regions, keys)

    def _masked(self, look: _Look, patches: Patches, regions: Tensor, keys: Tensor) -> _Locals:
        """Passes with hidden keys, or with hidden pixels, all as one batch; of ``patches``, those
        of the source, the latter read the grid alone."""
        p, grid = self.params, patches.grid
        shape = (p.local_count, -(-grid[0] // p.mask_block), -(-grid[1] // p.mask_block))
        uniform = keyed_uniform(keys, _LOCALS, shape[0] * shape[1] * shape[2]).view(-1, *shape)
        most = most_visible(shape[1] * shape[2], p.mask_rate)
        masked = coarse_masks(uniform, p.mask_rate, p.mask_block, grid, most)
        cells = F.interpolate(regions, grid, mode="bicubic", align_corners=False)
        values = region_values(cells, p.low, p.high)
        positive = visible_positive(values, masked, p.negative_ratio)
        if p.locals == "masks":
            cells_of = min(grid[0] * grid[1], most * p.mask_block**2)
            cls = self.encoder.class_tokens(self.backbone, patches, masked.flatten(2), cells_of)
        else:
            size, by_view = look.source.shape[2:], masked.transpose(0, 1).flatten(0, 1)
            hidden = F.interpolate(by_view[:, None].float(), size, mode="nearest") > 0
            mean = self.backbone.mean[:, None, None].to(look.source.dtype)
            cls = self._encode(
                torch.where(hidden, mean, look.source.repeat(p.local_count, 1, 1, 1))
            ).cls
        return _Locals(cls, positive)

    def _crops(self, look: _Look, regions: Tensor, keys: Tensor) -> _Locals:
        """Small crops around uncertain places (ToCo), all as one batch."""
        p, (height, width) = self.params, look.source.shape[2:]
        size = min(p.local_size, height, width)
        places = (height - size + 1, width - size + 1)
        uniform = keyed_uniform(keys, _LOCALS, places[0] * places[1]).view(-1, *places)
        values = region_values(regions, p.low, p.high)
        corners = crop_corners(values, uniform, p.local_count, size)
        positive = crop_positive(values, corners, size, p.negative_ratio)
        crops = cut(look.source, corners, size).transpose(0, 1).flatten(0, 1)
        return _Locals(self._encode(crops).cls, positive)

    def _segmentation(
        self, final: Tensor, look: _Look, maps: _Maps | None, label: Tensor, now: float
    ) -> dict[str, Tensor]:
        """Cross-entropy against masks of the same step, and the energy of the prediction."""
        p, size = self.params, (look.image.shape[2], look.image.shape[3])
        decoded = self.decoder(final).float()
        if maps is None or now <= p.seg_start:
            # In the graph at weight 0: the optimiser counts these steps and decays, as in the
            # official code.
            return {"seg": 0.0 * decoded.mean()}
        logits = F.interpolate(decoded, size, mode="bilinear", align_corners=False)
        source = maps.main if now > p.mask_main_start or p.mask_main_start == 0 else maps.aux
        masks = self._masks(source, look, label)
        terms = {"seg": p.seg_weight * balanced_by_image(logits, masks)}
        if p.energy_weight:
            energy = dense_energy(
                *(look.image, logits.softmax(1), look.valid, masks),
                *(p.energy_rgb, p.energy_xy, p.energy_scale, p.energy_cells),
            )
            terms["reg"] = p.energy_weight * p.energy_unit * energy
        return terms

    def _masks(self, maps: Tensor, look: _Look, label: Tensor) -> Tensor:
        """Masks (B, H, W) int64: two background levels, each refined by PAR at half the size."""
        p, (height, width) = self.params, look.image.shape[2:]
        half = (height // 2, width // 2)
        # The official code refines by an image of whole grey levels, cut off, not rounded.
        levels = (look.image.float() * 255).floor().clamp(0, 255) / 255
        colours = F.interpolate(levels, half, mode="bilinear", align_corners=False)
        weights = neighbour_weights(colours, "par", p.par_dilations)
        masks = two_level_masks(
            *(maps, label, p.high, p.low),
            lambda soft: refine_locally(soft, weights, p.par_iterations, p.par_dilations),
            *((height, width), half),
        )
        return torch.where(look.valid, masks, IGNORE)


def _by_image(vectors: Tensor, count: int) -> Tensor:
    """Turn (n * B, D), view by view, into (B, n, D)."""
    return vectors.view(-1, count, vectors.shape[1]).transpose(0, 1)


def _from_lowest(maps: Tensor) -> Tensor:
    """Subtract the minimum, divide by what is then the maximum: (B, C, h, w) in [0, 1)."""
    lifted = maps - maps.amin((2, 3), keepdim=True)
    return lifted / (lifted.amax((2, 3), keepdim=True) + EPSILON)


def _centres(valid: Tensor, grid: tuple[int, int]) -> Tensor:
    """Whether the centre of each cell is inside the image: (B, H, W) to (B, h, w) bool.

    The box in pixels divided by the stride, with its edges rounded to the nearest cell.
    """
    rows, columns = (
        ((torch.arange(n, device=valid.device) + 0.5) * side / n).long()
        for n, side in zip(grid, valid.shape[1:], strict=True)
    )
    return valid[:, rows][:, :, columns]


METHOD = Mcc
