"""The loss of IRNet's displacements to the centre of an instance.

Source: Ahn et al., "Weakly Supervised Learning of Instance Segmentation with Inter-pixel
Relations", CVPR 2019, section 4; constants and normalisation as in the published code.

Deviation: the published code leaves out pairs whose first cell is within radius - 1 of the
left, right or bottom border; here every pair inside the grid counts, so that any grid works.

That of its boundaries is :func:`wsss.losses.affinity.pair_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from wsss.constants import constant
from wsss.losses.affinity import EPSILON
from wsss.refine.affinity_labels import PairMasks
from wsss.refine.pairs import Offset, overlap


def displacement_loss(
    displacement: Tensor,
    pairs: PairMasks,
    offsets: Sequence[Offset],
    sizes: Mapping[str, float],
) -> tuple[Tensor, Tensor]:
    """Foreground and background terms of the displacement field (equations 5 and 6).

    Two cells of one object point at one place: D_i - D_j is their offset. On the background the
    field is constant.

    Args:
        displacement: (B, 2, h, w), rows and columns, in cells.
        pairs: masks of :func:`wsss.refine.affinity_labels.pair_masks`.
        offsets: the P offsets.
        sizes: :func:`wsss.losses.affinity.pair_sizes` of the whole batch.

    Returns:
        Two scalars: mean absolute errors over pairs and both coordinates.
    """
    height, width = displacement.shape[-2:]
    foreground = background = displacement.new_zeros(())
    targets = constant(tuple(offsets), displacement)[..., None, None]
    for index, offset in enumerate(offsets):
        here, there = overlap(offset, height, width)
        difference = displacement[..., *here] - displacement[..., *there]
        apart = (difference - targets[index]).abs().sum(1)
        equal = difference.abs().sum(1)
        foreground = foreground + (apart * pairs.foreground[:, index, *here]).sum()
        background = background + (equal * pairs.background[:, index, *here]).sum()
    return (
        foreground / (2 * sizes["foreground"] + EPSILON),
        background / (2 * sizes["background"] + EPSILON),
    )
