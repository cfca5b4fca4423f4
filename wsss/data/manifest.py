"""The manifest: which images there are, their tags, their masks and the lists they are on.

Two small text files: ``manifest.csv`` has one row an image, ``dataset.json`` what holds for all
of them. Tags and masks reach the rest of the project only through :class:`Manifest`, which is
also the one place where file ids of masks become 1..C and class names become 0..C-1.
"""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wsss.artifacts import load_json, save_csv, save_json
from wsss.atomic import together
from wsss.data import images
from wsss.errors import UserError
from wsss.labels import IGNORE

CSV_NAME = "manifest.csv"
JSON_NAME = "dataset.json"
COLUMNS = ("id", "image", "mask", "labels", "split")
ROLES = ("train", "seed", "tune", "val")
SEPARATOR = ";"
GENERATED = "scenes"
# Sources whose masks are drawn beside the manifest, while images stay where they are.
DRAWN = ("coco",)
_KEYS = ("source", "classes", "mask_values", "background_values", "roles", "data_hash")


@dataclass(frozen=True)
class Item:
    """One image: paths relative to the data root, tags by name, the lists it is on.

    Where a source draws its masks itself, ``mask`` is relative to the manifest's folder.
    """

    id: str
    image: str
    mask: str | None
    labels: tuple[str, ...]
    splits: tuple[str, ...]


def unwritable(name: str) -> bool:
    """Whether a class, list, id or path cannot be kept in the manifest's text files."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in name)


def row_of(item: Item) -> dict[str, str]:
    """The cells of an image's row in manifest.csv."""
    return {
        "id": item.id,
        "image": item.image,
        "mask": item.mask or "",
        "labels": SEPARATOR.join(item.labels),
        "split": SEPARATOR.join(item.splits),
    }


def _item(row: Mapping[str, str]) -> Item:
    def names(cell: str) -> tuple[str, ...]:
        return tuple(cell.split(SEPARATOR)) if cell else ()

    mask = row["mask"] or None
    return Item(row["id"], row["image"], mask, names(row["labels"]), names(row["split"]))


