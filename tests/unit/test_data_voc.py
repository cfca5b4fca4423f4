"""VOC folders: lists, tags, masks, and everything that can be wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.config.schema import Data
from wsss.data import voc
from wsss.data.check import check
from wsss.data.manifest import Manifest
from wsss.data.scan import EXAMPLES, KINDS, Problem
from wsss.data.sources import build, load_source
from wsss.errors import UserError

SIZE = (6, 8)


def config(root: Path | str | None, **changes: object) -> Data:
    splits = {"train": "train", "seed": None, "tune": None, "val": "val"}
    splits |= dict(changes.pop("splits", {}))  # type: ignore[call-overload]
    values: dict[str, object] = {
        "source": "voc",
        "root": None if root is None else str(root),
        "classes": None,
        "csv": "labels.csv",
        "splits": splits,
        "scenes": {"seed": 0, "size": 64, "train": 1, "tune": 1, "val": 1},
    }
    return Data.model_validate(values | changes)


def add_image(root: Path, name: str, *tags: str, ids: tuple[int, ...] | None = None) -> None:
    """An image with its annotation, and a mask in SegmentationClass unless ``ids`` is None."""
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shade = np.full((*SIZE, 3), sum(name.encode()) % 256, np.uint8)
    Image.fromarray(shade).save(root / f"JPEGImages/{name}.jpg")
    objects = "".join(
        f"<object><name> {tag}\n</name><difficult>1</difficult>"
        "<part><name>head</name></part></object>"
        for tag in tags
    )
    (root / f"Annotations/{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    if ids is not None:
        write_mask(root / f"SegmentationClass/{name}.png", *ids)


def write_mask(path: Path, *ids: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(SIZE, np.uint8)
    mask[0, : len(ids)] = ids
    Image.fromarray(mask).save(path)


def write_list(root: Path, name: str, *ids: str, end: str = "\n") -> None:
    text = "".join(f"{line}{end}" for line in ids)
    (root / f"ImageSets/Segmentation/{name}.txt").write_bytes(text.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_image(tmp_path, "a", "cat", "person", ids=(8, 15, 255))
    add_image(tmp_path, "b", "dog", ids=(12,))
    add_image(tmp_path, "c", "cow", "dog", ids=(10, 12))
    add_image(tmp_path, "unlisted", "dog")
    write_list(tmp_path, "train", "a", "b")
    write_list(tmp_path, "val", "c")
    return tmp_path


def kinds(problems: list[Problem], *severities: str) -> dict[str, int]:
    wanted = severities or ("error", "warning")
    return {p.kind: p.count for p in problems if p.severity in wanted and p.kind != "class-absent"}


def test_a_sound_folder(root: Path) -> None:
    made = build(config(root), root)
    assert made.classes == voc.CLASSES
    assert made.mask_values == tuple(range(1, 21))
    assert [item.id for item in made.items] == ["a", "b", "c"]
    assert made.item("a").labels == ("cat", "person")  # difficult counts, parts do not
    assert made.item("a").splits == ("train",)
    assert made.roles == {"train": "train", "seed": None, "tune": None, "val": "val"}
    assert made.read_mask(made.item("a"))[0, :4].tolist() == [8, 15, 255, 0]
    assert kinds(check(config(root)), "error", "warning", "note") == {}
    made.save(root / "data")
    assert Manifest.load(root / "data", root) == made


def test_selected_classes(root: Path) -> None:
    cfg = config(root, classes=["person", "cat", "cow"])
    made = build(cfg, root)
    assert made.mask_values == (15, 8, 10)
    assert made.item("a").labels == ("person", "cat")
    assert made.item("b").labels == ()
    assert made.read_mask(made.item("a"))[0, :3].tolist() == [2, 1, 255]
    assert made.read_mask(made.item("b")).max() == 0
    assert kinds(check(cfg)) == {"no-label": 1}
    assert kinds(check(cfg), "error") == {}
    assert {p.examples for p in check(cfg) if p.kind == "class-absent"} == {("cow",)}


def test_classes_that_voc_has_not(root: Path) -> None:
    problems = check(config(root, classes=["cat", "wolf", "cat", "background"]))
    assert kinds(problems, "error") == {"class-unknown": 2, "class-name": 2}


def test_augmented_masks_come_first(root: Path) -> None:
    write_mask(root / "SegmentationClassAug/a.png", 15)
    made = build(config(root), root)
    assert made.item("a").mask == "SegmentationClassAug/a.png"
    assert made.item("b").mask == "SegmentationClass/b.png"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "  \n", " 1\n"])
def test_line_ends_blank_lines_and_duplicates(root: Path, end: str) -> None:
    write_list(root, "train", "a", "b", "a", end=end)
    result = voc.scan(config(root))
    assert [item.id for item in result.role("train")] == ["a", "b"]
    assert kinds(result.findings.problems(), "note") == {"list-duplicate": 1}


def test_lists_of_paths_and_byte_order_marks(root: Path) -> None:
    write_list(root, "train", "\ufeff/JPEGImages/a.jpg /SegmentationClassAug/a.png", "b")
    assert [item.id for item in voc.scan(config(root)).role("train")] == ["a", "b"]


def test_train_aug_is_composed(root: Path) -> None:
    cfg = config(root, splits={"train": "train_aug", "seed": "train"})
    missing = check(cfg)
    assert kinds(missing) == {"list-missing": 1}
    assert "sbd_train.txt" in missing[0].examples[0]
    add_image(root, "d", "dog")
    write_list(root, "sbd_train", "c", "d")
    assert kinds(check(cfg)) == {"list-missing": 1}
    write_list(root, "sbd_val", "d", "a")
    assert [item.id for item in build(cfg, root).role("train")] == ["a", "b", "d"]
    write_list(root, "sbd", "unlisted")
    assert [item.id for item in build(cfg, root).role("train")] == ["a", "b", "unlisted"]
    write_list(root, "trainaug", "a")
    assert [item.id for item in build(cfg, root).role("train")] == ["a"]
    write_list(root, "train_aug", "b", "a")
    made = build(cfg, root)
    assert made.item("a").splits == ("train", "train_aug")


def test_unions_are_lists_of_their_own(root: Path) -> None:
    add_image(root, "d", "dog")
    write_list(root, "more", "d", "b")
    made = build(config(root, splits={"train": ["train", "more"]}), root)
    assert made.roles["train"] == "train+more"
    assert [item.id for item in made.role("train")] == ["a", "b", "d"]
    assert [item.id for item in made.split("more")] == ["b", "d"]


def test_missing_root_and_list_say_where_to_look(root: Path, tmp_path: Path) -> None:
    inner = tmp_path / "kit"
    (inner / "VOC2012").mkdir(parents=True)
    problems = check(config(inner))
    assert kinds(problems) == {"root-missing": 1}
    assert "VOC2012 exists" in problems[0].examples[0]
    problems = check(config(root, splits={"val": "valid"}))
    assert kinds(problems) == {"list-missing": 1}
    assert "train, val" in problems[0].examples[0]


def test_every_problem_in_one_run(root: Path) -> None:
    add_image(root, "no_image", "dog", ids=(12,))
    (root / "JPEGImages/no_image.jpg").unlink()
    add_image(root, "no_xml", "dog", ids=(12,))
    (root / "Annotations/no_xml.xml").unlink()
    add_image(root, "bad_xml", "dog", ids=(12,))
    (root / "Annotations/bad_xml.xml").write_text("<annotation><object>")
    add_image(root, "odd_tag", "wolf", ids=(12,))
    add_image(root, "cut", "dog", ids=(12,))
    path = root / "JPEGImages/cut.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    add_image(root, "cut_mask", "dog", ids=(12,))
    path = root / "SegmentationClass/cut_mask.png"
    path.write_bytes(path.read_bytes()[:50])
    add_image(root, "size", "dog")
    Image.new("L", SIZE).save(root / "SegmentationClass/size.png")
    add_image(root, "odd_id", "dog", ids=(12, 21, 77))
    add_image(root, "no_mask", "dog")
    add_image(root, "disagree", "dog", ids=(8,))
    bad = ["no_image", "no_xml", "bad_xml", "odd_tag", "cut", "cut_mask", "size", "odd_id"]
    write_list(root, "train", "a", "b", "c", *bad, "ghost")
    write_list(root, "val", "c", "no_mask", "disagree")
    cfg = config(root, splits={"seed": "train", "tune": "empty"})
    write_list(root, "empty")
    problems = check(cfg)
    assert kinds(problems, "error") == {
        "split-empty": 1,
        "split-overlap": 2,  # c is in train and val, and in seed and val
        "annotation-missing": 2,
        "annotation-unreadable": 1,
        "label-unknown": 1,
        "no-label": 4,
        "image-missing": 2,
        "image-unreadable": 1,
        "mask-unreadable": 1,
        "size-mismatch": 1,
        "mask-ids": 1,
    }
    assert kinds(problems, "warning") == {"mask-missing": 2}
    notes = kinds(problems, "note")
    assert notes["tag-without-pixels"] == 2  # size, disagree
    assert notes["pixels-without-tag"] == 4  # the three without tags, disagree
    by_kind = {p.kind: p for p in problems}
    assert "holds 21, 77" in by_kind["mask-ids"].examples[0]
    assert "unrotated" in by_kind["size-mismatch"].examples[0]
    assert all(len(p.examples) <= EXAMPLES and p.hint for p in problems)
    assert [p.severity for p in problems] == sorted(
        (p.severity for p in problems), key=["error", "warning", "note"].index
    )
    with pytest.raises(UserError, match=r"more kinds of error.*wsss data check") as caught:
        build(cfg, root)
    assert "\n" not in str(caught.value)


def test_a_scored_role_without_any_mask_is_an_error(root: Path) -> None:
    (root / "SegmentationClass/c.png").unlink()
    problems = check(config(root))
    assert kinds(problems, "error") == {"mask-missing": 1}
    assert problems[0].examples == ("val: c",)


@pytest.mark.parametrize(
    ("roles", "count"),
    [
        ({"seed": "train"}, 0),
        ({"tune": "train"}, 0),
        ({"val": "train"}, 2),
        ({"seed": "val"}, 1),
        ({"tune": "val"}, 1),
        ({"seed": "train", "tune": "train"}, 2),
    ],
)
def test_forbidden_and_allowed_overlaps(root: Path, roles: dict[str, str], count: int) -> None:
    assert kinds(check(config(root, splits=roles))).get("split-overlap", 0) == count


def test_long_findings_are_cut_but_counted(root: Path) -> None:
    write_list(root, "val", "c", *(f"ghost{k}" for k in range(9)))
    problem = next(p for p in check(config(root)) if p.kind == "image-missing")
    assert problem.count == 9
    assert len(problem.examples) == EXAMPLES
    assert str(problem).startswith("error: image-missing x9: JPEGImages/ghost0.jpg; ")
    assert "; ..." in str(problem)


def test_every_kind_has_a_hint() -> None:
    assert all(hint and hint == hint.strip() for _, hint in KINDS.values())


def test_unknown_sources_are_named() -> None:
    with pytest.raises(UserError, match="scenes, voc, folder, coco"):
        load_source("imagenet")


@pytest.fixture
def photos() -> Path:
    path = os.environ.get("WSSS_TEST_VOC")
    if not path:
        pytest.skip("WSSS_TEST_VOC names no VOC folder with the five animal classes")
    return Path(path)


def test_real_photos(photos: Path, tmp_path: Path) -> None:
    cfg = config(
        photos,
        classes=["cat", "cow", "dog", "horse", "sheep", "person"],
        splits={"train": "train_mini", "seed": "train", "tune": "tune", "val": "val"},
    )
    made = build(cfg, tmp_path)
    roles = ("train", "seed", "tune", "val")
    assert [len(made.role(name)) for name in roles] == [1000, 437, 563, 245]
    assert all(item.labels and item.mask for item in made.items)
    assert kinds(check(cfg)) == {}
    item = made.role("val")[0]
    assert made.read_image(item).shape[:2] == made.read_mask(item).shape
