"""What a backbone of our own says of its feature maps, as timm's networks do."""

from __future__ import annotations


class Levels:
    """Channels and strides of the maps of a network, asked for as ``feature_info``."""

    def __init__(self, channels: list[int], reductions: list[int]) -> None:
        self._channels, self._reductions = channels, reductions

    def channels(self) -> list[int]:
        """Channels of each map."""
        return self._channels

    def reduction(self) -> list[int]:
        """Stride of each map in pixels."""
        return self._reductions
