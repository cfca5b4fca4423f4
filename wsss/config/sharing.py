"""Variants that take the first stages from another one instead of running them again.

``share: {from: baseline, through: seeds}`` in an overlay means: as ``baseline`` up to the CRF
seeds, whose artifacts are used where they are, and from there on with this overlay's differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wsss.config.slices import stage_params
from wsss.errors import UserError

SHARE = "share"


class Level(NamedTuple):
    """Folders of a run that are shared together, and the stages that fill and score them."""

    folders: tuple[str, ...]
    stages: tuple[str, ...]


# In the order of the pipeline; sharing through one includes those before it.
LEVELS = {
    "classify": Level(("classify",), ("classify",)),
    "cam": Level(("cam",), ("cam", "evaluate_cam")),
    "seeds": Level(("seeds",), ("seeds_alpha", "seeds_confident", "seeds_label")),
    "pseudo": Level(
        ("affinity", "irnet", "walk", "pseudo"),
        ("affinity", "irnet", "edges", "walk", "evaluate_walk", "pseudo", "soft"),
    ),
    "segment": Level(("segment",), ("segment",)),
}


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
            f"{where}.share is {value!r}: write share: {{from: VARIANT, through: LEVEL}}"
        )
    if value["through"] not in LEVELS:
        raise UserError(
            f"{where}.share.through is {value['through']!r}: one of {', '.join(LEVELS)}"
        )
    return Share(str(value["from"]), value["through"])


def through(share: Share) -> list[Level]:
    """Return the levels that are shared."""
    names = list(LEVELS)
    return [LEVELS[name] for name in names[: names.index(share.through) + 1]]


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

    found: dict[str, str] = {}
    for current in ancestry(variants, name, origin):
        share = share_of(variants[current] or {}, f"{origin}, variants.{current}")
        if share is None:
            break
        for level in through(share):
            for folder in level.folders:
                # Handed on from source to source, as long as each takes it from the next.
                if found.get(folder, name) == current:
                    found[folder] = share.source
    for what, evaluation in EVALUATIONS.items():
        if evaluation.stage in found:
            found[f"metrics/{what}"] = found[evaluation.stage]
    return found


def check_shared(mine: Any, other: Any, share: Share, where: str) -> None:
    """Refuse an overlay that changes what its shared stages read.

    Args:
        mine, other: the resolved configurations of the variant and of its source.
    """
    for level in through(share):
        for stage in level.stages:
            one, two = stage_params(mine, stage), stage_params(other, stage)
            for key in sorted(one):
                if one[key] != two.get(key):
                    raise UserError(
                        f"{where}: it shares {share.source!r} through {share.through!r} but "
                        f"changes {key!r}, which {stage} reads: share less, or leave that key alone"
                    )
