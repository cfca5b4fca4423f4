"""A backbone of two convolutions, for tests of what methods do with one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsss.models.backbones import Backbone


class _Info:
    def channels(self) -> list[int]:
        return [4, 6]

    def reduction(self) -> list[int]:
        return [2, 4]


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.feature_info: Any = _Info()

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.first(x)
        return [fine, self.second(fine)]


def tiny_backbone() -> Backbone:
    """Levels of 4 and 6 channels at strides 2 and 4; random weights, always the same."""
    torch.manual_seed(0)
    return Backbone(_Network(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
