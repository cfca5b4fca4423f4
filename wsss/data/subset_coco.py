"""A smaller data set in COCO's layout, see :mod:`wsss.data.subset`.

Polygons, boxes and areas are scaled with the images; runs are decoded, scaled like masks and
encoded again. All annotations of an image are kept, whatever classes chose it. A set (what one
instances JSON describes) holds every image of it that is on any list; all other lists become
text files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsss.atomic import atomic_path
from wsss.data import coco_json, images
from wsss.data.coco import LISTS, Annotations
from wsss.data.coco_json import Region
from wsss.data.coco_masks import decode_region
from wsss.data.lists import read_list
from wsss.data.scan import Findings
from wsss.data.shrink import shrink_ids, shrink_image, shrunk
from wsss.data.subset import Lists, Size, write_lists
from wsss.errors import UserError

Entry = dict[str, Any]


class CocoLayout:
    """A COCO folder to take images from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        findings = Findings()
        sets = [coco_json.load(root, name, findings) for name in coco_json.names(root)]
        self._all = Annotations([one for one in sets if one is not None], findings)
        for problem in findings.problems():
            if problem.severity == "error":
                raise UserError(f"--source-root: {str(problem).removeprefix('error: ')}")
        self._sets = {one.name: one for one in self._all.sets}
        self.classes = tuple(self._all.categories.values())

    def ids(self, name: str) -> list[str]:
        """The images of a set or of a text list."""
        if name in self._sets:
            return [picture.stem for picture in self._sets[name].pictures.values()]
        lines = read_list(self.root / LISTS / f"{name}.txt", Findings())
        if lines is None:
            raise UserError(f"--lists: {name} is none of {', '.join(self._sets)}, no {LISTS}/*.txt")
        return [self.resolve(line) for line in lines]

    def resolve(self, line: str) -> str:
        """The image that a line names by its file's stem or its number."""
        return self._all.identifier(line)

    def shows(self, identifier: str, classes: set[str]) -> bool:
        """Whether an image has an annotation of one of the classes."""
        if identifier not in self._all.entries:
            raise UserError(f"no annotations describe {identifier}: take it off the list")
        return bool(self._all.tags(identifier) & classes)

    def writer(self, out: Path, size: Size) -> Callable[[str], object]:
        """Writes the photo of one image."""
        paths = {identifier: entry.path for identifier, entry in self._all.entries.items()}
        return _Writer(self.root, out, size, paths)

    def finish(self, out: Path, lists: Lists, size: Size) -> None:
        """Write the annotations of every set and the lists that are none."""
        used = {identifier for ids in lists.values() for identifier in ids}
        write_lists(out / LISTS, {n: ids for n, ids in lists.items() if n not in self._sets})
        for name, one in self._sets.items():
            keys = {key for key, picture in one.pictures.items() if picture.stem in used}
            if keys:
                content = json.loads(coco_json.path_of(self.root, name).read_bytes())
                reduced = reduce_instances(content, keys, size.side)
                with atomic_path(coco_json.path_of(out, name)) as temporary:
                    temporary.write_text(json.dumps(reduced, separators=(",", ":")))


@dataclass(frozen=True)
class _Writer:
    """Makes one image's file."""

    root: Path
    out: Path
    size: Size
    paths: dict[str, str]

    def __call__(self, identifier: str) -> None:
        path = self.paths[identifier]
        data = images.read_bytes(self.root, path)
        payload = shrink_image(data, path, self.size.side, self.size.quality)
        with atomic_path(self.out / path) as temporary:
            temporary.write_bytes(payload)


def reduce_instances(content: Entry, keys: set[int], side: int) -> Entry:
    """The entries of the images ``keys`` of an instances JSON, at a longest side in pixels."""
    pictures = [entry for entry in content["images"] if entry["id"] in keys]
    sizes = {e["id"]: (int(e["height"]), int(e["width"])) for e in pictures}
    smaller = [
        {**entry, "height": size[0], "width": size[1]}
        for entry in pictures
        for size in [shrunk(sizes[entry["id"]], side)]
    ]
    regions = [
        _reduce_region(entry, sizes[entry["image_id"]], side)
        for entry in content["annotations"]
        if entry["image_id"] in keys
    ]
    return {**content, "images": smaller, "annotations": regions}


def _reduce_region(entry: Entry, before: tuple[int, int], side: int) -> Entry:
    after = shrunk(before, side)
    if after == before:
        return entry
    down, across = after[0] / before[0], after[1] / before[1]
    shape = entry["segmentation"]
    changed: Entry = {"segmentation": _reduce_shape(shape, before, after)}
    if isinstance(entry.get("area"), int | float):
        changed["area"] = round(entry["area"] * down * across, 2)
    if entry.get("bbox"):
        changed["bbox"] = _scaled(entry["bbox"], across, down)
    return {**entry, **changed}


def _scaled(numbers: list[float], across: float, down: float) -> list[float]:
    """Alternating x and y (or widths and heights), to a hundredth of a pixel as in COCO."""
    return [round(v * (down if k % 2 else across), 2) for k, v in enumerate(numbers)]


def _reduce_shape(shape: Any, before: tuple[int, int], after: tuple[int, int]) -> Any:
    down, across = after[0] / before[0], after[1] / before[1]
    if isinstance(shape, list):
        return [_scaled(polygon, across, down) for polygon in shape]
    pixels = decode_region(Region(0, 0, True, None, coco_json.runs_of(shape)), before)
    smaller = shrink_ids(pixels, after)
    if isinstance(shape["counts"], str):
        from pycocotools import mask as coco

        counts = coco.encode(np.asfortranarray(smaller))["counts"].decode()
        return {"size": list(after), "counts": counts}
    return {"size": list(after), "counts": _counts(smaller)}


def _counts(pixels: np.ndarray) -> list[int]:
    """Lengths of the runs of an (H, W) array of 0 and 1 over columns, zeros first."""
    flat = pixels.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths
