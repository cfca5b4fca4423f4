"""Which version of a run's files DVC's lock holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.config.resolve import read_yaml
from wsss.errors import UserError
from wsss.tracking.records import digest

LOCK = Path("dvc.lock")
# Larger files are compared by size alone; scores and curves, which no two runs share, are smaller.
_HASHED = 2**20


def locked_outs() -> dict[str, Mapping[str, Any]]:
    """Return the lock's outputs by path; none without a lock that can be read."""
    try:
        stages = (read_yaml(LOCK).get("stages") or {}).values() if LOCK.is_file() else ()
    except UserError:
        return {}
    return {out["path"]: out for stage in stages for out in stage.get("outs", ())}


def lock_hash(outs: Mapping[str, Mapping[str, Any]], run: Path) -> str | None:
    """Return the hash of what the lock holds of a run's folder.

    None if it holds nothing of it, or other files than are there: those of another version.
    """
    folder = f"{run.as_posix()}/"
    mine = {path: out for path, out in outs.items() if path.startswith(folder)}
    if not mine or not all(_same(Path(path), out) for path, out in mine.items()):
        return None
    facts = {path: [out.get("md5"), out.get("size")] for path, out in mine.items()}
    return digest(json.dumps(facts, sort_keys=True).encode())


def _same(path: Path, out: Mapping[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != out.get("size"):
        return False
    if out["size"] > _HASHED or out.get("hash") != "md5":
        return True
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return bool(found == out.get("md5"))
