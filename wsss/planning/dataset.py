"""What the cost of a run depends on in a data set: how many images, how large, how many tags."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wsss.data.manifest import JSON_NAME, ROLES, Item, Manifest
from wsss.errors import UserError
from wsss.shards import WINDOW

if TYPE_CHECKING:
    from wsss.config import Config
    from wsss.config.schema import Data

# Windows of images, evenly spaced, whose files' sizes are read: more would not move the mean.
# Whole windows, because inference batches images of equal size within them.
WINDOWS = 6
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
        windows: sizes of the sampled images of ``walked`` and ``predicted``, window by window.
        groups: the images of each role; ``labelled``, what networks train on; ``seeded``, train
            and seed; ``walked``, train, seed and tune; ``predicted``, val or, without it, train;
            ``all``. A role without a list has no images.
    """

    origin: str
    classes: int
    shape: Size
    groups: Mapping[str, Group]
    windows: Mapping[str, Sequence[Sequence[Size]]] = field(default_factory=dict)

    def largest_window(self, group: str, batch: int) -> tuple[Size, ...]:
        """The window of a group whose largest batch is largest."""
        windows = self.windows.get(group, ())
        return tuple(max(windows, key=lambda window: largest_batch(window, batch), default=()))

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


def largest_batch(window: Iterable[Size], batch: int) -> int:
    """Pixels of the largest batch that inference makes of a window: images of one size."""
    counts = Counter(window)
    return max((min(n, batch) * h * w for (h, w), n in counts.items()), default=0)


def data_facts(config: Config, data_dir: Path) -> DataFacts:
    """Read the manifest in ``data_dir`` or, where there is none, scan the data set.

    Of :data:`WINDOWS` windows of images the headers are read. Raises UserError where the scan
    finds errors.
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
    members = _members(items, roles)
    windows = {name: _windows(members[name]) for name in ("walked", "predicted")}
    chosen = [item for found in windows.values() for window in found for item in window]
    sizes = {item.id: size(item) for item in {i.id: i for i in chosen}.values()}
    shapes = list(sizes.values())
    middle = (round(statistics.median(h for h, _ in shapes)),)
    shape = (middle[0], round(statistics.median(w for _, w in shapes)))
    fallback = [h * w for h, w in shapes]
    groups = {name: _group(found, sizes, fallback) for name, found in members.items()}
    shown = {n: [[sizes[i.id] for i in w] for w in found] for n, found in windows.items()}
    return DataFacts(origin, len(classes), shape, groups, shown)


def _members(items: Sequence[Item], roles: Lists) -> dict[str, list[Item]]:
    """The images of every group."""
    lists: dict[str, set[str]] = {role: {roles[role] or ""} - {""} for role in ROLES}
    members = {role: [item for item in items if lists[role] & {*item.splits}] for role in ROLES}
    seeded, walked = lists["train"] | lists["seed"], set().union(*map(lists.get, ROLES[:3]))  # type: ignore[arg-type]
    return members | {
        "labelled": [item for item in members["train"] if item.labels],
        "seeded": [item for item in items if seeded & {*item.splits}],
        "walked": [item for item in items if walked & {*item.splits}],
        "predicted": members["val"] or members["train"],
        "all": list(items),
    }


def _windows(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Some of the windows that inference cuts ``items`` into, evenly spaced."""
    found = [items[start : start + WINDOW] for start in range(0, len(items), WINDOW)]
    if len(found) <= WINDOWS:
        return found
    return [found[(2 * n + 1) * len(found) // (2 * WINDOWS)] for n in range(WINDOWS)]


def _group(items: Sequence[Item], sizes: Mapping[str, Size], fallback: list[int]) -> Group:
    """A list that the sample hardly meets is taken to be like the whole."""
    known = [sizes[item.id][0] * sizes[item.id][1] for item in items if item.id in sizes]
    pixels = known if len(known) >= max(1, min(20, len(items))) else fallback
    tags = sum(len(item.labels) for item in items) / max(1, len(items))
    return Group(len(items), statistics.fmean(pixels), max(fallback), tags)


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
