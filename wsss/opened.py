"""Stores that a process has open: the table of contents of a large one is read once, not with
every few images."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeVar, cast

from wsss.artifacts import ArrayStore, MaskStore

Store = TypeVar("Store", ArrayStore, MaskStore)

# Jobs read one store, or the few layers of one run.
_KEPT = 4


def open_once(kind: type[Store], path: Path) -> Store:
    """Return the open store of a file; a file that was replaced is opened anew."""
    found = path.stat() if path.is_file() else None
    state = (found.st_ino, found.st_mtime_ns, found.st_size) if found else None
    return cast(Store, _opened(kind is MaskStore, path, state))


@lru_cache(maxsize=_KEPT)
def _opened(masks: bool, path: Path, _state: tuple[int, ...] | None) -> ArrayStore | MaskStore:
    return MaskStore(path) if masks else ArrayStore(path)
