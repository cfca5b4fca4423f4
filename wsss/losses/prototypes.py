"""Class prototypes of a batch and the contrast of features with them.

Source: Du et al., "Weakly Supervised Semantic Segmentation by Pixel-to-Prototype Contrast"
(PPC), CVPR 2022, section 3, and Wang et al., "Boosting Weakly-Supervised Image Segmentation via
Representation, Transform, and Compensator" (RTC), IEEE TCSVT 2024, whose prototypes take their
weights from one view and their features from the other; published code of both.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.losses.normalisation import floor_norm, with_background, with_constant
from wsss.losses.siamese import resize
from wsss.precision import full_precision


class Selection(NamedTuple):
    """The cells of a batch that speak for each of K classes.

    ``weights`` (K, n): their scores. ``features`` (K, n, D): raw features of the same cells.
    """

    weights: Tensor
    features: Tensor


class Cells(NamedTuple):
    """One view on the grid of the contrast: scores (B, C + 1, h, w), raw features (B, D, h, w)
    and pseudo labels (B, h, w)."""

    scores: Tensor
    features: Tensor
    labels: Tensor


def cells_of(
    refined: Tensor, features: Tensor, grid: tuple[int, int], label: Tensor, background: float
) -> Cells:
    """Bring a view to the grid of the contrast; scores and labels have no gradient.

    Args:
        refined: (B, C + 1, h', w'), background first; its channel is replaced by a constant.
        features: (B, D, h', w').
        grid: (h, w).
        label: (B, C) of 0 and 1.
        background: score of the background at every cell.
    """
    maps = floor_norm(resize(refined.detach(), grid))
    scores = with_constant(maps[:, 1:], background)
    labels = pseudo_labels(scores, F.pad(label, (1, 0), value=1.0))
    return Cells(scores, resize(features.float(), grid), labels)


def ranked_scores(scores: Tensor, label: Tensor, kind: Literal["constant", "lowest"]) -> Tensor:
    """Scores (B, C + 1, h, w) that choose the cells of each prototype.

    ``constant`` leaves them: among equal scores of the background, which are all of them, the
    choice is arbitrary. ``lowest`` scores the background by how weak present classes are.
    """
    if kind == "constant":
        return scores
    return with_background(scores[:, 1:] * label[:, :, None, None])


def classes_present(label: Tensor) -> Tensor:
    """Whether each of (background, classes) is in a batch with labels (B, C): (C + 1,) bool."""
    return F.pad(label.amax(0), (1, 0), value=1.0) > 0


def select_cells(scores: Tensor, features: Tensor, count: int) -> Selection:
    """Pick for every class the ``count`` highest scores of the whole batch; no gradient.

    Among equal scores (a constant background channel is nothing else) the choice is
    ``torch.topk``'s.

    Args:
        scores: (B, K, h, w).
        features: (B, D, h, w), of this view or of another one on the same grid.
        count: cells a class; all of the batch if it has fewer.
    """
    ranked = scores.detach().float().transpose(0, 1).flatten(1)
    cells = features.detach().float().permute(0, 2, 3, 1).flatten(0, 2)
    weights, places = ranked.topk(min(count, ranked.shape[1]), dim=1)
    return Selection(weights, cells[places])


def prototypes(chosen: Selection) -> Tensor:
    """Weighted means of the chosen features, of length 1: (K, D) float32.

    Weights may be negative (see :func:`wsss.losses.normalisation.floor_norm`). Of their sum only
    the sign survives the division by the length, so there is nothing to divide by zero.
    """
    with full_precision(chosen.features):
        total = torch.einsum("kn,knd->kd", chosen.weights, chosen.features)
    positive = chosen.weights.sum(1, keepdim=True) >= 0
    return F.normalize(torch.where(positive, total, -total), dim=1)


def pseudo_labels(scores: Tensor, presence: Tensor) -> Tensor:
    """The class of each cell: argmax of the scores, those of absent classes 0.

    The published code takes a softmax in between, which keeps the order.

    Args:
        scores: (B, K, h, w).
        presence: (B, K) of 0 and 1, background first.

    Returns:
        (B, h, w) int64; no gradient.
    """
    return (scores.detach() * presence[:, :, None, None]).argmax(1)


def prototype_contrast(
    features: Tensor,
    centres: Tensor,
    labels: Tensor,
    temperature: float = 0.1,
    negatives: Tensor | None = None,
) -> Tensor:
    """-log(exp(f p+ / t) / sum over all prototypes of exp(f p / t)), mean over cells.

    With equal prototypes this is ln K, whatever the features.

    Args:
        features: (B, D, h, w), raw; compared at length 1.
        centres: (K, D) of length 1; no gradient reaches them.
        labels: (B, h, w) in 0..K-1.
        temperature: 0.1 in PPC and RTC.
        negatives: (K,) bool, the prototypes that take part; None for all. A cell's own always
            does.
    """
    cells = F.normalize(features.float().permute(0, 2, 3, 1).flatten(0, 2), dim=1)
    with full_precision(cells):
        similar = cells @ centres.detach().T / temperature
    own = labels.flatten()
    if negatives is not None:
        kept = negatives | (own[:, None] == torch.arange(len(centres), device=own.device))
        similar = similar.masked_fill(~kept, -torch.inf)
    return F.cross_entropy(similar, own)
