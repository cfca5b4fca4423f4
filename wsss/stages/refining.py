"""What the CRF stages share: images and maps in, label maps out, over a process pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from wsss.artifacts import ArrayStore, Entry, MaskStoreWriter
from wsss.config.schema import Crf
from wsss.data.manifest import Item, Manifest
from wsss.parallel import ordered_map
from wsss.refine.crf import CrfParams


class Job(NamedTuple):
    """One image: (H, W, 3) uint8 and its stored maps."""

    image: np.ndarray
    entry: Entry


def crf_params(config: Crf) -> CrfParams:
    """Return the constants in the form the CRF takes."""
    return CrfParams(**config.model_dump())


def take_shard(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """Return the contiguous part ``shard`` = (index, number) of ``items``."""
    index, number = shard
    count = len(items)
    return list(items[count * index // number : count * (index + 1) // number])


def jobs(manifest: Manifest, items: Sequence[Item], store: ArrayStore) -> Iterator[tuple[str, Job]]:
    """Yield (id, job), reading as the pool takes them.

    The parent reads: images are small beside the CRF's work, and shipping the manifest to the
    workers with every job would not be.
    """
    for item in items:
        yield item.id, Job(manifest.read_image(item), store.get(item.id))


def write_maps(
    function: Callable[[Job], Sequence[np.ndarray]],
    work: Iterator[tuple[str, Job]],
    total: int,
    outs: Sequence[Path],
    processes: int,
    title: str,
) -> None:
    """Run ``function`` over all jobs; its n-th mask of each image goes to the n-th store."""
    writers = [MaskStoreWriter(out) for out in outs]
    with _all(writers):
        results = ordered_map(function, work, processes)
        for identifier, masks in tqdm(results, total=total, desc=title, disable=None):
            for writer, mask in zip(writers, masks, strict=True):
                writer.add(identifier, mask)


def _all(writers: Sequence[MaskStoreWriter]) -> ExitStack[bool | None]:
    """Enter all stores, so that they appear together or not at all."""
    with ExitStack() as stack:
        for writer in writers:
            stack.enter_context(writer)
        return stack.pop_all()
