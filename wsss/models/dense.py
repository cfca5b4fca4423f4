"""What a segmentation network gives beside its logits."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Dense(NamedTuple):
    """Logits (B, classes, h, w) and the features (B, D, s, t) that they are a linear map of.

    ``aligned`` says how both grids lie on the image's pixels: whether the centres of corner cells
    and corner pixels coincide (``align_corners``), or cells tile the image.
    """

    logits: Tensor
    features: Tensor
    aligned: bool
