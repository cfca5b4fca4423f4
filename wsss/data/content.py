"""The hash of a data set: what its rows say and what its files hold."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from wsss.data import images
from wsss.data.manifest import Item, row_of
from wsss.errors import UserError

T = TypeVar("T")
# Items handed to the threads together: a few for each, so that all have work until the end.
AT_A_TIME = 256


def _digest(root: Path, path: str | None) -> bytes:
    if path is None:
        return b""
    return hashlib.blake2b(images.read_bytes(root, path), digest_size=32).digest()


def threads() -> int:
    """Threads for reading and decoding: what this process may use of the machine."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


def in_threads(function: Callable[[Item], T], items: Sequence[Item]) -> Iterator[T]:
    """Yield ``function`` of every item in order; only so many wait at a time, however many there
    are. For work that releases the interpreter lock, such as reading and decoding.
    """
    with ThreadPoolExecutor(threads()) as pool:
        for start in range(0, len(items), AT_A_TIME):
            yield from pool.map(function, items[start : start + AT_A_TIME])


def content_hash(
    root: Path,
    items: Iterable[Item],
    classes: Iterable[str],
    mask_values: Iterable[int],
    background_values: Iterable[int],
    mask_root: Path | None = None,
) -> str:
    """Hash rows, classes and the bytes of every image and mask (blake2b, 32 hex digits).

    Masks are looked for in ``mask_root``, by default in ``root`` like images.
    Raises UserError naming the id of a file that cannot be read.
    """

    def contents(item: Item) -> bytes:
        try:
            return _digest(root, item.image) + _digest(mask_root or root, item.mask)
        except images.FileError as error:
            raise UserError(f"image {item.id!r}: {error}; run `wsss data check`") from error

    rows = sorted(items, key=lambda item: item.id)
    total = hashlib.blake2b(digest_size=16)
    head = [list(classes), list(mask_values), list(background_values)]
    total.update(json.dumps(head).encode())
    for item, content in zip(rows, in_threads(contents, rows), strict=True):
        total.update(json.dumps(list(row_of(item).values())).encode() + content)
    return total.hexdigest()
