"""DeepLab-LargeFOV: a segmentation network with one wide dilated convolution."""

from __future__ import annotations

from torch import Tensor, nn

from wsss.models.backbones import Backbone
from wsss.models.dense import Dense
from wsss.models.dropout import KeyedDropout


class LargeFov(nn.Module):
    """DeepLab-LargeFOV: one wide dilated convolution on the last features.

    Source: Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully
    Connected CRFs", ICLR 2015, section 3.1 (fc6 as 3x3 with dilation 12, 1024 channels).

    Args:
        backbone: its last level feeds the head.
        num_classes: background included.
        width: channels of both hidden layers.
        dilation: of the 3x3 convolution, in cells of the output stride.
        dropout: after each hidden layer.
        norm: batch normalisation of the hidden layers.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        width: int,
        dilation: int,
        dropout: float,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        channels, bias = backbone.channels[-1], not norm
        wide = nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation, bias=bias)
        layers: list[nn.Module] = []
        for layer in (wide, nn.Conv2d(width, width, 1, bias=bias)):
            normed = [nn.BatchNorm2d(width)] if norm else []
            layers += [layer, *normed, nn.ReLU(), KeyedDropout(dropout)]
        self.head = nn.Sequential(*layers, nn.Conv2d(width, num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) RGB in [0, 1] to logits (B, classes, h, w) at the output stride."""
        return self.dense(images).logits

    def dense(self, images: Tensor) -> Dense:
        """Map (B, 3, H, W) RGB in [0, 1] to logits (B, K, h, w) and the second hidden layer
        (B, D, h, w), both at the output stride."""
        features = self.head[:-1](self.backbone(images)[-1])
        return Dense(self.head[-1](features), features, aligned=False)
