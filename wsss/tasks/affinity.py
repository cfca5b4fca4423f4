"""The task of AffinityNet."""

from __future__ import annotations

import torch

from wsss.data.training import Batch
from wsss.engine.task import Losses, NetworkTask, Progress
from wsss.losses.affinity import affinity, affinity_loss, pair_sizes
from wsss.models.affinitynet import AffinityNet
from wsss.refine.affinity_labels import PairMasks, affinity_labels, pair_masks
from wsss.refine.pairs import half_disc_offsets


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
