"""Stage: train IRNet on the confident seeds, then measure its mean displacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from wsss.artifacts import MaskStore
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.data.training import CropDataset, shuffled_batches
from wsss.engine.device import autocast
from wsss.inference.images import batches_by_size, windows
from wsss.models.irnet import IrNet
from wsss.networks.irnet import build_irnet
from wsss.stages.training import labelled, padding, train
from wsss.tasks.irnet import IrNetTask


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
