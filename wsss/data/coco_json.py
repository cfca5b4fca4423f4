"""Reads COCO's instances JSON into compact records (Lin et al., ECCV 2014; format of 2014).

The file is parsed entry by entry into small records, so that polygons are packed arrays and not
Python lists: the 600,000 annotations of train2014 take a fraction of what plain JSON would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from wsss.data.scan import Findings

FOLDER = PurePosixPath("annotations")
PREFIX, SUFFIX = "instances_", ".json"
# A polygon needs three points.
POLYGON = 6


@dataclass(frozen=True, slots=True)
class Runs:
    """A run-length encoding over columns: ``size`` (H, W); ``counts`` as numbers, or compressed."""

    size: tuple[int, int]
    counts: np.ndarray | bytes


@dataclass(frozen=True, slots=True)
class Region:
    """One annotation: an instance, or a crowd of them.

    ``category`` is the id in the file, ``area`` in pixels (None where the file has none),
    ``shape`` polygons as flat x, y arrays, or runs.
    """

    id: int
    category: int
    crowd: bool
    area: float | None
    shape: tuple[np.ndarray, ...] | Runs

    @property
    def empty(self) -> bool:
        """Whether there is no outline at all, not even a damaged one."""
        return not isinstance(self.shape, Runs) and not self.shape


@dataclass(frozen=True, slots=True)
class Picture:
    """One image: ``file`` is its name in the folder of the set, ``size`` (H, W)."""

    id: int
    file: str
    size: tuple[int, int]

    @property
    def stem(self) -> str:
        """The file's name without extension, by which the image is known."""
        return PurePosixPath(self.file).stem


@dataclass(frozen=True, slots=True)
class _Annotated:
    """An annotation and the image it belongs to, as parsed."""

    image: int
    region: Region


@dataclass(frozen=True)
class Instances:
    """One set: pictures and categories by id, and the regions of each picture by its id."""

    name: str
    categories: dict[int, str]
    pictures: dict[int, Picture]
    regions: dict[int, tuple[Region, ...]]


class _Malformed:
    """Stands for an entry that lacks a field or has one of a wrong type."""

    def __init__(self, entry: Mapping[str, Any], error: Exception) -> None:
        self.text = f"{error!r} in entry {entry.get('id', '?')}"


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _shape(value: Any) -> tuple[np.ndarray, ...] | Runs:
    if isinstance(value, Runs):
        return value
    if not isinstance(value, list):
        raise TypeError(f"segmentation is a {type(value).__name__}")
    return tuple(np.asarray(polygon, dtype=np.float64) for polygon in value if len(polygon))


def runs_of(entry: Mapping[str, Any]) -> Runs:
    """The runs of a parsed RLE object; KeyError, TypeError or ValueError if it is none."""
    height, width = entry["size"]
    counts = entry["counts"]
    packed = counts.encode() if isinstance(counts, str) else np.asarray(counts, dtype=np.int64)
    return Runs((_number(height), _number(width)), packed)


def _annotated(entry: Mapping[str, Any]) -> _Annotated:
    area = entry.get("area")
    region = Region(
        id=_number(entry["id"]),
        category=_number(entry["category_id"]),
        crowd=bool(entry.get("iscrowd", 0)),
        area=None if area is None else float(area),
        shape=_shape(entry["segmentation"]),
    )
    return _Annotated(_number(entry["image_id"]), region)


def _picture(entry: Mapping[str, Any]) -> Picture:
    name = entry["file_name"]
    if not isinstance(name, str) or not PurePosixPath(name).stem or ".." in name.split("/"):
        raise TypeError(f"{name!r} is no file name")
    return Picture(_number(entry["id"]), name, (_number(entry["height"]), _number(entry["width"])))


def _compact(entry: dict[str, Any]) -> Any:
    """Turn a parsed JSON object into its record; what is none of ours stays as it is."""
    try:
        if "counts" in entry and "size" in entry:
            return runs_of(entry)
        if "image_id" in entry:
            return _annotated(entry)
        if "file_name" in entry:
            return _picture(entry)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return _Malformed(entry, error)
    return entry


def names(root: Path) -> list[str]:
    """Names of the sets that ``root`` has an instances JSON of, sorted."""
    files = (root / FOLDER).glob(f"{PREFIX}*{SUFFIX}")
    return sorted(path.name.removeprefix(PREFIX).removesuffix(SUFFIX) for path in files)


def path_of(root: Path, name: str) -> Path:
    """The instances JSON of a set."""
    return root / FOLDER / f"{PREFIX}{name}{SUFFIX}"


