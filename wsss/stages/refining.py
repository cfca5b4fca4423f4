"""What the CRF stages share: images and maps in, label maps out, over a process pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from wsss.artifacts import ArrayStore, Entry, MaskStoreWriter
from wsss.context import Context
from wsss.data.manifest import Item, Manifest
from wsss.inference.progress import resumable
from wsss.parallel import ordered_map
from wsss.shards import shard_bounds


class Job(NamedTuple):
    """One image: (H, W, 3) uint8 and its stored maps."""

    image: np.ndarray
    entry: Entry


def take_shard(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """Return the contiguous part ``shard`` = (index, number) of ``items``.

    Not whole windows: no image's mask depends on the others'.
    """
    start, stop = shard_bounds(len(items), *shard, window=1)
    return list(items[start:stop])


def jobs(manifest: Manifest, items: Sequence[Item], store: ArrayStore) -> Iterator[tuple[str, Job]]:
    """Yield (id, job), reading as the pool takes them.

    The parent reads: images are small beside the CRF's work, and shipping the manifest to the
    workers with every job would not be.
    """
    for item in items:
        yield item.id, Job(manifest.read_image(item), store.get(item.id))


def write_maps(
    context: Context,
    function: Callable[[Job], Sequence[np.ndarray]],
    items: Sequence[Item],
    maps: Path,
    outs: Sequence[Path],
    inputs: Sequence[Path] = (),
) -> None:
    """Run ``function`` over all images; its n-th mask of each goes to the n-th store.

    Args:
        maps: store of the maps that the jobs hold.
        inputs: further artifacts that the result depends on.
    """
    store = ArrayStore(maps)
    processes = context.config.resources.processes
    with resumable(context, dict.fromkeys(outs, MaskStoreWriter), items, [maps, *inputs]) as job:
        work = jobs(context.manifest, job.todo, store)
        # Closed at once on an error, so that no worker goes on for nothing.
        with closing(ordered_map(function, work, processes)) as results:
            bar = tqdm(results, total=len(job.todo), desc=context.stage, disable=None)
            for identifier, masks in bar:
                job.add(identifier, *((mask,) for mask in masks))
