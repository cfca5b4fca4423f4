"""Boxes around the regions of each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsss.artifacts import save_csv, save_json
from wsss.export.source import Labelled, Opened
from wsss.labels import BACKGROUND, IGNORE
from wsss.metrics.boxes import regions

COLUMNS = ("id", "class", "x0", "y0", "x1", "y1", "score")


def export_boxes(store: Opened, out: Path, every: bool) -> int:
    """Write boxes.csv and boxes.json: id, class, x0, y0, x1, y1 (edges, in pixels), score.

    Activations give each present class the regions above the threshold, whatever the other
    classes score there; other stores the regions of their label maps. The largest region of each
    class, or with ``every`` all of them. ``score`` is the highest value inside, 1 for stores of
    masks. Returns the number of boxes.
    """
    rows = [row for image in store.images() for row in _rows(store, image, every)]
    save_csv(out / "boxes.csv", rows, COLUMNS)
    save_json(out / "boxes.json", rows)
    return len(rows)


def _rows(store: Opened, image: Labelled, every: bool) -> Iterator[dict[str, Any]]:
    for class_id, inside in _masks(store, image):
        found = regions(inside)
        count = len(found.boxes) if every else min(1, len(found.boxes))
        for number, box in enumerate(found.boxes[:count].tolist(), start=1):
            score = 1.0
            if class_id in image.classes:
                values = image.maps[image.classes.index(class_id)]
                score = round(float(values[found.labels == number].max()), 6)
            cells = (image.id, store.name(class_id), *box, score)
            yield dict(zip(COLUMNS, cells, strict=True))


def _masks(store: Opened, image: Labelled) -> Iterator[tuple[int, np.ndarray]]:
    if store.kind == "cams":
        assert store.threshold is not None
        for class_id, values in zip(image.classes, image.maps, strict=True):
            yield class_id, values > np.float32(store.threshold)
        return
    for value in np.unique(image.mask):
        if value not in (BACKGROUND, IGNORE):
            yield int(value), image.mask == value
