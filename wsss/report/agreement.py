"""What can be said without ground truth: how far tags, seeds, pseudo masks and predictions agree.

None of it is accuracy: a network that repeats its pseudo masks agrees with them and may be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsss.artifacts import ArrayStore, MaskStore
from wsss.data.manifest import Item, Manifest
from wsss.labels import IGNORE
from wsss.opened import open_once
from wsss.parallel import ordered_map

# A class counts as found in an image from this share of its pixels.
FOUND = 0.001
_PART = 32
_LAYERS = ("seeds", "pseudo", "prediction")


class Sources(NamedTuple):
    """The stores of one run; None where one is not there."""

    seeds: Path | None
    pseudo: Path | None
    prediction: Path | None
    scores: Path | None


class Facts(NamedTuple):
    """One image.

    ``present`` holds the class ids 1..C found in each layer; ``cells`` the (pseudo, prediction,
    pixels) of both masks, ids 0..C; ``confidence`` the mean over pixels of the highest
    probability, None without one.
    """

    id: str
    present: dict[str, frozenset[int]]
    cells: tuple[tuple[int, int, int], ...]
    confidence: float | None


def image_facts(manifest: Manifest, sources: Sources, items: list[Item]) -> list[Facts]:
    """Read what the stores hold of ``items``; images that a store lacks are without that layer."""
    masks = {
        layer: open_once(MaskStore, path)
        for layer, path in zip(_LAYERS, sources[:3], strict=True)
        if path is not None
    }
    scores = open_once(ArrayStore, sources.scores) if sources.scores else None
    n = manifest.num_classes + 1
    return [_facts(item, masks, scores, n) for item in items]


def _facts(item: Item, stores: dict[str, MaskStore], scores: ArrayStore | None, n: int) -> Facts:
    masks = {layer: s.get(item.id) for layer, s in stores.items() if item.id in s}
    present = {layer: found_classes(mask, n) for layer, mask in masks.items()}
    cells: tuple[tuple[int, int, int], ...] = ()
    if {"pseudo", "prediction"} <= set(masks):
        cells = joint(masks["pseudo"], masks["prediction"], n)
    confidence = None
    if scores is not None and item.id in scores:
        array = scores.get(item.id).array.astype(np.float32)
        if len(array):
            confidence = float(array.max(0).mean())
    return Facts(item.id, present, cells, confidence)


def found_classes(mask: np.ndarray, n: int) -> frozenset[int]:
    """Foreground ids that cover at least :data:`FOUND` of an (H, W) mask."""
    counts = np.bincount(mask.ravel(), minlength=256)[1:n]
    return frozenset((np.flatnonzero(counts >= FOUND * mask.size) + 1).tolist())


def joint(one: np.ndarray, two: np.ndarray, n: int) -> tuple[tuple[int, int, int], ...]:
    """The (id in one, id in two, pixels) of two (H, W) masks where neither is 255."""
    if one.shape != two.shape:
        return ()
    known = (one != IGNORE) & (two != IGNORE)
    index = one[known].astype(np.intp) * n + two[known]
    counts = np.bincount(index, minlength=n * n)
    cells = np.flatnonzero(counts).tolist()
    return tuple((cell // n, cell % n, int(counts[cell])) for cell in cells)


class ClassAgreement(NamedTuple):
    """One class: images tagged with it, the share of them in which each layer finds it, images
    without its tag in which the prediction finds it, and the IoU of pseudo masks and predictions
    (pixels of all images summed). None where nothing is known."""

    name: str
    tagged: int
    found: dict[str, float | None]
    untagged: int
    iou: float | None


@dataclass(frozen=True)
class Agreement:
    """One run: its classes, and what holds over all of them."""

    classes: list[ClassAgreement]
    facts: list[Facts] = field(repr=False)
    layers: tuple[str, ...]
    same_pixels: float | None
    mean_iou: float | None


def agreement(manifest: Manifest, items: list[Item], sources: Sources, processes: int) -> Agreement:
    """Compare tags, seeds, pseudo masks and predictions of ``items``."""
    parts = [items[start : start + _PART] for start in range(0, len(items), _PART)]
    jobs = ((part[0].id, part) for part in parts)
    # Workers get their items one part at a time, not the whole list with every part.
    work = partial(image_facts, replace(manifest, items=()), sources)
    facts = [one for _, found in ordered_map(work, jobs, processes) for one in found]
    return summarise(manifest, {item.id: item for item in items}, facts)


def summarise(manifest: Manifest, items: dict[str, Item], facts: list[Facts]) -> Agreement:
    """Count over images."""
    n = manifest.num_classes + 1
    matrix = np.zeros((n, n), np.int64)
    for one in facts:
        for a, b, pixels in one.cells:
            matrix[a, b] += pixels
    layers = tuple(layer for layer in _LAYERS if any(layer in one.present for one in facts))
    tags = tagged_ids(manifest, items)
    classes = [_class(manifest, c, tags, facts, layers, matrix) for c in range(1, n)]
    total = int(matrix.sum())
    ious = [value for c in range(n) if (value := _iou(matrix, c)) is not None]
    return Agreement(
        classes,
        facts,
        layers,
        float(np.trace(matrix)) / total if total else None,
        sum(ious) / len(ious) if ious else None,
    )


def _class(
    manifest: Manifest,
    c: int,
    tags: dict[str, set[int]],
    facts: list[Facts],
    layers: tuple[str, ...],
    matrix: np.ndarray,
) -> ClassAgreement:
    tagged = [one for one in facts if c in tags[one.id]]
    found: dict[str, float | None] = {}
    for layer in layers:
        known = [one for one in tagged if layer in one.present]
        hits = sum(c in one.present[layer] for one in known)
        found[layer] = hits / len(known) if known else None
    untagged = sum(
        c not in tags[one.id] and c in one.present.get("prediction", frozenset()) for one in facts
    )
    return ClassAgreement(manifest.classes[c - 1], len(tagged), found, untagged, _iou(matrix, c))


def _iou(matrix: np.ndarray, c: int) -> float | None:
    union = int(matrix[c].sum() + matrix[:, c].sum() - matrix[c, c])
    return int(matrix[c, c]) / union if union else None


def unsure(facts: list[Facts], count: int) -> list[Facts]:
    """The ``count`` images of lowest confidence, lowest first; equals go by id."""
    known = [one for one in facts if one.confidence is not None]
    return sorted(known, key=lambda one: (one.confidence or 0.0, one.id))[:count]


def contradictions(
    facts: list[Facts], tags: dict[str, set[int]]
) -> list[tuple[Facts, list[int], list[int]]]:
    """Images whose prediction contradicts their tags: class ids tagged but not predicted, and
    predicted but not tagged. Most contradictions first; equals go by id."""
    found = []
    for one in facts:
        if "prediction" in one.present:
            predicted = one.present["prediction"]
            missed, untagged = sorted(tags[one.id] - predicted), sorted(predicted - tags[one.id])
            if missed or untagged:
                found.append((one, missed, untagged))
    return sorted(found, key=lambda entry: (-len(entry[1]) - len(entry[2]), entry[0].id))


def tagged_ids(manifest: Manifest, items: dict[str, Item]) -> dict[str, set[int]]:
    """The class ids 1..C of every image's tags."""
    return {name: {c + 1 for c in manifest.present(item)} for name, item in items.items()}


def image_agreement(one: Facts) -> float | None:
    """Share of an image's pixels in which pseudo mask and prediction agree."""
    total = sum(pixels for _, _, pixels in one.cells)
    return sum(p for a, b, p in one.cells if a == b) / total if total else None
