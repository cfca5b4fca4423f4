"""Images in windows, batched by size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from wsss.data.manifest import Item, Manifest
from wsss.inference.scales import aligned
from wsss.inference.windowed import windowed


class ImageDataset(Dataset[np.ndarray]):
    """Whole images (H, W, 3) uint8."""

    def __init__(self, manifest: Manifest, items: Sequence[Item]) -> None:
        self.manifest = manifest
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.manifest.read_image(self.items[index])


def windows(
    manifest: Manifest, items: Sequence[Item], workers: int, title: str
) -> Iterator[tuple[list[Item], list[np.ndarray]]]:
    """Yield consecutive windows of items with their images, read ahead by ``workers``."""
    start = 0
    for images in windowed(ImageDataset(manifest, items), workers, title):
        stop = start + len(images)
        yield list(items[start:stop]), images
        start = stop


def batches_by_size(images: Sequence[np.ndarray], batch: int) -> Iterator[tuple[list[int], Tensor]]:
    """Group a window: yield (indices, (B, 3, H, W) float32 in [0, 1]) of one size each."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape[:2], []).append(index)
    for members in groups.values():
        for start in range(0, len(members), batch):
            indices = members[start : start + batch]
            stacked = np.stack([images[i] for i in indices])
            yield indices, torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def batches_in_cells(
    images: Sequence[np.ndarray], batch: int, multiple: int, device: torch.device
) -> Iterator[tuple[list[int], Tensor]]:
    """As :func:`batches_by_size`, on ``device`` and resized to whole cells of ``multiple`` pixels,
    so that the cells of a feature map tile the image."""
    for indices, pixels in batches_by_size(images, batch):
        size = [aligned(length, 1.0, multiple) for length in pixels.shape[2:]]
        yield (
            indices,
            F.interpolate(
                pixels.to(device), size, mode="bilinear", align_corners=False, antialias=True
            ),
        )
