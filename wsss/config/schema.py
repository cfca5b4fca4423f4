"""The schema of a resolved variant: every key, its type and its range.

The values live in ``params.yaml``; nothing here has a default, so no number hides in code.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wsss.config.about import About
from wsss.errors import UserError


def _number(value: Any) -> Any:
    """Accept ``1e-4``, which YAML 1.1 reads as a string."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _folder(value: Any) -> Any:
    """Expand ``~`` and environment variables; one that is not set is an error."""
    if not isinstance(value, str):
        return value
    expanded = os.path.expanduser(os.path.expandvars(value))  # noqa: PTH111
    if "$" in expanded:
        raise ValueError(f"the path is {value!r}: set that environment variable, or write a path")
    return expanded


Folder = Annotated[str | None, BeforeValidator(_folder)]
Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
NonNegative = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
PositiveFraction = Annotated[float, BeforeValidator(_number), Field(gt=0, le=1)]
BelowOne = Annotated[float, BeforeValidator(_number), Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Scales = Annotated[list[Positive], Field(min_length=1)]
Range = Annotated[list[Positive], Field(min_length=2, max_length=2)]
Sizes = Annotated[list[Positive], Field(min_length=2)]
Combine = Literal["mean", "max_logits"]
Road = Literal["two-stage", "single-stage", "supervised"]


class Section(BaseModel):
    """A group of keys; unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Run(Section):
    """What ``snakemake`` builds by default."""

    dataset: Name
    variants: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[Natural], Field(min_length=1)]
    results: str


class Compute(Section):
    """What may change the bytes of a network's result."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")]
    precision: Literal["auto", "fp32", "bf16"]
    threads: Count
    channels_last: bool
    compile: bool


class Distributed(Section):
    """In how many processes networks train; changes results by rounding alone."""

    nodes: Count
    processes: Count


class Shards(Section):
    """How many jobs share one inference stage; the merged result has the same bytes."""

    cam: Count
    seeds: Count
    walk: Count
    predict: Count
    crf: Count


class Resources(Section):
    """How work is spread over this machine; never changes a result."""

    workers: Natural
    processes: Count
    checkpoint_seconds: Positive
    shards: Shards


class Tracking(Section):
    """How results are published to MLflow; never changes one."""

    mlflow: bool
    live: bool
    uri: Annotated[str, Field(min_length=1)]
    artifacts: Annotated[str, Field(min_length=1)]
    pictures: Natural
    models: bool
    timeout: Positive


class Splits(Section):
    """Which list plays which role; several names are united."""

    train: str | list[str]
    seed: str | list[str] | None
    tune: str | list[str] | None
    val: str | list[str] | None


class Scenes(Section):
    """The generated data set."""

    seed: Natural
    size: Annotated[int, Field(ge=64)]
    train: Count
    tune: Count
    val: Count


class Data(Section):
    """Where images, tags and masks come from."""

    source: Literal["scenes", "voc", "coco", "folder"]
    root: Folder
    classes: Annotated[list[str], Field(min_length=1)] | None
    csv: str
    splits: Splits
    scenes: Scenes

    @model_validator(mode="after")
    def _root(self) -> Self:
        if self.source != "scenes" and not self.root:
            raise ValueError(f"data.root must name a folder when data.source is {self.source!r}")
        return self


class Method(Section):
    """The objective; ``params`` is checked by the method's own schema."""

    name: Name
    params: dict[str, Any]


class Backbone(Section):
    """A timm network and what initialises it."""

    name: str
    weights: Annotated[str, Field(pattern=r"^(random|hub|package:.+|file:.+)$")]
    allow_download: bool


class Checkpoint(Section):
    """Trained weights from elsewhere, which stand in for a stage's training.

    Attributes:
        file: a checkpoint of plain tensors.
        layout: whose key names it has, see ``wsss import --list``.
        classes: the order of its classes where that is not the layout's own.
    """

    file: Annotated[str, BeforeValidator(_folder)]
    layout: str
    classes: Annotated[list[str], Field(min_length=1)] | None

    @model_validator(mode="after")
    def _layout(self) -> Self:
        from wsss.models.imports import check_name  # a list of names; no network

        try:
            check_name(self.layout)
        except UserError as error:
            raise ValueError(str(error)) from error
        return self


class Training(Section):
    """Optimisation and augmentation of one network."""

    output_stride: Literal[8, 14, 16, 32]
    geometry: Literal["timm", "undilated", "caffe"]
    epochs: Count
    batch: Count
    micro_batch: Count | None
    crop: Annotated[int, Field(ge=32)]
    long_side: Range | None
    scale: Sizes | None
    flip: bool
    jitter: Annotated[list[NonNegative], Field(min_length=4, max_length=4)]
    optimizer: Literal["sgd", "adam", "adamw"]
    lr: Positive
    head_lr: Positive
    bias_lr: Positive
    bias_decay: bool
    momentum: Fraction
    weight_decay: NonNegative
    schedule: Literal["poly", "cosine", "constant"]
    power: Positive
    schedule_every: Count
    warmup: Fraction
    warmup_start: Fraction | None
    ema: Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)] | None
    clip: Positive | None
    freeze_bn: bool
    freeze_levels: Natural
    freeze_affine: bool
    bn_momentum: Fraction | None

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if (self.long_side is None) == (self.scale is None):
            raise ValueError("exactly one of long_side and scale must be set, the other null")
        for name in ("long_side", "scale"):
            bounds = getattr(self, name)
            if bounds and len(bounds) == 2 and bounds[0] > bounds[1]:
                raise ValueError(f"{name} is {bounds}: the lower bound comes first")
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} must divide batch {self.batch}")
        return self


class Classify(Training):
    """Training of the classification network."""

    checkpoint: Checkpoint | None
    dropout: BelowOne


