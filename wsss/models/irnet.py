"""IRNet: class boundaries and displacements on a frozen backbone.

Source: Ahn et al., "Weakly Supervised Learning of Instance Segmentation with Inter-pixel
Relations", CVPR 2019, section 4.1 and figure 3, with the widths of the published code. Any
pyramid of feature maps serves: levels of stride 8 and more form the coarse group of the
displacement branch, the others the fine one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsss.grids import grid_of
from wsss.models.backbones import Backbone

# Strides in pixels of the output and of the grid where coarse levels meet.
STRIDE = 4
COARSE_STRIDE = 8
# Channels of the published code; groups of its group normalisations.
EDGE_WIDTH, EDGE_GROUPS = 32, 4
FIELD_WIDTH, FIELD_GROUPS = 256, 16
FINE_WIDTHS, FINE_GROUPS = (64, 128), (8, 16)


class Relations(NamedTuple):
    """What IRNet says of an image.

    ``edge`` (B, 1, h, w): boundary logits; ``displacement`` (B, 2, h, w): rows and columns in
    cells, both at stride 4.
    """

    edge: Tensor
    displacement: Tensor


class IrNet(nn.Module):
    """Edge and displacement branches of 1x1 convolutions over all levels of a frozen backbone.

    Attributes:
        stride: pixels a cell of the output grid.
        mean_displacement: (2,), measured over the training list after training and subtracted in
            eval mode, so that the background does not move.
    """

    stride = STRIDE
    mean_displacement: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.coarse = [reduction >= COARSE_STRIDE for reduction in backbone.reductions]
        self.edge_levels = nn.ModuleList(
            _block(channels, EDGE_WIDTH, EDGE_GROUPS) for channels in backbone.channels
        )
        self.edge = nn.Conv2d(EDGE_WIDTH * len(backbone.channels), 1, 1)
        self.field_levels = nn.ModuleList(self._field_levels(backbone.channels))
        fine = sum(w for w, coarse in zip(self._widths(), self.coarse, strict=True) if not coarse)
        self.merge = _block(FIELD_WIDTH * sum(self.coarse), FIELD_WIDTH, FIELD_GROUPS)
        self.field = nn.Sequential(
            _block(FIELD_WIDTH + fine, FIELD_WIDTH, FIELD_GROUPS),
            nn.Conv2d(FIELD_WIDTH, 2, 1, bias=False),
        )
        self.register_buffer("mean_displacement", torch.zeros(2))

    def _widths(self) -> list[int]:
        """Channels of each level in the displacement branch."""
        fine = iter(FINE_WIDTHS)
        return [FIELD_WIDTH if c else next(fine, FINE_WIDTHS[-1]) for c in self.coarse]

    def _field_levels(self, channels: Sequence[int]) -> list[nn.Module]:
        groups = {FINE_WIDTHS[0]: FINE_GROUPS[0]}
        return [
            _block(source, width, groups.get(width, FIELD_GROUPS))
            for source, width in zip(channels, self._widths(), strict=True)
        ]

    def train(self, mode: bool = True) -> IrNet:
        """Set the mode of the branches; the backbone stays as it was pretrained."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Relations:
        """Map (B, 3, H, W) RGB in [0, 1] to maps at stride 4, rounded up."""
        with torch.no_grad():
            levels = self.backbone(images)
        height, width = images.shape[2:]
        grid = grid_of((height, width), STRIDE)
        return Relations(
            self._edge(levels, grid),
            self._field(levels, grid, grid_of((height, width), COARSE_STRIDE)),
        )

    def _edge(self, levels: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        maps = [
            _resize(branch(level), grid)
            for branch, level in zip(self.edge_levels, levels, strict=True)
        ]
        edge: Tensor = self.edge(torch.cat(maps, 1))
        return edge

    def _field(
        self, levels: Sequence[Tensor], grid: tuple[int, int], coarse_grid: tuple[int, int]
    ) -> Tensor:
        coarse: list[Tensor] = []
        fine: list[Tensor] = []
        for branch, level, is_coarse in zip(self.field_levels, levels, self.coarse, strict=True):
            if is_coarse:
                coarse.append(_resize(branch(level), coarse_grid))
            else:
                fine.append(_resize(branch(level), grid))
        merged = _resize(self.merge(torch.cat(coarse, 1)), grid)
        field: Tensor = self.field(torch.cat([*fine, merged], 1))
        if not self.training:
            field = field - self.mean_displacement[:, None, None]
        return field


def _block(source: int, target: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(source, target, 1, bias=False), nn.GroupNorm(groups, target), nn.ReLU()
    )


def _resize(level: Tensor, size: tuple[int, int]) -> Tensor:
    if level.shape[-2:] == size:
        return level
    if level.shape[-2] > size[0]:
        # Levels finer than the output: every pixel counts, as after the published max pooling.
        return functional.adaptive_avg_pool2d(level, size)
    return functional.interpolate(level, size=size, mode="bilinear", align_corners=False)
