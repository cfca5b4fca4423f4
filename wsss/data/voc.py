"""PASCAL VOC 2012 in its own folder layout.

Tags are the distinct names of all objects in ``Annotations/<id>.xml``, ``difficult`` ones
included; the parts of a person (head, hand, foot) are nested elements and no classes. Masks come
from ``SegmentationClassAug`` where it has the image, else from ``SegmentationClass``. Lists are
``ImageSets/Segmentation/<name>.txt``; ``train_aug`` (the 10,582 images of Hariharan et al., ICCV
2011, as the field uses them) is put together from VOC's and SBD's lists when it has no file.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from wsss.data.lists import read_list
from wsss.data.manifest import Item, Manifest
from wsss.data.scan import (
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

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
LISTS = PurePosixPath("ImageSets/Segmentation")
TRAIN_AUG = "train_aug"
# File names in use for the augmented list, and for what SBD adds to VOC.
TRAIN_AUG_FILES = ("train_aug", "trainaug")
SBD_FILES = (("sbd",), ("sbd_train", "sbd_val"))
MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")


def build(cfg: Data, data_dir: Path, _processes: int = 1) -> Manifest:
    """The manifest of a VOC folder; UserError if anything is wrong with it."""
    return scan(cfg, data_dir).manifest()


def scan(cfg: Data, _data_dir: Path | None = None) -> Scan:
    """Read lists, tags and file names of ``cfg.root``; nothing is decoded."""
    findings = Findings()
    root = Path(cfg.root or "")
    selected = _selected(cfg.classes, findings)
    wanted = lists_of_roles(cfg.splits)
    lists: dict[str, list[str]] = {}
    if _usable(cfg.root, root, findings):
        names = sorted({name for names in wanted.values() for name in names})
        found = {name: list_ids(root, name, findings) for name in names}
        lists = {name: ids for name, ids in found.items() if ids is not None}
    result = Scan(
        source="voc",
        root=root,
        classes=selected,
        mask_values=tuple(CLASSES.index(name) + 1 for name in selected),
        background_values=tuple(i for i, n in enumerate(CLASSES, 1) if n not in selected),
        roles=named_roles(wanted),
        items=tuple(_items(root, memberships(lists, wanted), selected, findings)),
        findings=findings,
    )
    missing = [role for role, names in wanted.items() if any(n not in lists for n in names)]
    check_roles(result, missing, subset=cfg.classes is not None)
    return result


def _selected(chosen: list[str] | None, findings: Findings) -> tuple[str, ...]:
    """The chosen classes in the configured order; all twenty by default."""
    if chosen is None:
        return CLASSES
    check_names(findings, chosen)
    for name in chosen:
        if name not in CLASSES:
            findings.add("class-unknown", repr(name))
    return tuple(dict.fromkeys(name for name in chosen if name in CLASSES))


def _usable(configured: str | None, root: Path, findings: Findings) -> bool:
    """Whether ``root`` looks like VOC at all; says where it may be instead."""
    if configured and (root / LISTS).is_dir():
        return True
    inner = [p for p in ("VOC2012", "VOCdevkit/VOC2012") if configured and (root / p).is_dir()]
    hint = f"; {root / inner[0]} exists" if inner else ""
    findings.add("root-missing", f"{root / LISTS if configured else 'data.root'} not found{hint}")
    return False


def list_ids(root: Path, name: str, findings: Findings) -> list[str] | None:
    """The ids of a list by name, composed for train_aug; None and a finding if there is none."""
    folder = root / LISTS
    for file in TRAIN_AUG_FILES if name == TRAIN_AUG else (name,):
        ids = read_list(folder / f"{file}.txt", findings)
        if ids is not None:
            return ids
    if name == TRAIN_AUG:
        return _train_aug(folder, findings)
    known = ", ".join(sorted(path.stem for path in folder.glob("*.txt"))) or "none"
    findings.add("list-missing", f"{LISTS / name}.txt (lists found: {known})")
    return None


def _train_aug(folder: Path, findings: Findings) -> list[str] | None:
    """VOC train + SBD - VOC val."""
    voc = [read_list(folder / f"{name}.txt", findings) for name in ("train", "val")]
    for names in SBD_FILES:
        sbd = [read_list(folder / f"{name}.txt", findings) for name in names]
        found = [ids for ids in [*voc, *sbd] if ids is not None]
        if len(found) == len(voc) + len(sbd):
            train, val, *extra = found
            union = dict.fromkeys([*train, *(i for ids in extra for i in ids)])
            scored = set(val)
            return [identifier for identifier in union if identifier not in scored]
    findings.add(
        "list-missing",
        f"{LISTS}/train_aug.txt, or train.txt and val.txt with SBD's sbd.txt "
        "(or sbd_train.txt and sbd_val.txt) beside them to compose it from",
    )
    return None


def _stems(folder: Path, suffix: str) -> set[str]:
    """The ids a folder has files of; one listing is faster than a look-up per image."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return set()
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


def find_masks(root: Path) -> dict[str, str]:
    """The path of the mask of every image that has one, relative to ``root``."""
    masks: dict[str, str] = {}
    for folder in MASK_FOLDERS:
        for identifier in _stems(root / folder, ".png"):
            masks.setdefault(identifier, f"{folder}/{identifier}.png")
    return masks


def _items(
    root: Path,
    members: dict[str, tuple[str, ...]],
    selected: tuple[str, ...],
    findings: Findings,
) -> Iterator[Item]:
    """The images on the lists, sorted by id, with the tags and masks that can be found."""
    images = _stems(root / "JPEGImages", ".jpg")
    masks = find_masks(root)
    for identifier in sorted(members):
        image = f"JPEGImages/{identifier}.jpg"
        if identifier not in images:
            findings.add("image-missing", image)
        named = tags(root, identifier, findings)
        yield Item(
            id=identifier,
            image=image,
            mask=masks.get(identifier),
            labels=tuple(name for name in selected if name in named),
            splits=members[identifier],
        )


def tags(root: Path, identifier: str, findings: Findings) -> set[str]:
    """The classes of all objects of an annotation; whatever is wrong with it is a finding."""
    path = f"Annotations/{identifier}.xml"
    try:
        tree = ElementTree.parse(root / path)
    except FileNotFoundError:
        findings.add("annotation-missing", path)
        return set()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        findings.add("annotation-unreadable", f"{path} ({error})")
        return set()
    names = {(node.findtext("name") or "").strip() for node in tree.getroot().findall("object")}
    for name in sorted(names.difference(CLASSES)):
        findings.add("label-unknown", f"{path}: {name!r}")
    return names.intersection(CLASSES)