class Cam(Section):
    """Multi-scale CAM inference and its operating point."""

    scales: Scales
    flip: bool
    flip_combine: Literal["sum", "max"]
    resize: Literal["bilinear", "bicubic"]
    batch: Count
    stride: Count
    maps: str | None
    threshold: Fraction | Literal["tune"]


class Refine(Section):
    """What turns CAM seeds into pseudo masks."""

    method: Literal["none", "affinitynet", "irnet"]


class Crf(Section):
    """Constants of a dense CRF (Krähenbühl & Koltun 2011); ``sxy`` in pixels, ``srgb`` in grey
    levels."""

    iterations: Natural
    gaussian_sxy: Positive
    gaussian_weight: NonNegative
    bilateral_sxy: Positive
    bilateral_srgb: Positive
    bilateral_weight: NonNegative


class PredictionCrf(Crf):
    """The CRF of predictions. ``confidence``: its unary is the best class of each pixel, right
    with this probability; null: the scores themselves, right with probability ``certainty``."""

    confidence: Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)] | None
    certainty: PositiveFraction


class Seeds(Section):
    """CRF seeds made from CAMs."""

    alpha_low: Positive
    alpha_high: Positive
    alpha_crf: Crf
    label_confidence: Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)]
    label_crf: Crf
    confident_fg: Fraction
    confident_bg: Fraction

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.alpha_low >= self.alpha_high:
            raise ValueError(
                f"alpha_low {self.alpha_low} must be below alpha_high {self.alpha_high}: "
                "a larger alpha means less background"
            )
        if self.confident_bg >= self.confident_fg:
            raise ValueError(
                f"confident_bg {self.confident_bg} must be below confident_fg "
                f"{self.confident_fg}: what lies between them is ignored"
            )
        return self


class Affinity(Training):
    """Training of AffinityNet."""

    radius: Count
    widths: Annotated[list[Count], Field(min_length=3, max_length=3)]


class IrNet(Training):
    """Training of IRNet; ``head_lr`` is the factor of the displacement branch."""

    radius: Count


class Walk(Section):
    """The random walk, and what is background after it."""

    batch: Count
    background: Literal["alpha", "threshold"]
    background_alpha: Positive
    background_threshold: Fraction | Literal["tune"]
    power: Positive
    suppress_edges: bool
    beta: Positive
    steps: Count
    radius: Count


class Pseudo(Section):
    """From scores to the masks that train the segmentation network."""

    crf: bool
    crf_params: Crf


class Rates(Section):
    """Dilations of atrous spatial pyramid pooling, in cells of the output stride."""

    deeplabv2: Annotated[list[Count], Field(min_length=1)]
    deeplabv3plus: Annotated[list[Count], Field(min_length=1)]


class BiFpn(Section):
    """The pyramid of the segmentation network ``bifpn``."""

    layers: Count
    literal: bool


class Boundary(Section):
    """BEACON, see :class:`wsss.losses.boundary_contrast.BoundaryContrast`."""

    weight: Positive
    step: Count
    points: Count
    least: Count
    share: Fraction
    sharpness: Positive
    literal: bool


class Segment(Training):
    """Training of the segmentation network."""

    checkpoint: Checkpoint | None
    net: Literal["largefov", "deeplabv2", "deeplabv3plus", "bifpn"]
    loss: Literal["ce", "balanced"]
    boundary: Boundary | None
    labels: Literal["hard", "soft", "both"]
    label_stride: Count
    ignore_below: BelowOne
    msc: Scales | None
    norm: bool
    width: Count
    low_width: Count
    dilation: Count
    rates: Rates
    separable: bool
    bifpn: BiFpn
    dropout: BelowOne


class Predict(Section):
    """Multi-scale inference of the segmentation network."""

    scales: Scales
    flip: bool
    combine: Combine
    batch: Count
    stride: Count


class Evaluate(Section):
    """What the metrics need to know."""

    bins: Annotated[int, Field(ge=2)]
    boundary_tolerance: Positive
    boxes: bool
    box_min_area: Fraction


class Report(Section):
    """What the page of the report shows."""

    images: Natural
    thumbnail: Annotated[int, Field(ge=32, le=1024)]
    sheet: Natural
    bootstrap: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)]
    seed: Natural


class Config(Section):
    """One variant, resolved."""

    about: About | None
    run: Run
    compute: Compute
    distributed: Distributed
    resources: Resources
    tracking: Tracking
    data: Data
    road: Road
    method: Method
    backbone: Backbone
    classify: Classify
    cam: Cam
    refine: Refine
    seeds: Seeds
    affinity: Affinity
    irnet: IrNet
    walk: Walk
    pseudo: Pseudo
    segment: Segment
    predict: Predict
    crf: PredictionCrf
    evaluate: Evaluate
    report: Report

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        thresholds = {"cam.threshold": self.cam.threshold}
        if self.walk.background == "threshold":
            thresholds["walk.background_threshold"] = self.walk.background_threshold
        for key, value in thresholds.items():
            if value == "tune" and self.data.splits.tune is None:
                raise ValueError(f"{key} is 'tune' but data.splits.tune is null: name a list")
        for name in ("classify", "affinity", "segment"):
            if getattr(self, name).freeze_levels and self.backbone.weights == "random":
                raise ValueError(
                    f"{name}.freeze_levels is {getattr(self, name).freeze_levels} but "
                    "backbone.weights is 'random': frozen layers would stay random"
                )
        for name, radius in (("affinity", self.affinity.radius), ("irnet", self.irnet.radius)):
            if self.walk.radius > radius:
                raise ValueError(
                    f"walk.radius {self.walk.radius} must not exceed {name}.radius {radius}: "
                    "those pairs were never trained"
                )
        return self
