"""Lists of images as text files: an image per line."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss.data.scan import Findings


def read_list(path: Path, findings: Findings) -> list[str] | None:
    """The distinct ids of a list file in order, or None if there is no such file.

    A line is an id, a file name, or the paths of image and mask that some published lists hold.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    ids = [PurePosixPath(line.split()[0]).stem for line in lines if line.strip()]
    unique = dict.fromkeys(ids)
    if len(unique) < len(ids):
        seen: set[str] = set()
        for identifier in ids:
            if identifier in seen:
                findings.add("list-duplicate", f"{path.name}: {identifier}")
            seen.add(identifier)
    return list(unique)
