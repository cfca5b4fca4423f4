"""The seam: what a paper's module answers and what it inherits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from wsss.config.schema import Training
from wsss.data.training import shuffled_batches
from wsss.data.views import ViewRequest
from wsss.engine.task import Task
from wsss.losses.normalisation import divided_by_peak
from wsss.models.backbones import Backbone


class MethodParams(BaseModel):
    """Parameters of a method; unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Configuration:
    """A paper that a method covers by some of its parameters.

    Attributes:
        paper: citation.
        params: what differs from the method's defaults.
    """

    title: str
    paper: str
    params: dict[str, Any]


@dataclass(frozen=True)
class MethodInfo:
    """What a method is and where it comes from.

    Attributes:
        paper: citation.
        status: ``faithful`` to released code or equations, a ``reconstruction`` from less, or
            the ``reference`` that methods are compared with.
        roads: the pipelines it can take: ``two-stage`` trains a segmentation network on its
            pseudo masks, ``single-stage`` predicts by itself.
        expected: published numbers with their source, or empty where unknown.
        deviations: how this implementation differs from the paper or its code.
        terms: what each entry of :attr:`wsss.engine.task.Losses.terms` is, those that only some
            parameters bring included.
        configurations: other papers it covers, by the names they go by.
    """

    title: str
    paper: str
    status: Literal["faithful", "reconstruction", "reference"]
    roads: tuple[Literal["two-stage", "single-stage"], ...]
    expected: dict[str, str] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    terms: dict[str, str] = field(default_factory=dict)
    configurations: dict[str, Configuration] = field(default_factory=dict)

    def paper_of(self, params: Mapping[str, Any]) -> str:
        """Return the paper that ``params`` are from: a configuration's if they hold its own."""
        for known in self.configurations.values():
            if known.params.items() <= params.items():
                return known.paper
        return self.paper


class Output(NamedTuple):
    """What a forward pass without labels gives.

    ``logits`` (B, C); ``cam`` (B, C, h, w), raw, before ReLU; ``features`` (B, D, h, w).
    """

    logits: Tensor
    cam: Tensor
    features: Tensor


class Method(Task):
    """A classification network with its contrastive objective.

    Subclasses implement :meth:`forward` and :meth:`losses` and may override the rest. The loop,
    mixed precision, CAM inference, refinement, segmentation and evaluation are shared, so that a
    comparison of methods compares objectives.

    Attributes:
        seed_kinds: the maps that seeds can be made from, where there is a choice; the first is
            what :meth:`seed_maps` gives.
    """

    info: ClassVar[MethodInfo]
    Params: ClassVar[type[MethodParams]] = MethodParams
    seed_kinds: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, backbone: Backbone, num_classes: int, params: MethodParams, dropout: float
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.params = params
        self.dropout = dropout

    def forward(self, images: Tensor) -> Output:
        """Map (B, 3, H, W) RGB in [0, 1] to logits, raw CAMs and features."""
        raise NotImplementedError  # pragma: no cover

    def views(self, training: Training, fraction: float) -> ViewRequest | None:  # noqa: ARG002
        """Say which extra views of its images an epoch needs, if any.

        They are cut from the original image by the sample's own generator, mirrored with the
        training crop where places matter; the crop itself is the same with and without them. The
        batch then has

        - ``views`` (B, n, 3, S, S) in [0, 1], colours jittered apart;
        - ``host_keys``, the samples' keys as a list of int, for draws that the host must know;
        - of views that overlap, ``overlap`` (B, 6) int64, their common rectangles, see
          :class:`wsss.data.views.Overlap`, and ``overlaps``, the same as a list of those on the
          host.

        Args:
            training: of the classification network, whose crop says how large views are.
            fraction: of training at the end of the epoch: views are needed from some time t on in
                every epoch with ``fraction > t``.
        """
        return None

    def seed_maps(self, images: Tensor) -> Tensor:
        """Return the (B, C, h, w) non-negative maps that CAM inference averages over scales."""
        output: Output = self(images)
        return output.cam.relu()

    def seeds(self, kind: str | None) -> Callable[[Tensor], Tensor]:
        """Return the function from images to maps of one of :attr:`seed_kinds`; None: the first."""
        if kind is not None and kind not in self.seed_kinds:
            raise ValueError(f"{self.info.title} has no seeds of kind {kind!r}")
        return self.seed_maps

    def normalise_seeds(self, total: Tensor) -> Tensor:
        """Bring the sum of all passes' seed maps, (B, C, h, w) float32, to [0, 1].

        The default divides by each class's maximum. It is asked for all classes; those that an
        image is not tagged with are dropped afterwards.
        """
        return divided_by_peak(total)

    def normaliser(self, kind: str | None, count: int) -> Callable[[Tensor], Tensor]:  # noqa: ARG002
        """Return what brings the sum of ``count`` maps of a kind of seeds to [0, 1]."""
        return self.normalise_seeds

    def segment(self, images: Tensor) -> Tensor:
        """Return (B, C + 1, h, w) segmentation logits, for the single-stage road only."""
        raise NotImplementedError(f"{self.info.title} predicts no masks by itself")

    def scores(self, images: Tensor) -> Tensor:
        """Return the (B, C + 1, h, w) non-negative class scores of one pass.

        Single-stage inference averages them over scales and flips and takes the highest. They
        need not sum to 1: a method may gate classes, or give background a constant.
        """
        return self.segment(images).float().softmax(1)

    @classmethod
    def gives_scores(cls) -> bool:
        """Whether :meth:`scores` are its own and no softmax of :meth:`segment`'s logits."""
        return cls.scores is not Method.scores

    def batches(
        self, labels: Tensor, training: Training, seed: int
    ) -> Callable[[int], list[list[int]]]:
        """Return epoch -> batches of image indices; ``labels`` is (N, C)."""
        return shuffled_batches(len(labels), training.batch, seed)
