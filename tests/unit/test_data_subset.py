"""Smaller data sets: rules of lists, sizes, and that nothing else changes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_tools
from pycocotools.coco import COCO

from tests.unit.test_data_coco import Folder, box, runs
from tests.unit.test_data_coco import config as coco_config
from tests.unit.test_data_voc import add_image, kinds, write_list
from tests.unit.test_data_voc import config as voc_config
from wsss.cli import main
from wsss.data.check import check
from wsss.data.coco_json import runs_of
from wsss.data.scan import Findings
from wsss.data.shrink import shrunk
from wsss.data.sources import build
from wsss.data.subset import Choice, choose, difference, sample
from wsss.data.subset_coco import _counts
from wsss.data.subset_voc import VocLayout
from wsss.data.voc import tags
from wsss.errors import UserError

ANIMALS = ("cat", "cow", "dog", "horse", "sheep")
Subset = Callable[..., tuple[int, str]]


@pytest.fixture
def subset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Subset:
    """Run the command into ``tmp_path/out``; returns the exit code and what it said."""

    def call(source: Path, classes: str, lists: str, side: int, *more: str) -> tuple[int, str]:
        arguments = ["--source-root", str(source), "--out", str(tmp_path / "out")]
        arguments += ["--classes", classes, "--lists", lists, "--longest-side", str(side), *more]
        code = main(["data", "subset", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# Sizes


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 3000))
def test_shrunk_sizes(height: int, width: int, side: int) -> None:
    small = shrunk((height, width), side)
    if max(height, width) <= side:
        assert small == (height, width)
        return
    assert max(small) == side
    assert min(small) == max(1, round(min(height, width) * side / max(height, width)))


@pytest.mark.parametrize(
    ("before", "after"), [((375, 500), (240, 320)), ((333, 500), (213, 320)), ((10, 9), (10, 9))]
)
def test_sizes_of_voc(before: tuple[int, int], after: tuple[int, int]) -> None:
    assert shrunk(before, 320) == after


# Lists

LISTS = {"all": list("abcdefgh"), "some": ["c", "a"], "a-b": ["h"], "a": ["a"]}


def test_samples_depend_on_ids_alone() -> None:
    name, ids = sample("new=all:4", LISTS)
    assert name == "new"
    assert ids == sorted(ids)
    shuffled = {**LISTS, "all": LISTS["all"][::-1]}
    assert sample("new=all:4", shuffled)[1] == ids
    assert set(ids) < set(sample("new=all:5", LISTS)[1])
    assert sample("new=all:8", LISTS)[1] == LISTS["all"]
    # Smallest by sha256sum: d 18ac…, f 252f…, c 2e7d…, b 3e23….
    assert ids == ["b", "c", "d", "f"]


def test_samples_contain_a_list() -> None:
    for count in range(2, 9):
        ids = sample(f"new=all:{count}:containing=some", LISTS)[1]
        assert {"a", "c"} <= set(ids)
        assert len(ids) == len(set(ids)) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("new", "write NEW=LIST:COUNT"),
        ("new=all:x", "write NEW=LIST:COUNT"),
        ("../new=all:1", "write NEW=LIST:COUNT"),
        ("new=none:1", "no list 'none': the lists are all, some"),
        ("new=all:9", "from 0 to 8"),
        ("new=all:1:containing=some", "from 2 to 8"),
        ("new=some:1:containing=all", "images that some has not"),
    ],
)
def test_samples_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sample(text, LISTS)


def test_differences() -> None:
    assert difference("new=all-some", LISTS) == ("new", list("bdefgh"))
    assert difference("new=all-a-b", LISTS) == ("new", list("abcdefg"))
    assert difference("n-w=a-b-all", LISTS) == ("n-w", [])
    for text in ("new", "new=all", "new=all-none", "/x=all-some"):
        with pytest.raises(UserError, match="--difference"):
            difference(text, LISTS)


# VOC


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Six images; e has no mask, f is on no list."""
    root = tmp_path / "voc"
    for name, shown in {"a": ["cat", "person"], "b": ["dog"], "c": ["car"], "d": ["cow"]}.items():
        add_image(root, name, *shown, ids=(8, 15, 255))
    add_image(root, "e", "cat")
    add_image(root, "f", "cat", ids=(8,))
    write_list(root, "train", "b", "a", "c", "e")
    write_list(root, "val", "d")
    return root


