"""From a photo's probabilities to its mask and to how sure the network is of each class.

Nothing here needs torch: the CRF runs in processes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wsss.artifacts import Entry
from wsss.refine.crf import CrfParams, ScoreCrf, refine_scores
from wsss.refine.resize import resize_bilinear


class MaskJob(NamedTuple):
    """One photo: (H, W, 3) uint8 as the network saw it, its stored probabilities (ids 0..C), its
    tagged classes 0..C-1 (None: unknown, nothing is ruled out) and its full (H, W)."""

    image: np.ndarray
    entry: Entry
    tags: frozenset[int] | None
    full: tuple[int, int]


class Found(NamedTuple):
    """One class (id 1..C) of one photo.

    ``pixels`` of the full mask; ``mean`` and ``top``: the network's own probability of the class
    over its pixels, before CRF and tags. ``tag``: "found" (tagged and predicted), "missed"
    (tagged, not predicted), "ruled out" (predicted but for the tags; ``pixels`` is what it would
    have had, before the CRF), empty without tags.
    """

    id: int
    pixels: int
    mean: float | None
    top: float | None
    tag: str


class Masked(NamedTuple):
    """Masks of ids 0..C, (H, W) uint8: ``full`` at the photo's size, ``small`` at the network's."""

    full: np.ndarray
    small: np.ndarray
    found: list[Found]


def make_mask(job: MaskJob, params: ScoreCrf | None) -> Masked:
    """Decide every pixel of one photo, as the stages predict and crf do.

    The scores are brought to the size the network saw, refined there by the CRF if ``params``
    are given, and where the photo is larger, brought to its size before the best one wins.
    """
    entry = job.entry
    allowed = [k for k, c in enumerate(entry.classes) if _allowed(c, job.tags)]
    classes = [entry.classes[k] for k in allowed]
    plain = resize_bilinear(entry.array, entry.size)
    if not classes:
        small, full = np.zeros(entry.size, np.uint8), np.zeros(job.full, np.uint8)
    else:
        scores = plain[allowed]
        if params and not isinstance(params, CrfParams) and job.tags is not None:
            params = params._replace(labels=1 + len(job.tags))
        if params is not None:
            scores = refine_scores(job.image, scores, params)
        ids = np.array(classes, np.uint8)
        small = ids[scores.argmax(0)]
        full = small if job.full == entry.size else ids[_winner(scores, job.full)]
    return Masked(full, small, _found(plain, entry.classes, small, full, job.tags))


def _allowed(class_id: int, tags: frozenset[int] | None) -> bool:
    return class_id == 0 or tags is None or class_id - 1 in tags


def _winner(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The channel with the highest score at ``size``; one channel at a time, to bound memory."""
    best = resize_bilinear(scores[:1], size)[0]
    winner = np.zeros(size, np.intp)
    for channel in range(1, len(scores)):
        values = resize_bilinear(scores[channel : channel + 1], size)[0]
        higher = values > best
        winner[higher] = channel
        best[higher] = values[higher]
    return winner


def _found(
    plain: np.ndarray,
    classes: Sequence[int],
    small: np.ndarray,
    full: np.ndarray,
    tags: frozenset[int] | None,
) -> list[Found]:
    """The predicted classes and, with tags, the missed and the ruled out, by id."""
    counts = np.bincount(full.ravel(), minlength=256)
    rows: list[Found] = []
    untagged = np.array(classes, np.uint8)[plain.argmax(0)] if tags is not None else small
    for channel, class_id in enumerate(classes):
        if class_id == 0:
            continue
        if counts[class_id]:
            tag = "" if tags is None else "found"
            rows.append(_row(class_id, int(counts[class_id]), plain[channel], small, tag))
        elif not _allowed(class_id, tags) and (untagged == class_id).any():
            pixels = round(int((untagged == class_id).sum()) * full.size / small.size)
            rows.append(_row(class_id, pixels, plain[channel], untagged, "ruled out"))
    missed = {c + 1 for c in tags or ()} - {row.id for row in rows}
    rows += [Found(class_id, 0, None, None, "missed") for class_id in missed]
    return sorted(rows, key=lambda row: row.id)


def _row(class_id: int, pixels: int, scores: np.ndarray, mask: np.ndarray, tag: str) -> Found:
    own = scores[mask == class_id]
    # A sliver may win at full size between the network's pixels alone: then its best score.
    values = own if own.size else scores.max(keepdims=True)
    return Found(class_id, pixels, float(values.mean(dtype=np.float64)), float(values.max()), tag)