@dataclass(frozen=True)
class Manifest:
    """A data set, read-only; it can be pickled and used across threads and forks.

    ``mask_values`` holds the mask files' id of each class in order, ``background_values`` the
    ids besides 0 that count as background (classes not selected). ``items`` are sorted by id.
    """

    source: str
    root: Path
    classes: tuple[str, ...]
    mask_values: tuple[int, ...]
    background_values: tuple[int, ...]
    roles: dict[str, str | None]
    data_hash: str
    items: tuple[Item, ...] = field(repr=False)
    # The folder of the masks where that is not the data root.
    mask_root: Path | None = None

    @property
    def num_classes(self) -> int:
        """C, the number of foreground classes."""
        return len(self.classes)

    @classmethod
    def load(cls, data_dir: Path, root: Path | None) -> Manifest:
        """Read and validate both files of ``data_dir``.

        Generated data lives in ``data_dir`` itself, other sources need ``root``. Raises UserError.
        """
        where = Path(data_dir) / JSON_NAME
        about = load_json(where)
        if not isinstance(about, dict) or any(key not in about for key in _KEYS):
            raise UserError(f"{where} lacks one of {', '.join(_KEYS)}: run `wsss manifest` again")
        if about["source"] == GENERATED:
            root = Path(data_dir)
        if root is None:
            raise UserError("data.root is not set: point it at the folder of the data set")
        items = tuple(_read_rows(Path(data_dir) / CSV_NAME, about["classes"]))
        return cls(
            source=about["source"],
            root=Path(root),
            classes=tuple(about["classes"]),
            mask_values=tuple(about["mask_values"]),
            background_values=tuple(about["background_values"]),
            roles={name: about["roles"].get(name) for name in ROLES},
            data_hash=about["data_hash"],
            items=items,
            mask_root=Path(data_dir) if about["source"] in DRAWN else None,
        )

    def save(self, data_dir: Path) -> None:
        """Write both files atomically; the same manifest gives the same bytes."""
        rows = [row_of(item) for item in self.items]
        for row in rows:
            if any(unwritable(cell) for cell in row.values()):
                raise UserError(f"image {row['id']!r}: control characters in a name: rename it")
        with together():
            save_csv(Path(data_dir) / CSV_NAME, rows, COLUMNS)
            save_json(Path(data_dir) / JSON_NAME, self._about())

    def _about(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "classes": list(self.classes),
            "mask_values": list(self.mask_values),
            "background_values": list(self.background_values),
            "roles": self.roles,
            "counts": self.counts(),
            "data_hash": self.data_hash,
        }

    def counts(self) -> dict[str, dict[str, Any]]:
        """Images, masks and images per class of every list."""
        result: dict[str, dict[str, Any]] = {}
        for name in sorted({name for item in self.items for name in item.splits}):
            items = self.split(name)
            tags = Counter(label for item in items for label in item.labels)
            result[name] = {
                "images": len(items),
                "masks": sum(item.mask is not None for item in items),
                "per_class": {label: tags[label] for label in self.classes},
            }
        return result

    def split(self, name: str) -> list[Item]:
        """The images of a list, sorted by id; an unknown list is a UserError."""
        items = [item for item in self.items if name in item.splits]
        if not items:
            known = sorted({split for item in self.items for split in item.splits})
            raise UserError(f"no image is on list {name!r}: the lists are {', '.join(known)}")
        return items

    def role(self, name: str) -> list[Item]:
        """The images of the list that plays a role; a role without a list is a UserError."""
        if name not in ROLES:
            raise UserError(f"unknown role {name!r}: the roles are {', '.join(ROLES)}")
        split = self.roles.get(name)
        if split is None:
            raise UserError(f"no list plays the role {name!r}: set data.splits.{name}")
        return self.split(split)

    def union(self, *names: str) -> list[Item]:
        """The images of any of these roles, sorted by id; roles without a list are left out."""
        lists = {self.roles[name] for name in names} - {None}
        return [item for item in self.items if lists & {*item.splits}]

    def seeded(self) -> list[Item]:
        """The images that seeds and pseudo masks are made of: trained on, or scored."""
        return self.union("train", "seed")

    def walked(self) -> list[Item]:
        """The images that maps are made of: those of :meth:`seeded`, and to tune thresholds on."""
        return self.union("train", "seed", "tune")

    @cached_property
    def _by_id(self) -> dict[str, Item]:
        return {item.id: item for item in self.items}

    def item(self, identifier: str) -> Item:
        """The image with this id; an unknown id is a UserError."""
        try:
            return self._by_id[identifier]
        except KeyError as error:
            raise UserError(f"the manifest has no image {identifier!r}") from error

    def present(self, item: Item) -> list[int]:
        """Ascending class ids 0..C-1 of an image's tags."""
        return sorted(self.classes.index(label) for label in item.labels)

    def label(self, item: Item) -> np.ndarray:
        """The tags as a (C,) float32 vector of 0 and 1."""
        vector = np.zeros(self.num_classes, dtype=np.float32)
        vector[self.present(item)] = 1
        return vector

    def read_image(self, item: Item) -> np.ndarray:
        """Upright RGB, (H, W, 3) uint8. UserError names the id and the file."""
        try:
            return images.decode_image(images.read_bytes(self.root, item.image), item.image)
        except images.FileError as error:
            raise UserError(f"image {item.id!r}: {error}") from error

    @cached_property
    def _remap(self) -> tuple[np.ndarray, np.ndarray]:
        """Tables over file ids: the id 0..C or 255 it becomes, and whether it is one at all."""
        return mask_table(self.mask_values, self.background_values)

    def read_mask(self, item: Item) -> np.ndarray:
        """Class ids 0..C and 255 (ignore), (H, W) uint8, of the size of the image.

        UserError names the id and the file when there is no mask or it does not fit.
        """
        if item.mask is None:
            raise UserError(f"image {item.id!r} has no mask: leave it off the lists to be scored")
        try:
            data = images.read_bytes(self.mask_root or self.root, item.mask)
            mask = images.decode_mask(data, item.mask)
            size = images.image_size(images.read_bytes(self.root, item.image), item.image)
        except images.FileError as error:
            raise UserError(f"image {item.id!r}: {error}") from error
        if mask.shape != size:
            raise UserError(
                f"image {item.id!r}: {item.mask} is {mask.shape[1]}x{mask.shape[0]} but "
                f"{item.image} is {size[1]}x{size[0]} (upright): make them the same size"
            )
        target, known = self._remap
        if not known[mask].all():
            strangers = ", ".join(str(i) for i in np.unique(mask[~known[mask]])[:5])
            raise UserError(f"image {item.id!r}: {item.mask} holds {strangers}, which is no class")
        remapped: np.ndarray = target[mask]
        return remapped


def mask_table(
    mask_values: Iterable[int], background_values: Iterable[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Tables over file ids: (256,) uint8 id 0..C or 255 it becomes, (256,) bool whether valid."""
    target = np.zeros(256, dtype=np.uint8)
    known = np.zeros(256, dtype=bool)
    known[[0, IGNORE, *background_values]] = True
    target[IGNORE] = IGNORE
    for index, value in enumerate(mask_values, start=1):
        target[value], known[value] = index, True
    return target, known


def _read_rows(path: Path, classes: list[str]) -> Iterator[Item]:
    """Validated rows of a manifest.csv."""
    try:
        stream = path.open(newline="", encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run `wsss manifest` first") from error
    again = f"restore {path} or run `wsss manifest` again"
    previous = None
    with stream:
        rows = csv.DictReader(stream, strict=True)
        try:
            if tuple(rows.fieldnames or ()) != COLUMNS:
                raise UserError(f"{path}: the columns must be {','.join(COLUMNS)}: {again}")
            for row in rows:
                if None in row or None in row.values():
                    raise UserError(f"{path}:{rows.line_num}: not {len(COLUMNS)} cells: {again}")
                item = _item(row)
                strange = [label for label in item.labels if label not in classes]
                if strange:
                    raise UserError(f"{path}:{rows.line_num}: {strange[0]!r} is no class: {again}")
                if not item.id or not item.image or (previous is not None and item.id <= previous):
                    raise UserError(f"{path}:{rows.line_num}: ids must be sorted, unique: {again}")
                previous = item.id
                yield item
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not readable CSV ({error}): {again}") from error
