"""Artifacts: complete or absent, the same bytes every time, and errors that say what to do."""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import pickle
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from wsss.artifacts import (
    ArrayStore,
    ArrayStoreWriter,
    MaskStore,
    MaskStoreWriter,
    load_json,
    load_weights,
    merge_stores,
    save_csv,
    save_json,
    save_weights,
)
from wsss.atomic import atomic_path
from wsss.errors import UserError
from wsss.parallel import ordered_map

# What a manifest allows as an id: anything but control characters and lone surrogates.
IDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
ODD_IDS = [
    "a/b/c.d",
    "../up",
    "/abs",
    "index",
    "index.json",
    ".",
    "x.npy",
    "ä ß 🐈",
    "a\\b",
    "2007_000027",
]
TENSORS = {
    "b.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "a.bias": torch.ones(2, dtype=torch.bfloat16),
    "count": torch.tensor(3),
}


def arrays(path: Path, ids: Sequence[str] = ("one", "two/three")) -> None:
    rng = np.random.default_rng(0)
    with ArrayStoreWriter(path) as store:
        for index, identifier in enumerate(ids):
            # Three classes, then two, one and none.
            classes = list(range(3 - index % 4))
            store.add(identifier, rng.random((len(classes), 4, 5)), classes, (16, 20))


def masks(path: Path, ids: Sequence[str] = ("one", "two/three")) -> None:
    rng = np.random.default_rng(0)
    with MaskStoreWriter(path) as store:
        for identifier in ids:
            store.add(identifier, rng.integers(0, 256, (6, 7)).astype(np.uint8))


def weights(path: Path) -> None:
    save_weights(path, TENSORS, {"stage": "classify", "classes": ["cat", "ä"], "b": 1, "a": None})


WRITERS: dict[str, Callable[[Path], None]] = {
    "json": lambda path: save_json(path, {"b": [1, 2.5, None], "a": "ä"}),
    "csv": lambda path: save_csv(path, [{"a": 1, "b": "x,y"}, {"a": 2, "b": 'q"'}], ("a", "b")),
    "arrays": arrays,
    "masks": masks,
    "weights": weights,
}
writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())


@writers
def test_the_same_content_is_the_same_bytes(tmp_path: Path, write: Callable[[Path], None]) -> None:
    for name in ("one", "two"):
        write(tmp_path / name / "deep" / "artifact")
    one, two = ((tmp_path / name / "deep" / "artifact").read_bytes() for name in ("one", "two"))
    assert one == two
    assert [p.name for p in (tmp_path / "one" / "deep").iterdir()] == ["artifact"]


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """Hash randomisation and the order of dictionaries must not show."""
    code = """if True:
        import sys, torch
        from wsss.artifacts import save_weights
        state = {name: torch.ones(2) for name in {"x", "y", "z", "w"}}
        save_weights(sys.argv[1], state, {name: name for name in {"p", "q", "r", "s"}})
    """
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(tmp_path / seed)]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


class StopError(Exception):
    """Stands for whatever can go wrong in the middle of writing."""


