"""Plain class activation maps of a multi-label classifier, the reference of every comparison.

Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, in the
form of Ahn & Kwak, CVPR 2018: a 1x1 classifier without bias on the last features, global average
pooling, multi-label soft margin loss.

Deviations: none that change the objective; backbone, schedule and augmentation are configured.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.data.training import Batch
from wsss.engine.task import Losses, Progress
from wsss.methods.base import Method, MethodInfo, MethodParams, Output
from wsss.models.backbones import Backbone
from wsss.models.dropout import KeyedDropout


class Baseline(Method):
    """A fully convolutional classifier whose class scores are averages of its CAMs."""

    info = MethodInfo(
        title="Baseline CAM",
        paper="Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016",
        status="reference",
        roads=("two-stage",),
        terms={"cls": "multi-label soft margin of the averaged CAMs"},
    )

    def __init__(
        self, backbone: Backbone, num_classes: int, params: MethodParams, dropout: float
    ) -> None:
        super().__init__(backbone, num_classes, params, dropout)
        self.drop = KeyedDropout(dropout)
        self.classifier = nn.Conv2d(backbone.channels[-1], num_classes, 1, bias=False)

    def forward(self, images: Tensor) -> Output:
        """Map (B, 3, H, W) to logits (B, C), CAMs (B, C, h, w) and features (B, D, h, w)."""
        features = self.backbone(images)[-1]
        cam = self.classifier(self.drop(features))
        return Output(cam.mean((2, 3)), cam, features)

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """Multi-label soft margin on the averaged CAMs."""
        logits = self(batch["image"]).logits
        loss = F.multilabel_soft_margin_loss(logits.float(), batch["label"])
        return Losses(loss, {"cls": loss})


METHOD = Baseline
