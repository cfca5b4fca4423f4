"""IRNet."""

from __future__ import annotations

import torch

from wsss.config import Config
from wsss.models.irnet import IrNet
from wsss.networks.backbone import stage_backbone


def build_irnet(config: Config, pretrained: bool, seed: int = 0) -> IrNet:
    """Build IRNet."""
    torch.manual_seed(seed)
    return IrNet(stage_backbone(config, config.irnet, pretrained))
