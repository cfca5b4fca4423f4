"""COCO folders: tags, lists, masks against pycocotools, and everything that can be wrong."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_tools
from pycocotools.coco import COCO

from wsss.config.schema import Data
from wsss.data import coco_masks
from wsss.data.check import check
from wsss.data.coco_json import Region, Runs
from wsss.data.manifest import Manifest
from wsss.data.scan import Problem
from wsss.data.sources import build
from wsss.errors import UserError

H, W = 8, 10
CATEGORIES = [{"id": 9, "name": "boat"}, {"id": 1, "name": "person"}, {"id": 90, "name": "cup"}]


def config(root: Path | str | None, **changes: object) -> Data:
    splits = {"train": "train2014", "seed": None, "tune": None, "val": "val2014"}
    splits |= dict(changes.pop("splits", {}))  # type: ignore[call-overload]
    values: dict[str, object] = {
        "source": "coco",
        "root": None if root is None else str(root),
        "classes": None,
        "csv": "labels.csv",
        "splits": splits,
        "scenes": {"seed": 0, "size": 64, "train": 1, "tune": 1, "val": 1},
    }
    return Data.model_validate(values | changes)


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(pixels: np.ndarray) -> dict[str, Any]:
    """Uncompressed run lengths over columns, zeros first, written without pycocotools."""
    counts, value = [0], 0
    for pixel in pixels.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(pixels.shape), "counts": counts}


class Folder:
    """A hand-made set in COCO's layout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sets: dict[str, dict[str, Any]] = {}
        self.number = 0

    def image(self, name: str, key: int, draw: bool = True) -> str:
        file = f"COCO_{name}_{key:012d}.jpg"
        entry = {"id": key, "file_name": file, "height": H, "width": W}
        self._of(name)["images"].append(entry)
        (self.root / name).mkdir(parents=True, exist_ok=True)
        if draw:
            Image.new("RGB", (W, H), (key % 256, 0, 0)).save(self.root / name / file)
        return Path(file).stem

    def annotate(self, name: str, image: int, category: int, shape: Any, **more: Any) -> None:
        self.number += 1
        entry = {"id": self.number, "image_id": image, "category_id": category, "iscrowd": 0}
        self._of(name)["annotations"].append({**entry, "segmentation": shape, **more})

    def _of(self, name: str) -> dict[str, Any]:
        empty: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
        return self.sets.setdefault(name, empty)

    def write(self) -> Path:
        (self.root / "annotations").mkdir(exist_ok=True)
        for name, content in self.sets.items():
            (self.root / f"annotations/instances_{name}.json").write_text(json.dumps(content))
        return self.root

    def list(self, name: str, *lines: str) -> None:
        (self.root / "lists").mkdir(exist_ok=True)
        (self.root / f"lists/{name}.txt").write_text("\n".join(lines))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Two training images, one of them without annotations, and one to validate on."""
    made = Folder(tmp_path / "coco")
    made.image("train2014", 7)
    made.image("train2014", 8)
    made.image("val2014", 9)
    made.annotate("train2014", 7, 9, box(0, 0, 6, 6), area=36.0)
    made.annotate("train2014", 7, 1, box(4, 4, 8, 8), area=16.0)
    made.annotate("val2014", 9, 90, box(1, 1, 3, 3), area=4.0)
    return made


def kinds(problems: list[Problem], *severities: str) -> dict[str, int]:
    wanted = severities or ("error", "warning")
    return {p.kind: p.count for p in problems if p.severity in wanted and p.kind != "class-absent"}


def one(folder: Folder, tmp_path: Path, **changes: object) -> tuple[Manifest, np.ndarray]:
    """The manifest, and the mask of training image 7."""
    made = build(config(folder.write(), **changes), tmp_path)
    return made, made.read_mask(made.item("COCO_train2014_000000000007"))


# A sound folder


def test_a_sound_folder(folder: Folder, tmp_path: Path) -> None:
    cfg = config(folder.write())
    assert kinds(check(cfg)) == {}
    assert kinds(check(cfg), "note") == {"unlabelled-left-out": 1}
    made = build(cfg, tmp_path)
    assert made.classes == ("person", "boat", "cup")  # by id, not by place in the file
    assert made.mask_values == (1, 2, 3)
    assert [item.id for item in made.items] == [
        "COCO_train2014_000000000007",
        "COCO_val2014_000000000009",
    ]
    first, second = made.items
    assert first.labels == ("person", "boat")
    assert (first.splits, second.splits) == (("train2014",), ("val2014",))
    assert made.read_image(first).shape == (H, W, 3)
    expected = np.zeros((H, W), np.uint8)
    expected[:6, :6], expected[4:8, 4:8] = 2, 1  # the smaller one on top
    assert np.array_equal(made.read_mask(first), expected)
    made.save(tmp_path)
    assert Manifest.load(tmp_path, folder.root) == made
    assert np.array_equal(Manifest.load(tmp_path, folder.root).read_mask(first), expected)


def test_smaller_is_on_top_whatever_the_order(folder: Folder, tmp_path: Path) -> None:
    folder.sets["train2014"]["annotations"].reverse()
    _, mask = one(folder, tmp_path)
    assert mask[5, 5] == 1
    assert mask[3, 3] == 2


def test_area_is_what_the_file_says_and_pixels_where_it_says_nothing(
    folder: Folder, tmp_path: Path
) -> None:
    entries = folder.sets["train2014"]["annotations"]
    entries[0]["area"] = 3
    _, mask = one(folder, tmp_path)
    assert mask[5, 5] == 2
    for entry in entries:
        entry.pop("area", None)
    _, mask = one(folder, tmp_path)
    assert mask[5, 5] == 1
    entries[0]["area"] = entries[1]["area"] = 16  # equal: the later id
    _, mask = one(folder, tmp_path)
    assert mask[5, 5] == 1


def test_crowds_are_255_over_everything_and_still_tags(folder: Folder, tmp_path: Path) -> None:
    pixels = np.zeros((H, W), np.uint8)
    pixels[2:5, 3:9] = 1
    folder.annotate("train2014", 7, 90, runs(pixels), iscrowd=1, area=1e6)
    made, mask = one(folder, tmp_path)
    assert made.item("COCO_train2014_000000000007").labels == ("person", "boat", "cup")
    assert np.array_equal(mask == 255, pixels > 0)
    notes = {p.kind: p.examples for p in check(config(folder.root)) if p.severity == "note"}
    assert notes["tag-without-pixels"] == ("COCO_train2014_000000000007: cup",)


def test_runs_compressed_and_not_and_several_polygons(folder: Folder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one_way, other = (rng.integers(0, 2, (H, W)).astype(np.uint8) for _ in range(2))
    packed = coco_tools.encode(np.asfortranarray(other))
    shape = {"size": [H, W], "counts": packed["counts"].decode()}
    folder.sets["train2014"]["annotations"] = []
    folder.annotate("train2014", 7, 1, runs(one_way), area=9)
    folder.annotate("train2014", 7, 9, shape, area=8)
    folder.annotate("train2014", 7, 90, [*box(0, 0, 1, 1), *box(8, 7, 10, 8)], area=7)
    _, mask = one(folder, tmp_path)
    expected = np.where(other > 0, 2, np.where(one_way > 0, 1, 0))
    expected[0, 0] = expected[7, 8] = expected[7, 9] = 3
    assert np.array_equal(mask, expected)


@given(st.lists(st.booleans(), min_size=H * W, max_size=H * W))
def test_any_runs_decode_to_their_pixels(bits: list[bool]) -> None:
    pixels = np.array(bits, np.uint8).reshape(H, W)
    coded = runs(pixels)
    shape = Runs((H, W), np.array(coded["counts"]))
    assert np.array_equal(
        coco_masks.decode_region(Region(1, 1, False, None, shape), (H, W)), pixels
    )


# Classes and lists


def test_selected_classes(folder: Folder, tmp_path: Path) -> None:
    crowd = np.zeros((H, W), np.uint8)
    crowd[7, 0] = 1
    folder.annotate("train2014", 7, 9, runs(crowd), iscrowd=1, area=1)
    folder.image("train2014", 10)
    folder.annotate("train2014", 10, 9, box(0, 0, 2, 2), area=4)
    made, mask = one(folder, tmp_path, classes=["cup", "person"])
    assert made.classes == ("cup", "person")
    assert made.mask_values == (3, 1)
    assert made.background_values == (2,)
    assert [i.id for i in made.role("train")] == ["COCO_train2014_000000000007"]
    assert sorted(np.unique(mask)) == [0, 2, 255]
    assert mask[0, 0] == 0
    assert mask[7, 0] == 255
    problems = check(config(folder.root, classes=["cup", "person"]))
    assert kinds(problems) == {}
    assert kinds(problems, "note")["unlabelled-left-out"] == 2
    assert kinds(check(config(folder.root, classes=["wolf", "cup"])))["class-unknown"] == 1


def test_lists_of_ids_names_and_numbers(folder: Folder, tmp_path: Path) -> None:
    for key in (20, 21, 22):
        folder.image("train2014", key)
        folder.annotate("train2014", key, 1, box(0, 0, 2, 2), area=4)
    folder.write()
    folder.list("mine", "COCO_train2014_000000000020", "train2014/COCO_train2014_000000000021.jpg")
    folder.list("tune", "000000000022", "8", "22")
    made = build(config(folder.root, splits={"train": "mine", "tune": "tune"}), tmp_path)
    assert [i.id[-2:] for i in made.role("train")] == ["20", "21"]
    # An image without a label is kept where it is not trained on: its mask is background.
    assert [i.id[-2:] for i in made.role("tune")] == ["08", "22"]
    assert made.role("tune")[0].labels == ()
    assert made.read_mask(made.role("tune")[0]).max() == 0
    united = config(folder.root, splits={"train": ["mine", "tune"], "seed": "mine"})
    made = build(united, tmp_path)
    assert made.roles["train"] == "mine+tune"
    assert [i.id[-2:] for i in made.role("train")] == ["20", "21", "22"]
    folder.list("tune", "COCO_train2014_000000000099")
    problems = check(config(folder.root, splits={"tune": "tune"}))
    assert kinds(problems, "error") == {"list-unknown": 1, "split-empty": 1}
    problems = check(config(folder.root, splits={"tune": "tuna"}))
    assert kinds(problems) == {"list-missing": 1}
    assert "mine, train2014, tune, val2014" in problems[0].examples[0]


def test_only_the_sets_in_use_are_read(folder: Folder) -> None:
    root = folder.write()
    (root / "annotations/instances_val2014.json").write_text("{")
    assert kinds(check(config(root, splits={"val": None}))) == {}
    folder.list("mine", "7")
    assert kinds(check(config(root, splits={"val": None, "train": "mine"}))) == {
        "instances-unreadable": 1
    }


# Damage


def test_every_problem_in_one_run(folder: Folder, tmp_path: Path) -> None:
    name = "train2014"
    for key in range(30, 40):
        folder.image(name, key)
    folder.image(name, 40, draw=False)
    folder.image(name, 41)
    folder.image(name, 41)
    good = box(0, 0, 3, 3)
    folder.annotate(name, 30, 1, [], area=0)
    folder.annotate(name, 31, 1, [[1, 1, 5, 5]], area=1)  # no box, though pycocotools takes it so
    folder.annotate(name, 32, 1, {"size": [H, W + 1], "counts": [H * (W + 1)]}, area=1)
    folder.annotate(name, 33, 1, {"size": [H, W], "counts": [3, 4]}, area=1)
    folder.annotate(name, 34, 77, good, area=1)
    folder.annotate(name, 999, 1, good, area=1)
    folder.annotate(name, 35, 1, good, area=1)
    folder.sets[name]["annotations"].append(dict(folder.sets[name]["annotations"][-1]))
    folder.annotate(name, 36, 1, 5, area=1)
    folder.annotate(name, 36, 1, good, area="wide")
    del folder.sets[name]["annotations"][-2]["id"]
    folder.annotate(name, 40, 1, good, area=1)
    folder.annotate(name, 41, 1, good, area=1)
    folder.annotate(name, 37, 1, [[0, 0, 4, float("nan"), 4, 4]], area=1)
    folder.sets[name]["images"] += [{"id": 50}, {"id": 51, "file_name": "../x.jpg"}, 3]
    root = folder.write()
    path = root / name / "COCO_train2014_000000000035.jpg"
    Image.new("RGB", (W + 1, H)).save(path)
    problems = check(config(root))
    assert kinds(problems, "error") == {
        "instances-entry": 5,
        "instances-duplicate": 2,
        "segmentation-broken": 4,
        "label-unknown": 1,
        "image-missing": 1,
        "mask-unreadable": 2,  # the two whose runs do not fit
        "size-mismatch": 1,
    }
    assert kinds(problems, "warning") == {"instances-orphan": 1, "segmentation-empty": 1}
    assert kinds(problems, "note")["unlabelled-left-out"] == 5  # 8, 34, 36, 38, 39
    with pytest.raises(UserError, match=r"more kinds of error.*wsss data check"):
        build(config(root), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"images": []}', '{"images": 1, "annotations": []}', "\xff"]
)
def test_files_that_are_no_instances(folder: Folder, text: str) -> None:
    root = folder.write()
    (root / "annotations/instances_train2014.json").write_bytes(text.encode("latin-1"))
    problems = check(config(root))
    assert kinds(problems, "error") == {"instances-unreadable": 1}
    assert "instances_train2014.json" in problems[0].examples[0]


def test_categories_that_differ(folder: Folder) -> None:
    folder.write()
    folder.sets["val2014"]["categories"] = [{"id": 90, "name": "mug"}, {"id": 90, "name": "x"}, 4]
    assert kinds(check(config(folder.write())), "error") == {
        "instances-categories": 1,
        "instances-duplicate": 1,
        "instances-entry": 1,
    }


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    assert kinds(check(config(tmp_path))) == {"root-missing": 1}


def test_packed_runs_that_are_garbage(folder: Folder, tmp_path: Path) -> None:
    folder.annotate("train2014", 7, 1, {"size": [H, W], "counts": "zzzzzzzzzz"}, area=1)
    cfg = config(folder.write())
    assert kinds(check(cfg), "error") == {"mask-unreadable": 1}
    with pytest.raises(UserError, match="annotation 4"):
        build(cfg, tmp_path / "data")
    assert not (tmp_path / "data/masks.zip").exists()


# The archive


def test_an_interrupted_archive_continues_to_the_same_bytes(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in range(100, 109):
        folder.image("train2014", key)
        folder.annotate("train2014", key, 1, box(0, 0, key - 98, 3), area=4)
    cfg = config(folder.write())
    build(cfg, tmp_path / "whole")
    monkeypatch.setattr(coco_masks, "PART", 4)
    drawn: list[str] = []
    encode = coco_masks.encode_mask

    def stop_at_sixth(mask: np.ndarray) -> bytes:
        drawn.append("")
        if len(drawn) == 6:
            raise KeyboardInterrupt
        return encode(mask)

    monkeypatch.setattr(coco_masks, "encode_mask", stop_at_sixth)
    with pytest.raises(KeyboardInterrupt):
        build(cfg, tmp_path / "again")
    assert not (tmp_path / "again/masks.zip").exists()
    build(cfg, tmp_path / "again")
    assert len(drawn) == 6 + (11 - 4)  # the first part was not drawn again
    archives = [(tmp_path / name / "masks.zip").read_bytes() for name in ("whole", "again")]
    assert archives[0] == archives[1]
    assert [p.name for p in (tmp_path / "again").iterdir()] == ["masks.zip"]


def test_parts_of_other_annotations_are_not_taken_up(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(folder.write())
    monkeypatch.setattr(coco_masks, "merge_stores", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(cfg, tmp_path)
    monkeypatch.undo()
    folder.sets["train2014"]["annotations"][1]["segmentation"] = []
    _, mask = one(folder, tmp_path)
    assert mask[5, 5] == 2
    assert mask[7, 7] == 0


def test_processes_do_not_change_the_bytes(folder: Folder, tmp_path: Path) -> None:
    cfg = config(folder.write())
    first, second = (build(cfg, tmp_path / str(n), n) for n in (1, 2))
    assert first.data_hash == second.data_hash
    archives = [(tmp_path / n / "masks.zip").read_bytes() for n in "12"]
    assert archives[0] == archives[1]


def test_the_hash_sees_annotations(folder: Folder, tmp_path: Path) -> None:
    first, _ = one(folder, tmp_path)
    folder.sets["train2014"]["annotations"][1]["segmentation"] = box(4, 4, 8, 7)
    second, _ = one(folder, tmp_path)
    assert first.data_hash != second.data_hash


# Real photos, against pycocotools' own reading of the files


@pytest.fixture(scope="module")
def real(coco_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    data = tmp_path_factory.mktemp("data")
    return build(config(coco_root), data), data


def truth(api: COCO, key: int, values: dict[int, int]) -> np.ndarray:
    """Paint annToMask of every annotation, the largest first, crowds last."""
    entries = [api.anns[k] for k in api.getAnnIds(key)]
    mask = np.zeros((api.imgs[key]["height"], api.imgs[key]["width"]), np.uint8)
    for entry in sorted(entries, key=lambda e: (e["iscrowd"], -e["area"], e["id"])):
        value = 255 if entry["iscrowd"] else values[entry["category_id"]]
        mask[api.annToMask(entry) == 1] = value
    return mask


def test_real_check_is_clean(coco_root: Path) -> None:
    problems = check(config(coco_root))
    assert kinds(problems) == {}
    assert kinds(problems, "note")["unlabelled-left-out"] == 2


@pytest.mark.parametrize("name", ["train2014", "val2014"])
def test_real_labels_and_masks(
    real: tuple[Manifest, Path], coco_root: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made, _ = real
    api = COCO(str(coco_root / f"annotations/instances_{name}.json"))
    capsys.readouterr()
    values = {key: place for place, key in enumerate(sorted(api.cats), 1)}
    assert len(values) == 80
    assert list(made.classes) == [api.cats[key]["name"] for key in values]
    items = {item.id: item for item in made.split(name)}
    overlaps = crowds = 0
    for key, entry in api.imgs.items():
        identifier = Path(entry["file_name"]).stem
        tags = {api.cats[api.anns[k]["category_id"]]["name"] for k in api.getAnnIds(key)}
        if not tags and name == "train2014":
            assert identifier not in items
            continue
        item = items.pop(identifier)
        assert set(item.labels) == tags
        assert np.flatnonzero(made.label(item)).tolist() == sorted(
            values[api.anns[k]["category_id"]] - 1
            for k in {api.anns[k]["category_id"]: k for k in api.getAnnIds(key)}.values()
        )
        mask = made.read_mask(item)
        assert np.array_equal(mask, truth(api, key, values)), identifier
        decoded = [api.annToMask(api.anns[k]) for k in api.getAnnIds(key, iscrowd=False)]
        overlaps += bool(decoded) and int(np.sum(decoded, axis=0).max() > 1)
        crowds += int((mask == 255).any())
    assert not items
    assert overlaps > 20
    assert crowds > 5


def test_real_archive_is_palette_pngs(real: tuple[Manifest, Path]) -> None:
    with zipfile.ZipFile(real[1] / "masks.zip") as archive:
        names = archive.namelist()
        with archive.open(names[0]) as stream, Image.open(stream) as image:
            assert image.mode == "P"
    assert len(names) == len(real[0].items) + 1
