"""Which images are scored, and what must not be scored together."""

from __future__ import annotations

from wsss.data.manifest import Item, Manifest
from wsss.errors import UserError


def refuse_overlap(manifest: Manifest, role: str) -> None:
    """Raise UserError if the tune list shares an image with the list of ``role``."""
    shared = {item.id for item in manifest.role("tune")} & {i.id for i in manifest.role(role)}
    if shared:
        raise UserError(
            f"{len(shared)} images (such as {min(shared)}) are both on the tune list "
            f"{manifest.roles['tune']!r} and on the reported list {manifest.roles[role]!r}: a "
            "threshold must not be chosen on the images it is reported on; change data.splits"
        )


def items_with_masks(manifest: Manifest, role: str) -> list[Item]:
    """The images of a role; one without a mask is a UserError."""
    items = manifest.role(role)
    bare = [item.id for item in items if item.mask is None]
    if bare:
        raise UserError(
            f"evaluation needs masks, but {len(bare)} of the {len(items)} images of list "
            f"{manifest.roles[role]!r} (such as {bare[0]}) have none: add them or name another "
            f"list in data.splits.{role}"
        )
    return items
