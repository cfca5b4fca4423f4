"""A user's own data: a folder of images and a CSV with their tags.

Columns ``image,labels`` and optionally ``mask,split``. A cell of labels or split holds names
separated by ';'; paths are relative to the CSV's folder or to the data root (and may name a
member of a zip, ``photos.zip::a.jpg``). Backslashes of paths written on Windows become slashes.
Without a split column every image is on the list ``train``. Classes are ``data.classes`` in that
order, else all names of the CSV, sorted; class k of that order is id k (from 1) in the masks.
The id of an image is its path without extension.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.data.images import MEMBER, exists
from wsss.data.manifest import SEPARATOR, Item, Manifest, unwritable
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

REQUIRED = ("image", "labels")
OPTIONAL = ("mask", "split")
DEFAULT_SPLIT = "train"


@dataclass(frozen=True)
class _Row:
    """A line of the CSV: cells cleaned, paths relative to the data root, no mask is ``""``."""

    line: int
    image: str
    labels: frozenset[str]
    mask: str
    splits: frozenset[str]


def build(cfg: Data, data_dir: Path, _processes: int = 1) -> Manifest:
    """The manifest of a folder; UserError if anything is wrong with it."""
    return scan(cfg, data_dir).manifest()


def scan(cfg: Data, _data_dir: Path | None = None) -> Scan:
    """Read the CSV of ``cfg.root`` and look its files up; nothing is decoded."""
    findings = Findings()
    root = Path(cfg.root or "")
    wanted = lists_of_roles(cfg.splits)
    rows = _merged(list(_rows(cfg, root, findings)), findings)
    classes = _classes(cfg, rows, findings)
    lists: dict[str, list[str]] = {}
    for identifier, row in rows.items():
        for name in row.splits:
            lists.setdefault(name, []).append(identifier)
    members = memberships(lists, wanted)
    for identifier, row in rows.items():
        if identifier not in members:
            findings.add("row-unused", f"line {row.line}: {row.image}")
    result = Scan(
        source="folder",
        root=root,
        classes=classes,
        mask_values=tuple(range(1, len(classes) + 1)),
        background_values=(),
        roles=named_roles(wanted),
        items=tuple(_items(root, rows, members, classes, findings)),
        findings=findings,
    )
    check_roles(result, _missing(rows, lists, wanted, findings), subset=False)
    return result


def _missing(
    rows: dict[str, _Row],
    lists: dict[str, list[str]],
    wanted: dict[str, tuple[str, ...]],
    findings: Findings,
) -> list[str]:
    """Roles that name a list no row is on; reported here if there are rows at all."""
    missing = [role for role, names in wanted.items() if any(n not in lists for n in names)]
    for role in missing if rows else ():
        unknown = ", ".join(name for name in wanted[role] if name not in lists)
        findings.add("split-empty", f"{role}: no row is on {unknown} (found: {', '.join(lists)})")
    return missing


def _rows(cfg: Data, root: Path, findings: Findings) -> Iterator[_Row]:
    """The usable rows of the CSV, in order."""
    text = _text(cfg, root, findings)
    if text is None:
        return
    table = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        header = [name.strip().lower() for name in next(table, [])]
        lacking = [name for name in REQUIRED if name not in header]
        twice = [name for name in (*REQUIRED, *OPTIONAL) if header.count(name) > 1]
        if lacking or twice:
            findings.add("csv-columns", f"{cfg.csv} has the columns {','.join(header)}")
            return
        for cells in table:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                where = f"{cfg.csv}:{table.line_num}"
                findings.add("csv-row", f"{where}: {len(cells)} cells, not {len(header)}")
                continue
            row = _row(cfg, root, table.line_num, dict(zip(header, cells, strict=True)), findings)
            if row is not None:
                yield row
    except csv.Error as error:
        findings.add("csv-unreadable", f"{cfg.csv}:{table.line_num}: {error}")


def _text(cfg: Data, root: Path, findings: Findings) -> str | None:
    """The CSV's text, or None and a finding."""
    if not cfg.root or not root.is_dir():
        findings.add("root-missing", f"{cfg.root or 'data.root'} is no folder")
        return None
    try:
        return (root / cfg.csv).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        findings.add("csv-unreadable", f"{root / cfg.csv} ({error})")
        return None


