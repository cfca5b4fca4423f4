"""The task of AffinityNet."""

from __future__ import annotations

import torch

from wsss.data.training import Batch
from wsss.engine.task import Losses, NetworkTask, Progress
from wsss.losses.affinity import affinity, pair_loss, pair_sizes
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
        pairs = PairMasks(*batch["pairs"].unbind(1))
        sizes = batch.get("sizes") or pair_sizes(pairs)
        loss = pair_loss(affinity(self.network(batch["image"]), self.offsets), pairs, sizes)
        return Losses(loss, {"affinity": loss})

    def prepare(self, batch: Batch) -> Batch:
        """Add the kinds of pairs, (B, 3, P, h, w) bool."""
        low, high = batch["masks"].unbind(1)
        labels = affinity_labels(low, high, self.network.stride)
        return {**batch, "pairs": torch.stack(pair_masks(labels, self.offsets), 1)}

    def sizes(self, batch: Batch) -> dict[str, float]:
        """Pairs of each kind."""
        return pair_sizes(PairMasks(*batch["pairs"].unbind(1)))
