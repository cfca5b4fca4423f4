"""MS COCO 2014 in its own folder layout, or any set of images in that format.

``annotations/instances_NAME.json`` describes the images in the folder ``NAME``; NAME is a list
(``train2014``, ``val2014``). Further lists are text files ``lists/NAME.txt`` with an id, a file
name or COCO's number of an image per line. The id of an image is its file name's stem.

Classes are the file's categories in the order of their ids, so that COCO's 80 categories, which
are numbered from 1 to 90, become 1 to 80 in masks. Tags are the categories of all of an image's
annotations, crowds included, as in the label files in use in the field, which are made from
``getAnnIds`` without a filter (IRNet and RIB on COCO); that gives the 82,081 of 82,783 training
images with a label that papers train on. Images without a label are left off every list that
plays ``train``; on other lists they stay, with a mask of nothing but background.

Masks are drawn by the manifest stage, see :mod:`wsss.data.coco_masks`. They always hold all
classes: with ``data.classes`` the others count as background, their crowds remain 255.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from wsss.data import coco_json
from wsss.data.coco_json import Instances, Picture, Region
from wsss.data.coco_masks import ARCHIVE, Drawing, Job, draw, write_masks
from wsss.data.images import MEMBER
from wsss.data.lists import read_list
from wsss.data.manifest import Item, Manifest, unwritable
from wsss.data.scan import (
    MAX_CLASSES,
    Findings,
    Scan,
    check_names,
    check_roles,
    lists_of_roles,
    memberships,
    named_roles,
)

if TYPE_CHECKING:
    from wsss.config.schema import Data

LISTS = PurePosixPath("lists")


@dataclass(frozen=True)
class _Entry:
    """One image with the set it belongs to."""

    folder: str
    picture: Picture
    regions: tuple[Region, ...]

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.picture.file}"


class Annotations:
    """All sets in use, by image id; ``categories`` maps category ids to names, in order."""

    def __init__(self, sets: list[Instances], findings: Findings) -> None:
        self.sets = sets
        self.categories = sets[0].categories if sets else {}
        self.values = {key: value for value, key in enumerate(self.categories, 1)}
        self.entries: dict[str, _Entry] = {}
        self._ids: dict[str, str] = {}
        for one in sets:
            if one.categories != self.categories:
                findings.add("instances-categories", f"{sets[0].name} and {one.name}")
            for key, picture in one.pictures.items():
                entry = _Entry(one.name, picture, one.regions.get(key, ()))
                if self.entries.setdefault(picture.stem, entry) is not entry:
                    findings.add("instances-duplicate", f"{entry.path} and another set's image")
                self._ids.setdefault(str(key), picture.stem)

    def identifier(self, text: str) -> str:
        """The image that a line of a list names, by stem or by number; else the line itself."""
        return text if text in self.entries else self._ids.get(text.lstrip("0") or "0", text)

    def tags(self, identifier: str) -> set[str]:
        """Names of the categories of all annotations of an image."""
        regions = self.entries[identifier].regions if identifier in self.entries else ()
        return {self.categories[r.category] for r in regions if r.category in self.categories}

    def drawing(self, identifier: str) -> Drawing:
        """What an image's mask is drawn from."""
        entry = self.entries[identifier]
        # Categories that a second file has differently are findings; they are not drawn.
        known = tuple(r for r in entry.regions if r.category in self.values)
        return Drawing(entry.picture.size, known, tuple(self.values[r.category] for r in known))


def build(cfg: Data, data_dir: Path, processes: int = 1) -> Manifest:
    """Draw ``masks.zip`` into ``data_dir``; the manifest is not yet saved.

    UserError if anything is wrong with the annotations or files.
    """
    result, annotations = _scan(cfg, data_dir)
    result.stop_at_errors()
    root = Path(cfg.root or "")
    jobs: list[Job] = [(item.id, annotations.drawing(item.id)) for item in result.items]
    files = [coco_json.path_of(root, one.name) for one in annotations.sets]
    write_masks(Path(data_dir) / ARCHIVE, jobs, files, processes)
    return result.manifest()


def scan(cfg: Data, data_dir: Path | None = None) -> Scan:
    """Read annotations, lists and file names of ``cfg.root``; no image is decoded."""
    return _scan(cfg, data_dir)[0]


