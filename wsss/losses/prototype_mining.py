"""Contrast of cells with some prototypes alone, taken over some cells of each class.

Source: Du et al., "Weakly Supervised Semantic Segmentation by Pixel-to-Prototype Contrast"
(PPC), CVPR 2022, section 3 (semi-hard prototypes, hard pixels); ranks and shares from its
published code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.precision import full_precision


class Mining(NamedTuple):
    """Which prototypes and which cells count.

    Attributes:
        first, last: ranks of the negatives of a cell among the prototypes, the most similar one
            being 1; the last prototype serves if there are fewer than ``first``.
        own_ranked: a cell's own prototype has a rank, too, and may be among its negatives.
        hard_from: share of a class's cells that are too hard, least like their prototype.
        hard_share: of its cells, the next hardest ones that count.
        random_share: of its cells, random ones that count beside these; a cell may count twice.
    """

    first: int = 4
    last: int = 13
    own_ranked: bool = True
    hard_from: float = 0.1
    hard_share: float = 0.5
    random_share: float = 0.5


def mined_contrast(
    features: Tensor,
    centres: Tensor,
    labels: Tensor,
    draws: Tensor,
    mining: Mining,
    temperature: float = 0.1,
    negatives: Tensor | None = None,
) -> Tensor:
    """-log(exp(f p+ / t) / (exp(f p+ / t) + sum over semi-hard prototypes of exp(f p / t))).

    Averaged over the chosen cells of each class, then over the classes of ``labels``. A class
    with too few cells to choose one adds 0, but counts.

    Args:
        features: (B, D, h, w), raw; compared at length 1.
        centres: (K, D) of length 1; no gradient reaches them.
        labels: (B, h, w) in 0..K-1.
        draws: (B, h, w), uniform random numbers; the lowest of a class are its random cells.
        mining: which prototypes and cells.
        temperature: 0.1 in PPC.
        negatives: (K,) bool, the prototypes that may be negatives; None for all.
    """
    cells = F.normalize(features.float().permute(0, 2, 3, 1).flatten(0, 2), dim=1)
    with full_precision(cells):
        similar = cells @ centres.detach().T / temperature
    own = labels.flatten()
    per_cell = semi_hard_loss(similar, own, mining, negatives)
    ease = similar.detach().gather(1, own[:, None])[:, 0]
    counts, sizes = chosen_cells(ease, own, draws.flatten(), len(centres), mining)
    total = torch.zeros(len(centres), device=cells.device).index_add(0, own, counts * per_cell)
    number = torch.zeros_like(total).index_add(0, own, counts)
    means = total / number.clamp(min=1)
    present: Tensor = sizes > 0
    return (means * present).sum() / present.sum()


def semi_hard_loss(
    similar: Tensor, own: Tensor, mining: Mining, negatives: Tensor | None = None
) -> Tensor:
    """The loss of each cell against its own prototype and its negatives: (N,).

    Args:
        similar: (N, K) similarities, divided by the temperature.
        own: (N,) in 0..K-1.
        negatives: (K,) bool, as in :func:`mined_contrast`.
    """
    count = similar.shape[1]
    is_own = F.one_hot(own, count).bool()
    barred = torch.zeros_like(is_own) if mining.own_ranked else is_own
    if negatives is not None:
        barred = barred | ~(negatives | is_own)
    ranked = similar.masked_fill(barred, -torch.inf).sort(1, descending=True).values
    others = ranked[:, min(mining.first, count) - 1 : mining.last]
    positive = similar.gather(1, own[:, None])
    return torch.cat([positive, others], 1).logsumexp(1) - positive[:, 0]


def chosen_cells(
    ease: Tensor, own: Tensor, draws: Tensor, classes: int, mining: Mining
) -> tuple[Tensor, Tensor]:
    """How often each cell counts, 0 to 2, as (N,) float; and the cells of each class, (K,).

    Of a class of L cells: floor(``random_share`` L) with the lowest ``draws``, and
    floor(``hard_share`` L) with the lowest ``ease`` after the floor(``hard_from`` L) lowest.
    """
    sizes = F.one_hot(own, classes).sum(0)
    size = sizes[own].double()
    start = (size * mining.hard_from).floor()
    hard = rank_within(ease, own, sizes)
    random = rank_within(draws, own, sizes)
    is_hard = (hard >= start) & (hard < start + (size * mining.hard_share).floor())
    is_random = random < (size * mining.random_share).floor()
    return is_hard.float() + is_random.float(), sizes


def rank_within(values: Tensor, groups: Tensor, sizes: Tensor) -> Tensor:
    """Place of each of (N,) values among those of its group, from 0, ascending; equal values in
    their order.

    Args:
        groups: (N,) in 0..K-1.
        sizes: (K,) how many there are of each.
    """
    order = values.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    starts = sizes.cumsum(0) - sizes
    places = torch.arange(len(values), device=values.device)
    ranks = torch.empty_like(order)
    ranks[order] = places - starts[groups[order]]
    return ranks
