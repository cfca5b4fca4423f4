"""What the cost of a run depends on in a data set: how many images, how large, how many tags."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wsss.data.manifest import JSON_NAME, ROLES, Item, Manifest
from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.config import Config
    from wsss.config.schema import Data

# Image files whose size is read, evenly spaced: more would not move the mean.
SAMPLE = 400
# Scenes drawn to see what scenes are like, where none have been generated yet.
SCENES = 12

Size = tuple[int, int]
Lists = Mapping[str, str | None]


class Group(NamedTuple):
    """Some images: how many, their mean and largest number of pixels, mean number of tags."""

    images: int
    pixels: float
    largest: int
    tags: float


@dataclass(frozen=True)
class DataFacts:
    """A data set as far as costs go.

    Attributes:
        origin: where this was read.
        classes: C.
        shape: (H, W), the median of the sampled images.
        groups: the images of each role; ``labelled``, what networks train on; ``seeded``, train
            and seed; ``walked``, train, seed and tune; ``predicted``, val or, without it, train;
            ``all``. A role without a list has no images.
    """

    origin: str
    classes: int
    shape: Size
    groups: Mapping[str, Group]

    def plain(self) -> dict[str, Any]:
        """The same as plain data."""
        groups = {name: group._asdict() for name, group in self.groups.items()}
        shape = list(self.shape)
        return {
            "origin": self.origin,
            "classes": self.classes,
            "shape": shape,
            "groups": {n: {**g, "pixels": round(g["pixels"])} for n, g in groups.items()},
        }


def data_facts(config: Config, data_dir: Path) -> DataFacts:
    """Read the manifest in ``data_dir`` or, where there is none, scan the data set.

    Only headers of :data:`SAMPLE` images are read. Raises UserError where the scan finds errors.
    """
    data = config.data
    if (data_dir / JSON_NAME).is_file():
        root = Path(data.root) if data.root else None
        manifest = Manifest.load(data_dir, root)
        origin = f"{data_dir / JSON_NAME}"
        return facts_of(
            origin, manifest.classes, manifest.items, manifest.roles, _reader(manifest.root)
        )
    if data.source == "scenes":
        return _scenes(data)
    from wsss.data.sources import load_source

    scan = load_source(data.source).scan(data, data_dir)
    scan.stop_at_errors()
    origin = f"a scan of {scan.root}"
    return facts_of(origin, scan.classes, scan.items, scan.roles, _reader(scan.root))


def _reader(root: Path) -> Callable[[Item], Size]:
    from wsss.data import images

    def read(item: Item) -> Size:
        try:
            return images.image_size(images.read_bytes(root, item.image), item.image)
        except images.FileError as error:
            raise UserError(f"image {item.id!r}: {error}; run `wsss data check`") from error

    return read


def facts_of(
    origin: str,
    classes: Sequence[str],
    items: Sequence[Item],
    roles: Lists,
    size: Callable[[Item], Size],
) -> DataFacts:
    """Count ``items`` by role; ``size`` reads an image's (H, W)."""
    if not items:
        raise UserError("the data set has no images: see `wsss data check`")
    chosen = _spread(items, SAMPLE)
    sizes = {item.id: size(item) for item in chosen}
    shapes = list(sizes.values())
    middle = (round(statistics.median(h for h, _ in shapes)),)
    shape = (middle[0], round(statistics.median(w for _, w in shapes)))
    fallback = [h * w for h, w in shapes]
    lists: dict[str, set[str]] = {role: {roles[role] or ""} - {""} for role in ROLES}
    members: dict[str, Iterable[Item]] = {
        role: [item for item in items if lists[role] & {*item.splits}] for role in ROLES
    }
    seeded, walked = lists["train"] | lists["seed"], set().union(*map(lists.get, ROLES[:3]))  # type: ignore[arg-type]
    members |= {
        "labelled": [item for item in members["train"] if item.labels],
        "seeded": [item for item in items if seeded & {*item.splits}],
        "walked": [item for item in items if walked & {*item.splits}],
        "predicted": members["val"] or members["train"],
        "all": items,
    }
    groups = {name: _group(list(found), sizes, fallback) for name, found in members.items()}
    return DataFacts(origin, len(classes), shape, groups)


def _group(items: Sequence[Item], sizes: Mapping[str, Size], fallback: list[int]) -> Group:
    """A list that the sample hardly meets is taken to be like the whole."""
    known = [sizes[item.id][0] * sizes[item.id][1] for item in items if item.id in sizes]
    pixels = known if len(known) >= max(1, min(20, len(items))) else fallback
    tags = sum(len(item.labels) for item in items) / max(1, len(items))
    return Group(len(items), statistics.fmean(pixels), max(fallback), tags)


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    if count >= len(items):
        return list(items)
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]


def _scenes(data: Data) -> DataFacts:
    """Generated scenes before they are: a few are drawn to see their size and tags."""
    from wsss.data.scan import lists_of_roles, memberships, named_roles
    from wsss.data.scenes import CLASSES, SPLITS, draw_scene

    scenes, wanted = data.scenes, lists_of_roles(data.splits)
    drawn = [draw_scene(scenes.seed, "train", n, scenes.size) for n in range(SCENES)]
    names = {split: [f"{split}_{n:06d}" for n in range(getattr(scenes, split))] for split in SPLITS}
    items = [
        Item(name, name, name, drawn[number % SCENES].labels, splits)
        for number, (name, splits) in enumerate(memberships(names, wanted).items())
    ]
    shapes = {item.id: drawn[n % SCENES].mask.shape for n, item in enumerate(items)}

    def size(item: Item) -> Size:
        height, width = shapes[item.id]
        return height, width

    return facts_of("scenes to be generated", CLASSES, items, named_roles(wanted), size)
