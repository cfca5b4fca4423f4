"""Multi-scale class scores of a network that predicts masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wsss.errors import UserError
from wsss.inference.scales import multi_scale


class Scores(NamedTuple):
    """(B, K, h, w) class scores: the mean over all passes, and of scale 1 unflipped alone."""

    mean: Tensor
    single: Tensor


def multi_scale_scores(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float],
    flip: bool,
    grid: tuple[int, int],
    multiple: int,
    logits: bool = True,
) -> Scores:
    """Average class scores over scales and flips.

    Arguments as in :func:`wsss.inference.scales.multi_scale`; with ``logits`` the network's maps
    are resized to ``grid`` before a softmax makes probabilities of them, otherwise they are scores
    as they come.

    Raises:
        UserError: 1 is not among the scales, so there is no single-scale result to report.
    """
    if 1.0 not in scales:
        raise UserError(f"predict.scales is {list(scales)}: it must contain 1.0")
    first = list(scales).index(1.0) * (2 if flip else 1)
    total, single, count = torch.zeros(()), torch.zeros(()), 0
    for maps in multi_scale(network, images, scales, flip, grid, multiple):
        scores = maps.softmax(1) if logits else maps
        if count == first:
            single = scores
        total = scores if count == 0 else total + scores
        count += 1
    return Scores(total / count, single)
