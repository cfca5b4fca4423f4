"""The classification network with its method's objective."""

from __future__ import annotations

import torch

from wsss.config import Config
from wsss.methods import load_method
from wsss.methods.base import Method
from wsss.networks.backbone import stage_backbone


def build_method(config: Config, classes: int, pretrained: bool, seed: int = 0) -> Method:
    """Build a classification network with its method's objective; new layers from ``seed``."""
    cls = load_method(config.method.name)
    params = cls.Params.model_validate(config.method.params)
    torch.manual_seed(seed)
    backbone = stage_backbone(config, config.classify, pretrained)
    if pretrained:
        backbone.freeze(config.classify.freeze_levels, config.classify.freeze_affine)
    return cls(backbone, classes, params, config.classify.dropout)
