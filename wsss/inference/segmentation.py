"""Multi-scale class scores of a network that predicts masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wsss.config.schema import Combine
from wsss.errors import UserError
from wsss.inference.scales import by_scale, multi_scale


class Scores(NamedTuple):
    """(B, K, h, w) class scores: of all passes combined, and of scale 1 unflipped alone."""

    combined: Tensor
    single: Tensor


def multi_scale_scores(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float],
    flip: bool,
    grid: tuple[int, int],
    multiple: int,
    logits: bool = True,
    combine: Combine = "mean",
) -> Scores:
    """Combine class scores over scales and flips.

    Arguments as in :func:`wsss.inference.scales.multi_scale`; with ``logits`` the network's maps
    are resized to ``grid`` before a softmax makes probabilities of them, otherwise they are scores
    as they come.

    Args:
        combine: ``mean`` of the scores; ``max_logits``: a softmax of the highest logits over
            scales, those of flips added (Ru et al., ToCo, CVPR 2023, official code), which needs
            ``logits``.

    Raises:
        UserError: 1 is not among the scales, so there is no single-scale result to report.
    """
    if 1.0 not in scales:
        raise UserError(f"predict.scales is {list(scales)}: it must contain 1.0")
    if combine == "max_logits" and not logits:
        raise ValueError("the highest logits are asked for of a network that gives scores")
    first = list(scales).index(1.0) * (2 if flip else 1)
    passes = multi_scale(network, images, scales, flip, grid, multiple)
    if combine == "max_logits":
        return _highest(list(passes), first, flip)
    total, single, count = torch.zeros(()), torch.zeros(()), 0
    for maps in passes:
        scores = maps.softmax(1) if logits else maps
        if count == first:
            single = scores
        total = scores if count == 0 else total + scores
        count += 1
    return Scores(total / count, single)


def _highest(passes: list[Tensor], first: int, flip: bool) -> Scores:
    """A softmax of the highest logits; ``first`` is the unflipped pass at scale 1."""
    best = torch.stack(list(by_scale(passes, flip, torch.add))).amax(0)
    return Scores(best.softmax(1), passes[first].softmax(1))
