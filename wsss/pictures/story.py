"""One image through all stages of one variant and seed, as panels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from wsss.artifacts import ArrayStore, Entry, MaskStore
from wsss.data.manifest import Item, Manifest
from wsss.labels import IGNORE
from wsss.metrics.sweep import apply_threshold, top_foreground
from wsss.paths import Paths
from wsss.pictures.overlay import grey_map, overlay_heat, overlay_mask
from wsss.pictures.panels import Panel
from wsss.refine.resize import resize_bilinear

Store = TypeVar("Store", ArrayStore, MaskStore)


class Told(NamedTuple):
    """Panels in the order of the stages, the mask ids they show, and what was left out."""

    panels: list[Panel]
    shown: list[int]
    missing: list[str]


@dataclass
class Story:
    """The artifacts of one run.

    ``threshold`` of its CAMs is None where it is not known yet. Where ``walk_cut`` is set, walked
    scores hold no background, and ``walk_threshold`` says what is, as soon as it is known.
    """

    manifest: Manifest
    paths: Paths
    threshold: float | None
    walk_cut: bool = False
    walk_threshold: float | None = None
    _stores: dict[Path, ArrayStore | MaskStore] = field(default_factory=dict)

    def tell(self, item: Item) -> Told:
        """Draw one image. Ground truth is drawn and compared with where there is any."""
        teller = _Teller(self, item)
        panels = [panel for part in teller.parts() for panel in part]
        return Told(panels, sorted(teller.shown), teller.missing)

    def store(self, kind: type[Store], stage: str, name: str) -> Store | None:
        """A store of the run, opened once; None if it does not exist."""
        path = self.paths.store(stage, name)
        if path not in self._stores:
            if not path.is_file():
                return None
            self._stores[path] = kind(path)
        store = self._stores[path]
        assert isinstance(store, kind)
        return store


class _Teller:
    """Draws the panels of one image and remembers what it could not."""

    def __init__(self, story: Story, item: Item) -> None:
        self.story = story
        self.item = item
        self.manifest = story.manifest
        self.image = self.manifest.read_image(item)
        self.truth = self.manifest.read_mask(item) if item.mask else None
        self.shown: set[int] = set()
        self.missing: list[str] = []

    def parts(self) -> Iterator[Iterator[Panel]]:
        """All panels, stage by stage."""
        yield iter([Panel("image", self.image)])
        yield self._cams()
        yield self._mask("seeds, more background (alpha low)", "seeds", "low")
        yield self._mask("seeds, less background (alpha high)", "seeds", "high")
        yield self._mask("confident seeds (cream: unsure)", "seeds", "confident")
        yield self._boundary()
        yield self._walk()
        yield self._mask("label-CRF seeds", "seeds", "crf")
        yield self._mask("pseudo mask", "pseudo", "masks")
        yield self._mask("prediction, scale 1", "predict", "single")
        yield self._prediction()
        yield self._mask("prediction + CRF", "predict", "masks")
        yield self._ground_truth()

    def _get(
        self, kind: type[Store], label: str, stage: str, name: str
    ) -> Entry | np.ndarray | None:
        """What a store holds of this image, or None and a note."""
        store = self.story.store(kind, stage, name)
        if store is None:
            self.missing.append(f"{label} ({stage}/{name}.zip does not exist)")
        elif self.item.id not in store:
            self.missing.append(f"{label} (not made for this image)")
        else:
            return store.get(self.item.id)
        return None

    def _cams(self) -> Iterator[Panel]:
        entry = self._get(ArrayStore, "CAM", "cam", "maps")
        if not isinstance(entry, Entry):
            return
        maps = resize_bilinear(entry.array, entry.size)
        for values, class_id in zip(maps, entry.classes, strict=True):
            yield Panel(f"CAM: {self._name(class_id + 1)}", self._heat(values))
        threshold = self.story.threshold
        if threshold is None:
            self.missing.append("CAM at its threshold (not tuned yet)")
        else:
            label = apply_threshold(*top_foreground(maps, entry.classes), threshold)
            yield self._drawn(f"CAM > {threshold:g}", label)

    def _boundary(self) -> Iterator[Panel]:
        entry = self._get(ArrayStore, "boundary", "irnet", "edges")
        if isinstance(entry, Entry):
            values = resize_bilinear(entry.array, entry.size)[0]
            yield Panel("boundary", grey_map(values))

    def _walk(self) -> Iterator[Panel]:
        entry = self._get(ArrayStore, "random walk", "walk", "scores")
        if not isinstance(entry, Entry):
            return
        maps = resize_bilinear(entry.array, entry.size)
        cut, threshold = self.story.walk_cut, self.story.walk_threshold
        for values, class_id in zip(maps, entry.classes, strict=True):
            if cut or class_id:
                yield Panel(f"walk: {self._name(class_id + cut)}", self._heat(values))
        if not cut:
            yield self._drawn("walk, best class", self._winner(entry, maps))
        elif threshold is None:
            self.missing.append("walk at its threshold (not tuned yet)")
        else:
            label = apply_threshold(*top_foreground(maps, entry.classes), threshold)
            yield self._drawn(f"walk > {threshold:g}", label)

    def _prediction(self) -> Iterator[Panel]:
        entry = self._get(ArrayStore, "prediction, all scales", "predict", "scores")
        if isinstance(entry, Entry):
            maps = resize_bilinear(entry.array, entry.size)
            yield self._drawn("prediction, all scales", self._winner(entry, maps))

    def _mask(self, label: str, stage: str, name: str) -> Iterator[Panel]:
        mask = self._get(MaskStore, label, stage, name)
        if isinstance(mask, np.ndarray):
            yield self._drawn(label, mask)

    def _ground_truth(self) -> Iterator[Panel]:
        if self.truth is None:
            self.missing.append("ground truth (none known)")
        else:
            self.shown |= set(np.unique(self.truth).tolist())
            yield Panel("ground truth", overlay_mask(self.image, self.truth))

    def _drawn(self, title: str, mask: np.ndarray) -> Panel:
        self.shown |= set(np.unique(mask).tolist())
        return Panel(f"{title}{self._score(mask)}", overlay_mask(self.image, mask))

    def _heat(self, values: np.ndarray) -> np.ndarray:
        return overlay_heat(self.image, values)

    def _name(self, class_id: int) -> str:
        return self.manifest.classes[class_id - 1]

    def _winner(self, entry: Entry, maps: np.ndarray) -> np.ndarray:
        winner: np.ndarray = np.asarray(entry.classes, np.uint8)[maps.argmax(0)]
        return winner

    def _score(self, mask: np.ndarray) -> str:
        """The mean IoU over this image's true and drawn classes, background left out."""
        if self.truth is None or self.truth.shape != mask.shape:
            return ""
        known = (self.truth != IGNORE) & (mask != IGNORE)
        truth, drawn = self.truth[known], mask[known]
        ids = {*np.unique(truth).tolist(), *np.unique(drawn).tolist()} - {0}
        if not ids:
            return ""
        both = [
            ((truth == c) & (drawn == c)).sum() / ((truth == c) | (drawn == c)).sum() for c in ids
        ]
        return f" · IoU {100 * float(np.mean(both)):.0f} %"


def legend_entries(manifest: Manifest, shown: list[int]) -> list[tuple[int, str]]:
    """Names of mask ids for a legend, background left out."""
    names = {**dict(enumerate(manifest.classes, start=1)), IGNORE: "ignored"}
    return [(class_id, names[class_id]) for class_id in shown if class_id]
