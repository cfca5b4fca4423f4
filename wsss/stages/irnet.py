"""Stage: train IRNet on the confident seeds, then measure its mean displacement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from wsss.artifacts import MaskStore
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.data.training import Batch, CropDataset, shuffled_batches
from wsss.engine.device import autocast
from wsss.engine.task import Losses, NetworkTask, Progress
from wsss.inference.images import batches_by_size, windows
from wsss.losses.affinity import pair_sizes
from wsss.losses.irnet import boundary_loss, displacement_loss
from wsss.models.irnet import IrNet
from wsss.refine.affinity_labels import PairMasks, pair_masks
from wsss.refine.pairs import half_disc_offsets
from wsss.refine.paths import boundary_affinity
from wsss.stages.classify import labelled
from wsss.stages.networks import build_irnet
from wsss.stages.training import padding, train


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
        sizes = batch.get("sizes") or self.sizes(batch)
        found, pairs = self.network(batch["image"]), self._pairs(batch)
        edges = boundary_affinity(found.edge[:, 0].float().sigmoid(), self.offsets)
        boundary = boundary_loss(edges, pairs, sizes)
        field = found.displacement.float()
        foreground, background = displacement_loss(field, pairs, self.offsets, sizes)
        total = boundary + (foreground + background) / 2
        terms = {"boundary": boundary, "dp_fg": foreground, "dp_bg": background}
        return Losses(total, terms)

    def sizes(self, batch: Batch) -> dict[str, float]:
        """Pairs of each kind."""
        return pair_sizes(self._pairs(batch))

    def _pairs(self, batch: Batch) -> PairMasks:
        return pair_masks(_cells(batch["masks"][:, 0], self.network.stride), self.offsets)


def _cells(masks: Tensor, stride: int) -> Tensor:
    """The label at the centre of each cell: (B, H, W) -> (B, ceil(H / s), ceil(W / s))."""
    height, width = masks.shape[1:]
    rows = torch.arange(stride // 2, height + stride // 2, stride, device=masks.device)
    columns = torch.arange(stride // 2, width + stride // 2, stride, device=masks.device)
    return masks[:, rows.clamp(max=height - 1)][:, :, columns.clamp(max=width - 1)]


def run(context: Context) -> None:
    """Train on the training images' confident seeds; no mask of the data set is read."""
    manifest, training = context.manifest, context.config.irnet
    items = labelled(manifest.role("train"))
    path = context.paths.store("seeds", "confident")
    store = MaskStore(path)

    def read_seeds(item: Item) -> Sequence[np.ndarray]:
        return [store.get(item.id)]

    network = build_irnet(context.config, True, context.seed)
    task = IrNetTask(network, training.radius)
    fill = padding(network.backbone)
    dataset = CropDataset(manifest, items, training, context.seed, fill, read_seeds)
    orders = shuffled_batches(len(items), training.batch, context.seed)

    def centre(kept: nn.Module) -> None:
        # The task itself, or its EMA copy.
        assert isinstance(kept, IrNetTask)
        measure_displacement(context, kept.network, items)

    train(context, task, dataset, orders, training, [path], finish=centre)


@torch.inference_mode()
def measure_displacement(context: Context, network: IrNet, items: Sequence[Item]) -> None:
    """Set the mean displacement over all cells of the training images (section 4.3).

    The loss leaves the field of the background free up to a constant, and most cells are
    background.
    """
    config = context.config
    device = network.mean_displacement.device
    network.eval()
    network.mean_displacement.zero_()
    total, cells = torch.zeros(2, dtype=torch.float64), 0
    loader = windows(context.manifest, items, config.resources.workers, "mean displacement")
    for _, images in loader:
        for _, batch in batches_by_size(images, config.irnet.batch):
            with autocast(config.compute, device):
                field = network(batch.to(device)).displacement.float()
            total += field.sum((0, 2, 3), dtype=torch.float64).cpu()
            cells += field[:, 0].numel()
    network.mean_displacement.copy_(total / cells)
