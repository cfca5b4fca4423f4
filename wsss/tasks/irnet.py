"""The task of IRNet."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from wsss.data.training import Batch
from wsss.engine.task import Losses, NetworkTask, Progress
from wsss.losses.affinity import pair_loss, pair_sizes
from wsss.losses.irnet import displacement_loss
from wsss.models.irnet import IrNet
from wsss.refine.affinity_labels import PairMasks, pair_masks
from wsss.refine.pairs import half_disc_offsets
from wsss.refine.paths import boundary_affinity


class IrNetTask(NetworkTask[IrNet]):
    """Boundaries and displacements from the labels of pairs (Ahn et al., CVPR 2019, section 4).

    The losses are means over pairs of the whole batch.
    """

    def __init__(self, network: IrNet, radius: int) -> None:
        super().__init__(network)
        self.offsets = half_disc_offsets(radius)

    def heads(self) -> Iterator[nn.Parameter]:
        """The displacement branch, which learns faster than the edge branch."""
        network = self.network
        for part in (network.field_levels, network.merge, network.field):
            yield from part.parameters()

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """Equation 3 on the edge map, equations 5 and 6 on the displacement field."""
        pairs = PairMasks(*batch["pairs"].unbind(1))
        sizes = batch.get("sizes") or pair_sizes(pairs)
        found = self.network(batch["image"])
        edges = boundary_affinity(found.edge[:, 0].float().sigmoid(), self.offsets)
        boundary = pair_loss(edges, pairs, sizes)
        field = found.displacement.float()
        foreground, background = displacement_loss(field, pairs, self.offsets, sizes)
        total = boundary + (foreground + background) / 2
        terms = {"boundary": boundary, "dp_fg": foreground, "dp_bg": background}
        return Losses(total, terms)

    def prepare(self, batch: Batch) -> Batch:
        """Add the kinds of pairs, (B, 3, P, h, w) bool."""
        labels = _cells(batch["masks"][:, 0], self.network.stride)
        return {**batch, "pairs": torch.stack(pair_masks(labels, self.offsets), 1)}

    def sizes(self, batch: Batch) -> dict[str, float]:
        """Pairs of each kind."""
        return pair_sizes(PairMasks(*batch["pairs"].unbind(1)))


def _cells(masks: Tensor, stride: int) -> Tensor:
    """The label at the centre of each cell: (B, H, W) -> (B, ceil(H / s), ceil(W / s))."""
    height, width = masks.shape[1:]
    rows = torch.arange(stride // 2, height + stride // 2, stride, device=masks.device)
    columns = torch.arange(stride // 2, width + stride // 2, stride, device=masks.device)
    return masks[:, rows.clamp(max=height - 1)][:, :, columns.clamp(max=width - 1)]
