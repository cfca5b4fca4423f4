"""Stages that train, in as many processes as ``distributed`` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wsss.config.spread import spread
from wsss.distributed.place import place
from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.context import Context


def run_training(context: Context, run: Callable[[Context], None], argv: Sequence[str]) -> int:
    """Train, and return the exit status: here, or by starting ``wsss ARGV`` in several processes.

    Args:
        run: the stage.

    Raises UserError: torchrun started another number of processes than is configured.
    """
    wanted, here = spread(context.config, context.stage), place()
    count = wanted.nodes * wanted.processes
    if here.size == 1 and count > 1:
        from wsss.distributed.launch import launch

        return launch(argv, wanted.nodes, wanted.processes)
    if here.size != count:
        raise UserError(
            f"torchrun started {here.size} processes but this job is one of {count}: set "
            "distributed.nodes and distributed.processes, which its result records"
        )
    if count == 1:
        run(context)
        return 0
    from wsss.distributed.group import joined

    with joined(context.config.compute.device):
        run(context)
    return 0
