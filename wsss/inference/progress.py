"""Stores that a job fills image by image, and that an interrupted job goes on filling.

    with resumable(context, {out: ArrayStoreWriter}, items, inputs) as job:
        for held, images in windows(manifest, job.todo, workers, "cam"):
            ...
            for item in held:
                job.add(item.id, (array, classes, size))

Finished windows lie in small stores of their own, whose members are in the end copied into the
declared ones. Nothing heavy is imported: the CRF stages need no network.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsss.artifacts import merge_stores, stored_ids
from wsss.atomic import together
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.jobstate import held, state_folder
from wsss.shards import WINDOW

log = logging.getLogger(__name__)

# A store class of wsss.artifacts: a context manager with `add(id, *entry)`.
Writer = Callable[[Path], Any]


class Progress:
    """What is done and what is to do of the stores of one job.

    Attributes:
        todo: the images of all windows that are not finished, in order.
        done: how many images are.
    """

    def __init__(self, folder: Path, stores: Mapping[Path, Writer], items: Sequence[Item]) -> None:
        self._folder = folder
        self._stores = stores
        windows = [items[start : start + WINDOW] for start in range(0, len(items), WINDOW)]
        self._count = len(windows)
        rest = [n for n, window in enumerate(windows) if not self._finished(n, window)]
        self.todo = [item for number in rest for item in windows[number]]
        self.done = len(items) - len(self.todo)
        self._open = deque((number, [item.id for item in windows[number]]) for number in rest)
        self._added: list[tuple[tuple[Any, ...], ...]] = []
        if self.done:
            log.info("continuing at image %d of %d", self.done, len(items))

    def add(self, identifier: str, *entries: tuple[Any, ...]) -> None:
        """Add the next image of :attr:`todo`: what each store's ``add`` takes after the id.

        It is safe on disk once its window is complete.
        """
        number, ids = self._open[0]
        expected = ids[len(self._added)]
        if identifier != expected or len(entries) != len(self._stores):
            raise ValueError(f"{identifier!r} with {len(entries)} entries, not {expected!r}")
        self._added.append(entries)
        if len(self._added) == len(ids):
            self._write(number, ids)
            self._open.popleft()
            self._added = []

    def finish(self) -> None:
        """Write the declared stores, all or none."""
        if self._open:
            raise ValueError(f"{len(self._open)} windows have not been filled")
        with together():
            for index, out in enumerate(self._stores):
                merge_stores([self._part(n, index) for n in range(self._count)], out)

    def _part(self, number: int, index: int) -> Path:
        return self._folder / f"{number:06d}.{index}.zip"

    def _finished(self, number: int, window: Sequence[Item]) -> bool:
        ids = sorted(item.id for item in window)
        return all(stored_ids(self._part(number, i)) == ids for i in range(len(self._stores)))

    def _write(self, number: int, ids: Sequence[str]) -> None:
        with together():
            for index, kind in enumerate(self._stores.values()):
                with kind(self._part(number, index)) as store:
                    for identifier, entries in zip(ids, self._added, strict=True):
                        store.add(identifier, *entries[index])


@contextmanager
def resumable(
    context: Context,
    stores: Mapping[Path, Writer],
    items: Sequence[Item],
    inputs: Sequence[Path],
) -> Iterator[Progress]:
    """Fill ``stores`` with ``items``, continuing where an interrupted run of the same job ended.

    At the end of the block the stores are written, with the bytes of an undisturbed run, and a
    record of the job beside the first.

    Args:
        stores: the class that writes each declared store.
        items: the images of this job (of its shard), in order.
        inputs: artifacts the result depends on beside the manifest.
    """
    first = next(iter(stores))
    folder = state_folder(context, [item.id for item in items], inputs, first.stem)
    with held(folder), context.recording(first) as facts:
        job = Progress(folder, stores, items)
        if job.done:
            facts["continued_at"] = job.done
        yield job
        job.finish()