def _break_path(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise StopError


def _break_arrays(path: Path) -> None:
    with ArrayStoreWriter(path) as store:
        store.add("a", np.zeros((1, 2, 2)), [0], (8, 8))
        raise StopError


def _break_masks(path: Path) -> None:
    with MaskStoreWriter(path) as store:
        store.add("a", np.zeros((2, 2), np.uint8))
        raise StopError


@pytest.mark.parametrize("earlier", [None, b"earlier"])
@pytest.mark.parametrize("breaks", [_break_path, _break_arrays, _break_masks])
def test_a_failure_leaves_what_was_there_before(
    tmp_path: Path, breaks: Callable[[Path], None], earlier: bytes | None
) -> None:
    path = tmp_path / "artifact.zip"
    if earlier is not None:
        path.write_bytes(earlier)
    with pytest.raises(StopError):
        breaks(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == (
        {} if earlier is None else {"artifact.zip": earlier}
    )


def test_two_processes_can_write_the_same_artifact(tmp_path: Path) -> None:
    """A temporary name of its own for each process: neither removes the other's."""
    with atomic_path(tmp_path / "a") as mine:
        context = multiprocessing.get_context("fork")
        child = context.Process(target=WRITERS["json"], args=(tmp_path / "a",))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert (tmp_path / "a").exists()
        mine.write_text("mine")
    assert (tmp_path / "a").read_text() == "mine"


# Round trips


@settings(deadline=None, max_examples=40)
@given(data=st.data(), ids=st.lists(IDS, unique=True, max_size=4))
def test_array_stores_return_what_was_added(
    data: st.DataObject, ids: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "a.zip"
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
    values = hnp.from_dtype(np.dtype(np.float16), allow_nan=False)
    expected = {}
    for identifier in ids:
        classes = data.draw(st.lists(st.integers(0, 80), unique=True, max_size=3))
        shape = (len(classes), *data.draw(shapes))
        array = data.draw(hnp.arrays(np.float16, shape, elements=values))
        size = data.draw(st.tuples(st.integers(1, 9999), st.integers(1, 9999)))
        expected[identifier] = (array, classes, size)
    with ArrayStoreWriter(path) as writer:
        for identifier, entry in expected.items():
            writer.add(identifier, *entry)
    store = ArrayStore(path)
    assert store.ids == sorted(ids)
    assert len(store) == len(ids)
    for identifier, (array, classes, size) in expected.items():
        assert identifier in store
        got = store.get(identifier)
        assert got.array.dtype == np.float16
        assert got.array.shape == array.shape
        assert got.array.tobytes() == array.tobytes()
        assert (got.classes, got.size) == (classes, size)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), ids=st.lists(IDS, unique=True, max_size=4))
def test_mask_stores_return_what_was_added(
    data: st.DataObject, ids: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "m.zip"
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
    expected = {name: data.draw(hnp.arrays(np.uint8, shapes)) for name in ids}
    with MaskStoreWriter(path) as writer:
        for identifier, mask in expected.items():
            writer.add(identifier, mask)
    store = MaskStore(path)
    assert store.ids == sorted(ids)
    for identifier, mask in expected.items():
        got = store.get(identifier)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, mask)


def test_odd_ids(tmp_path: Path) -> None:
    arrays(tmp_path / "a.zip", ODD_IDS)
    masks(tmp_path / "m.zip", ODD_IDS)
    for store in (ArrayStore(tmp_path / "a.zip"), MaskStore(tmp_path / "m.zip")):
        assert store.ids == sorted(ODD_IDS)
        for identifier in ODD_IDS:
            assert len(store.get(identifier)) >= 0


def test_an_image_without_classes_keeps_its_shape(tmp_path: Path) -> None:
    with ArrayStoreWriter(tmp_path / "a.zip") as writer:
        writer.add("none", np.zeros((0, 3, 5)), [], (12, 20))
    entry = ArrayStore(tmp_path / "a.zip").get("none")
    assert entry.array.shape == (0, 3, 5)
    assert (entry.classes, entry.size) == ([], (12, 20))


def test_a_store_is_a_plain_zip_that_other_tools_read(tmp_path: Path) -> None:
    masks(tmp_path / "m.zip", ["a/b"])
    arrays(tmp_path / "a.zip", ["a/b"])
    with zipfile.ZipFile(tmp_path / "m.zip") as archive:
        assert archive.namelist() == ["a/b.png", "index.json"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        with archive.open("a/b.png") as stream, Image.open(stream) as image:
            assert image.mode == "P"
            palette = np.array(image.getpalette()).reshape(-1, 3)
    # The colours that VOC's own masks have: background, aeroplane, bicycle, void.
    colours = {0: [0, 0, 0], 1: [128, 0, 0], 2: [0, 128, 0], 255: [224, 224, 192]}
    assert {index: palette[index].tolist() for index in colours} == colours
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a/b.npy") as stream:
        assert np.load(stream, allow_pickle=False).dtype == np.float16


def test_writers_refuse_what_is_no_map(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not match 1 classes"):
        arrays_with(tmp_path, np.zeros((2, 3, 3)), [0])
    with pytest.raises(ValueError, match="does not match"):
        arrays_with(tmp_path, np.zeros((3, 3)), [0, 1, 2])
    for wrong in (np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"), MaskStoreWriter(tmp_path / "m") as store:
            store.add("a", wrong)
    with pytest.raises(ValueError, match="twice"):
        masks(tmp_path / "m", ["a", "a"])
    assert not list(tmp_path.iterdir())


def arrays_with(folder: Path, array: np.ndarray, classes: list[int]) -> None:
    with ArrayStoreWriter(folder / "a") as store:
        store.add("a", array, classes, (1, 1))


def test_csv_and_json_as_text(tmp_path: Path) -> None:
    WRITERS["csv"](tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\n1,"x,y"\n2,"q"""\n'
    save_json(tmp_path / "a.json", {"b": 1, "a": "ä"})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": "ä",\n  "b": 1\n}\n'
    assert load_json(tmp_path / "a.json") == {"a": "ä", "b": 1}


def test_weights_keep_values_types_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights(path)
    state, meta = load_weights(path)
    assert meta == {"stage": "classify", "classes": ["cat", "ä"], "b": 1, "a": None}
    assert set(state) == set(TENSORS)
    for name, value in TENSORS.items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value)
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    about = json.loads(header)["__metadata__"]
    assert list(about) == ["wsss"]
    # Readable by whom any other file would be: the umask decides.
    assert path.stat().st_mode == _plain_mode(tmp_path)


def _plain_mode(folder: Path) -> int:
    (folder / "plain").touch()
    return (folder / "plain").stat().st_mode


def test_weights_of_views_and_shared_tensors(tmp_path: Path) -> None:
    """safetensors itself refuses tensors that share memory."""
    base = torch.arange(6.0).reshape(2, 3)
    save_weights(tmp_path / "w", {"a": base, "b": base, "c": base.T, "d": base[1]}, {})
    state, meta = load_weights(tmp_path / "w")
    assert meta == {}
    for name, value in {"a": base, "b": base, "c": base.T, "d": base[1]}.items():
        assert torch.equal(state[name], value)


# Damage


@pytest.mark.parametrize("read", [ArrayStore, MaskStore, load_json, load_weights])
def test_a_missing_file_names_the_stage(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(UserError, match=r"gone\.zip does not exist: run the stage"):
        read(tmp_path / "gone.zip")


@pytest.mark.parametrize("kind", [ArrayStore, MaskStore])
def test_an_unknown_id(tmp_path: Path, kind: type[ArrayStore | MaskStore]) -> None:
    path = tmp_path / "s.zip"
    (arrays if kind is ArrayStore else masks)(path)
    store = kind(path)
    assert "four" not in store
    with pytest.raises(UserError, match=r"s\.zip holds no 'four\..*delete it and rerun"):
        store.get("four")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "text": lambda _: b"no archive",
    # A flipped bit inside the first member: the directory is whole, the payload is not.
    "flipped": lambda data: data[:120] + bytes([data[120] ^ 1]) + data[121:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("kind", [ArrayStore, MaskStore])
def test_a_damaged_store(
    tmp_path: Path, kind: type[ArrayStore | MaskStore], damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "s.zip"
    (arrays if kind is ArrayStore else masks)(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"s\.zip is damaged .*delete and rerun"):
        kind(path).get("one")
    with pytest.raises(UserError, match=r"s\.zip is damaged"):
        merge_stores([path], tmp_path / "out.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["s.zip"]


@pytest.mark.parametrize("damage", [DAMAGE["empty"], DAMAGE["cut"], DAMAGE["text"]])
def test_damaged_weights_and_json(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    weights(tmp_path / "w")
    (tmp_path / "w").write_bytes(damage((tmp_path / "w").read_bytes()))
    with pytest.raises(UserError, match="w is not a readable safetensors file"):
        load_weights(tmp_path / "w")
    save_json(tmp_path / "j", {"a": [1, 2, 3]})
    (tmp_path / "j").write_bytes(damage((tmp_path / "j").read_bytes()))
    with pytest.raises(UserError, match="j is not valid JSON"):
        load_json(tmp_path / "j")


# Shards


@pytest.mark.parametrize("write", [arrays, masks])
@pytest.mark.parametrize("cuts", [(4, 4), (0, 10), (1, 2, 9), ()])
def test_merged_shards_are_one_run(
    tmp_path: Path, write: Callable[[Path, Sequence[str]], None], cuts: tuple[int, ...]
) -> None:
    """Byte for byte, empty shards and odd ids included."""
    ids = ODD_IDS
    whole = tmp_path / "whole.zip"
    stores: dict[str, Any] = {}
    write(whole, ids)
    source = ArrayStore(whole) if write is arrays else MaskStore(whole)
    bounds = [0, *cuts, len(ids)]
    parts = []
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        parts.append(tmp_path / f"{number}.zip")
        stores[str(number)] = ids[start:stop]
        if isinstance(source, ArrayStore):
            with ArrayStoreWriter(parts[-1]) as arrays_writer:
                for identifier in ids[start:stop]:
                    arrays_writer.add(identifier, *source.get(identifier))
        else:
            with MaskStoreWriter(parts[-1]) as masks_writer:
                for identifier in ids[start:stop]:
                    masks_writer.add(identifier, source.get(identifier))
    merge_stores(parts, tmp_path / "merged.zip")
    assert (tmp_path / "merged.zip").read_bytes() == whole.read_bytes()


def test_shards_that_overlap_are_refused(tmp_path: Path) -> None:
    masks(tmp_path / "0.zip", ["a"])
    with pytest.raises(UserError, match=r"0\.zip: 'a' is there twice"):
        merge_stores([tmp_path / "0.zip", tmp_path / "0.zip"], tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


# Processes


def _read_in_child(store: ArrayStore, queue: Any) -> None:
    queue.put([store.get(identifier).array.tobytes() for identifier in store.ids])


def test_a_store_that_is_open_survives_a_fork(tmp_path: Path) -> None:
    """A forked child must not share its parent's position in the file."""
    arrays(tmp_path / "a.zip", [f"i{k}" for k in range(20)])
    store = ArrayStore(tmp_path / "a.zip")
    expected = [store.get(identifier).array.tobytes() for identifier in store.ids]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_read_in_child, args=(store, queue)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in range(20):
        assert [store.get(identifier).array.tobytes() for identifier in store.ids] == expected
    for _ in children:
        assert queue.get(timeout=60) == expected
    for child in children:
        child.join()


def test_a_store_that_is_open_reaches_new_processes(tmp_path: Path) -> None:
    masks(tmp_path / "m.zip", ["a", "b", "c"])
    store = MaskStore(tmp_path / "m.zip")
    expected = {identifier: store.get(identifier) for identifier in store.ids}
    for identifier, mask in ordered_map(store.get, ((i, i) for i in store.ids), 2):
        np.testing.assert_array_equal(mask, expected[identifier])


def test_stores_are_pickled_by_their_path(tmp_path: Path) -> None:
    masks(tmp_path / "m.zip")
    store = MaskStore(tmp_path / "m.zip")
    expected = store.get("one")
    payload = pickle.dumps(store)
    assert len(payload) < 1000
    np.testing.assert_array_equal(pickle.loads(payload).get("one"), expected)  # noqa: S301


# Disks that are full or closed


def _full(*_args: Any, **_keywords: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("target", "write"),
    [
        ("pathlib.Path.write_bytes", "json"),
        ("pathlib.Path.write_bytes", "weights"),
        ("csv.DictWriter.writerows", "csv"),
        ("zipfile.ZipFile.writestr", "arrays"),
        ("zipfile.ZipFile._write_end_record", "masks"),
    ],
)
def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, write: str
) -> None:
    path = tmp_path / "artifact"
    path.write_bytes(b"earlier")
    monkeypatch.setattr(target, _full)
    with pytest.raises(UserError, match=r"disk full while writing .*artifact: free some space"):
        WRITERS[write](path)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"artifact": b"earlier"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
@writers
def test_a_disk_that_is_really_full(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """The error as the operating system and each library report it."""
    path = tmp_path / "artifact"
    (tmp_path / f".artifact.{platform.node()}-{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match="disk full"):
        write(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@writers
def test_a_folder_that_is_read_only(tmp_path: Path, write: Callable[[Path], None]) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(UserError, match=r"cannot write .*artifact: check the folder"):
            write(tmp_path / "artifact")
    finally:
        tmp_path.chmod(0o755)