def _scan(cfg: Data, data_dir: Path | None) -> tuple[Scan, Annotations]:
    findings = Findings()
    root = Path(cfg.root or "")
    wanted = lists_of_roles(cfg.splits)
    annotations = Annotations(_sets(cfg.root, root, wanted, findings), findings)
    selected = _selected(cfg.classes, annotations, findings)
    lists = _lists(root, wanted, annotations, findings) if annotations.sets else {}
    _leave_out(lists, wanted, annotations, selected, findings)
    values = {name: annotations.values[key] for key, name in annotations.categories.items()}

    def read_mask(item: Item) -> np.ndarray:
        return draw(annotations.drawing(item.id))

    result = Scan(
        source="coco",
        root=root,
        classes=selected,
        mask_values=tuple(values[name] for name in selected),
        background_values=tuple(v for name, v in values.items() if name not in selected),
        roles=named_roles(wanted),
        items=tuple(_items(root, memberships(lists, wanted), annotations, selected, findings)),
        findings=findings,
        mask_root=Path(data_dir or ""),
        draw_mask=read_mask,
    )
    missing = [role for role, names in wanted.items() if any(n not in lists for n in names)]
    check_roles(result, missing, subset=cfg.classes is not None)
    return result, annotations


def _sets(
    configured: str | None,
    root: Path,
    wanted: Mapping[str, tuple[str, ...]],
    findings: Findings,
) -> list[Instances]:
    """The sets that the lists in use need: themselves, or all where a text file names images."""
    known = coco_json.names(root) if configured else []
    if not known:
        where = root / coco_json.FOLDER / "instances_*.json" if configured else "data.root"
        findings.add("root-missing", f"{where} not found")
        return []
    lists = {name for names in wanted.values() for name in names}
    needed = known if lists - {*known} else sorted(lists)
    loaded = [coco_json.load(root, name, findings) for name in needed]
    return [one for one in loaded if one is not None]


def _selected(
    chosen: list[str] | None, annotations: Annotations, findings: Findings
) -> tuple[str, ...]:
    """The chosen classes in the configured order; all categories by default."""
    categories = list(annotations.categories.values())
    check_names(findings, categories)
    if chosen is None:
        return tuple(dict.fromkeys(categories))[:MAX_CLASSES]
    check_names(findings, chosen)
    if annotations.sets:
        for name in chosen:
            if name not in categories:
                findings.add("class-unknown", repr(name))
    return tuple(dict.fromkeys(name for name in chosen if name in categories))


def _lists(
    root: Path,
    wanted: Mapping[str, tuple[str, ...]],
    annotations: Annotations,
    findings: Findings,
) -> dict[str, list[str]]:
    """The ids of every list in use that can be found; the others are findings."""
    lists: dict[str, list[str]] = {}
    own = {one.name: one for one in annotations.sets}
    described = coco_json.names(root)
    for name in sorted({name for names in wanted.values() for name in names}):
        if name in described:
            if name in own:  # one that cannot be read has been reported
                lists[name] = [picture.stem for picture in own[name].pictures.values()]
            continue
        lines = read_list(root / LISTS / f"{name}.txt", findings)
        if lines is None:
            texts = (path.stem for path in (root / LISTS).glob("*.txt"))
            known = ", ".join(sorted({*described, *texts}))
            findings.add("list-missing", f"{LISTS / name}.txt (lists found: {known})")
            continue
        lists[name] = list(dict.fromkeys(annotations.identifier(line) for line in lines))
    return lists


def _leave_out(
    lists: dict[str, list[str]],
    wanted: Mapping[str, tuple[str, ...]],
    annotations: Annotations,
    selected: tuple[str, ...],
    findings: Findings,
) -> None:
    """Take images without a label off the lists that are trained on."""
    classes = {*selected}
    for name in wanted.get("train", ()):
        if name not in lists:
            continue
        kept = []
        for identifier in lists[name]:
            # An image without an entry stays: that it is missing is reported elsewhere.
            if identifier in annotations.entries and not annotations.tags(identifier) & classes:
                findings.add("unlabelled-left-out", f"{name}: {identifier}")
            else:
                kept.append(identifier)
        lists[name] = kept


def _items(
    root: Path,
    members: dict[str, tuple[str, ...]],
    annotations: Annotations,
    selected: tuple[str, ...],
    findings: Findings,
) -> Iterator[Item]:
    """The images on the lists, sorted by id, with their tags."""
    folders = {one.name: _files(root / one.name) for one in annotations.sets}
    for identifier in sorted(members):
        entry = annotations.entries.get(identifier)
        if entry is None:
            findings.add("list-unknown", f"{', '.join(members[identifier])}: {identifier}")
            continue
        name = entry.picture.file
        there = name in folders[entry.folder] if "/" not in name else (root / entry.path).is_file()
        if not there:
            findings.add("image-missing", entry.path)
        if unwritable(entry.path):
            findings.add("instances-entry", f"{entry.path!r}: control characters in a file name")
        tags = annotations.tags(identifier)
        yield Item(
            id=identifier,
            image=entry.path,
            mask=f"{ARCHIVE}{MEMBER}{identifier}.png",
            labels=tuple(name for name in selected if name in tags),
            splits=members[identifier],
        )


def _files(folder: Path) -> set[str]:
    """The names in a folder; one listing is faster than a look-up per image."""
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()
