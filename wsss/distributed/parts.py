"""Which images of a batch a process works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch.utils.data import Sampler

from wsss.data.training import EpochBatches, Place
from wsss.errors import UserError


def part_of(length: int, rank: int, count: int) -> slice:
    """Return the contiguous part of ``length`` things that is a process's.

    Parts follow one another in the order of ranks and differ by one at most, the larger ones
    first.
    """
    base, larger = divmod(length, count)
    start = rank * base + min(rank, larger)
    return slice(start, start + base + (rank < larger))


def check_batches(
    orders: Callable[[int], list[list[int]]],
    count: int,
    micro: int | None,
    fewest: Callable[[int], int] = lambda length: length,
) -> None:
    """Refuse batches that cannot be shared by ``count`` processes.

    Args:
        fewest: how many images of a batch the loss shares at least, see
            :meth:`wsss.engine.task.Task.fewest`.

    Raises UserError: a batch has fewer images than there are processes, or processes would make
    different numbers of passes for their micro-batches.
    """
    for length in {len(batch) for batch in orders(0)}:
        shared = fewest(length)
        if shared < count:
            part = "" if shared == length else f", of which the loss compares {shared},"
            raise UserError(
                f"a batch of {length} images{part} cannot be shared by {count} processes: lower "
                "distributed.processes or raise batch"
            )
        parts = [part_of(length, rank, count) for rank in (0, count - 1)]
        passes = {-(-(part.stop - part.start) // (micro or length)) for part in parts}
        if len(passes) > 1:
            raise UserError(
                f"a batch of {length} images on {count} processes in micro-batches of {micro} "
                "takes some more passes than others: make batch a multiple of the processes"
            )


class PartBatches(Sampler[list[Place]]):
    """The part of each global batch that is one process's."""

    def __init__(self, batches: EpochBatches, rank: int, count: int) -> None:
        self.batches, self.rank, self.count = batches, rank, count

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Place]]:
        for batch in self.batches:
            yield batch[part_of(len(batch), self.rank, self.count)]
