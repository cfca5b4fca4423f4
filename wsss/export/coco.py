"""Label maps as COCO results: one run-length mask a class, or a connected region."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsss.artifacts import save_json
from wsss.errors import UserError
from wsss.export.source import Labelled, Opened
from wsss.labels import BACKGROUND, IGNORE
from wsss.metrics.boxes import regions

# 000000000042, COCO_val2014_000000000042, with folders before it; no other data set's names.
_COCO_NAME = re.compile(r"(?:.*/)?(?:COCO_\w+_)?(\d{12})")


def export_coco(store: Opened, out: Path, components: bool) -> int:
    """Write results.json (COCO's results format) and images.json (images and categories).

    Category ids are the data set's own mask ids. ``score`` is the mean of the class's map over
    the region, 1 for stores of masks. Pixels of 255 belong to no region. Returns the number of
    regions.
    """
    ids = image_ids(store.ids)
    results: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for image in store.images():
        height, width = image.mask.shape
        item = store.manifest.item(image.id)
        images.append(
            {"id": ids[image.id], "file_name": item.image, "height": height, "width": width}
        )
        for class_id, region in _regions(image, components):
            results.append(
                {
                    "image_id": ids[image.id],
                    "category_id": store.file_id(class_id),
                    **encode(region),
                    "score": image.score(class_id, region),
                }
            )
    classes = range(1, store.manifest.num_classes + 1)
    categories = [{"id": store.file_id(c), "name": store.name(c)} for c in classes]
    save_json(out / "images.json", {"images": images, "categories": categories, "annotations": []})
    save_json(out / "results.json", results)
    return len(results)


def image_ids(names: list[str]) -> dict[str, int | str]:
    """COCO's numbers where all names are COCO's (``COCO_val2014_000000000042``), else the names."""
    matches = {name: _COCO_NAME.fullmatch(name) for name in names}
    numbers = {name: int(match[1]) for name, match in matches.items() if match}
    if len(set(numbers.values())) == len(names):
        return dict(numbers)
    return {name: name for name in names}


def encode(region: np.ndarray) -> dict[str, Any]:
    """An (H, W) bool mask as COCO's run lengths, with its area."""
    try:
        from pycocotools import mask as rle
    except ImportError as error:
        raise UserError("--format coco needs pycocotools: pip install pycocotools") from error
    code = rle.encode(np.asfortranarray(region.astype(np.uint8)))
    return {
        "segmentation": {
            "size": [int(n) for n in code["size"]],
            "counts": code["counts"].decode("ascii"),
        },
        # No box: COCO's loader would take the results for boxes and their areas for these.
        "area": int(rle.area(code)),
    }


def _regions(image: Labelled, components: bool) -> Iterator[tuple[int, np.ndarray]]:
    for value in np.unique(image.mask):
        if value in (BACKGROUND, IGNORE):
            continue
        whole = image.mask == value
        if not components:
            yield int(value), whole
            continue
        found = regions(whole)
        for number in range(1, len(found.boxes) + 1):
            yield int(value), found.labels == number
