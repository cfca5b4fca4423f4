"""What the training loop needs to know of a network and its objective."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.data.training import Batch
from wsss.models.backbones import Backbone


@dataclass(frozen=True)
class Progress:
    """How far training is; schedules are functions of ``fraction``."""

    step: int
    total: int
    epoch: int

    @property
    def fraction(self) -> float:
        """Finished share of training in [0, 1)."""
        return self.step / self.total


class Losses(NamedTuple):
    """A scalar to minimise and its named terms (scalars, for the curves)."""

    total: Tensor
    terms: dict[str, Tensor]


class Task(nn.Module):
    """A network with its objective.

    Everything that must survive an interruption (EMA copies, memories, prototypes) lives in
    parameters and buffers, so that a checkpoint covers it.

    Attributes:
        couples_batch: the loss of one image depends on the others, so that a batch cannot be
            split into micro-batches; such a loss collects what it compares, see
            :mod:`wsss.distributed`.
        freeze_bn: keep the backbone's batch normalisation in eval mode while training. That of
            new layers trains all the same: it has no statistics to keep.
    """

    couples_batch = False
    freeze_bn = False
    backbone: Backbone

    def prepare(self, batch: Batch) -> Batch:
        """Add to a (micro-)batch, still on the host, what :meth:`sizes` and :meth:`losses` read.

        Called once a step: what is counted on the host and compared on the device is made once,
        and the device need not wait for it.
        """
        return batch

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:
        """Return the objective on one (micro-)batch that :meth:`prepare` returned."""
        raise NotImplementedError  # pragma: no cover

    def phases(self, progress: Progress) -> int:  # noqa: ARG002
        """Number of optimiser steps on each batch."""
        return 1

    def fewest(self, batch: int) -> int:
        """The smallest number of images that the loss of ``batch`` images shares out among
        processes (:func:`wsss.distributed.collectives.mine`): each has to get one."""
        return batch

    def weight(self, batch: Batch) -> float:
        """Share of a micro-batch in the global batch's mean loss, before normalisation."""
        return float(len(batch["id"]))

    def sizes(self, batch: Batch) -> dict[str, float]:  # noqa: ARG002
        """Numbers that a loss of several means is divided by, of one prepared (micro-)batch.

        A task that returns any finds their sums over the global batch in ``batch["sizes"]`` and
        divides by those: the losses of its micro-batches then add up, and :meth:`weight` is not
        asked.
        """
        return {}

    def heads(self) -> Iterator[nn.Parameter]:
        """Parameters that start at random and learn at ``head_lr`` times the rate."""
        inherited = {id(p) for p in self.backbone.parameters()}
        return (p for p in self.parameters() if id(p) not in inherited)

    def set_bn_momentum(self, momentum: float | None) -> None:
        """Set how fast running statistics follow the batch; None leaves each layer's own."""
        if momentum is not None:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.momentum = momentum

    def after_step(self, progress: Progress) -> None:
        """Update EMA copies and memories after an optimiser step."""

    def train(self, mode: bool = True) -> Task:
        """Set the mode, keeping frozen normalisation in eval mode."""
        super().train(mode)
        if mode and self.freeze_bn:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


class HasBackbone(Protocol):
    """A network around a backbone."""

    @property
    def backbone(self) -> Backbone:
        """The part that starts from initial weights."""


N = TypeVar("N", bound=HasBackbone)


class NetworkTask(Task, Generic[N]):
    """The objective of a network that is a module of its own."""

    def __init__(self, network: N) -> None:
        super().__init__()
        self.network = network

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        """The network's own, registered once, so that weights hold it once."""
        return self.network.backbone
