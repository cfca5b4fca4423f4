"""Stage: localisation scores of CAMs, MaxBoxAccV2 at a threshold chosen on the tune list.

Writes ``metrics/boxes.json`` (flat), ``boxes.classes.csv`` and ``boxes.sweep.csv``. The paper
takes for every IoU the threshold that is best on the reported images; that is the oracle here,
and the score is the one of the single threshold that is best on the tune list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsss.artifacts import ArrayStore, save_csv, save_json
from wsss.context import Context
from wsss.data.manifest import Item, Manifest
from wsss.errors import UserError
from wsss.metrics.boxes import IOUS, BoxCounts, accuracies, count_image
from wsss.metrics.stored import require_stored
from wsss.metrics.sweep import thresholds
from wsss.opened import open_once
from wsss.parallel import ordered_map
from wsss.refine.resize import resize_bilinear
from wsss.stages.scored_lists import items_with_masks, refuse_overlap

PART = 16
DIGITS = 6
NAMES = tuple(f"{round(100 * iou)}" for iou in IOUS)


@dataclass(frozen=True)
class Job:
    """What every worker needs."""

    manifest: Manifest
    store: Path
    bins: int
    min_area: float


def count_split(job: Job, items: Sequence[Item], processes: int) -> BoxCounts:
    """The counts over all items; the same for any number of ``processes``.

    Raises UserError: the store lacks an image, or its size is not that of its mask.
    """
    require_stored(job.store, ArrayStore(job.store).index, items)
    total = BoxCounts.empty(job.manifest.num_classes, job.bins)
    parts = [items[start : start + PART] for start in range(0, len(items), PART)]
    job = replace(job, manifest=replace(job.manifest, items=()))
    for _, counts in ordered_map(partial(_count, job), ((p[0].id, p) for p in parts), processes):
        total.add(counts)
    return total


def _count(job: Job, items: Sequence[Item]) -> BoxCounts:
    counts = BoxCounts.empty(job.manifest.num_classes, job.bins)
    store, edges = open_once(ArrayStore, job.store), thresholds(job.bins)
    for item in items:
        entry, mask = store.get(item.id), job.manifest.read_mask(item)
        if mask.shape != entry.size:
            raise UserError(
                f"image {item.id!r}: {job.store} was made at {entry.size}, its mask is "
                f"{mask.shape}: delete the store and rerun its stage"
            )
        maps = resize_bilinear(entry.array, entry.size)
        count_image(counts, maps, entry.classes, mask, edges, job.min_area)
    return counts


def run(context: Context) -> None:
    """Choose the threshold on the tune list and score the seed list with it."""
    config, manifest = context.config, context.manifest
    out = context.paths.metrics("boxes")
    store = context.paths.store("cam", "maps")
    refuse_overlap(manifest, "seed")
    job = Job(manifest, store, config.evaluate.bins, config.evaluate.box_min_area)
    items = {role: items_with_masks(manifest, role) for role in ("tune", "seed")}
    with context.recording(out):
        counts = {role: count_split(job, items[role], config.resources.processes) for role in items}
        for role, found in counts.items():
            if not found.pairs.any():
                raise UserError(
                    f"no image of list {manifest.roles[role]!r} has a region of a tagged class in "
                    "its mask: there is no box to score against"
                )
        report = _report(context, counts["tune"], counts["seed"])
        report["images"] = len(items["seed"])
        index = _chosen(counts["tune"])
        _save_classes(out.with_name("boxes.classes.csv"), manifest, counts["seed"], index)
        _save_sweep(out.with_name("boxes.sweep.csv"), counts)
        save_json(out.with_name("boxes.json"), report)


def _chosen(tuned: BoxCounts) -> int:
    """The index of the best threshold, the lowest among equals."""
    return int(accuracies(tuned).mean(1).argmax())


def _report(context: Context, tuned: BoxCounts, scored: BoxCounts) -> dict[str, Any]:
    manifest, edges = context.manifest, thresholds(context.config.evaluate.bins)
    index, at = _chosen(tuned), accuracies(scored)
    best = at.argmax(0)
    row, top = at[index], at.max(0)
    return {
        "what": "boxes",
        "dataset": context.paths.dataset,
        "variant": context.variant,
        "seed": context.seed,
        "role": "seed",
        "split": manifest.roles["seed"],
        "data_hash": manifest.data_hash,
        "tags_used": True,
        "units": "fractions in [0, 1]",
        "boxes_from": "connected regions of the masks",
        "box_min_area": context.config.evaluate.box_min_area,
        "pairs": int(scored.pairs.sum()),
        "pairs_without_box": int(scored.bare.sum()),
        "maxboxacc_v2": _round(row.mean()),
        **{f"boxacc_{name}": _round(v) for name, v in zip(NAMES, row, strict=True)},
        "threshold": _round(edges[index]),
        "threshold_source": "tune",
        "tune_maxboxacc_v2": _round(accuracies(tuned)[index].mean()),
        "oracle_maxboxacc_v2": _round(top.mean()),
        **{f"oracle_boxacc_{name}": _round(v) for name, v in zip(NAMES, top, strict=True)},
        **{
            f"oracle_threshold_{name}": _round(edges[b])
            for name, b in zip(NAMES, best, strict=True)
        },
    }


def _round(value: Any) -> float:
    return round(float(value), DIGITS)


def _save_classes(path: Path, manifest: Manifest, counts: BoxCounts, index: int) -> None:
    columns = ("class", "pairs", "pairs_without_box", *(f"boxacc_{name}" for name in NAMES))

    def row(c: int, name: str) -> dict[str, Any]:
        pairs = int(counts.pairs[c])
        shares = [_round(h / pairs) if pairs else "" for h in counts.hits[c, index]]
        cells = (name, pairs, int(counts.bare[c]), *shares)
        return dict(zip(columns, cells, strict=True))

    save_csv(path, (row(c, name) for c, name in enumerate(manifest.classes)), columns)


def _save_sweep(path: Path, counts: dict[str, BoxCounts]) -> None:
    columns = ("threshold", *(f"{role}_boxacc_{name}" for role in counts for name in NAMES))
    table = np.concatenate([accuracies(found) for found in counts.values()], axis=1)
    edges = thresholds(len(table))
    rows = ((_round(edge), *map(_round, line)) for edge, line in zip(edges, table, strict=True))
    save_csv(path, (dict(zip(columns, row, strict=True)) for row in rows), columns)
