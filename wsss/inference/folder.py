"""Predict photos into a folder: palette masks, overlays, one table of the classes found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from wsss.artifacts import Entry, save_csv, save_json, voc_palette
from wsss.atomic import atomic_path
from wsss.config.schema import Compute, Predict, PredictionCrf
from wsss.engine.device import pick_device, place
from wsss.inference.masks import Found, Masked, MaskJob, make_mask
from wsss.inference.photos import Failure, Photo, Source, photo_windows
from wsss.inference.prediction import Predictor, predict_window
from wsss.inference.tags import Tags
from wsss.parallel import ordered_map
from wsss.pictures.legend import with_legend
from wsss.pictures.overlay import overlay_mask
from wsss.refine.crf_config import optional_crf

COLUMNS = (
    *("image", "mask", "class", "id", "pixels", "share"),
    *("mean_confidence", "max_confidence", "tags_used", "tag"),
)
DIGITS = 6
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Options:
    """How photos are predicted; ``crf`` None leaves it out, ``longest_side`` bounds what the
    network sees, in pixels."""

    predict: Predict
    crf: PredictionCrf | None
    compute: Compute
    longest_side: int
    workers: int
    processes: int


def predict_photos(
    predictor: Predictor,
    classes: Sequence[str],
    sources: Sequence[Source],
    tags: Tags,
    options: Options,
    out: Path,
    report: Callable[[str], None],
) -> list[Failure]:
    """Write masks/NAME.png, overlays/NAME.jpg and classes.csv under ``out``; earlier ones of the
    same name are replaced.

    Args:
        predictor: the network; it is placed on the configured device.
        classes: the C names; mask ids are 1..C in their order.
        sources: the photos; memory is bounded by a window of them, not by their number.
        tags: classes that an image is not tagged with are ruled out.
        options: scales, CRF, sizes, processes.
        out: the folder.
        report: called with one line a file that cannot be read, as it is met.

    Returns:
        The files that could not be read; the others are done.
    """
    failures: list[Failure] = []
    rows: list[dict[str, Any]] = []
    params = optional_crf(options.crf, len(classes) + 1) if options.crf else None
    waiting: dict[str, tuple[Photo, MaskJob]] = {}
    work = _jobs(predictor, sources, tags, options, failures, report, waiting)
    for name, masked in ordered_map(partial(make_mask, params=params), work, options.processes):
        photo, job = waiting.pop(name)
        _write_pictures(out, name, photo, masked, classes)
        rows += _rows(photo, job, masked, classes)
    save_csv(out / "classes.csv", rows, COLUMNS)
    return failures


def _jobs(
    predictor: Predictor,
    sources: Sequence[Source],
    tags: Tags,
    options: Options,
    failures: list[Failure],
    report: Callable[[str], None],
    waiting: dict[str, tuple[Photo, MaskJob]],
) -> Iterator[tuple[str, MaskJob]]:
    """Predict window by window, as the pool takes the results."""
    device = pick_device(options.compute)
    place(predictor.module, options.compute, device)
    for photos, failed in photo_windows(sources, options.longest_side, options.workers):
        for failure in failed:
            report(failure.reason)
        failures += failed
        if not photos:
            continue
        found = predict_window(
            *(predictor, [photo.image for photo in photos], options.predict),
            *(options.compute, device),
        )
        for photo, one in zip(photos, found, strict=True):
            # In half precision, as the stage stores them: the same numbers, the same masks.
            entry = Entry(one.scores.astype(np.float16), one.classes, one.size)
            job = MaskJob(photo.image, entry, tags.of(photo.source), photo.size)
            waiting[photo.source.name] = (photo, job)
            yield photo.source.name, job


def _write_pictures(
    out: Path, name: str, photo: Photo, masked: Masked, classes: Sequence[str]
) -> None:
    mask = Image.fromarray(masked.full)
    mask.putpalette(voc_palette())
    with atomic_path(out / "masks" / f"{name}.png") as temporary:
        mask.save(temporary, "PNG", compress_level=6)
    ids = [row.id for row in masked.found if (masked.full == row.id).any()]
    entries = [(class_id, classes[class_id - 1]) for class_id in ids]
    picture = with_legend(overlay_mask(photo.image, masked.small), entries)
    with atomic_path(out / "overlays" / f"{name}.jpg") as temporary:
        picture.save(temporary, "JPEG", quality=JPEG_QUALITY)


def _rows(
    photo: Photo, job: MaskJob, masked: Masked, classes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The lines of one image, at least one: without any class it is all background."""
    head = {
        "image": photo.source.path.as_posix(),
        "mask": f"masks/{photo.source.name}.png",
        "tags_used": "no" if job.tags is None else "yes",
    }
    total = masked.full.size
    for row in masked.found:
        yield head | _cells(row, total) | {"class": classes[row.id - 1]}
    if not any(row.tag in ("", "found") for row in masked.found):
        yield head | _cells(Found(0, total, None, None, ""), total) | {"class": "background"}


def _cells(row: Found, total: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "pixels": row.pixels,
        "share": round(row.pixels / total, DIGITS),
        "mean_confidence": "" if row.mean is None else round(row.mean, DIGITS),
        "max_confidence": "" if row.top is None else round(row.top, DIGITS),
        "tag": row.tag,
    }


def save_settings(
    out: Path, options: Options, classes: Sequence[str], facts: Mapping[str, Any]
) -> None:
    """Write predict.json: what the ids mean and how the masks were made."""
    sections = {
        "predict": options.predict.model_dump(),
        "crf": options.crf.model_dump() if options.crf else None,
        "longest_side": options.longest_side,
        "classes": {"0": "background", **{str(i): n for i, n in enumerate(classes, 1)}},
        "torch": torch.__version__,
    }
    save_json(out / "predict.json", {**sections, **facts})
