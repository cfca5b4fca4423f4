"""Any store as label maps: what kind it is, whose classes it speaks of, where it is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wsss.artifacts import ArrayStore, MaskStore, load_json
from wsss.data.manifest import Manifest
from wsss.errors import UserError
from wsss.labels import IGNORE
from wsss.metrics.sweep import apply_threshold, top_foreground
from wsss.opened import open_once
from wsss.refine.resize import resize_bilinear

if TYPE_CHECKING:
    from wsss.metrics.tally import Kind

# What a stage's array store holds: activations of ids 0..C-1, or scores of ids 0..C.
_KINDS: dict[str, Kind] = {"cam": "cams", "walk": "scores", "predict": "scores"}
_NO_CLASSES = {"irnet": "class-agnostic maps, which have no classes to export: see `wsss explain`"}


class Labelled(NamedTuple):
    """One image: its (H, W) mask of ids 0..C or 255, and full-size maps of ``classes`` (mask ids
    of the channels), none for mask stores."""

    id: str
    mask: np.ndarray
    maps: np.ndarray
    classes: list[int]

    def score(self, class_id: int, where: np.ndarray) -> float:
        """The mean of a class over the pixels ``where``; 1 where nothing but a mask is known."""
        if class_id not in self.classes:
            return 1.0
        values = self.maps[self.classes.index(class_id)][where]
        return round(float(values.mean(dtype=np.float64)), 6)


@dataclass(frozen=True)
class Opened:
    """A store with all that is needed to read it; ``threshold`` for activations only."""

    path: Path
    kind: Kind
    manifest: Manifest
    threshold: float | None

    @property
    def ids(self) -> list[str]:
        """Image ids in order."""
        return self._store.ids

    def images(self) -> Iterator[Labelled]:
        """Every image in the order of ids, one in memory at a time."""
        for identifier in self.ids:
            yield self._read(identifier)

    def _read(self, identifier: str) -> Labelled:
        reader = self._store
        if isinstance(reader, MaskStore):
            mask = reader.get(identifier)
            self._check(int(np.where(mask == IGNORE, 0, mask).max(initial=0)))
            return Labelled(identifier, mask, np.zeros((0, *mask.shape), np.float32), [])
        entry = reader.get(identifier)
        maps = resize_bilinear(entry.array, entry.size)
        first = 1 if self.kind == "cams" else 0
        classes = [c + first for c in entry.classes]
        self._check(max(classes, default=0))
        if self.kind == "scores":
            winner = np.asarray(classes, np.uint8)[maps.argmax(0)]
            return Labelled(identifier, winner, maps, classes)
        top, score = top_foreground(maps, entry.classes)
        assert self.threshold is not None
        return Labelled(identifier, apply_threshold(top, score, self.threshold), maps, classes)

    @property
    def _store(self) -> ArrayStore | MaskStore:
        # Per image: the table of contents of a large store is read once.
        if self.kind == "masks":
            return open_once(MaskStore, self.path)
        return open_once(ArrayStore, self.path)

    def _check(self, highest: int) -> None:
        if highest > self.manifest.num_classes:
            raise UserError(
                f"{self.path} holds class {highest}, but the data set has "
                f"{self.manifest.num_classes}: name its own folder with --data-dir"
            )

    def name(self, class_id: int) -> str:
        """The class name of a mask id 1..C."""
        return self.manifest.classes[class_id - 1]

    def file_id(self, class_id: int) -> int:
        """The id of a class in the data set's own mask files."""
        return self.manifest.mask_values[class_id - 1]


def open_store(
    path: Path, data_dir: Path | None, threshold: float | None, kind: Kind | None, boxes: bool
) -> Opened:
    """Find out what ``path`` is.

    Args:
        path: a store of the pipeline.
        data_dir: folder of manifest.csv and dataset.json; None: beside the results it lies in.
        threshold: of activations; None: the tuned one in the metrics beside it.
        kind: what an array store holds; None: known by its stage's folder.
        boxes: the threshold tuned for boxes comes first.

    Raises:
        UserError: no store, no data folder, no threshold, or no classes in it.
    """
    index = ArrayStore(path).index
    if not index:
        raise UserError(f"{path} holds no image: there is nothing to export")
    folder = path.absolute().parent
    stage = folder.parent if folder.name == "shards" else folder
    manifest = Manifest.load(_data_dir(path, data_dir), Path())
    if isinstance(next(iter(index.values())), list):
        return Opened(path, "masks", manifest, None)
    if stage.name in _NO_CLASSES and kind is None:
        raise UserError(f"{path} holds {_NO_CLASSES[stage.name]}")
    found = kind or _KINDS.get(stage.name)
    if found is None:
        raise UserError(f"{path}: say with --kind whether it holds cams or scores")
    if found == "cams" and threshold is None:
        threshold = _tuned(stage.parent / "metrics", boxes)
    return Opened(path, found, manifest, threshold)


def _data_dir(path: Path, given: Path | None) -> Path:
    if given is not None:
        return given
    for parent in path.absolute().parents:
        if (parent / "data" / "dataset.json").is_file():
            return parent / "data"
    raise UserError(
        f"{path}: no folder above it holds data/dataset.json: name the data set's with --data-dir"
    )


def _tuned(metrics: Path, boxes: bool) -> float:
    names = (["boxes"] if boxes else []) + ["cam_tune"]
    for name in names:
        path = metrics / f"{name}.json"
        if path.is_file():
            return float(load_json(path)["threshold"])
    raise UserError(
        f"activations need a threshold: give --threshold, or run `wsss evaluate {names[-1]}`, "
        f"which writes {metrics / names[-1]}.json"
    )