def load(root: Path, name: str, findings: Findings) -> Instances | None:
    """Read a set; whatever is wrong with it is a finding. None if nothing of it can be used."""
    path = path_of(root, name)
    try:
        content = json.loads(path.read_bytes(), object_hook=_compact)
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        lacking = [
            key
            for key in ("images", "annotations", "categories")
            if not isinstance(content.get(key), list)
        ]
        if lacking:
            raise ValueError(f"no list named {', '.join(lacking)}")
    except (OSError, ValueError, RecursionError) as error:
        findings.add("instances-unreadable", f"{path.name} ({error})")
        return None
    reader = _Reader(path.name, findings)
    categories = reader.categories(content["categories"])
    pictures = reader.pictures(content["images"])
    regions = reader.regions(content["annotations"], pictures, categories)
    return Instances(name, categories, pictures, regions)


@dataclass(frozen=True)
class _Reader:
    """Checks the entries of one file."""

    file: str
    findings: Findings

    def categories(self, entries: list[Any]) -> dict[int, str]:
        """Names by id, in the order of ids."""
        found: dict[int, str] = {}
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                self.findings.add("instances-entry", f"{self.file}: category {entry!r:.60}")
                continue
            try:
                self._unique(found, _number(entry.get("id")), entry["name"], "category")
            except TypeError as error:
                self.findings.add("instances-entry", f"{self.file}: category {error}")
        return dict(sorted(found.items()))

    def pictures(self, entries: list[Any]) -> dict[int, Picture]:
        """Pictures by id, in the order of the file; no two of them share a file name's stem."""
        found: dict[int, Picture] = {}
        stems: set[str] = set()
        for entry in entries:
            if not isinstance(entry, Picture):
                self._malformed("image", entry)
            elif entry.stem in stems:
                self.findings.add("instances-duplicate", f"{self.file}: image {entry.file}")
            elif self._unique(found, entry.id, entry, "image"):
                stems.add(entry.stem)
        return found

    def regions(
        self, entries: list[Any], pictures: dict[int, Picture], categories: dict[int, str]
    ) -> dict[int, tuple[Region, ...]]:
        """Regions by the id of their picture, each sorted by id."""
        found: dict[int, list[Region]] = {}
        seen: dict[int, int] = {}
        for entry in entries:
            if not isinstance(entry, _Annotated):
                self._malformed("annotation", entry)
                continue
            region, picture = entry.region, pictures.get(entry.image)
            where = f"{self.file}: annotation {region.id}"
            if picture is None:
                self.findings.add("instances-orphan", f"{where} of image {entry.image}")
            elif region.category not in categories:
                self.findings.add("label-unknown", f"{where}: category {region.category}")
            elif self._unique(seen, region.id, entry.image, "annotation"):
                self._check_shape(region, picture, where)
                found.setdefault(entry.image, []).append(region)
        return {key: tuple(sorted(some, key=lambda r: r.id)) for key, some in found.items()}

    def _check_shape(self, region: Region, picture: Picture, where: str) -> None:
        """Report a region that can be drawn in part only, or not at all."""
        shape = region.shape
        if region.empty:
            self.findings.add("segmentation-empty", where)
        elif isinstance(shape, Runs):
            height, width = picture.size
            if shape.size != picture.size:
                text = f"{shape.size[1]}x{shape.size[0]}, its image {width}x{height}"
                self.findings.add("segmentation-broken", f"{where} is {text}")
            elif not isinstance(shape.counts, bytes) and not sound_counts(shape):
                self.findings.add("segmentation-broken", f"{where}: its runs do not fill the image")
        elif not all(sound_polygon(polygon) for polygon in shape):
            self.findings.add("segmentation-broken", f"{where}: a polygon without three points")

    def _malformed(self, kind: str, entry: Any) -> None:
        reason = entry.text if isinstance(entry, _Malformed) else f"{entry!r:.60}"
        self.findings.add("instances-entry", f"{self.file}: {kind} {reason}")

    def _unique(self, found: dict[int, Any], key: int, value: Any, kind: str) -> bool:
        if key in found:
            self.findings.add("instances-duplicate", f"{self.file}: {kind} {key}")
            return False
        found[key] = value
        return True


def sound_polygon(polygon: np.ndarray) -> bool:
    """Whether a flat x, y array is a polygon of finite points, three or more."""
    flat = polygon.ndim == 1 and polygon.size >= POLYGON and polygon.size % 2 == 0
    return flat and bool(np.isfinite(polygon).all())


def sound_counts(runs: Runs) -> bool:
    """Whether uncompressed runs are not negative and fill their image exactly."""
    counts = runs.counts
    if isinstance(counts, bytes):
        return True
    filled = int(counts.sum()) == runs.size[0] * runs.size[1]
    return counts.ndim == 1 and bool((counts >= 0).all()) and filled