def _names(cell: str) -> frozenset[str]:
    return frozenset(name.strip() for name in cell.split(SEPARATOR) if name.strip())


def _row(
    cfg: Data, root: Path, line: int, cells: dict[str, str], findings: Findings
) -> _Row | None:
    """Clean the cells of a line; None and a finding if its paths are unusable."""
    where = f"{cfg.csv}:{line}"
    broken = [name for name in (*REQUIRED, *OPTIONAL) if "\n" in cells.get(name, "")]
    if broken:
        # Mostly a quote that was never closed and swallowed the lines after it.
        findings.add("csv-row", f"{where}: a line break in column {broken[0]}")
        return None
    paths = {}
    for name in ("image", "mask"):
        path = cells.get(name, "").strip().replace("\\", "/")
        if unwritable(path) or not (path or name == "mask"):
            findings.add("csv-row", f"{where}: {name} {path!r}")
            return None
        located = _located(cfg, root, path) if path else ""
        if located is None:
            findings.add("path-outside", f"{where}: {path}")
            return None
        paths[name] = located
    splits = _names(cells.get("split", DEFAULT_SPLIT))
    return _Row(line, paths["image"], _names(cells["labels"]), paths["mask"], splits)


def _located(cfg: Data, root: Path, path: str) -> str | None:
    """``path`` relative to the data root: from the CSV's folder if it is there, else from the
    root. None if it leaves the root."""
    folder = posixpath.dirname(cfg.csv.replace("\\", "/"))
    candidates = [posixpath.normpath(posixpath.join(folder, path)), posixpath.normpath(path)]
    inside = [c for c in candidates if not (c == ".." or c.startswith(("../", "/")))]
    found = (c for c in inside[:-1] if c != inside[-1] and exists(root, c))
    return next(found, inside[-1] if inside else None)


def _identifier(image: str) -> str:
    """The path without extension; an archive counts as a folder of its name."""
    archive, separator, member = image.partition(MEMBER)
    path = f"{posixpath.splitext(archive)[0]}/{member}" if separator else archive
    return posixpath.splitext(path)[0]


def _merged(rows: list[_Row], findings: Findings) -> dict[str, _Row]:
    """One row an image, by id: equal rows become one, contradicting ones are findings."""
    merged: dict[str, _Row] = {}
    for row in rows:
        identifier = _identifier(row.image)
        first = merged.setdefault(identifier, row)
        if first is row:
            continue
        lines = f"lines {first.line} and {row.line}"
        if first.image != row.image:
            findings.add("id-collision", f"{lines}: {first.image} and {row.image}")
        elif (first.labels, first.mask) != (row.labels, row.mask):
            findings.add("row-conflict", f"{lines}: {row.image} with other labels or mask")
        else:
            findings.add("row-duplicate", f"{lines}: {row.image}")
            merged[identifier] = replace(first, splits=first.splits | row.splits)
    return merged


def _classes(cfg: Data, rows: dict[str, _Row], findings: Findings) -> tuple[str, ...]:
    """The class names in mask order; tags outside a configured list are findings."""
    named = sorted({label for row in rows.values() for label in row.labels})
    classes = tuple(dict.fromkeys(cfg.classes)) if cfg.classes is not None else tuple(named)
    check_names(findings, cfg.classes if cfg.classes is not None else named)
    for row in rows.values():
        for label in sorted(row.labels.difference(classes)):
            findings.add("label-unknown", f"line {row.line}: {row.image}: {label!r}")
    return classes[:MAX_CLASSES]


def _items(
    root: Path,
    rows: dict[str, _Row],
    members: dict[str, tuple[str, ...]],
    classes: tuple[str, ...],
    findings: Findings,
) -> Iterator[Item]:
    """The images on the lists in use, sorted by id."""
    for identifier in sorted(members):
        row = rows[identifier]
        if not exists(root, row.image):
            findings.add("image-missing", f"line {row.line}: {row.image}")
        mask = row.mask or None
        if mask is not None and not exists(root, mask):
            findings.add("mask-not-found", f"line {row.line}: {mask}")
            mask = None
        yield Item(
            id=identifier,
            image=row.image,
            mask=mask,
            labels=tuple(name for name in classes if name in row.labels),
            splits=members[identifier],
        )
