"""DeepLabV2: atrous spatial pyramid pooling by a sum of dilated classifiers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsss.models.backbones import Backbone
from wsss.models.dense import Dense

# Standard deviation of the classifiers' first weights, as in the published ResNet-101 network.
INITIAL_STD = 0.01


class DeepLabV2(nn.Module):
    """One dilated 3x3 classifier a rate, all on the last features, their logits summed.

    Source: Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets,
    Atrous Convolution, and Fully Connected CRFs", TPAMI 2017, section 3.2 and the ResNet-101
    network published with it (rates 6, 12, 18 and 24 at output stride 8; no dropout).

    Args:
        backbone: its last level feeds the head.
        num_classes: background included.
        rates: dilation of each classifier, in cells of the output stride.
    """

    def __init__(self, backbone: Backbone, num_classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.channels[-1]
        self.classifiers = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates
        )
        for layer in self.classifiers:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=INITIAL_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) RGB in [0, 1] to logits (B, classes, h, w) at the output stride."""
        return self.dense(images).logits

    def dense(self, images: Tensor) -> Dense:
        """Map (B, 3, H, W) RGB in [0, 1] to logits (B, K, h, w) and the backbone's last features
        (B, D, h, w), both at the output stride."""
        features = self.backbone(images)[-1]
        logits = torch.stack([layer(features) for layer in self.classifiers]).sum(0)
        return Dense(logits, features, aligned=False)
