"""DeepLabV3+: pyramid pooling with image-level features and a decoder at stride 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.models.backbones import Backbone
from wsss.models.dense import Dense
from wsss.models.dropout import KeyedDropout
from wsss.models.norms import allow_single_values

# Of the features that bring detail back, and so of the logits (paper, section 3.1).
LOW_STRIDE = 4


def conv_block(source: int, target: int, size: int = 1, rate: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU that keep the grid."""
    pad = rate * (size // 2)
    return nn.Sequential(
        nn.Conv2d(source, target, size, padding=pad, dilation=rate, bias=False),
        nn.BatchNorm2d(target),
        nn.ReLU(),
    )


def separable_block(source: int, target: int, rate: int = 1) -> nn.Sequential:
    """Depthwise 3x3, then pointwise, each with batch normalisation and ReLU (paper, fig. 3)."""
    return nn.Sequential(
        nn.Conv2d(source, source, 3, padding=rate, dilation=rate, groups=source, bias=False),
        nn.BatchNorm2d(source),
        nn.ReLU(),
        *conv_block(source, target),
    )


class Aspp(nn.Module):
    """Parallel 1x1, dilated 3x3 and image-pooled features, concatenated and projected.

    Source: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
    section 3.3.

    Args:
        source: channels of the input.
        width: channels of each branch and of the output.
        rates: dilation of each 3x3 branch.
        separable: make those depthwise separable.
        dropout: after the projection.
    """

    def __init__(
        self, source: int, width: int, rates: Sequence[int], separable: bool, dropout: float
    ) -> None:
        super().__init__()
        self.point = conv_block(source, width)
        self.dilated = nn.ModuleList(
            separable_block(source, width, rate)
            if separable
            else conv_block(source, width, 3, rate)
            for rate in rates
        )
        self.pooled = conv_block(source, width)
        self.project = conv_block((len(rates) + 2) * width, width)
        self.drop = KeyedDropout(dropout)
        allow_single_values(self)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, source, h, w) to (B, width, h, w)."""
        mean = self.pooled(features.mean((2, 3), keepdim=True))
        branches = [
            self.point(features),
            *(branch(features) for branch in self.dilated),
            mean.expand(-1, -1, *features.shape[2:]),
        ]
        result: Tensor = self.drop(self.project(torch.cat(branches, dim=1)))
        return result


class DeepLabV3Plus(nn.Module):
    """Pyramid pooling on the last features, a decoder with early ones.

    Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
    Segmentation", ECCV 2018, section 3.1 (rates 6, 12 and 18 at output stride 16, twice these at
    8; 48 low-level channels; two 3x3 convolutions of 256).

    Args:
        backbone: its last level feeds the pyramid, the last of stride 4 the decoder; where none
            has stride 4, the finest one that is coarser is resized to it.
        num_classes: background included.
        width: channels of the pyramid and of the decoder.
        low_width: channels the low-level features are reduced to.
        rates: dilation of the pyramid's 3x3 convolutions, in cells of the output stride.
        separable: depthwise separable 3x3 convolutions (the paper's Xception network).
        dropout: after the pyramid.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        width: int,
        low_width: int,
        rates: Sequence[int],
        separable: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.level = low_level(backbone.reductions)
        self.aspp = Aspp(backbone.channels[-1], width, rates, separable, dropout)
        self.reduce = conv_block(backbone.channels[self.level], low_width)
        decode = separable_block if separable else _plain
        self.decoder = nn.Sequential(
            decode(width + low_width, width),
            decode(width, width),
            nn.Conv2d(width, num_classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) RGB in [0, 1] to logits (B, classes, ceil(H / 4), ceil(W / 4))."""
        return self.dense(images).logits

    def dense(self, images: Tensor) -> Dense:
        """Map (B, 3, H, W) RGB in [0, 1] to logits (B, K, h, w) and the decoder's last hidden layer
        (B, D, h, w), both at stride 4."""
        size = [-(-length // LOW_STRIDE) for length in images.shape[2:]]
        levels = self.backbone(images)
        low = _resize(self.reduce(levels[self.level]), size)
        high = _resize(self.aspp(levels[-1]), size)
        features = self.decoder[:-1](torch.cat([high, low], dim=1))
        return Dense(self.decoder[-1](features), features, aligned=False)


def low_level(reductions: Sequence[int]) -> int:
    """Return the index of the low-level features: the last of stride 4, or the finest after."""
    exact = [i for i, stride in enumerate(reductions) if stride == LOW_STRIDE]
    coarser = [i for i, stride in enumerate(reductions) if stride > LOW_STRIDE]
    return exact[-1] if exact else coarser[0]


def _plain(source: int, target: int) -> nn.Sequential:
    return conv_block(source, target, 3)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    if list(maps.shape[2:]) == list(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
