"""AffinityNet."""

from __future__ import annotations

import torch

from wsss.config import Config
from wsss.models.affinitynet import AffinityNet
from wsss.networks.backbone import stage_backbone


def build_affinity(config: Config, pretrained: bool, seed: int = 0) -> AffinityNet:
    """Build AffinityNet."""
    torch.manual_seed(seed)
    backbone = stage_backbone(config, config.affinity, pretrained)
    if pretrained:
        backbone.freeze(config.affinity.freeze_levels, config.affinity.freeze_affine)
    return AffinityNet(backbone, config.affinity.widths)
