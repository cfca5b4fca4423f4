"""A segmentation decoder on one map: two wide dilated convolutions and a classifier."""

from __future__ import annotations

from torch import Tensor, nn


class FovDecoder(nn.Module):
    """LargeFOV as ToCo and MCC use it: no biases, no dropout, both 3x3 layers dilated.

    Source: Ru et al., "Token Contrast for Weakly-Supervised Semantic Segmentation", CVPR 2023,
    section 4.1, after Chen et al., ICLR 2015; layers as in the official code.

    Args:
        channels: of the map.
        classes: background included.
        width: of both hidden layers.
        dilation: of both, in cells.
    """

    def __init__(self, channels: int, classes: int, width: int, dilation: int) -> None:
        super().__init__()
        wide = {"kernel_size": 3, "padding": dilation, "dilation": dilation, "bias": False}
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, **wide),  # type: ignore[arg-type]
            nn.ReLU(),
            nn.Conv2d(width, width, **wide),  # type: ignore[arg-type]
            nn.ReLU(),
            nn.Conv2d(width, classes, 1, bias=False),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, channels, h, w) to logits (B, classes, h, w)."""
        logits: Tensor = self.layers(maps)
        return logits
