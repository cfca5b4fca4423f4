"""The segmentation network."""

from __future__ import annotations

import torch

from wsss.config import Config
from wsss.models.segmenters import SEGMENTERS, Segmenter
from wsss.networks.backbone import stage_backbone


def build_segmenter(config: Config, classes: int, pretrained: bool, seed: int = 0) -> Segmenter:
    """Build a segmentation network for ``classes`` including background."""
    segment = config.segment
    torch.manual_seed(seed)
    backbone = stage_backbone(config, segment, pretrained)
    if pretrained:
        backbone.freeze(segment.freeze_levels, segment.freeze_affine)
    return SEGMENTERS[segment.net](backbone, classes, segment)
