"""Count a whole split: confusion, boundaries and score histogram, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from wsss.artifacts import ArrayStore, Entry, MaskStore
from wsss.data.manifest import Item, Manifest
from wsss.errors import UserError
from wsss.metrics.boundary import TOLERANCE, Mask, boundary_counts
from wsss.metrics.confusion import IntArray, confusion, pairs
from wsss.metrics.stored import require_stored
from wsss.metrics.sweep import apply_threshold, histogram, thresholds, top_foreground
from wsss.opened import open_once
from wsss.parallel import ordered_map
from wsss.refine.resize import resize_bilinear

# Enough images to make handing them to a process cheap, few enough to even out the processes.
PART = 32
# What a store holds: activations of ids 0..C-1, scores of ids 0..C, or label maps.
Kind = Literal["cams", "scores", "masks"]


@dataclass(frozen=True)
class Job:
    """What every worker needs. Activations without a threshold are only swept."""

    manifest: Manifest
    store: Path
    kind: Kind
    boundary_tolerance: float = TOLERANCE
    threshold: float | None = None
    bins: int = 0

    @property
    def n(self) -> int:
        """The number of classes, background included."""
        return self.manifest.num_classes + 1


@dataclass
class Tally:
    """Counts of a set of images: (n, n), (n, 4) and, for activations, (n, n, bins + 1)."""

    confusion: IntArray
    boundary: IntArray
    histogram: IntArray
    images: list[tuple[str, int, int, int]] = field(default_factory=list)

    @classmethod
    def empty(cls, n: int, bins: int) -> Tally:
        """No image yet."""
        depth = bins + 1 if bins else 0
        return cls(
            np.zeros((n, n), np.int64),
            np.zeros((n, 4), np.int64),
            np.zeros((n, n, depth), np.int64),
        )

    def add(self, other: Tally) -> None:
        """Count the images of ``other``, of the same classes and bins, in place."""
        self.confusion += other.confusion
        self.boundary += other.boundary
        self.histogram += other.histogram
        self.images += other.images


def _open(job: Job) -> ArrayStore | MaskStore:
    if job.kind == "masks":
        return open_once(MaskStore, job.store)
    return open_once(ArrayStore, job.store)


def count_split(job: Job, items: Sequence[Item], processes: int) -> Tally:
    """The counts over all items; the same for any number of ``processes``.

    Raises UserError: the store lacks an image, its size is not that of its mask, it holds an id
    or score that cannot be, or no pixel has a known class.
    """
    require_stored(job.store, set(_open(job).ids), items)
    total = Tally.empty(job.n, job.bins)
    parts = [items[start : start + PART] for start in range(0, len(items), PART)]
    # Workers get their items one part at a time, not the whole list with every part.
    job = replace(job, manifest=replace(job.manifest, items=()))
    named = ((str(job.store), part) for part in parts)
    for _, counts in ordered_map(partial(_count, job), named, processes):
        total.add(counts)
    if not total.confusion.any() and not total.histogram.any():
        raise UserError(f"the masks of the {len(items)} images hold nothing but 255 (ignore)")
    return total


def _count(job: Job, items: Sequence[Item]) -> Tally:
    tally = Tally.empty(job.n, job.bins)
    store = _open(job)
    for item in items:
        gt = job.manifest.read_mask(item)
        pred = _predict(job, store, item.id, gt, tally)
        if pred is None:
            continue
        matrix = confusion(gt, pred, job.n, item.id)
        tally.confusion += matrix
        tally.boundary += boundary_counts(gt, pred, job.n, job.boundary_tolerance)
        tally.images += [(item.id, *cell) for cell in pairs(matrix)]
    return tally


def _predict(
    job: Job, store: ArrayStore | MaskStore, image_id: str, gt: Mask, tally: Tally
) -> Mask | None:
    """The mask to score; activations also enter the histogram, and give None if only swept."""
    if isinstance(store, MaskStore):
        return store.get(image_id)
    entry = store.get(image_id)
    _check_entry(entry, job, image_id)
    maps = resize_bilinear(entry.array, entry.size)
    if job.kind == "scores":
        winner: Mask = np.asarray(entry.classes, np.uint8)[maps.argmax(axis=0)]
        return winner
    top, score = top_foreground(maps, entry.classes)
    tally.histogram += histogram(gt, top, score, thresholds(job.bins), job.n, image_id)
    return None if job.threshold is None else apply_threshold(top, score, job.threshold)


def _check_entry(entry: Entry, job: Job, image_id: str) -> None:
    """Refuse maps that an argmax would turn into nonsense without a word."""
    limit = job.n - 1 if job.kind == "cams" else job.n
    strange = [c for c in entry.classes if not 0 <= c < limit]
    if strange:
        raise UserError(
            f"image {image_id}: {job.store} holds class {strange[0]}, expected 0..{limit - 1}: "
            "delete it and rerun the stage that makes it"
        )
    if job.kind == "scores" and not entry.classes:
        raise UserError(f"image {image_id}: {job.store} holds no class, not even the background")
    if not np.isfinite(entry.array).all():
        raise UserError(f"image {image_id}: {job.store} holds nan or infinite scores")
