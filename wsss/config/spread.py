"""In how many processes a stage that trains runs."""

from __future__ import annotations

from wsss.config.schema import Config, Distributed

_ALONE = Distributed(nodes=1, processes=1)


def spread(config: Config, stage: str) -> Distributed:
    """Return on how many nodes, and in how many processes on each, a stage that trains runs.

    That is what ``distributed`` says; but published weights that stand in for the training are
    copied by one process.
    """
    imported = getattr(getattr(config, stage), "checkpoint", None) is not None
    return _ALONE if imported else config.distributed
