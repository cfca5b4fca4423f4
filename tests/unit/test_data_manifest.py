"""The manifest: a round trip without loss, a hash that sees pixels, reads that name the id."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsss.data.content import content_hash
from wsss.data.manifest import CSV_NAME, JSON_NAME, Item, Manifest
from wsss.errors import UserError

CLASSES = ("cat", "dog, big", "æ\u2028ø")


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def manifest(root: Path, items: tuple[Item, ...], **changes: object) -> Manifest:
    roles = {"train": "train", "seed": None, "tune": None, "val": "val"}
    made = Manifest("folder", root, CLASSES, (1, 2, 3), (), roles, "0" * 32, items)
    return replace(made, **changes)


@pytest.fixture
def small(tmp_path: Path) -> Manifest:
    mask = np.zeros((4, 6), np.uint8)
    mask[0] = (0, 1, 2, 3, 255, 7)
    save(tmp_path / "a.png", np.full((4, 6, 3), 9, np.uint8))
    save(tmp_path / "b.png", np.full((4, 6, 3), 99, np.uint8))
    save(tmp_path / "m.png", mask)
    items = (
        Item("a", "a.png", "m.png", ("cat", "æ\u2028ø"), ("train", "val")),
        Item("b", "b.png", None, (), ("train",)),
    )
    return manifest(tmp_path, items, background_values=(7,))


names = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters=";"), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_round_trip_of_odd_names(data: st.DataObject) -> None:
    classes = tuple(data.draw(st.lists(names, min_size=1, max_size=4, unique=True)))
    ids = sorted(data.draw(st.lists(names, min_size=1, max_size=5, unique=True)))
    some = st.lists(st.sampled_from(classes), unique=True).map(tuple)
    items = tuple(
        Item(
            identifier,
            data.draw(names),
            data.draw(st.none() | names),
            data.draw(some),
            tuple(data.draw(st.lists(names, unique=True, max_size=3))),
        )
        for identifier in ids
    )
    with tempfile.TemporaryDirectory() as folder:
        made = manifest(Path(folder), items, classes=classes, mask_values=(1,) * len(classes))
        made.save(Path(folder))
        before = [(Path(folder) / name).read_bytes() for name in (CSV_NAME, JSON_NAME)]
        loaded = Manifest.load(Path(folder), Path(folder))
        assert loaded == made
        loaded.save(Path(folder))
        assert before == [(Path(folder) / name).read_bytes() for name in (CSV_NAME, JSON_NAME)]


def test_text_files_are_as_documented(small: Manifest) -> None:
    small.save(small.root / "data")
    raw = (small.root / "data" / CSV_NAME).read_bytes()
    assert b"\r" not in raw
    assert raw.startswith(b"id,image,mask,labels,split\na,a.png,m.png,")
    counts = Manifest.load(small.root / "data", small.root).counts()
    assert counts["train"]["images"] == 2
    assert counts["val"] == {
        "images": 1,
        "masks": 1,
        "per_class": {"cat": 1, "dog, big": 0, "æ\u2028ø": 1},
    }


@pytest.mark.parametrize("name", ["line\nbreak", "return\r", "nul\0", "\ud800"])
def test_names_that_text_cannot_hold_are_refused(small: Manifest, name: str) -> None:
    odd = replace(small, items=(Item(name, "a.png", None, (), ()),))
    with pytest.raises(UserError, match="rename"):
        odd.save(small.root)


def test_labels_and_roles(small: Manifest) -> None:
    first, second = small.items
    assert small.num_classes == 3
    assert small.label(first).tolist() == [1, 0, 1]
    assert small.label(first).dtype == np.float32
    assert small.label(second).tolist() == [0, 0, 0]
    assert small.present(first) == [0, 2]
    assert [item.id for item in small.role("train")] == ["a", "b"]
    assert [item.id for item in small.split("val")] == ["a"]
    assert small.item("b") is second
    for ask in (
        lambda: small.role("tune"),
        lambda: small.role("test"),
        lambda: small.split("nothing"),
        lambda: small.item("c"),
    ):
        with pytest.raises(UserError):
            ask()


def test_masks_are_remapped(small: Manifest) -> None:
    swapped = replace(small, mask_values=(3, 1, 2))
    assert swapped.read_mask(small.items[0])[0].tolist() == [0, 2, 3, 1, 255, 0]
    assert small.read_image(small.items[0]).shape == (4, 6, 3)


def test_bad_files_name_id_and_file(small: Manifest) -> None:
    first, second = small.items
    with pytest.raises(UserError, match=r"'b' has no mask"):
        small.read_mask(second)
    with pytest.raises(UserError, match=r"'a': m\.png holds 7"):
        replace(small, background_values=()).read_mask(first)
    save(small.root / "m.png", np.zeros((6, 4), np.uint8))
    with pytest.raises(UserError, match=r"'a': m\.png is 4x6 but a\.png is 6x4"):
        small.read_mask(first)
    (small.root / "m.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"'a': m\.png cannot be decoded"):
        small.read_mask(first)
    (small.root / "a.png").unlink()
    with pytest.raises(UserError, match=r"'a': a\.png does not exist"):
        small.read_image(first)


def hash_of(made: Manifest) -> str:
    return content_hash(
        made.root, made.items, made.classes, made.mask_values, made.background_values
    )


def test_hash_sees_pixels_rows_and_classes(small: Manifest) -> None:
    hashes = [hash_of(small), hash_of(replace(small, items=small.items[::-1]))]
    assert hashes[0] == hashes[1]
    hashes.append(hash_of(replace(small, classes=("x", *CLASSES[1:]))))
    hashes.append(hash_of(replace(small, items=small.items[:1])))
    relabelled = replace(small.items[0], labels=("cat",))
    hashes.append(hash_of(replace(small, items=(relabelled, small.items[1]))))
    save(small.root / "b.png", np.full((4, 6, 3), 98, np.uint8))
    hashes.append(hash_of(small))
    save(small.root / "m.png", np.zeros((4, 6), np.uint8))
    hashes.append(hash_of(small))
    assert len(set(hashes[1:])) == len(hashes) - 1
    (small.root / "b.png").unlink()
    with pytest.raises(UserError, match=r"'b': b\.png does not exist"):
        hash_of(small)


def test_a_used_manifest_can_be_pickled(small: Manifest) -> None:
    small.item("a")
    small.read_mask(small.items[0])
    assert pickle.loads(pickle.dumps(small)) == small  # noqa: S301


def _swap_columns(text: str) -> str:
    return text.replace("id,image", "image,id")


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "columns": (_swap_columns, "columns must be"),
    "cells": (lambda text: text + "c,c.png\n", "not 5 cells"),
    "surplus": (lambda text: text + "c,c.png,,,train,x\n", "not 5 cells"),
    "label": (lambda text: text + "c,c.png,,wolf,train\n", "'wolf' is no class"),
    "twice": (lambda text: text + "b,b.png,,,train\n", "sorted, unique"),
    "order": (lambda text: text + "aa,b.png,,,train\n", "sorted, unique"),
    "empty": (lambda text: text + "c,,,,train\n", "sorted, unique"),
    "quote": (lambda text: text + '"c,c.png,,,train\n', "not readable CSV"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_loading_validates_rows(small: Manifest, damage: str) -> None:
    change, message = DAMAGE[damage]
    small.save(small.root)
    path = small.root / CSV_NAME
    path.write_bytes(change(path.read_text(encoding="utf-8")).encode())
    with pytest.raises(UserError, match=message):
        Manifest.load(small.root, small.root)


def test_loading_needs_both_files_and_a_root(small: Manifest) -> None:
    small.save(small.root)
    with pytest.raises(UserError, match=r"data\.root"):
        Manifest.load(small.root, None)
    (small.root / CSV_NAME).unlink()
    with pytest.raises(UserError, match="does not exist"):
        Manifest.load(small.root, small.root)
    (small.root / JSON_NAME).write_text("{}")
    with pytest.raises(UserError, match="lacks"):
        Manifest.load(small.root, small.root)
    (small.root / JSON_NAME).unlink()
    with pytest.raises(UserError, match="does not exist"):
        Manifest.load(small.root, small.root)
