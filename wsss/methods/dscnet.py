"""DSCNet: cells and classes of a group of images contrasted in two streams, masks included.

Source: Lai & Vong, "Weakly-supervised Semantic Segmentation via Dual-stream Contrastive Learning
of Cross-image Contextual Information", arXiv 2405.04913, abstract.

- Pixel-wise group contrast (PGCL): cells against groups of cells of all images of the batch.
- Semantic-wise graph contrast (SGCL): the classes of all images are nodes of a graph.
- Dual-stream contrastive learning: both at once, and both update the pseudo labels.
- End to end: a segmentation head learns from these labels on the same network.

Deviations: this is a reconstruction. No code is published, and the abstract is all that this
implementation has of the paper, so that beyond the four points above everything is a choice of
ours. Numbers and simple alternatives are parameters; forms of equations (cosines, balanced
cross-entropy, residual convolutions, which means are taken) are not. The choices:

- Batches are groups of images that share a class, drawn by inverse-root frequency.
- Pseudo labels: CAMs, without dropout, and graph maps averaged (``coupling_share``), refined by
  the colours of the image (PAMR or PAR), two thresholds.
- PGCL: three spherical k-means groups per class and image; half the anchors are the least typical
  cells (``anchor_hard_share``), half random; positives come from other images where there are any.
- SGCL: nodes are CAM-weighted means of projected features; edges to the nearest nodes of other
  images and between the classes of one image; two views by dropped edges and features; residual
  graph convolutions. Nodes are also classified, by a classifier of their own or by that of the
  images (``node_classifier``).
- Coupling: refined nodes look for their class in their image (graph maps, which start at their
  lowest value: ``graph_stretch``); class means of the refined nodes classify images; how pure a
  class's groups are weighs its node.
- The classifier on image level sees global averages; the segmentation head is LargeFOV or ASPP.
- All resizing has unaligned corners; streams are computed in float32 under mixed precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from wsss.config.schema import (
    BelowOne,
    Count,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Training,
)
from wsss.data.group_sampler import group_batches
from wsss.data.training import Batch
from wsss.distributed.collectives import gathered, gathered_fields, mine
from wsss.engine.task import Losses, Progress
from wsss.errors import UserError
from wsss.losses.confident_masks import confident_masks, present_peaks
from wsss.losses.graph_contrast import graph_contrast, node_classification
from wsss.losses.group_contrast import (
    Queue,
    bank_of,
    choose_anchors,
    enqueue,
    group_contrast,
    largest_sets,
    purity,
)
from wsss.losses.segmentation import balanced_cross_entropy
from wsss.losses.spherical_kmeans import spherical_groups
from wsss.methods.base import Method, MethodInfo, MethodParams, Output
from wsss.models.backbones import Backbone
from wsss.models.deeplabv3plus import Aspp
from wsss.models.dropout import KeyedDropout
from wsss.models.graph import (
    ResidualGcn,
    cosine_maps,
    drop_edges,
    edges,
    mask_features,
    node_features,
    propagation,
)
from wsss.models.largefov import LargeFov
from wsss.precision import full_precision
from wsss.randomness import keyed_uniform
from wsss.refine.local import DILATIONS, neighbour_weights, refine_locally
from wsss.refine.pamr import pamr_weights

Span = Annotated[list[Fraction], Field(min_length=2, max_length=2)]
# Numbers of keyed draws, far from those of dropout layers.
_ANCHORS, _VIEWS = 1000, 1001
_SCALES = {"pamr": 0.1, "par": 0.3}


class DscParams(MethodParams):
    """Constants of the reconstruction; all are ours unless said otherwise.

    A weight of 0 leaves its term out; ``graph_weight`` 0 leaves out the whole graph stream, its
    coupling included. Spans and starts are fractions of training: spans one after the other train
    the streams in turn instead of jointly.
    """

    group_size: Count = 4  # K; a batch is G = batch / K groups
    pooling: Literal["gap", "gmp"] = "gap"  # of CAMs to class scores

    # Pseudo labels
    coupling: bool = True  # graph maps take part
    coupling_share: Fraction = 0.5  # of the graph maps, beside the CAMs
    graph_stretch: bool = True  # graph maps less their lowest value
    high: Fraction = 0.55  # AFA; surely a class above
    low: Fraction = 0.25  # AFA: 0.25 to 0.35; surely background below
    refine: Literal["pamr", "par", "none"] = "pamr"
    refine_iterations: Natural = 10  # PAMR, PAR
    refine_dilations: list[Count] = Field(min_length=1, default=list(DILATIONS))  # PAMR, PAR
    refine_scale: Positive | None = None  # null: of the published code, PAMR 0.1, PAR 0.3
    mask_stride: Count = 2  # px of the crop per cell of the pseudo labels

    # Pixel-wise group contrast
    pixel_weight: NonNegative = 0.1  # PPC
    pixel_span: Span = Field(default=[0.1, 1.0])
    pixel_width: Count = 128  # PPC
    pixel_hidden: Count = 256
    pixel_temperature: Positive = 0.1  # PPC
    pixel_groups: Count = 3  # J
    pixel_iterations: Count = 5
    pixel_least: Count = 8  # cells a group; smaller regions are one group
    pixel_anchors: Count = 64  # per class and image
    anchor_hard_share: Fraction = 0.5  # of the anchors, the cells least like their class (PPC)
    classes_per_image: Count = 8  # background included; an image's smaller regions are left out
    queue: Natural = 0  # centroids a class kept of earlier batches

    # Semantic-wise graph contrast
    graph_weight: NonNegative = 0.1
    graph_span: Span = Field(default=[0.1, 1.0])
    graph_width: Count = 256
    graph_layers: Count = 2
    graph_neighbours: Count = 8
    graph_temperature: Positive = 0.1
    edge_temperature: Positive = 0.1
    together: NonNegative = 1.0  # weight of the edges between classes of one image
    edge_drop: BelowOne = 0.2
    feature_mask: BelowOne = 0.1
    purity: bool = True  # pixel groups weigh the nodes
    node_weight: NonNegative = 1.0  # classification of nodes, beside the contrast
    node_classifier: Literal["own", "shared"] = "own"  # shared: that of the images, embedded
    map_weight: NonNegative = 1.0  # classification of images by refined class vectors
    map_temperature: Positive = 0.1

    # Segmentation
    seg_weight: NonNegative = 1.0
    seg_start: Fraction = 0.2
    segmentation: Literal["joint", "separate"] = "joint"  # separate: the backbone learns none of it
    head: Literal["largefov", "aspp"] = "largefov"
    seg_width: Count = 256
    seg_dilation: Count = 6  # LargeFOV: 12 at output stride 8
    seg_rates: list[Count] = Field(min_length=1, default=[6, 12, 18])  # ASPP: twice at 8

    @model_validator(mode="after")
    def _order(self) -> DscParams:
        if self.low > self.high:
            raise ValueError(f"low {self.low} must not exceed high {self.high}")
        for name in ("pixel_span", "graph_span"):
            start, stop = getattr(self, name)
            if start > stop:
                raise ValueError(f"{name} is [{start}, {stop}]: the start comes first")
        return self


class _Graph(NamedTuple):
    """Cells of the images of this process, ``embedded`` (B, W, h, w); nodes of the global batch:
    ``nodes`` and ``refined`` (G, C, W), ``links`` (N, N), their ``label`` (G, C) and ``keys`` (G,).
    """

    embedded: Tensor
    nodes: Tensor
    links: Tensor
    refined: Tensor
    label: Tensor
    keys: Tensor


class DscNet(Method):
    """A classifier, two contrastive streams and a segmentation head on one backbone."""

    info = MethodInfo(
        title="DSCNet",
        paper="Lai & Vong, Weakly-supervised Semantic Segmentation via Dual-stream Contrastive "
        "Learning of Cross-image Contextual Information, arXiv 2405.04913",
        status="reconstruction",
        roads=("single-stage", "two-stage"),
        deviations=(
            "reconstructed from the abstract: all equations and constants are choices of ours",
        ),
        terms={
            "cls": "multi-label soft margin of the image scores",
            "pgcl": "pixel-wise group contrast: cells against groups of cells of the batch",
            "sgcl": "semantic-wise graph contrast: nodes of two stochastic graph views",
            "node": "classification of the refined nodes",
            "cls_graph": "classification of images by the class means of refined nodes",
            "seg": "cross-entropy of the segmentation head against pseudo labels of both streams",
        },
    )
    Params = DscParams
    couples_batch = True
    seed_kinds: ClassVar[tuple[str, ...]] = ("cam", "decoder")
    params: DscParams
    queue_vectors: Tensor
    queue_valid: Tensor

    def __init__(
        self, backbone: Backbone, num_classes: int, params: DscParams, dropout: float
    ) -> None:
        super().__init__(backbone, num_classes, params, dropout)
        channels, p = backbone.channels[-1], params
        self.drop = KeyedDropout(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1, bias=False)
        self.pixel_head = nn.Sequential(
            nn.Conv2d(channels, p.pixel_hidden, 1),
            nn.ReLU(),
            nn.Conv2d(p.pixel_hidden, p.pixel_width, 1),
        )
        self.embed = nn.Conv2d(channels, p.graph_width, 1, bias=False)
        self.gcn = ResidualGcn(p.graph_width, p.graph_layers)
        if p.node_classifier == "own":
            self.node_classifier = nn.Linear(p.graph_width, num_classes)
        self.seg_head = self._head(num_classes + 1)
        if p.queue:
            shape = (num_classes + 1, p.queue)
            self.register_buffer("queue_vectors", torch.zeros(*shape, p.pixel_width))
            self.register_buffer("queue_valid", torch.zeros(shape, dtype=torch.bool))

    def _head(self, classes: int) -> nn.Module:
        p = self.params
        if p.head == "largefov":
            net = LargeFov(self.backbone, classes, p.seg_width, p.seg_dilation, self.dropout)
            return net.head
        channels = self.backbone.channels[-1]
        pyramid = Aspp(channels, p.seg_width, p.seg_rates, False, self.dropout)
        return nn.Sequential(pyramid, nn.Conv2d(p.seg_width, classes, 1))

    def batches(
        self, labels: Tensor, training: Training, seed: int
    ) -> Callable[[int], list[list[int]]]:
        """Return epoch -> batches of groups; the batch size must consist of whole groups."""
        return group_batches(labels, training.batch, self.params.group_size, seed)

    # Inference

    def forward(self, images: Tensor) -> Output:
        """Map (B, 3, H, W) to logits (B, C), CAMs (B, C, h, w) and features (B, D, h, w)."""
        features = self.backbone(images)[-1]
        cam = self.classifier(self.drop(features))
        return Output(self._pool(cam), cam, features)

    def _pool(self, cam: Tensor) -> Tensor:
        return cam.mean((2, 3)) if self.params.pooling == "gap" else cam.amax((2, 3))

    def segment(self, images: Tensor) -> Tensor:
        """Return the segmentation head's logits (B, C + 1, h, w)."""
        if not self.params.seg_weight:
            raise UserError(
                "method.params.seg_weight is 0, so that the segmentation head has learnt nothing: "
                "set road to two-stage"
            )
        logits: Tensor = self.seg_head(self.backbone(images)[-1])
        return logits

    def seeds(self, kind: str | None) -> Callable[[Tensor], Tensor]:
        """CAMs (``cam``), or the probabilities of the segmentation head (``decoder``)."""
        if kind == "decoder":
            return lambda images: self.segment(images).softmax(1)[:, 1:]
        return super().seeds(kind)

    # Training

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """The sum of all terms; each is logged with its weight."""
        p, label = self.params, batch["label"].float()
        found = self(batch["image"])
        features, cam = found.features, self._clean(found)
        pixel = p.pixel_weight > 0 and _within(p.pixel_span, progress)
        graph = p.graph_weight > 0 and _within(p.graph_span, progress)
        seg = p.seg_weight > 0 and progress.fraction >= p.seg_start
        coupled = p.coupling and p.graph_weight > 0 and progress.fraction >= p.graph_span[0]
        terms = self._silent(cam)
        terms["cls"] = F.multilabel_soft_margin_loss(found.logits.float(), label)
        wanted = graph or (coupled and (pixel or seg))
        built = self._build(features, cam, batch) if wanted else None
        pure = None
        if pixel or seg:
            soft = self._soft_labels(cam, built if coupled else None, batch)
        if pixel:
            terms["pgcl"], pure = self._pixels(features, soft, batch)
        if graph and built is not None:
            terms |= self._semantics(built, label, pure if p.purity else None)
        if seg:
            terms["seg"] = p.seg_weight * self._segmentation(features, soft, batch)
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    def _clean(self, found: Output) -> Tensor:
        """CAMs (B, C, h, w) float32 of undropped features, which pseudo labels and nodes are made
        of: without gradient and whatever a step drops."""
        if not (self.training and self.dropout):
            return found.cam.detach().float()
        with torch.no_grad():
            cam: Tensor = self.classifier(found.features)
        return cam.float()

    def _silent(self, cam: Tensor) -> dict[str, Tensor]:
        """Zeros for the terms that have a weight."""
        p = self.params
        weights = {
            "cls": 1.0,
            "pgcl": p.pixel_weight,
            "sgcl": p.graph_weight,
            "node": p.graph_weight * p.node_weight,
            "cls_graph": p.graph_weight and p.map_weight,
            "seg": p.seg_weight,
        }
        return {name: cam.new_zeros(()) for name, weight in weights.items() if weight}

    def _build(self, features: Tensor, cam: Tensor, batch: Batch) -> _Graph:
        """Make the graph of the global batch and refine its nodes."""
        p, own = self.params, batch["label"].float()
        embedded = self.embed(features).float()
        label, keys = gathered(own), gathered(batch["key"])
        with full_precision(embedded):
            nodes = gathered(node_features(present_peaks(cam, own), embedded))
            links = edges(nodes, label, p.graph_neighbours, p.edge_temperature, p.together)
            refined = self.gcn(nodes, propagation(links, label))
        return _Graph(embedded, nodes, links, refined, label, keys)

    def _soft_labels(self, cam: Tensor, graph: _Graph | None, batch: Batch) -> Tensor:
        """Refined maps (B, C, h, w) in [0, 1] on the grid of the pseudo labels; no gradient."""
        p, label, images = self.params, batch["label"].float(), batch["image"]
        maps = present_peaks(cam, label)
        if graph is not None:
            with full_precision(cam):
                own = mine(graph.refined.detach())
                found = cosine_maps(graph.embedded.detach(), own).relu()
            if p.graph_stretch:
                found = found - found.amin((2, 3), keepdim=True)
            share = p.coupling_share
            maps = (1 - share) * maps + share * present_peaks(found, label)
        grid = [-(-length // p.mask_stride) for length in images.shape[2:]]
        maps = _resize(maps, grid)
        if p.refine == "none":
            return maps
        colours = _resize(images.float(), grid, antialias=True)
        scale = p.refine_scale or _SCALES[p.refine]
        if p.refine == "pamr":
            weights = pamr_weights(colours, p.refine_dilations, scale)
        else:
            weights = neighbour_weights(colours, "par", p.refine_dilations, scale=scale)
        return refine_locally(maps, weights, p.refine_iterations, p.refine_dilations)

    def _masks(self, soft: Tensor, grid: Sequence[int], batch: Batch) -> Tensor:
        """Pseudo labels (B, *grid) int64."""
        maps = F.interpolate(soft, tuple(grid), mode="area")
        maps = present_peaks(maps, batch["label"].float())
        valid = F.interpolate(batch["valid"].float(), tuple(grid), mode="area")[:, 0] >= 0.5
        return confident_masks(maps, self.params.high, self.params.low, valid)

    def _pixels(self, features: Tensor, soft: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """PGCL of the global batch on the grid of the features; also how pure each class of its
        images is, (G, C)."""
        p, classes = self.params, self.num_classes + 1
        cells = F.normalize(self.pixel_head(features).float(), dim=1)
        cells = cells.flatten(2).transpose(1, 2)
        masks = self._masks(soft, features.shape[2:], batch).flatten(1)
        sets = largest_sets(masks, classes, p.classes_per_image)
        count = sets.classes.shape[1]
        groups = spherical_groups(
            *(cells.detach(), sets.slots, count),
            *(p.pixel_groups, p.pixel_iterations, p.pixel_least),
        )
        uniform = keyed_uniform(batch["key"], _ANCHORS, cells.shape[1])
        anchors = choose_anchors(
            *(cells.detach(), sets, p.pixel_anchors, uniform), p.anchor_hard_share
        )
        cells, anchors = gathered(cells), gathered_fields(anchors)
        sets, groups = gathered_fields(sets), gathered_fields(groups)
        queue = Queue(self.queue_vectors, self.queue_valid) if p.queue else None
        bank = bank_of(groups, sets, queue)
        loss = group_contrast(cells, sets, anchors, bank, p.pixel_temperature)
        if queue is not None and self.training:
            moved = enqueue(queue, groups, sets)
            self.queue_vectors.copy_(moved.vectors)
            self.queue_valid.copy_(moved.valid)
        return p.pixel_weight * loss, purity(groups, sets, classes)[:, 1:]

    def _semantics(self, graph: _Graph, label: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        """SGCL between two views, and what keeps the graph semantic."""
        p = self.params
        with full_precision(label):
            one, two = (self._view(graph, number) for number in (0, 1))
            weights = torch.ones_like(graph.label) if weights is None else weights
            contrast = graph_contrast(one, two, graph.label, weights, p.graph_temperature)
            terms = {"sgcl": p.graph_weight * contrast}
            if p.node_weight:
                node = node_classification(self._classify_nodes(graph.refined), graph.label)
                terms["node"] = p.graph_weight * p.node_weight * node
            if p.map_weight:
                terms["cls_graph"] = p.map_weight * self._classify_by_nodes(graph, label)
        return terms

    def _classify_nodes(self, nodes: Tensor) -> Tensor:
        """Logits (G, C, C) of (G, C, W) nodes: nodes are embedded features, and so is the row of
        each class where the classifier is that of the images."""
        if self.params.node_classifier == "own":
            logits: Tensor = self.node_classifier(nodes)
            return logits
        rows = self.classifier.weight.flatten(1) @ self.embed.weight.flatten(1).T
        return F.linear(nodes, rows)

    def _view(self, graph: _Graph, number: int) -> Tensor:
        """Refine the nodes of one stochastic view: (G, C, W)."""
        p, draw = self.params, _VIEWS + 2 * number
        links = drop_edges(graph.links, graph.keys, p.edge_drop, draw)
        nodes = mask_features(graph.nodes, graph.keys, p.feature_mask, draw + 1)
        refined: Tensor = self.gcn(nodes, propagation(links, graph.label))
        return refined

    def _classify_by_nodes(self, graph: _Graph, label: Tensor) -> Tensor:
        """Soft margin on averaged cosines to the class means of refined nodes; classes that are
        in no image of the batch have none."""
        unit = F.normalize(graph.refined, dim=2) * graph.label[..., None]
        maps = cosine_maps(graph.embedded, unit.sum(0))
        logits = maps.mean((2, 3)) / self.params.map_temperature
        values = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
        known = (graph.label.sum(0) > 0).expand_as(values)
        return torch.where(known, values, 0).sum() / known.sum().clamp(min=1)

    def _segmentation(self, features: Tensor, soft: Tensor, batch: Batch) -> Tensor:
        joint = self.params.segmentation == "joint"
        logits = self.seg_head(features if joint else features.detach()).float()
        grid = soft.shape[2:]
        masks = self._masks(soft, grid, batch)
        return balanced_cross_entropy(_resize(logits, grid), masks)


def _within(span: Sequence[float], progress: Progress) -> bool:
    """Whether training is inside a span; 1 is its end, which no step reaches."""
    return span[0] <= progress.fraction < span[1]


def _resize(maps: Tensor, size: Sequence[int], antialias: bool = False) -> Tensor:
    return F.interpolate(
        maps, tuple(size), mode="bilinear", align_corners=False, antialias=antialias
    )


METHOD = DscNet
