"""Whether a store holds what is to be scored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from wsss.data.manifest import Item
from wsss.errors import UserError


def require_stored(store: Path, known: Collection[str], items: Sequence[Item]) -> None:
    """Refuse a store whose ids ``known`` lack an image of ``items`` with a :class:`UserError`."""
    lacking = [item.id for item in items if item.id not in known]
    if lacking:
        raise UserError(
            f"{store} lacks {len(lacking)} of the {len(items)} images to score (such as "
            f"{lacking[0]}): delete it and rerun the stage that makes it"
        )
