"""Stores filled window by window: any interruption leaves the bytes of an undisturbed run."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter
from wsss.data.manifest import Item
from wsss.errors import UserError
from wsss.inference import progress
from wsss.inference.progress import Progress
from wsss.jobstate import held, state_folder

WINDOW = 3


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WINDOW", WINDOW)


def items(count: int) -> list[Item]:
    return [Item(f"i{k:03d}", "", None, (), ()) for k in range(count)]


def entries(identifier: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What one image adds to an array store and to a mask store."""
    number = int(identifier[1:])
    classes = list(range(number % 3))
    mask = np.full((2, 1 + number % 4), number % 7, np.uint8)
    return (np.full((len(classes), 2, 2), number), classes, (8, 8)), (mask,)


def stores(folder: Path) -> dict[Path, Any]:
    return {folder / "scores.zip": ArrayStoreWriter, folder / "masks.zip": MaskStoreWriter}


def straight(folder: Path, count: int) -> list[bytes]:
    """Both stores as one run without windows writes them."""
    outs = stores(folder)
    for index, (out, kind) in enumerate(outs.items()):
        with kind(out) as store:
            for item in items(count):
                store.add(item.id, *entries(item.id)[index])
    return [out.read_bytes() for out in outs]


def go_on(folder: Path, count: int, images: int) -> list[str]:
    """Continue the job for some images; return those it had to work on."""
    job = Progress(folder / "state", stores(folder), items(count))
    for item in job.todo[:images]:
        job.add(item.id, *entries(item.id))
    if images >= len(job.todo):
        job.finish()
    return [item.id for item in job.todo]


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(0, 14),
    stops=st.lists(st.integers(0, 8), max_size=4),
    damage=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["remove", "cut", "other"]))),
)
def test_any_interruption_ends_with_the_same_bytes(
    count: int, stops: list[int], damage: list[tuple[int, str]]
) -> None:
    with TemporaryDirectory() as name:
        expected = straight(Path(name) / "straight", count)
        folder = Path(name) / "job"
        done = 0
        for images in stops:
            todo = go_on(folder, count, images)
            assert todo == [item.id for item in items(count)][done:]
            done += min(images, len(todo)) // WINDOW * WINDOW
            done = count if images >= len(todo) else done
        for number, how in damage:
            parts = sorted((folder / "state").glob("*.zip"))
            if not parts:
                break
            part = parts[number % len(parts)]
            if how == "remove":
                part.unlink()
            elif how == "cut":
                part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
            else:
                with MaskStoreWriter(part) as store:
                    store.add("stranger", np.zeros((1, 1), np.uint8))
        go_on(folder, count, count)
        assert [out.read_bytes() for out in stores(folder)] == expected


def test_finished_windows_are_not_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(go_on(tmp_path, 8, 7)) == 8
    with caplog.at_level(logging.INFO):
        assert go_on(tmp_path, 8, 0) == ["i006", "i007"]
    assert "continuing at image 6 of 8" in caplog.text


def test_images_come_in_order_and_all_of_them(tmp_path: Path) -> None:
    job = Progress(tmp_path / "state", stores(tmp_path), items(4))
    with pytest.raises(ValueError, match="not 'i000'"):
        job.add("i001", *entries("i001"))
    with pytest.raises(ValueError, match="with 1 entries"):
        job.add("i000", entries("i000")[0])
    with pytest.raises(ValueError, match="2 windows have not been filled"):
        job.finish()
    assert not list(tmp_path.iterdir())


def test_more_windows_than_files_a_process_may_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(list(Path("/proc/self/fd").iterdir())) + 40  # the 60 windows need more at once
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        go_on(tmp_path, 240, 240)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [out.read_bytes() for out in stores(tmp_path)] == straight(tmp_path / "straight", 240)


# The folder of a job's state


def test_the_name_of_a_state_follows_everything_it_depends_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")

    def name(key: str, ids: list[str], *inputs: str) -> Path:
        paths = SimpleNamespace(state=lambda job, key: tmp_path / f"{job}-{key}")
        context: Any = SimpleNamespace(stage="cam", key=key, paths=paths)
        return state_folder(context, ids, [tmp_path / name for name in inputs])

    names = [
        name("k", ["x", "y"], "a"),
        name("l", ["x", "y"], "a"),
        name("k", ["y", "x"], "a"),
        name("k", ["x", "y"], "b"),
        name("k", ["x", "y"], "a", "b"),
    ]
    assert len(set(names)) == len(names)
    assert name("k", ["x", "y"], "a") == names[0]
    with pytest.raises(UserError, match="c does not exist: run the stage"):
        name("k", [], "c")


def test_a_finished_job_removes_its_state_and_outdated_ones(tmp_path: Path) -> None:
    for name in ("cam.maps-old", "cam.maps.0of2-other", "cam-other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000000.0.zip").touch()
    with held(tmp_path / "cam.maps-new"):
        (tmp_path / "cam.maps-new" / "000000.0.zip").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"cam.maps.0of2-other", "cam-other"}


def test_a_failed_job_keeps_what_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "cam-key"
    with pytest.raises(UserError), held(folder):
        raise UserError("nothing done yet")
    assert not folder.exists()
    with pytest.raises(UserError), held(folder):  # noqa: PT012
        (folder / "000000.0.zip").touch()
        raise UserError("something done")
    assert (folder / "000000.0.zip").exists()
