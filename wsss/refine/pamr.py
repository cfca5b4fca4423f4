"""Pixel-adaptive mask refinement: weights by which masks spread along the colours of the image.

Source: Araslanov & Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020,
section 3.4; constants from the published code. :func:`wsss.refine.local.refine_locally` applies
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wsss.refine.local import DILATIONS, EPSILON, offsets, shifted


def pamr_weights(
    images: Tensor, dilations: Sequence[int] = DILATIONS, scale: float = 0.1
) -> Tensor:
    """Softmax over all neighbours of -|I_q - I_p| / (scale * std), mean over colours.

    The spread is that of the windows of nine cells, the centre included, at all dilations
    together, unbiased, per colour.

    Args:
        images: (B, 3, h, w) RGB.
        dilations: distances of the neighbours in cells.

    Returns:
        (B, 8 * len(dilations), h, w) float32 that sum to 1; no gradient.
    """
    images, places = images.detach().float(), offsets(dilations)
    count = len(places) + len(dilations)  # each window holds the centre once more
    mean = (sum(shifted(images, places)) + len(dilations) * images) / count
    squares = sum((one - mean).square() for one in shifted(images, places))
    squares = squares + len(dilations) * (images - mean).square()
    spread = scale * (squares / (count - 1)).sqrt() + EPSILON
    contrast = [((one - images).abs() / spread).mean(1) for one in shifted(images, places)]
    return (-torch.stack(contrast, 1)).softmax(1)
