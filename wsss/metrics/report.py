"""Write the scores of a split: one flat json and the tables beside it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.artifacts import save_csv, save_json
from wsss.data.manifest import Manifest
from wsss.metrics.boundary import boundary_f
from wsss.metrics.confusion import IntArray, Scores, scores
from wsss.metrics.sweep import best, sweep, thresholds
from wsss.metrics.tally import Job, Tally

logger = logging.getLogger(__name__)

BACKGROUND = "background"
DIGITS = 6


@dataclass(frozen=True)
class About:
    """What is scored and which run made it; copied into the report.

    ``imported`` names the networks behind it that were not trained here; empty for none.
    """

    dataset: str
    variant: str
    seed: int
    what: str
    imported: str = ""


def write_report(
    job: Job,
    role: str,
    images: int,
    out: Path,
    about: About,
    tags_used: bool,
    tally: Tally,
    source: str | None,
) -> dict[str, Any]:
    """Write all files of one evaluation, the json last, and return its content.

    Args:
        job: what was counted, with the threshold of activations.
        role: the role whose list was scored.
        images: how many images that list has.
        out: path of the results without a suffix.
        about: what is scored.
        tags_used: whether image-level tags helped to make it.
        tally: the counts.
        source: "configured" or "tune", None where there is no threshold. A threshold chosen on
            this very list (role and source are both tune) is its own best: no oracle then, and
            no boundary F, which the sweep does not give.
    """
    chosen_here = role == source == "tune"
    names = [BACKGROUND, *job.manifest.classes]
    result = scores(tally.confusion)
    per_class, boundary = boundary_f(tally.boundary)
    report = _head(job.manifest, role, images, about, tags_used) | {
        "absent_classes": ";".join(names[c] for c in result.absent),
        "miou": _round(result.miou),
        "precision": _round(result.mean_precision),
        "recall": _round(result.mean_recall),
    }
    if not chosen_here:
        report["boundary_f"] = _round(boundary)
        report["boundary_tolerance"] = job.boundary_tolerance
        _save_images(_beside(out, "images"), tally.images)
    if job.threshold is not None:
        report |= {"threshold": _round(job.threshold), "threshold_source": source}
        curve = sweep(tally.histogram)
        _save_sweep(_beside(out, "sweep"), curve)
        if not chosen_here:
            top = best(curve)
            report["oracle_threshold"] = _round(float(thresholds(job.bins)[top]))
            report["oracle_miou"] = _round(curve[top].miou)
    _save_classes(_beside(out, "classes"), names, result, per_class.tolist())
    _save_confusion(_beside(out, "confusion"), names, tally.confusion)
    save_json(out.with_name(f"{out.name}.json"), report)
    logger.info(
        "%s %s seed %d, list %s (%d images): mIoU %.1f %%",
        *(about.variant, about.what, about.seed, report["split"], images, 100 * result.miou),
    )
    return report


def _head(
    manifest: Manifest, role: str, images: int, about: About, tags_used: bool
) -> dict[str, Any]:
    return {
        "what": about.what,
        "dataset": about.dataset,
        "variant": about.variant,
        "seed": about.seed,
        "role": role,
        "split": manifest.roles[role],
        "images": images,
        "data_hash": manifest.data_hash,
        "tags_used": tags_used,
        "units": "fractions in [0, 1]",
        **({"imported": about.imported} if about.imported else {}),
    }


def _beside(out: Path, table: str) -> Path:
    return out.with_name(f"{out.name}.{table}.csv")


def _round(value: float) -> float | None:
    """Six decimals, the same bytes everywhere; JSON and CSV have no nan, so null or empty."""
    return None if math.isnan(value) else round(value, DIGITS)


def _save_classes(path: Path, names: list[str], result: Scores, boundary: list[float]) -> None:
    columns = ("class", "iou", "precision", "recall", "boundary_f", "gt_pixels", "pred_pixels")

    def rows() -> Iterator[dict[str, Any]]:
        for c, name in enumerate(names):
            values = (result.iou[c], result.precision[c], result.recall[c], boundary[c])
            pixels = (result.gt_pixels[c], result.pred_pixels[c])
            cells = (name, *(_round(float(v)) for v in values), *map(int, pixels))
            yield dict(zip(columns, cells, strict=True))

    save_csv(path, rows(), columns)


def _save_confusion(path: Path, names: list[str], matrix: IntArray) -> None:
    columns = ("truth \\ predicted", *names)
    rows = ((name, *line) for name, line in zip(names, matrix.tolist(), strict=True))
    save_csv(path, (dict(zip(columns, row, strict=True)) for row in rows), columns)


def _save_images(path: Path, cells: list[tuple[str, int, int, int]]) -> None:
    columns = ("id", "gt", "pred", "count")
    save_csv(path, (dict(zip(columns, cell, strict=True)) for cell in cells), columns)


def _save_sweep(path: Path, curve: list[Scores]) -> None:
    columns = ("threshold", "miou", "precision", "recall")
    edges = thresholds(len(curve)).tolist()
    rows = (
        map(_round, (edge, point.miou, point.mean_precision, point.mean_recall))
        for edge, point in zip(edges, curve, strict=True)
    )
    save_csv(path, (dict(zip(columns, row, strict=True)) for row in rows), columns)
