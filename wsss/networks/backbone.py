"""The backbone of one stage's network."""

from __future__ import annotations

from wsss.config import Config
from wsss.config.schema import Training
from wsss.models.backbones import Backbone, build_backbone


def stage_backbone(config: Config, training: Training, pretrained: bool) -> Backbone:
    """Build the backbone in the stride and geometry of one stage."""
    return build_backbone(config.backbone, training.output_stride, pretrained, training.geometry)
