"""Multi-scale class probabilities of a segmentation network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wsss.errors import UserError
from wsss.inference.scales import multi_scale


class Probabilities(NamedTuple):
    """(B, K, h, w) probabilities: the mean over all passes, and of scale 1 unflipped alone."""

    mean: Tensor
    single: Tensor


def multi_scale_probabilities(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float],
    flip: bool,
    grid: tuple[int, int],
    multiple: int,
) -> Probabilities:
    """Average softmax probabilities over scales and flips.

    Logits are resized to ``grid`` before the softmax. Arguments as in
    :func:`wsss.inference.scales.multi_scale`.

    Raises:
        UserError: 1 is not among the scales, so there is no single-scale result to report.
    """
    if 1.0 not in scales:
        raise UserError(f"predict.scales is {list(scales)}: it must contain 1.0")
    first = list(scales).index(1.0) * (2 if flip else 1)
    total, single, count = torch.zeros(()), torch.zeros(()), 0
    for logits in multi_scale(network, images, scales, flip, grid, multiple):
        probabilities = logits.softmax(1)
        if count == first:
            single = probabilities
        total = probabilities if count == 0 else total + probabilities
        count += 1
    return Probabilities(total / count, single)
