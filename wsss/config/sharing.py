"""Variants that take the first stages from another one instead of running them again.

``share: {from: baseline, through: seeds}`` in an overlay means: as ``baseline`` up to the CRF
seeds, whose artifacts are used where they are, and from there on with this overlay's differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wsss.config.slices import STAGES, stage_params
from wsss.errors import UserError

SHARE = "share"
# Folders of a run in the order of the pipeline; sharing through one includes those before it.
FOLDERS: dict[str, tuple[str, ...]] = {
    "classify": ("classify",),
    "cam": ("cam",),
    "seeds": ("seeds_alpha", "seeds_confident", "seeds_label"),
    "pseudo": ("affinity", "irnet", "edges", "walk", "evaluate_walk", "pseudo", "soft"),
    "segment": ("segment",),
}
# Folders that stand beside those names.
_ALSO = {"pseudo": ("affinity", "irnet", "walk")}


class Share(NamedTuple):
    """Take everything up to and including ``through`` from the variant ``source``."""

    source: str
    through: str


def share_of(overlay: Any, where: str) -> Share | None:
    """Read the key ``share`` of an overlay."""
    value = overlay.get(SHARE) if isinstance(overlay, Mapping) else None
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"from", "through"}:
        raise UserError(
            f"{where}.share is {value!r}: write share: {{from: VARIANT, through: FOLDER}}"
        )
    if value["through"] not in FOLDERS:
        raise UserError(
            f"{where}.share.through is {value['through']!r}: one of {', '.join(FOLDERS)}"
        )
    return Share(str(value["from"]), value["through"])


def ancestry(variants: Mapping[str, Any], name: str, origin: str) -> list[str]:
    """Return ``name`` and the variants it shares from, nearest first; a circle is an error."""
    chain = [name]
    while share := share_of(variants[chain[-1]] or {}, f"{origin}, variants.{chain[-1]}"):
        if share.source not in variants:
            raise UserError(
                f"{origin}, variants.{chain[-1]}.share.from is {share.source!r}: defined are "
                f"{', '.join(sorted(variants))}"
            )
        if share.source in chain:
            raise UserError(f"{origin}: variants {', '.join(chain)} share in a circle")
        chain.append(share.source)
    return chain


def owners(variants: Mapping[str, Any], name: str, origin: str = "params.yaml") -> dict[str, str]:
    """Return which variant holds each folder and each evaluation (``metrics/WHAT``) of ``name``.

    What the variant makes itself is left out.
    """
    from wsss.stages.evaluations import EVALUATIONS

    order = list(FOLDERS)
    found: dict[str, str] = {}
    for current in ancestry(variants, name, origin):
        share = share_of(variants[current] or {}, f"{origin}, variants.{current}")
        if share is None:
            break
        for folder in order[: order.index(share.through) + 1]:
            # A source may share less than it is asked for: what it makes itself, it holds.
            for part in (folder, *_ALSO.get(folder, ())):
                held = found.get(part, name) == current
                if held:
                    found[part] = share.source
    for what, evaluation in EVALUATIONS.items():
        if evaluation.stage in found:
            found[f"metrics/{what}"] = found[evaluation.stage]
    return found


def check_shared(mine: Any, other: Any, share: Share, where: str) -> None:
    """Refuse an overlay that changes what its shared stages read.

    Args:
        mine, other: the resolved configurations of the variant and of its source.
    """
    order = list(FOLDERS)
    for folder in order[: order.index(share.through) + 1]:
        for stage in FOLDERS[folder]:
            if stage not in STAGES:
                continue
            one, two = stage_params(mine, stage), stage_params(other, stage)
            for key in sorted(one):
                if one[key] != two.get(key):
                    raise UserError(
                        f"{where}: it shares {folder!r} of {share.source!r} but changes {key!r}, "
                        f"which {stage} reads: share less, or leave that key alone"
                    )