def test_voc_images_of_the_classes(voc: Path, subset: Subset, tmp_path: Path) -> None:
    code, said = subset(voc, "cat,cow,dog", "train,val", 4)
    out = tmp_path / "out"
    assert (code, said) == (0, f"train: 2 images\nval: 1 images\ndata.root: {out}\n")
    assert sorted(tree(out)) == [
        *(f"Annotations/{i}.xml" for i in "abd"),
        *(f"ImageSets/Segmentation/{n}.txt" for n in ("train", "val")),
        *(f"JPEGImages/{i}.jpg" for i in "abd"),
        *(f"SegmentationClassAug/{i}.png" for i in "abd"),
    ]
    assert (out / "ImageSets/Segmentation/train.txt").read_text() == "a\nb\n"
    assert kinds(check(voc_config(out))) == {}
    made = build(voc_config(out), tmp_path)
    assert made.item("a").labels == ("cat", "person")
    assert made.read_image(made.item("a")).shape == (3, 4, 3)
    with Image.open(out / "SegmentationClassAug/a.png") as image:
        assert image.mode == "P"


def test_voc_annotations_hold_names_and_scaled_boxes(
    voc: Path, subset: Subset, tmp_path: Path
) -> None:
    text = (
        "<annotation><source><x>y</x></source><object><name>dog</name><pose>Left</pose>"
        "<bndbox><xmin>3</xmin><ymin>1</ymin><xmax>8</xmax><ymax>6</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        "<object><name>dog</name></object></annotation>"
    )
    (voc / "Annotations/b.xml").write_text(text)
    assert subset(voc, "dog", "train", 4)[0] == 0
    root = ElementTree.parse(tmp_path / "out/Annotations/b.xml").getroot()
    assert [node.tag for node in root] == ["folder", "filename", "size", "object", "object"]
    first, second = root.findall("object")
    assert [node.tag for node in first] == ["name", "bndbox"]
    assert [(n.tag, float(n.text or 0)) for n in first[1]] == [
        ("xmin", 1.5),
        ("ymin", 0.5),
        ("xmax", 4),
        ("ymax", 3),
    ]
    assert [node.tag for node in second] == ["name"]
    assert root.findtext("size/width") == "4"


