"""Label maps as a folder in VOC's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from wsss.artifacts import voc_palette
from wsss.atomic import atomic_path
from wsss.export.source import Opened


def export_voc(store: Opened, out: Path) -> int:
    """Write SegmentationClass/ID.png with the data set's own ids, and the list of ids.

    The palette is VOC's; 255 stays 255. Returns the number of images.
    """
    table = np.arange(256, dtype=np.uint8)
    for class_id in range(1, store.manifest.num_classes + 1):
        table[class_id] = store.file_id(class_id)
    for image in store.images():
        mask = Image.fromarray(table[image.mask])
        mask.putpalette(voc_palette())
        with atomic_path(out / "SegmentationClass" / f"{image.id}.png") as temporary:
            mask.save(temporary, "PNG", compress_level=6)
    with atomic_path(out / "ImageSets" / "Segmentation" / f"{store.path.stem}.txt") as temporary:
        temporary.write_text("".join(f"{i}\n" for i in store.ids), encoding="utf-8")
    return len(store.ids)
