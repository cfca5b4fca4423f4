"""Masks from COCO's annotations: outlines become palette PNGs, drawn once, in one archive.

Rule of overlaps: of two instances on a pixel the one with the smaller ``area`` (as the file
states it; pixels where it states none) is on top, and of equal ones that with the larger id.
Pixels of a crowd are 255 whatever else is drawn there, because a crowd's outline encloses many
objects and what lies between them.

Outlines are decoded by pycocotools, whose rasterisation is the one COCO is scored with.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.artifacts import MaskStoreWriter, encode_mask, merge_stores
from wsss.data.coco_json import Region, Runs, sound_counts, sound_polygon
from wsss.errors import UserError
from wsss.labels import IGNORE
from wsss.parallel import ordered_map
from wsss.provenance import code_hash

ARCHIVE = "masks.zip"
# Masks in one part of an unfinished archive; an interrupted run loses less than one part.
PART = 1024


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the mask of an image is drawn from: its (H, W), its regions and their mask ids."""

    size: tuple[int, int]
    regions: tuple[Region, ...]
    values: tuple[int, ...]


Job = tuple[str, Drawing]


def decode_region(region: Region, size: tuple[int, int]) -> np.ndarray:
    """The pixels of a region, (H, W) uint8 of 0 and 1.

    Polygons without three points are left out. Raises UserError if runs do not fit the image.
    """
    from pycocotools import mask as coco

    height, width = size
    shape = region.shape
    if isinstance(shape, Runs):
        if shape.size != size or not sound_counts(shape):
            raise UserError(f"annotation {region.id}: its runs do not fill an image of {size}")
        coded = {"size": [height, width], "counts": shape.counts}
        if not isinstance(shape.counts, bytes):
            coded = coco.frPyObjects({**coded, "counts": shape.counts.tolist()}, height, width)
    else:
        # As arrays of two dimensions pycocotools would take four numbers for a box.
        polygons = [polygon.tolist() for polygon in shape if sound_polygon(polygon)]
        if not polygons:
            return np.zeros(size, np.uint8)
        coded = coco.merge(coco.frPyObjects(polygons, height, width))
    try:
        pixels: np.ndarray = coco.decode(coded)
    except ValueError as error:
        raise UserError(f"annotation {region.id}: its runs cannot be decoded ({error})") from error
    return pixels


def draw(drawing: Drawing) -> np.ndarray:
    """The mask of an image, (H, W) uint8: 0, the ids of ``drawing.values`` and 255."""
    decoded = [decode_region(region, drawing.size) for region in drawing.regions]
    areas = [
        float(pixels.sum()) if region.area is None else region.area
        for region, pixels in zip(drawing.regions, decoded, strict=True)
    ]
    mask = np.zeros(drawing.size, np.uint8)
    regions = drawing.regions
    for index in sorted(range(len(regions)), key=lambda k: (-areas[k], regions[k].id)):
        if not regions[index].crowd:
            mask[decoded[index] > 0] = drawing.values[index]
    for region, pixels in zip(regions, decoded, strict=True):
        if region.crowd:
            mask[pixels > 0] = IGNORE
    return mask


def _encoded(drawing: Drawing) -> bytes:
    return encode_mask(draw(drawing))


def write_masks(path: Path, jobs: Sequence[Job], sources: Iterable[Path], processes: int) -> None:
    """Draw all masks into ``path``, a mask store; interrupted, the same call continues.

    The same annotations give the same bytes, whatever the number of processes. Finished parts
    wait in a folder whose name holds the hash of ``sources`` (the annotation files), of the ids
    and of the code, so that nothing stale is ever taken up.
    """
    folder = path.parent / ".state"
    parts = []
    unfinished = folder / f"masks-{_key(jobs, sources)}"
    for number, start in enumerate(range(0, len(jobs), PART)):
        part = unfinished / f"{number:05d}.zip"
        parts.append(part)
        if not part.is_file():
            _write_part(part, jobs[start : start + PART], processes)
    merge_stores(parts, path)
    shutil.rmtree(folder, ignore_errors=True)


def _write_part(path: Path, jobs: Sequence[Job], processes: int) -> None:
    sizes = {identifier: drawing.size for identifier, drawing in jobs}
    with MaskStoreWriter(path) as writer:
        for identifier, payload in ordered_map(_encoded, jobs, processes):
            writer.add_encoded(identifier, payload, sizes[identifier])


def _key(jobs: Sequence[Job], sources: Iterable[Path]) -> str:
    digest = hashlib.blake2b(code_hash("manifest", "").encode(), digest_size=8)
    for source in sources:
        with source.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    for identifier, _ in jobs:
        digest.update(f"{identifier}\n".encode())
    return digest.hexdigest()
