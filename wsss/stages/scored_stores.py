"""Score activations, score maps or masks against the masks of a split.

Each function reads one store and the masks of the list that plays a role, and writes

- ``<out>.json``         flat: mIoU, precision, recall and boundary F (fractions in [0, 1]), and
                         on what they were measured
- ``<out>.classes.csv``  the same per class
- ``<out>.confusion.csv``  pixels, a row a true class, a column a predicted one
- ``<out>.images.csv``   each image's nonzero confusion cells: enough to resample images in a
                         paired bootstrap of the mIoU
- ``<out>.sweep.csv``    for activations: the scores at every threshold

All counts are integers, so the files do not depend on the number of processes. A list without
masks, an image that the store lacks, sizes that differ and ids that cannot be are UserErrors.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wsss.data.manifest import Manifest
from wsss.metrics.boundary import TOLERANCE
from wsss.metrics.report import About, write_report
from wsss.metrics.sweep import best, confusions, sweep, thresholds
from wsss.metrics.tally import Job, count_split
from wsss.stages.scored_lists import items_with_masks, refuse_overlap
from wsss.stages.threshold import Threshold, operating_point

__all__ = ["About", "evaluate_cams", "evaluate_masks", "evaluate_scores", "tune_cams"]


def evaluate_masks(
    manifest: Manifest,
    store: Path,
    role: str,
    out: Path,
    about: About,
    *,
    tags_used: bool,
    boundary_tolerance: float = TOLERANCE,
    processes: int = 1,
) -> dict[str, Any]:
    """Score label maps; ``tags_used`` says whether image-level tags helped to make them.

    ``out`` is the path of the results without a suffix. Returns what ``<out>.json`` holds.
    Raises UserError: the list has no masks, the store lacks an image, sizes differ, or a
    predicted id is out of range.
    """
    job = Job(manifest, Path(store), "masks", boundary_tolerance)
    return _evaluate(job, role, Path(out), about, tags_used, processes)


def evaluate_scores(
    manifest: Manifest,
    store: Path,
    role: str,
    out: Path,
    about: About,
    *,
    tags_used: bool,
    boundary_tolerance: float = TOLERANCE,
    processes: int = 1,
) -> dict[str, Any]:
    """Score an array store of ids 0..C, background included, by argmax at full resolution.

    Otherwise as :func:`evaluate_masks`.
    """
    job = Job(manifest, Path(store), "scores", boundary_tolerance)
    return _evaluate(job, role, Path(out), about, tags_used, processes)


def evaluate_cams(
    manifest: Manifest,
    store: Path,
    role: str,
    out: Path,
    about: About,
    *,
    threshold: Threshold,
    tuned: Path | None = None,
    bins: int = 100,
    boundary_tolerance: float = TOLERANCE,
    processes: int = 1,
) -> dict[str, Any]:
    """Score activations (ids 0..C-1) at the configured threshold, and sweep all thresholds.

    ``tuned`` is the json of :func:`tune_cams`, needed if ``threshold`` is ``"tune"``. The best
    threshold of the sweep was seen on the very masks that are reported: the report calls it
    an oracle. Otherwise as :func:`evaluate_masks`; also refuses a tune list that shares images
    with the reported one.
    """
    value, source = operating_point(threshold, tuned, manifest.data_hash)
    if source == "tune":
        refuse_overlap(manifest, role)
    job = Job(manifest, Path(store), "cams", boundary_tolerance, value, bins)
    return _evaluate(job, role, Path(out), about, True, processes, source)


def tune_cams(
    manifest: Manifest,
    store: Path,
    out: Path,
    about: About,
    *,
    bins: int = 100,
    processes: int = 1,
) -> dict[str, Any]:
    """Choose the threshold with the best mIoU on the list that plays the role tune.

    Writes what :func:`evaluate_cams` writes, less the boundary F and the image table.
    """
    job = Job(manifest, Path(store), "cams", bins=bins)
    items = items_with_masks(manifest, "tune")
    tally = count_split(job, items, processes)
    index = best(sweep(tally.histogram))
    tally.confusion = confusions(tally.histogram)[index]
    job = replace(job, threshold=float(thresholds(bins)[index]))
    return write_report(job, "tune", len(items), Path(out), about, True, tally, "tune")


def _evaluate(
    job: Job,
    role: str,
    out: Path,
    about: About,
    tags_used: bool,
    processes: int,
    source: str | None = None,
) -> dict[str, Any]:
    items = items_with_masks(job.manifest, role)
    tally = count_split(job, items, processes)
    return write_report(job, role, len(items), out, about, tags_used, tally, source)
