"""Pictures of a few fixed images: through all stages for a variant, of one stage for a stage."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from functools import cached_property

from wsss.data.manifest import Item, Manifest
from wsss.errors import UserError
from wsss.pictures.opening import open_story
from wsss.pictures.panels import Panel, sheet
from wsss.pictures.story import Story, legend_entries
from wsss.stages.ownership import passed_stages
from wsss.tracking.records import File, digest
from wsss.tracking.results import Results, file_hash

# Drawn by lot once and for all: the same images in every variant.
_LOT = b"0"
_ALWAYS = ("image", "ground truth")
# How the titles of a stage's panels begin.
TITLES = {
    "cam": ("CAM",),
    "seeds_alpha": ("seeds,",),
    "seeds_confident": ("confident seeds",),
    "seeds_label": ("label-CRF seeds",),
    "edges": ("boundary",),
    "walk": ("walk",),
    "pseudo": ("pseudo mask",),
    "predict": ("prediction, ",),
    "crf": ("prediction + CRF",),
}
_REPORTED = ("predict", "crf")


class Gallery:
    """Draws the chosen images of one variant and seed when their bytes are asked for.

    Args:
        results: what is drawn.
        count: images of the list that CAMs and pseudo masks are scored on, and as many of the
            list that predictions are scored on.
    """

    def __init__(self, results: Results, count: int) -> None:
        self.results, self.count = results, count

    @cached_property
    def story(self) -> Story:
        """The artifacts, opened; UserError if the data set is not there."""
        return open_story(self.results.params, self.results.variant, self.results.seed)

    def variant(self) -> tuple[File, ...]:
        """One picture an image, through all stages."""
        items = [*self._chosen("seed"), *self._chosen("val")]
        stages = [s for s in passed_stages(self.results.config) if self._hashes(s)]
        titles = tuple(title for stage in stages for title in TITLES.get(stage, ()))
        return tuple(self._file(item, stages, titles) for item in dict.fromkeys(items))

    def stage(self, stage: str) -> tuple[File, ...]:
        """One picture an image of what a stage made of it."""
        if stage not in TITLES:
            return ()
        items = self._chosen("val" if stage in _REPORTED else "seed")
        return tuple(self._file(item, [stage], TITLES[stage]) for item in items)

    def _chosen(self, role: str) -> list[Item]:
        manifest = self.story.manifest
        plays = (
            manifest.roles["train"] if manifest.roles.get(role) is None else manifest.roles[role]
        )
        return draw_lots(manifest, plays, self.count)

    def _hashes(self, stage: str) -> list[str]:
        paths = self.results.outputs(stage, shared=True)
        return [file_hash(path) for path in paths if path.is_file()]

    def _file(self, item: Item, stages: Sequence[str], titles: tuple[str, ...]) -> File:
        story = self.story
        facts = [
            *(item.id, story.manifest.data_hash, list(stages), story.threshold),
            *(story.walk_threshold, {stage: self._hashes(stage) for stage in stages}),
        ]
        name = f"pictures/{item.id.replace('/', '_')}.png"
        return File(name, digest(json.dumps(facts).encode()), self._drawing(item, titles))

    def _drawing(self, item: Item, titles: tuple[str, ...]) -> Callable[[], bytes]:
        def draw() -> bytes:
            told = self.story.tell(item)
            panels = [panel for panel in told.panels if _shown(panel, titles)]
            where = f"{self.results.variant}, seed {self.results.seed}"
            heading = f"{item.id}: {', '.join(item.labels) or 'no tag'}  ({where})"
            buffer = io.BytesIO()
            entries = legend_entries(self.story.manifest, told.shown)
            sheet(heading, panels, entries).save(buffer, "PNG")
            return buffer.getvalue()

        return draw


def _shown(panel: Panel, titles: tuple[str, ...]) -> bool:
    return panel.title.startswith((*_ALWAYS, *titles))


def draw_lots(manifest: Manifest, split: str | None, count: int) -> list[Item]:
    """Return ``count`` images of a list, tagged ones first, the same every time."""
    items = manifest.split(split) if split is not None else []

    def lot(item: Item) -> tuple[bool, bytes]:
        return not item.labels, hashlib.blake2b(item.id.encode(), key=_LOT, digest_size=8).digest()

    return sorted(sorted(items, key=lot)[:count], key=lambda item: item.id)


def gallery_of(results: Results, count: int) -> Gallery | None:
    """Return the pictures of a run; None where none are wanted or the data set is not at hand."""
    gallery = Gallery(results, count)
    try:
        if not count or not gallery.story.manifest.items:
            return None
        gallery.story.manifest.read_image(gallery.story.manifest.items[0])
    except UserError:
        return None
    return gallery
