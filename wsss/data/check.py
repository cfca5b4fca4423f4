"""Validates a data set before hours of work are spent on it.

Everything the source reported while scanning, and what only decoding every file can tell:
damage, sizes, mask ids, and tags that disagree with masks. One run lists all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsss.data import images
from wsss.data.content import in_threads
from wsss.data.manifest import Item, mask_table
from wsss.data.scan import Problem, Scan
from wsss.data.sources import load_source
from wsss.errors import UserError
from wsss.labels import IGNORE

if TYPE_CHECKING:
    from wsss.config.schema import Data


@dataclass(frozen=True)
class _Tables:
    """How mask files of this data set are to be read, see :func:`mask_table`."""

    root: Path
    draw: Callable[[Item], np.ndarray] | None
    classes: tuple[str, ...]
    target: np.ndarray
    known: np.ndarray


_Found = list[tuple[str, str]]


def check(cfg: Data, data_dir: Path | None = None) -> list[Problem]:
    """All problems of the configured data, errors first; an empty list means none.

    Generated data is looked for in ``data_dir``. The data cannot be used if any problem's
    severity is ``error``.
    """
    scan = load_source(cfg.source).scan(cfg, data_dir)
    for kind, example in _decoded(scan):
        scan.findings.add(kind, example)
    return scan.findings.problems()


def _decoded(scan: Scan) -> Iterable[tuple[str, str]]:
    """Findings of decoding, in id order. Decoders release the GIL, so threads suffice."""
    target, known = mask_table(scan.mask_values, scan.background_values)
    tables = _Tables(scan.root, scan.draw_mask, scan.classes, target, known)
    for found in in_threads(lambda item: _inspect(item, tables), scan.items):
        yield from found


def _inspect(item: Item, tables: _Tables) -> _Found:
    """Decode one image and its mask; returns (kind, example) pairs."""
    found: _Found = []
    size = None
    try:
        data = images.read_bytes(tables.root, item.image)
        size, turned = images.probe_image(data, item.image)
        if turned and item.mask is not None:
            found.append(("image-turned", item.image))
    except images.FileError as error:
        # Scanning has reported files that are not there.
        if error.reason == "unreadable":
            found.append(("image-unreadable", str(error)))
    if item.mask is not None:
        found += _inspect_mask(item, item.mask, size, tables)
    return found


def _inspect_mask(item: Item, path: str, size: tuple[int, int] | None, tables: _Tables) -> _Found:
    try:
        if tables.draw is not None:
            mask = tables.draw(item)
        else:
            mask = images.decode_mask(images.read_bytes(tables.root, path), path)
    except UserError as error:
        return [("mask-unreadable", str(error))]
    found: _Found = []
    if size is not None and mask.shape != size:
        drawn = " (drawn on the unrotated image?)" if mask.shape == size[::-1] else ""
        here, there = (f"{s[1]}x{s[0]}" for s in (mask.shape, size))
        found.append(("size-mismatch", f"{path} is {here}, its image {there}{drawn}"))
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    strange = [str(value) for value in values if not tables.known[value]]
    if strange:
        found.append(("mask-ids", f"{path} holds {', '.join(strange[:5])}"))
    return found + _inspect_tags(item, values, tables)


def _inspect_tags(item: Item, values: np.ndarray, tables: _Tables) -> _Found:
    """Compare the tags with the classes whose file ids are among ``values``."""
    ids = {int(tables.target[value]) for value in values} - {0, IGNORE}
    drawn = {tables.classes[index - 1] for index in ids}
    tagged = set(item.labels)
    found = [("tag-without-pixels", f"{item.id}: {name}") for name in sorted(tagged - drawn)]
    return found + [("pixels-without-tag", f"{item.id}: {name}") for name in sorted(drawn - tagged)]
