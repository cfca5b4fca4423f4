"""Training samples: what a network sees of an image in one epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from wsss.artifacts import ArrayStore
from wsss.config.schema import Training
from wsss.data.manifest import Item, Manifest
from wsss.data.transforms import (
    Crop,
    apply_crop,
    colour_jitter,
    crop_scores,
    draw_crop,
    draw_jitter,
    shares,
)
from wsss.data.transforms import valid_pixels as valid_pixels_of
from wsss.data.views import ViewRequest
from wsss.labels import IGNORE
from wsss.randomness import permutation, sample_key

Sample = dict[str, Any]
Batch = dict[str, Any]
ReadMasks = Callable[[Item], Sequence[np.ndarray]]
Place = tuple[int, int]  # epoch, index


class SoftLabels(NamedTuple):
    """Scores or probabilities to train on in place of masks or beside them.

    ``store`` holds (K, h, w) scores of the classes with ids 0..C; ``classes`` is C + 1; a crop of
    S pixels gets ceil(S / ``stride``) cells a side. ``raw`` leaves the scores as they are stored.
    """

    store: ArrayStore
    classes: int
    stride: int
    raw: bool = False

    def crop(self, item: Item, crop: Crop) -> np.ndarray:
        """Return (C + 1, cells, cells) float16 that sum to 1 unless ``raw``, 0 outside the image
        and where the image has no such class."""
        entry = self.store.get(item.id)
        cells = -(-crop.size // self.stride)
        dense = np.zeros((self.classes, cells, cells), np.float16)
        scores = entry.array if self.raw else shares(entry.array)
        dense[entry.classes] = crop_scores(scores, crop, cells)
        return dense


class CropDataset(Dataset[Sample]):
    """Random crops of images with their labels and any number of masks.

    Indexed by (epoch, index). A sample holds ``image`` (3, S, S) uint8, ``label`` (C,) float32,
    ``masks`` (M, S, S) uint8 with 255 outside the image, ``targets`` (C + 1, s, s) float16, see
    :class:`SoftLabels`, ``box`` (4,), ``jitter`` (4,), ``key``
    and ``id``; it is a function of (seed, epoch, image id) alone. In epochs with views it also has
    ``views`` (n, 3, V, V) uint8, ``view_jitter`` (n, 4), ``host_keys`` and, of views that overlap,
    ``overlap`` (6,) and ``overlaps``, see :meth:`wsss.methods.base.Method.views`.

    Args:
        read_masks: returns an image's masks (H, W) uint8; None where training is weak.
        soft: probabilities to train on.
        fill: RGB of the padding.
        views: what each epoch asks for; empty for none.
    """

    def __init__(
        self,
        manifest: Manifest,
        items: Sequence[Item],
        config: Training,
        seed: int,
        fill: Sequence[int],
        read_masks: ReadMasks | None = None,
        soft: SoftLabels | None = None,
        views: Sequence[ViewRequest | None] = (),
    ) -> None:
        self.manifest = manifest
        self.items = list(items)
        self.config = config
        self.seed = seed
        self.fill = tuple(fill)
        self.read_masks = read_masks
        self.soft = soft
        self.views = tuple(views)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Place) -> Sample:
        epoch, index = place
        item = self.items[index]
        key = sample_key(self.seed, epoch, item.id)
        rng = np.random.default_rng(key)
        image = self.manifest.read_image(item)
        crop = draw_crop(rng, image.shape[:2], self.config)
        pixels = apply_crop(image, crop, self.fill, Image.Resampling.BICUBIC)
        sample: Sample = {
            "image": torch.from_numpy(pixels).permute(2, 0, 1),
            "label": torch.from_numpy(self.manifest.label(item)),
            "box": torch.tensor(crop.box),
            "jitter": torch.from_numpy(draw_jitter(rng, self.config.jitter)),
            "key": key,
            "id": item.id,
        }
        if self.read_masks is not None:
            masks = [
                apply_crop(mask, crop, (IGNORE,), Image.Resampling.NEAREST)
                for mask in self.read_masks(item)
            ]
            sample["masks"] = torch.from_numpy(np.stack(masks))
        if self.soft is not None:
            sample["targets"] = torch.from_numpy(self.soft.crop(item, crop))
        if self.views and (views := self.views[epoch]) is not None:
            # Last, so that everything above is drawn as it is without them.
            sample |= self._cut_views(rng, image, views, crop.flip, key)
        return sample

    def _cut_views(
        self, rng: np.random.Generator, image: np.ndarray, views: ViewRequest, flip: bool, key: int
    ) -> Sample:
        windows, more = views.cut(rng, image, flip)
        jitter = np.stack([draw_jitter(rng, self.config.jitter) for _ in windows])
        pixels = np.ascontiguousarray(windows.transpose(0, 3, 1, 2))
        return {
            "views": torch.from_numpy(pixels),
            "view_jitter": torch.from_numpy(jitter),
            "host_keys": key,
            **more,
        }


class EpochBatches(Sampler[list[Place]]):
    """All batches of a training run, in order, each a list of (epoch, index).

    Args:
        orders: maps an epoch to the batches of indices it consists of.
        epochs: number of epochs.
        start: how many batches an earlier, interrupted run has finished.
    """

    def __init__(
        self, orders: Callable[[int], list[list[int]]], epochs: int, start: int = 0
    ) -> None:
        self.orders = orders
        self.epochs = epochs
        self.start = start
        self.per_epoch = len(orders(0))

    def __len__(self) -> int:
        return self.per_epoch * self.epochs - self.start

    def __iter__(self) -> Iterator[list[Place]]:
        for step in range(self.start, self.per_epoch * self.epochs):
            epoch, number = divmod(step, self.per_epoch)
            if number == 0 or step == self.start:
                batches = self.orders(epoch)
            yield [(epoch, index) for index in batches[number]]


def shuffled_batches(count: int, batch: int, seed: int) -> Callable[[int], list[list[int]]]:
    """Return epoch -> batches of shuffled indices; a last, smaller batch is dropped.

    With fewer images than ``batch`` an epoch is one smaller batch.
    """

    def orders(epoch: int) -> list[list[int]]:
        order = permutation(seed, epoch, count).tolist()
        full = max(1, count // batch)
        return [order[i * batch : (i + 1) * batch] for i in range(full)]

    return orders


def collate(samples: list[Sample]) -> Batch:
    """Stack tensors, list ids, make keys (B,) int64."""
    batch: Batch = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        if isinstance(values[0], Tensor):
            batch[name] = torch.stack(values)
        elif name == "key":
            batch[name] = torch.tensor(values, dtype=torch.int64)
        else:
            batch[name] = values
    return batch


def finish_images(batch: Batch, mean: Tensor) -> Batch:
    """On the device: to [0, 1], colour jitter, padding back to the mean; sets ``valid``.

    ``image`` becomes (B, 3, S, S) float32, ``valid`` is (B, 1, S, S) bool. Views, which have no
    padding, become (B, n, 3, V, V) float32.
    """
    images = batch["image"].float() / 255
    valid = valid_pixels_of(batch["box"], images.shape[-1])
    jittered = colour_jitter(images, batch["jitter"])
    views: Batch = {}
    if "views" in batch:
        flat = batch["views"].flatten(0, 1).float() / 255
        flat = colour_jitter(flat, batch["view_jitter"].flatten(0, 1))
        views = {"views": flat.view(batch["views"].shape)}
    return {
        **batch,
        **views,
        "image": torch.where(valid, jittered, mean[:, None, None].to(images.dtype)),
        "valid": valid,
    }
