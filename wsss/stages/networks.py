"""Networks of the pipeline, built from the configuration, fresh or trained."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from wsss.artifacts import load_weights
from wsss.config import Config
from wsss.config.schema import Training
from wsss.errors import UserError
from wsss.methods import load_method
from wsss.methods.base import Method
from wsss.models.affinitynet import AffinityNet
from wsss.models.backbones import Backbone, build_backbone
from wsss.models.irnet import IrNet
from wsss.models.segmenters import SEGMENTERS, Segmenter

Network = TypeVar("Network", bound=nn.Module)


def _backbone(config: Config, training: Training, pretrained: bool) -> Backbone:
    """Build the backbone in the stride and geometry of one stage."""
    return build_backbone(config.backbone, training.output_stride, pretrained, training.geometry)


def build_method(config: Config, classes: int, pretrained: bool, seed: int = 0) -> Method:
    """Build a classification network with its method's objective; new layers from ``seed``."""
    cls = load_method(config.method.name)
    params = cls.Params.model_validate(config.method.params)
    torch.manual_seed(seed)
    backbone = _backbone(config, config.classify, pretrained)
    if pretrained:
        backbone.freeze(config.classify.freeze_levels, config.classify.freeze_affine)
    return cls(backbone, classes, params, config.classify.dropout)


def build_segmenter(config: Config, classes: int, pretrained: bool, seed: int = 0) -> Segmenter:
    """Build a segmentation network for ``classes`` including background."""
    segment = config.segment
    torch.manual_seed(seed)
    backbone = _backbone(config, segment, pretrained)
    if pretrained:
        backbone.freeze(segment.freeze_levels, segment.freeze_affine)
    return SEGMENTERS[segment.net](backbone, classes, segment)


def build_affinity(config: Config, pretrained: bool, seed: int = 0) -> AffinityNet:
    """Build AffinityNet."""
    torch.manual_seed(seed)
    backbone = _backbone(config, config.affinity, pretrained)
    if pretrained:
        backbone.freeze(config.affinity.freeze_levels, config.affinity.freeze_affine)
    return AffinityNet(backbone, config.affinity.widths)


def build_irnet(config: Config, pretrained: bool, seed: int = 0) -> IrNet:
    """Build IRNet."""
    torch.manual_seed(seed)
    return IrNet(_backbone(config, config.irnet, pretrained))


def load_trained(network: Network, path: Path) -> Network:
    """Fill a network with trained weights; a mismatch is a :class:`UserError` naming keys."""
    state, _ = load_weights(path)
    own = network.state_dict()
    wrong = sorted(set(own) ^ set(state)) or sorted(
        name for name in own if own[name].shape != state[name].shape
    )
    if wrong:
        raise UserError(
            f"{path} does not fit the configured network: {len(wrong)} keys differ, such as "
            f"{', '.join(wrong[:3])}: delete it and rerun its stage"
        )
    network.load_state_dict(state)
    return network.eval()
