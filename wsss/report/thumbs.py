"""Small pictures of images, masks and activations, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.artifacts import ArrayStore, MaskStore
from wsss.data.manifest import Item, Manifest
from wsss.pictures.overlay import class_colour, overlay_heat, overlay_mask
from wsss.report.blocks import Thumb

_QUALITY = 78


@dataclass
class Thumbs:
    """Draws the images of a data set, ``side`` pixels at their longer side.

    Stores are opened once, images of one id read once in a row.
    """

    manifest: Manifest
    side: int
    _stores: dict[Path, ArrayStore | MaskStore] = field(default_factory=dict)
    _last: tuple[str, np.ndarray] | None = None

    def image(self, item: Item) -> Thumb:
        """The image itself."""
        return self._thumb(self._small(item), f"image {item.id}", "image")

    def truth(self, item: Item) -> Thumb:
        """Its ground truth; an empty picture where there is none."""
        if item.mask is None:
            return Thumb("", "no ground truth", "ground truth")
        mask = self.manifest.read_mask(item)
        return self._mask(item, mask, f"ground truth of {item.id}", "ground truth")

    def mask(self, item: Item, path: Path, caption: str) -> Thumb:
        """What a mask store holds of it; an empty picture where that is nothing."""
        store = self.store(path)
        if not isinstance(store, MaskStore) or item.id not in store:
            return Thumb("", f"{caption}: not made", caption)
        return self._mask(item, store.get(item.id), f"{caption} of {item.id}", caption)

    def heat(self, item: Item, path: Path, caption: str) -> Thumb:
        """The highest activation of any class; an empty picture where there is none."""
        store = self.store(path)
        if not isinstance(store, ArrayStore) or item.id not in store:
            return Thumb("", f"{caption}: not made", caption)
        small, array = self._small(item), store.get(item.id).array
        top = array.max(0) if len(array) else np.zeros(array.shape[1:], array.dtype)
        size = (small.shape[1], small.shape[0])
        values = Image.fromarray(top.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        picture = overlay_heat(small, np.asarray(values))
        return self._thumb(picture, f"{caption} of {item.id}", caption)

    def store(self, path: Path) -> ArrayStore | MaskStore | None:
        """Open a store of the run once; None if it is not there."""
        if path not in self._stores:
            if not path.is_file():
                return None
            arrays = path.name in ("maps.zip", "scores.zip")
            self._stores[path] = ArrayStore(path) if arrays else MaskStore(path)
        return self._stores[path]

    def _mask(self, item: Item, mask: np.ndarray, alt: str, caption: str) -> Thumb:
        small = self._small(item)
        size = (small.shape[1], small.shape[0])
        label = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        return self._thumb(overlay_mask(small, np.asarray(label)), alt, caption)

    def _small(self, item: Item) -> np.ndarray:
        if self._last is None or self._last[0] != item.id:
            image = Image.fromarray(self.manifest.read_image(item))
            factor = min(1.0, self.side / max(image.size))
            size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            small = np.asarray(image.resize(size, Image.Resampling.LANCZOS))
            self._last = item.id, small
        return self._last[1]

    def _thumb(self, picture: np.ndarray, alt: str, caption: str) -> Thumb:
        height, width = picture.shape[:2]
        return Thumb(data_uri(picture), alt, caption, width, height)


def data_uri(picture: np.ndarray) -> str:
    """An (H, W, 3) uint8 picture as a JPEG inside an address."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def swatches(classes: tuple[str, ...], ignore: bool = False) -> list[tuple[str, str]]:
    """Every class with the colour of its masks."""
    names = [*enumerate(classes, start=1), *([(255, "ignored")] if ignore else [])]
    return [(name, "#{:02x}{:02x}{:02x}".format(*class_colour(number))) for number, name in names]
