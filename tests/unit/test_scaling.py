"""What must not grow with the number of images: files opened, work handed out, rows kept.

Counted, not timed: a data set of COCO's size is in ``benchmarks/coco_scale.py``.
"""

from __future__ import annotations

import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import pytest
from PIL import Image

from wsss.artifacts import ArrayStoreWriter, MaskStore, MaskStoreWriter
from wsss.data import content
from wsss.data.manifest import Item, Manifest
from wsss.metrics import tally
from wsss.opened import open_once
from wsss.report import agreement as agreeing
from wsss.report.agreement import Sources, agreement
from wsss.report.counts import read_counts

PARTS = 3
SIZE = (6, 8)


def data(folder: Path, images: int) -> Manifest:
    """Images that share two files."""
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "image.png")
    Image.fromarray(np.ones(SIZE, np.uint8)).save(folder / "mask.png")
    items = tuple(
        Item(f"i{n:04d}", "image.png", "mask.png", ("cat",), ("train",)) for n in range(images)
    )
    roles: dict[str, str | None] = dict.fromkeys(("train", "seed", "val"), "train")
    return Manifest("folder", folder, ("cat",), (1,), (), {**roles, "tune": None}, "h", items)


def masks(path: Path, manifest: Manifest) -> Path:
    with MaskStoreWriter(path) as store:
        for item in manifest.items:
            store.add(item.id, np.ones(SIZE, np.uint8))
    return path


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each archive was opened for reading."""
    counted: Counter[str] = Counter()
    original = zipfile.ZipFile.__init__

    def opened(self: zipfile.ZipFile, file: Any, mode: str = "r", *rest: Any, **more: Any) -> None:
        if mode == "r":
            counted[Path(file).name] += 1
        original(self, file, mode, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(zipfile.ZipFile, "__init__", opened)
    return counted


def test_evaluation_opens_a_store_once(tmp_path: Path, opens: Counter[str]) -> None:
    manifest = data(tmp_path, PARTS * tally.PART)
    store = masks(tmp_path / "masks.zip", manifest)
    found = tally.count_split(tally.Job(manifest, store, "masks"), manifest.items, 1)
    assert found.confusion[1, 1] == len(manifest.items) * SIZE[0] * SIZE[1]
    assert opens["masks.zip"] == 1


def test_agreement_opens_stores_once_and_hands_out_parts(
    tmp_path: Path, opens: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = data(tmp_path, PARTS * 32)
    sources = Sources(
        masks(tmp_path / "seeds.zip", manifest),
        masks(tmp_path / "pseudo.zip", manifest),
        None,
        None,
    )
    handed: list[int] = []
    original = agreeing.ordered_map

    def seen(
        function: partial[Any], jobs: Iterator[tuple[str, Any]], processes: int
    ) -> Iterator[Any]:
        handed.append(len(function.args[0].items))
        return original(function, jobs, processes)

    monkeypatch.setattr(agreeing, "ordered_map", seen)
    found = agreement(manifest, list(manifest.items), sources, 1)
    assert len(found.facts) == len(manifest.items)
    assert opens == {"seeds.zip": 1, "pseudo.zip": 1}
    # The manifest goes to the workers with every part: without its items.
    assert handed == [0]


def test_a_replaced_store_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "masks.zip"
    masks(path, data(tmp_path, 2))
    first = open_once(MaskStore, path)
    assert open_once(MaskStore, path) is first
    masks(path, data(tmp_path, 3))
    assert len(open_once(MaskStore, path)) == 3


def test_a_missing_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="run the stage that makes it first"):
        open_once(MaskStore, tmp_path / "none.zip")


class Watched(Sequence[int]):
    """Numbers; remembers the last one that was asked for."""

    last = -1

    def __len__(self) -> int:
        return 10 * content.AT_A_TIME

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        numbers = range(len(self))[index]
        if isinstance(numbers, int):
            return numbers
        self.last = max(self.last, *numbers)
        return list(numbers)


def test_threads_get_so_many_at_a_time() -> None:
    watched = Watched()
    double: Callable[[Any], int] = lambda number: 2 * number  # noqa: E731
    results = content.in_threads(double, watched)  # type: ignore[arg-type]
    assert next(results) == 0
    assert watched.last == content.AT_A_TIME - 1
    assert [0, *results] == [2 * n for n in range(len(watched))]


def test_counts_are_summed_as_they_are_read(tmp_path: Path) -> None:
    images, cells = 200, 40_000
    lines = [f"i{n % images:04d},{n % 3},{n % 2},1" for n in range(cells)]
    path = tmp_path / "final.images.csv"
    path.write_text("\n".join(["id,gt,pred,count", *lines]) + "\n")
    tracemalloc.start()
    counts = read_counts(path, 3, images, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts.truth.sum() == cells
    # The text alone is 560 kB, its rows as Python objects many times that.
    assert peak < 200_000


def test_a_shard_is_joined_without_reading_it_whole(tmp_path: Path) -> None:
    from wsss.artifacts import merge_stores

    parts = []
    rng = np.random.default_rng(0)
    for number in range(4):
        parts.append(tmp_path / f"{number}.zip")
        with ArrayStoreWriter(parts[-1]) as store:
            for image in range(20):
                maps = rng.uniform(0, 1, (4, 64, 64))
                store.add(f"{number}-{image:02d}", maps, [0, 1, 2, 3], (64, 64))
    tracemalloc.start()
    merge_stores(parts, tmp_path / "all.zip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / "all.zip").stat().st_size / 4
