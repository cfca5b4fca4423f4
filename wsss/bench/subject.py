"""Made-up data to measure stages on: photos, masks and what earlier stages would have left.

Contents do not matter to a network. To a dense CRF they do: its cost grows with the number of
colours that are near each other. Photos therefore have the spectrum of natural images, whose
amplitude falls with the frequency (Field, JOSA A 1987): CRFs of 3, 5 and 13 grey levels then take
within 10 % of the time that they take on photos of VOC.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter, voc_palette
from wsss.data.manifest import ROLES, Item, Manifest
from wsss.planning.dataset import DataFacts, Group, Size
from wsss.refine.resize import resize_bilinear

LIST, OTHER = "sample", "other"
# Of photos: grey levels of the standard deviation, how much less each octave has than the one
# before, and how much of it is colour.
CONTRAST, FALL, COLOUR = 55.0, 0.5, 0.5
COARSEST = 3  # cells of the first octave
QUALITY = 90


class Subject(NamedTuple):
    """Images to measure on: their (H, W), the number of classes C and of tags an image; with
    ``sizes``, the images have these in turn instead."""

    shape: Size
    classes: int
    tags: int
    sizes: tuple[Size, ...] = ()

    @property
    def pixels(self) -> int:
        """Of an image."""
        return self.shape[0] * self.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(f"c{number}" for number in range(1, self.classes + 1))

    def shape_of(self, number: int) -> Size:
        """(H, W) of an image."""
        return self.sizes[number % len(self.sizes)] if self.sizes else self.shape

    def tagged(self, number: int) -> list[int]:
        """Class ids 0..C-1 of an image, ascending."""
        return sorted((number + step) % self.classes for step in range(self.tags))

    def facts(self, count: int) -> DataFacts:
        """What a plan would see of ``count`` images, all on every list."""
        group = Group(count, self.pixels, self.pixels, self.tags)
        groups = dict.fromkeys((*ROLES, "labelled", "seeded", "walked", "predicted", "all"), group)
        return DataFacts("a bench", self.classes, self.shape, groups)


def usual_window(shape: Size, batch: int) -> tuple[Size, ...]:
    """Sizes of images for memory where there are no photos to go by: batches of upright, turned
    and lower ones."""
    height, width = shape
    return tuple(
        size
        for size in ((height, width), (width, height), (height * 7 // 8, width))
        for _ in range(batch)
    )


def identifier(number: int) -> str:
    """The id of an image."""
    return f"p{number:05d}"


def smooth(rng: np.random.Generator, channels: int, shape: tuple[int, int]) -> np.ndarray:
    """(channels, H, W) float32 in [0, 1] that varies slowly."""
    coarse = rng.uniform(0, 1, (channels, 6, 8)).astype(np.float32)
    return resize_bilinear(coarse, shape)


def write_photos(folder: Path, subject: Subject, count: int) -> None:
    """Write photos and masks that are not there yet."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{identifier(number)}.jpg"
        if path.is_file():
            continue
        rng = np.random.default_rng(number)
        Image.fromarray(draw_photo(rng, subject.shape_of(number))).save(
            path, "JPEG", quality=QUALITY
        )
        mask = Image.fromarray(blobs(rng, subject, number))
        mask.putpalette(voc_palette())
        mask.save(folder / "masks" / f"{identifier(number)}.png")


def draw_photo(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 with the spectrum of a natural image."""
    total, strength, cells = np.zeros((3, *shape), np.float32), 1.0, COARSEST
    while cells < min(shape):
        grid = (cells, max(1, round(cells * shape[1] / shape[0])))
        octave = rng.normal(0, 1, (1, *grid)) + COLOUR * rng.normal(0, 1, (3, *grid))
        total += strength * resize_bilinear(octave.astype(np.float32), shape)
        strength, cells = FALL * strength, 2 * cells
    photo: np.ndarray = np.clip(127 + CONTRAST * total / total.std(), 0, 255).astype(np.uint8)
    return photo.transpose(1, 2, 0)


def blobs(rng: np.random.Generator, subject: Subject, number: int) -> np.ndarray:
    """(H, W) uint8 mask ids: background and the tagged classes where they are highest."""
    ids = np.array([0, *(c + 1 for c in subject.tagged(number))], np.uint8)
    mask: np.ndarray = ids[smooth(rng, len(ids), subject.shape_of(number)).argmax(0)]
    return mask


def write_manifest(
    folder: Path, photos: Path, subject: Subject, count: int, roles: Mapping[str, str | None]
) -> None:
    """Write a manifest of ``count`` photos on the list ``sample`` and as many on ``other``."""
    both = OTHER in roles.values()
    items = [_item(subject, n, LIST if n < count else OTHER) for n in range(count * (1 + both))]
    Manifest(
        source="folder",
        root=photos,
        classes=subject.names,
        mask_values=tuple(range(1, subject.classes + 1)),
        background_values=(),
        roles=dict(roles),
        data_hash="bench",
        items=tuple(items),
    ).save(folder)


def _item(subject: Subject, number: int, name: str) -> Item:
    key = identifier(number)
    labels = tuple(subject.names[c] for c in subject.tagged(number))
    return Item(key, f"{key}.jpg", f"masks/{key}.png", labels, (name,))


def write_masks(path: Path, subject: Subject, count: int) -> None:
    """Write label maps as a stage would have left them."""
    with MaskStoreWriter(path) as store:
        for number in range(count):
            store.add(identifier(number), blobs(np.random.default_rng(number), subject, number))


def write_maps(
    path: Path, subject: Subject, count: int, stride: int, background: bool, every: bool = False
) -> None:
    """Write class maps as a stage would have left them.

    Args:
        stride: of the maps.
        background: ids are 0..C with background, not 0..C-1.
        every: all classes, not only the tagged ones.
    """
    height, width = subject.shape
    grid = (-(-height // stride), -(-width // stride))
    with ArrayStoreWriter(path) as store:
        for number in range(count):
            classes = list(range(subject.classes)) if every else subject.tagged(number)
            ids = [0, *(c + 1 for c in classes)] if background else classes
            maps = smooth(np.random.default_rng(number), len(ids), grid)
            store.add(identifier(number), maps, ids, subject.shape)
