"""The head of AffinityNet (Ahn & Kwak, CVPR 2018, section 4.1): features to compare cells by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsss.models.backbones import Backbone

# Channels after the first 1x1 convolutions, from the finest to the deepest map (paper, fig. 3).
WIDTHS = (64, 128, 256)

# Of the last layer's Xavier initialisation in the published code: differences of features must
# start large enough for some affinities to be small.
XAVIER_GAIN = 4.0


class AffinityHead(nn.Module):
    """Compress backbone maps with 1x1 convolutions, bring them to one grid and mix them.

    Args:
        channels: of the maps, from fine to deep.
        widths: channels each map is compressed to; the output has their sum.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        if len(channels) != len(widths):
            raise ValueError(f"{len(channels)} maps but {len(widths)} widths")
        self.compress = nn.ModuleList(
            nn.Conv2d(source, target, 1, bias=False)
            for source, target in zip(channels, widths, strict=True)
        )
        self.width = sum(widths)
        self.mix = nn.Conv2d(self.width, self.width, 1, bias=False)
        for layer in self.compress:
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.mix.weight, gain=XAVIER_GAIN)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Features on a grid of ``size``.

        Args:
            maps: one (B, channels[i], h_i, w_i) each, any sizes.
            size: (h, w) of the grid: stride 8 in the paper.

        Returns:
            (B, sum of widths, h, w).

        Raises:
            ValueError: the number of maps is not that of the channels.
        """
        if len(maps) != len(self.compress):
            raise ValueError(f"expected {len(self.compress)} maps, got {len(maps)}")
        levels = [
            functional.elu(_resize(layer(level), size))
            for layer, level in zip(self.compress, maps, strict=True)
        ]
        return functional.elu(self.mix(torch.cat(levels, dim=1)))


def _resize(level: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize, after the convolution: the two commute and the narrow map is cheaper."""
    if level.shape[-2:] == size:
        return level
    return functional.interpolate(level, size=size, mode="bilinear", align_corners=False)


class AffinityNet(nn.Module):
    """A backbone with the head on its last three levels.

    Attributes:
        stride: pixels a cell of the output grid, in each direction.
    """

    stride = 8

    def __init__(self, backbone: Backbone, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.backbone = backbone
        self.levels = len(widths)
        self.head = AffinityHead(backbone.channels[-self.levels :], widths)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) RGB in [0, 1] to features (B, D, ceil(H / 8), ceil(W / 8))."""
        height, width = images.shape[2:]
        size = (-(-height // self.stride), -(-width // self.stride))
        features: Tensor = self.head(self.backbone(images)[-self.levels :], size)
        return features