def test_small_images_are_copied_and_large_ones_take_the_quality(
    voc: Path, subset: Subset, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(noise).save(voc / "JPEGImages/b.jpg")
    Image.new("L", (80, 60), 12).save(voc / "SegmentationClass/b.png")
    sizes = []
    for quality in ("30", "95"):
        out = tmp_path / quality
        assert subset(voc, "dog,cat", "train", 40, "--quality", quality, "--out", str(out))[0] == 0
        assert (out / "JPEGImages/a.jpg").read_bytes() == (voc / "JPEGImages/a.jpg").read_bytes()
        sizes.append((out / "JPEGImages/b.jpg").stat().st_size)
    assert sizes[0] < sizes[1]


def test_lists_of_ones_own_and_a_limit(voc: Path, subset: Subset, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "mine.txt").write_text("f\nc\nd\na\n")
    (lists / "val.txt").write_text("f")
    more = ("--lists-from", str(lists), "--limit", "2", "--difference", "rest=mine-train")
    code, said = subset(voc, "cat,cow", "mine,train,val", 4, *more)
    assert (code, said.splitlines()[:4]) == (
        0,
        ["mine: 2 images", "train: 1 images", "val: 1 images", "rest: 1 images"],
    )
    folder = tmp_path / "out/ImageSets/Segmentation"
    found = {path.stem: path.read_text().split() for path in folder.iterdir()}
    assert found == {"mine": ["a", "d"], "train": ["a"], "val": ["f"], "rest": ["d"]}


@pytest.mark.parametrize(
    ("classes", "lists", "more", "message"),
    [
        ("wolf", "train", [], "--classes: wolf is none of aeroplane"),
        ("cat", "trian", [], "lists found: train, val"),
        ("bus", "train", [], "list train would be empty"),
        ("cat", "train", ["--difference", "val=train-train"], "list val would be empty"),
        ("cat", "train", ["--sample", "train=train:1"], "'train' is there already"),
    ],
)
def test_choices_that_cannot_be(
    voc: Path,
    subset: Subset,
    tmp_path: Path,
    classes: str,
    lists: str,
    more: list[str],
    message: str,
) -> None:
    code, said = subset(voc, classes, lists, 4, *more)
    assert code == 1
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be(voc: Path, subset: Subset, tmp_path: Path) -> None:
    assert "neither" in subset(tmp_path / "none", "cat", "train", 4)[1]
    assert "inside the source" in subset(voc, "cat", "train", 4, "--out", str(voc / "x"))[1]
    assert "inside the source" in subset(voc, "cat", "train", 4, "--out", str(voc))[1]
    assert subset(voc, "cat", "train", 4)[0] == 0
    before = tree(tmp_path / "out")
    assert "holds a data set already" in subset(voc, "cat", "train", 4)[1]
    assert tree(tmp_path / "out") == before


def test_a_damaged_image_stops_before_the_lists(voc: Path, subset: Subset, tmp_path: Path) -> None:
    (voc / "JPEGImages/b.jpg").write_bytes(b"junk")
    code, said = subset(voc, "cat,dog", "train", 4)
    assert code == 1
    assert "b.jpg" in said
    assert not (tmp_path / "out/ImageSets").exists()
    add_image(voc, "b", "dog", ids=(12,))
    assert subset(voc, "cat,dog", "train", 4)[0] == 0  # the same command completes it


def test_processes_do_not_change_the_bytes(voc: Path, subset: Subset, tmp_path: Path) -> None:
    for count in ("1", "2"):
        more = ("--processes", count, "--out", str(tmp_path / count))
        assert subset(voc, "cat,dog", "train", 4, *more)[0] == 0
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_real_photos_choose_themselves(voc_root: Path) -> None:
    """Its own classes and lists applied to VOC-animals give the same ids."""
    names = ("train_aug", "train", "val", "train_mini")
    rule = Choice(ANIMALS, names, differences=("tune=train_mini-train",))
    lists = choose(VocLayout(voc_root), rule)
    for name in (*names, "tune"):
        listed = (voc_root / f"ImageSets/Segmentation/{name}.txt").read_text().split()
        assert lists[name] == listed
    few = choose(VocLayout(voc_root), Choice(("cow",), ("train",)))["train"]
    assert few == [i for i in lists["train"] if "cow" in tags(voc_root, i, Findings())]
    assert 10 < len(few) < 100


def test_real_photos_at_their_own_size_stay(voc_root: Path, subset: Subset, tmp_path: Path) -> None:
    assert subset(voc_root, ",".join(ANIMALS), "val", 320)[0] == 0
    out = tmp_path / "out"
    ids = (out / "ImageSets/Segmentation/val.txt").read_text().split()
    assert len(ids) == 245
    for i in ids:
        for path in (f"JPEGImages/{i}.jpg", f"SegmentationClassAug/{i}.png"):
            assert (out / path).read_bytes() == (voc_root / path).read_bytes()
        assert tags(out, i, Findings()) == tags(voc_root, i, Findings())


def test_real_photos_made_smaller(voc_root: Path, subset: Subset, tmp_path: Path) -> None:
    assert subset(voc_root, "sheep", "val", 100, "--limit", "5")[0] == 0
    out = tmp_path / "out"
    before, after = (
        voc_config(root, splits={"train": "val", "val": None}) for root in (voc_root, out)
    )
    assert kinds(check(after)) == {}
    large, small = build(before, tmp_path), build(after, tmp_path)
    assert len(small.items) == 5
    for item in small.items:
        assert item.labels == large.item(item.id).labels
        mask, whole = small.read_mask(item), large.read_mask(large.item(item.id))
        assert mask.shape == shrunk(whole.shape, 100)  # type: ignore[arg-type]
        assert set(np.unique(mask)) <= set(np.unique(whole))
        # A pixel's id is that of the place it stands for.
        rows, columns = (
            ((np.arange(n) + 0.5) * whole.shape[k] / n).astype(int)
            for k, n in enumerate(mask.shape)
        )
        assert (mask == whole[np.ix_(rows, columns)]).mean() > 0.99
        image, photo = small.read_image(item), large.read_image(large.item(item.id))
        height, width = mask.shape
        reference = Image.fromarray(photo).resize((width, height), Image.Resampling.BOX)
        assert np.abs(image.astype(float) - np.asarray(reference)).mean() < 8


# COCO


def test_lists_only(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list to choose settings on, and the rest to train on, beside the data itself."""
    before = tree(coco)
    arguments = ["data", "subset", "--source-root", str(coco), "--out", str(coco / "lists")]
    arguments += ["--lists", "train2014", "--lists-only"]
    rules = ["--sample", "choice=train2014:1", "--difference", "rest=train2014-choice"]
    assert main([*arguments, *rules]) == 0
    assert capsys.readouterr().out == "choice: 1 images\nrest: 3 images\n"
    after = tree(coco)
    assert {*after} - {*before} == {"lists/choice.txt", "lists/rest.txt"}
    cfg = coco_config(coco, splits={"train": "rest", "tune": "choice"})
    assert kinds(check(cfg)) == {}
    assert main([*arguments, *rules]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(arguments) == 1
    assert "name a new list" in capsys.readouterr().err
    assert tree(coco) == after


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    made = Folder(tmp_path / "coco")
    for key in (1, 2, 3, 4):
        made.image("train2014", key)
        made.annotate(
            "train2014",
            key,
            [1, 1, 9, 1][key - 1],
            box(0, 0, 4, 4),
            area=16.0,
            bbox=[0.0, 0.0, 4.0, 4.0],
        )
    made.image("val2014", 5)
    crowd = np.zeros((8, 10), np.uint8)
    crowd[2:6, 4:8] = 1
    made.annotate("val2014", 5, 1, runs(crowd), area=16, iscrowd=1)
    packed = coco_tools.encode(np.asfortranarray(crowd))["counts"].decode()
    made.annotate("val2014", 5, 90, {"size": [8, 10], "counts": packed}, area=16)
    made.list("tune", "3", "2", "4")
    return made.write()


def instances(root: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / f"annotations/instances_{name}.json").read_text())
    return content


def test_coco_images_of_the_classes(coco: Path, subset: Subset, tmp_path: Path) -> None:
    more = ("--sample", "one=train2014:1:containing=tune", "--limit", "2")
    said = subset(coco, "person", "train2014,tune", 5, *more)[1]
    assert "tune has images that train2014 has not" in said
    code, said = subset(coco, "person", "val2014,tune", 5, "--sample", "one=tune:1")
    assert code == 0, said
    out = tmp_path / "out"
    assert sorted(tree(out)) == [
        "annotations/instances_train2014.json",
        "annotations/instances_val2014.json",
        "lists/one.txt",
        "lists/tune.txt",
        "train2014/COCO_train2014_000000000002.jpg",
        "train2014/COCO_train2014_000000000004.jpg",
        "val2014/COCO_val2014_000000000005.jpg",
    ]
    train = instances(out, "train2014")
    assert [(e["height"], e["width"]) for e in train["images"]] == [(4, 5)] * 2
    assert [e["segmentation"] for e in train["annotations"]] == [box(0, 0, 2, 2)] * 2
    assert [(e["area"], e["bbox"]) for e in train["annotations"]] == [(4.0, [0, 0, 2, 2])] * 2
    assert train["categories"] == instances(coco, "train2014")["categories"]
    crowd, packed = (e["segmentation"] for e in instances(out, "val2014")["annotations"])
    expected = np.zeros((4, 5), np.uint8)
    expected[1:3, 2:4] = 1
    assert crowd == runs(expected)
    assert np.array_equal(coco_tools.decode(packed), expected)
    assert kinds(check(coco_config(out, splits={"train": "tune"}))) == {}


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_runs_are_encoded_as_they_are_decoded(bits: list[bool]) -> None:
    pixels = np.array(bits, np.uint8)[:, None]
    assert _counts(pixels) == runs(pixels)["counts"]
    assert runs_of({"size": pixels.shape, "counts": _counts(pixels)}).size == pixels.shape


def test_coco_of_damaged_annotations(coco: Path, subset: Subset) -> None:
    (coco / "annotations/instances_val2014.json").write_text("{")
    code, said = subset(coco, "person", "train2014", 5)
    assert code == 1
    assert "instances-unreadable" in said


def test_real_coco_at_its_own_size_stays(coco_root: Path, subset: Subset, tmp_path: Path) -> None:
    assert subset(coco_root, "dog", "train2014,val2014", 320)[0] == 0
    out = tmp_path / "out"
    for name in ("train2014", "val2014"):
        whole, part = instances(coco_root, name), instances(out, name)
        dog = next(c["id"] for c in whole["categories"] if c["name"] == "dog")
        wanted = {a["image_id"] for a in whole["annotations"] if a["category_id"] == dog}
        assert part["images"] == [e for e in whole["images"] if e["id"] in wanted]
        regions = [e for e in whole["annotations"] if e["image_id"] in wanted]
        assert part["annotations"] == regions
        for entry in part["images"]:
            path = f"{name}/{entry['file_name']}"
            assert (out / path).read_bytes() == (coco_root / path).read_bytes()


def test_real_coco_made_smaller(
    coco_root: Path, subset: Subset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert subset(coco_root, "person", "val2014", 160, "--limit", "40")[0] == 0
    out = tmp_path / "out"
    cfg = coco_config(out, splits={"train": "val2014", "val": None})
    assert kinds(check(cfg)) == {}
    whole, part = (COCO(str(r / "annotations/instances_val2014.json")) for r in (coco_root, out))
    capsys.readouterr()
    assert len(part.imgs) == 40
    scores = []
    for key, entry in part.imgs.items():
        assert max(entry["height"], entry["width"]) == 160
        assert part.getAnnIds(key) == whole.getAnnIds(key)
        for number in part.getAnnIds(key):
            if whole.anns[number]["area"] < 400:
                continue
            small = part.annToMask(part.anns[number])
            large = Image.fromarray(whole.annToMask(whole.anns[number])).resize(
                (entry["width"], entry["height"]), Image.Resampling.NEAREST
            )
            both = np.asarray(large) > 0
            scores.append((both & (small > 0)).sum() / (both | (small > 0)).sum())
            assert part.anns[number]["area"] == pytest.approx(small.sum(), rel=0.5, abs=20)
    assert len(scores) > 100
    assert np.mean(scores) > 0.9
    assert any(a["iscrowd"] for a in part.anns.values())
