"""Data read ahead in windows, with the memory of each given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wsss.engine.memory import give_back_freed_memory
from wsss.interrupt import leave_to_parent
from wsss.shards import WINDOW

Item = TypeVar("Item")


def _any(_: Any) -> bool:
    return True


def windowed(
    dataset: Dataset[Item], workers: int, title: str, counts: Callable[[Item], bool] = _any
) -> Iterator[list[Item]]:
    """Yield consecutive windows of a data set's items, read ahead by ``workers``.

    Args:
        dataset: any with a length.
        title: of the progress bar.
        counts: which items fill a window; the others come along with those after them.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=leave_to_parent,
    )
    held: list[Item] = []
    full = 0
    for item in tqdm(loader, desc=title, disable=None):
        held.append(item)
        full += counts(item)
        if full == WINDOW:
            yield held
            held, full = [], 0
            give_back_freed_memory()
    if held:
        yield held


def _as_is(item: Any) -> Any:
    return item
