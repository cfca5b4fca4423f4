"""The part of the page that shows images: evenly spaced ones, and the best, median and worst."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsss.data.manifest import Item
from wsss.pictures.choice import ranked, spread
from wsss.report.blocks import Block, Gallery, Heading, Section, Strip, Swatches, Text, Thumb
from wsss.report.counts import image_iou, mean_image_iou
from wsss.report.results import Results
from wsss.report.thumbs import Thumbs, swatches

# Folder, store and evaluation of what is shown of every variant.
_KINDS = {
    "CAM": ("cam", "maps", "cam"),
    "pseudo mask": ("pseudo", "masks", "pseudo"),
    "prediction": ("predict", "masks", "final"),
}
# The evaluations that rank the images of a list, the first that has counts.
_RANKING = {"val": ("final",), "seed": ("pseudo", "crf")}
EVEN = "evenly spaced"


class Column(NamedTuple):
    """One kind of picture of one variant, and each image's IoU where that is known."""

    caption: str
    heat: bool
    path: Path
    ious: dict[str, float]


def example_section(results: Results, thumbs: Thumbs) -> Section:
    """Images of the val list and of the seed list."""
    columns = list(_columns(results))
    blocks: list[Block] = []
    lists: set[str] = set()
    for role in ("val", "seed"):
        name = results.manifest.roles[role]
        if name is not None and name not in lists:
            lists.add(name)
            blocks += _gallery(results, thumbs, columns, role, name)
    if not blocks:
        return Section("images", "Images", [Text("Nothing to show yet.")])
    about = (
        "CAMs and pseudo masks are made for training images, predictions for list "
        f"'{results.manifest.roles['val']}': a row shows what was made of its image, of seed "
        f"{results.seeds[0]}. What variants share is shown once. CAM: the highest of the image's "
        "classes, blue 0 to red 1. IoU: mean over the image's classes without background; its "
        "mean over images is not the mIoU."
    )
    colours = Swatches(swatches(results.manifest.classes, ignore=True))
    return Section("images", "Images", [Text(about), colours, *blocks])


def _columns(results: Results) -> Iterator[Column]:
    seen: set[Path] = set()
    for variant in results.variants:
        for kind, (folder, store, step) in _KINDS.items():
            path = results.run(variant).store(folder, store)
            if path.is_file() and path not in seen:
                seen.add(path)
                users = results.holders(folder).get(variant, [variant])
                shared = f", shared by {len(users)}" if len(users) > 1 else ""
                ious = {} if kind == "CAM" else _ious(results, variant, step)
                yield Column(f"{variant}: {kind}{shared}", kind == "CAM", path, ious)


def _ious(results: Results, variant: str, step: str) -> dict[str, float]:
    """Each image's IoU in the run of the first seed."""
    metrics = results.seed_metrics(variant, results.seeds[0], step)
    if metrics is None:
        return {}
    index = results.metrics(variant, step).index(metrics)
    counts = results.counts(variant, step)
    if len(counts) != len(results.metrics(variant, step)):
        return {}
    values = image_iou(counts[index])
    named = zip(counts[index].ids, values.tolist(), strict=False)
    return {identifier: value for identifier, value in named if not np.isnan(value)}


def _gallery(
    results: Results, thumbs: Thumbs, columns: list[Column], role: str, name: str
) -> list[Block]:
    items = {item.id: item for item in results.manifest.role(role)}
    shown = [c for c in columns if _holds(thumbs, c.path, items)]
    if not shown:
        return []
    chosen, ranking = _chosen(results, role, items)
    strips = [
        _strip(thumbs, items[identifier], reasons, shown) for identifier, reasons in chosen.items()
    ]
    heading = Heading(f"List '{name}' ({len(items)} images)")
    return [heading, Text(ranking), Gallery(strips)]


def _holds(thumbs: Thumbs, path: Path, items: dict[str, Item]) -> bool:
    store = thumbs.store(path)
    return store is not None and any(identifier in store for identifier in items)


def _chosen(
    results: Results, role: str, items: dict[str, Item]
) -> tuple[dict[str, list[str]], str]:
    """Ids with the reasons for showing them, and a sentence on how they were ranked."""
    count = results.settings.images
    reasons: dict[str, list[str]] = {i: [EVEN] for i in spread(list(items), count)}
    for step in _RANKING[role]:
        runs = results.counted(step)
        if not runs:
            continue
        values = mean_image_iou([counts for found in runs.values() for counts in found])
        for kind, names in ranked({i: v for i, v in values.items() if i in items}, count).items():
            for identifier in names:
                reasons.setdefault(identifier, []).append(kind)
        what = {"final": "final masks", "pseudo": "pseudo masks", "crf": "CRF seeds"}[step]
        over = "of the only variant" if len(runs) == 1 else f"over {len(runs)} variants"
        said = (
            f"{EVEN.capitalize()} by id, then the best, median and worst by the mean IoU of the "
            f"image's {what} {over} and all seeds."
        )
        return reasons, said
    return reasons, f"{EVEN.capitalize()} by id; nothing is scored yet to rank images by."


def _strip(thumbs: Thumbs, item: Item, reasons: list[str], columns: list[Column]) -> Strip:
    pictures: list[Thumb] = [thumbs.image(item), thumbs.truth(item)]
    for column in columns:
        value = column.ious.get(item.id)
        caption = column.caption + ("" if value is None else f", IoU {100 * value:.0f}\u00a0%")
        draw = thumbs.heat if column.heat else thumbs.mask
        pictures.append(draw(item, column.path, caption))
    tags = ", ".join(item.labels) or "no tag"
    return Strip(f"{item.id}: {tags}", ", ".join(reasons), pictures)
