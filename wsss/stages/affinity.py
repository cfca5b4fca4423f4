"""Stage: train AffinityNet on the alpha seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from wsss.artifacts import MaskStore
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.data.training import Batch, CropDataset, shuffled_batches
from wsss.engine.task import Losses, NetworkTask, Progress
from wsss.losses.affinity import affinity, affinity_loss, pair_sizes
from wsss.models.affinitynet import AffinityNet
from wsss.refine.affinity_labels import PairMasks, affinity_labels, pair_masks
from wsss.refine.pairs import half_disc_offsets
from wsss.stages.classify import labelled
from wsss.stages.networks import build_affinity
from wsss.stages.training import padding, train


class AffinityTask(NetworkTask[AffinityNet]):
    """Semantic affinity of neighbouring cells (Ahn & Kwak, CVPR 2018, section 4.2).

    The loss is a mean over pairs of the whole batch.
    """

    def __init__(self, network: AffinityNet, radius: int) -> None:
        super().__init__(network)
        self.offsets = half_disc_offsets(radius)

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """Return the affinity loss on the labels that both seeds agree to."""
        sizes = batch.get("sizes") or self.sizes(batch)
        values = affinity(self.network(batch["image"]), self.offsets)
        loss = affinity_loss(values, self._pairs(batch), sizes)
        return Losses(loss, {"affinity": loss})

    def sizes(self, batch: Batch) -> dict[str, float]:
        """Pairs of each kind."""
        return pair_sizes(self._pairs(batch))

    @torch.no_grad()
    def _pairs(self, batch: Batch) -> PairMasks:
        low, high = batch["masks"].unbind(1)
        return pair_masks(affinity_labels(low, high, self.network.stride), self.offsets)


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
