"""Image-level tags that a user gives along with photos."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wsss.errors import UserError
from wsss.inference.photos import Source

SEPARATOR = ";"


@dataclass(frozen=True)
class Tags:
    """The tagged classes (0..C-1) of images: ``every`` for all, or ``rows`` by what a table calls
    them."""

    every: frozenset[int] | None = None
    rows: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Whether there are any tags at all."""
        return self.every is not None or bool(self.rows)

    def of(self, source: Source) -> frozenset[int] | None:
        """The tags of one image; None if it has none.

        A table may call it by its path, by the path below the common folder or by its file name,
        each with or without suffix; the longest match wins.
        """
        if self.every is not None:
            return self.every
        full = source.path.as_posix()
        suffix = source.path.suffix
        names = (full, full.removesuffix(suffix), source.name + suffix, source.name)
        for name in (*names, source.path.name, source.path.stem):
            if name in self.rows:
                return self.rows[name]
        return None


def parse_tags(text: str, classes: Sequence[str]) -> frozenset[int]:
    """Class ids of ``cat,dog``; a name that is no class is a UserError."""
    names = [name.strip() for name in text.replace(SEPARATOR, ",").split(",")]
    return frozenset(_index(name, classes, "--tags") for name in names if name)


def read_tags(path: Path, classes: Sequence[str]) -> dict[str, frozenset[int]]:
    """Tags of a CSV file with the columns image and labels (``cat;dog``), by image.

    Raises UserError: unreadable, columns missing, an unknown class, an image listed twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            if not {"image", "labels"} <= set(reader.fieldnames or ()):
                raise UserError(f"{path}: the columns image and labels are needed")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--tags-csv {path} cannot be read: {error}") from error
    tags: dict[str, frozenset[int]] = {}
    for line, row in rows:
        image = PurePosixPath((row["image"] or "").strip().replace("\\", "/")).as_posix()
        where = f"{path}:{line}"
        if image in tags:
            raise UserError(f"{where}: {image!r} is listed twice")
        names = [name.strip() for name in (row["labels"] or "").split(SEPARATOR)]
        tags[image] = frozenset(_index(name, classes, where) for name in names if name)
    return tags


def _index(name: str, classes: Sequence[str], where: str) -> int:
    if name in classes:
        return list(classes).index(name)
    near = difflib.get_close_matches(name, classes, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"{where}: {name!r} is no class: {hint}the classes are {', '.join(classes)}")
