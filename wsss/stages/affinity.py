"""Stage: train AffinityNet on the alpha seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsss.artifacts import MaskStore
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.data.training import CropDataset, shuffled_batches
from wsss.networks.affinity import build_affinity
from wsss.stages.training import labelled, padding, train
from wsss.tasks.affinity import AffinityTask


def run(context: Context) -> None:
    """Train on the training images' seeds; no mask of the data set is read."""
    manifest, training = context.manifest, context.config.affinity
    items = labelled(manifest.role("train"))
    seeds = [context.paths.store("seeds", name) for name in ("low", "high")]
    stores = [MaskStore(path) for path in seeds]

    def read_seeds(item: Item) -> Sequence[np.ndarray]:
        return [store.get(item.id) for store in stores]

    network = build_affinity(context.config, True, context.seed)
    task = AffinityTask(network, training.radius)
    fill = padding(network.backbone)
    dataset = CropDataset(manifest, items, training, context.seed, fill, read_seeds)
    orders = shuffled_batches(len(items), training.batch, context.seed)
    train(context, task, dataset, orders, training, seeds)
