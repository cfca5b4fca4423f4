"""The segmentation networks by name: what ``segment.net`` chooses from."""

from __future__ import annotations

from collections.abc import Callable

from wsss.config.schema import Segment
from wsss.models.backbones import Backbone
from wsss.models.bifpn import BiFpn
from wsss.models.deeplabv2 import DeepLabV2
from wsss.models.deeplabv3plus import DeepLabV3Plus
from wsss.models.largefov import LargeFov

# Each maps (B, 3, H, W) RGB in [0, 1] to logits (B, classes, h, w), has a ``backbone``, and a
# method ``dense`` that returns the features before the classifier, too (wsss.models.dense).
Segmenter = LargeFov | DeepLabV2 | DeepLabV3Plus | BiFpn
Builder = Callable[[Backbone, int, Segment], Segmenter]


def _largefov(backbone: Backbone, classes: int, config: Segment) -> LargeFov:
    return LargeFov(backbone, classes, config.width, config.dilation, config.dropout, config.norm)


def _deeplabv2(backbone: Backbone, classes: int, config: Segment) -> DeepLabV2:
    return DeepLabV2(backbone, classes, config.rates.deeplabv2)


def _deeplabv3plus(backbone: Backbone, classes: int, config: Segment) -> DeepLabV3Plus:
    return DeepLabV3Plus(
        backbone,
        classes,
        config.width,
        config.low_width,
        config.rates.deeplabv3plus,
        config.separable,
        config.dropout,
    )


def _bifpn(backbone: Backbone, classes: int, config: Segment) -> BiFpn:
    return BiFpn(backbone, classes, config.width, config.bifpn.layers, config.bifpn.literal)


SEGMENTERS: dict[str, Builder] = {
    "largefov": _largefov,
    "deeplabv2": _deeplabv2,
    "deeplabv3plus": _deeplabv3plus,
    "bifpn": _bifpn,
}
