"""Artifacts in other formats, read back by the tools they are meant for."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter, save_json, voc_palette
from wsss.cli import main
from wsss.data.manifest import Item, Manifest
from wsss.export.coco import image_ids
from wsss.export.source import open_store
from wsss.metrics.sweep import apply_threshold, top_foreground
from wsss.refine.resize import resize_bilinear

CLASSES = ("cat", "dog", "cow")
FILE_IDS = (8, 12, 10)
NAMES = ("2007_01", "deep/2007_02")
SIZE = (24, 32)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Results of one variant and seed beside the data set's folder."""
    items = [Item(n, f"{n}.jpg", None, ("cat", "cow"), ("train",)) for n in NAMES]
    roles = {"train": "train", "seed": None, "tune": None, "val": None}
    made = Manifest("voc", tmp_path, CLASSES, FILE_IDS, (), roles, "h", tuple(items))
    made.save(tmp_path / "results" / "set" / "data")
    return tmp_path / "results" / "set" / "baseline" / "seed0"


def masks() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    drawn = {}
    for name in NAMES:
        mask = np.zeros(SIZE, np.uint8)
        mask[2:9, 3:12] = 1
        mask[12:20, 20:30] = 1
        mask[15:22, 1:8] = rng.choice([2, 3])
        mask[0, :5] = 255
        drawn[name] = mask
    return drawn


@pytest.fixture
def store(run_dir: Path) -> Path:
    path = run_dir / "predict" / "masks.zip"
    with MaskStoreWriter(path) as writer:
        for name, mask in masks().items():
            writer.add(name, mask)
    return path


def maps() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {name: rng.random((2, 6, 8)).astype(np.float16) for name in NAMES}


@pytest.fixture
def cams(run_dir: Path) -> Path:
    """CAMs of cat and cow."""
    path = run_dir / "cam" / "maps.zip"
    with ArrayStoreWriter(path) as writer:
        for name, array in maps().items():
            writer.add(name, array, [0, 2], SIZE)
    return path


def export(store: Path, out: Path, how: str, *more: object) -> int:
    return main(["export", str(store), "--to", str(out), "--format", how, *map(str, more)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert export(*arguments) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_voc_masks_hold_the_data_sets_ids(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "voc"
    assert export(store, out, "voc") == 0
    for name, mask in masks().items():
        with Image.open(out / "SegmentationClass" / f"{name}.png") as picture:
            assert picture.mode == "P"
            assert picture.getpalette() == voc_palette()
            ids = np.array(picture)
        expected = np.select([mask == i for i in (1, 2, 3, 255)], [8, 12, 10, 255])
        np.testing.assert_array_equal(ids, expected)
    listed = (out / "ImageSets" / "Segmentation" / "masks.txt").read_text()
    assert listed.splitlines() == sorted(NAMES)


@pytest.mark.parametrize("every", [False, True])
def test_coco_reads_its_results(store: Path, tmp_path: Path, every: bool) -> None:
    out = tmp_path / "coco"
    assert export(store, out, "coco", *(["--components", "all"] if every else [])) == 0
    known = COCO(str(out / "images.json"))
    assert [c["name"] for c in known.loadCats(known.getCatIds())] == [*CLASSES]
    found = known.loadRes(str(out / "results.json"))
    for name, mask in masks().items():
        total = 0
        for class_id, file_id in enumerate(FILE_IDS, start=1):
            regions = found.loadAnns(found.getAnnIds(imgIds=[name], catIds=[file_id]))
            expected = mask == class_id
            assert len(regions) == int(expected.any()) + (every and class_id == 1)
            decoded = [rle.decode(region["segmentation"]) for region in regions]
            if regions:
                np.testing.assert_array_equal(np.sum(decoded, 0), expected)
            for region, pixels in zip(regions, decoded, strict=True):
                assert region["area"] == pixels.sum()
                assert region["score"] == 1
            total += sum(region["area"] for region in regions)
        assert total == ((mask > 0) & (mask < 255)).sum()


def test_cams_are_cut_at_a_threshold(cams: Path, tmp_path: Path) -> None:
    out = tmp_path / "voc"
    assert export(cams, out, "voc", "--threshold", 0.6) == 0
    for name, array in maps().items():
        mask = apply_threshold(*top_foreground(resize_bilinear(array, SIZE), [0, 2]), 0.6)
        expected = np.select([mask == 1, mask == 3], [8, 10])
        np.testing.assert_array_equal(
            np.array(Image.open(out / "SegmentationClass" / f"{name}.png")), expected
        )
        assert len(np.unique(expected)) == 3


def test_the_tuned_threshold_is_the_default(
    cams: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "run `wsss evaluate cam_tune`" in refused(capsys, cams, tmp_path / "a", "boxes")
    save_json(run_dir / "metrics" / "cam_tune.json", {"threshold": 0.25})
    assert export(cams, tmp_path / "a", "boxes") == 0
    assert "threshold 0.25" in capsys.readouterr().out
    save_json(run_dir / "metrics" / "boxes.json", {"threshold": 0.5})
    assert export(cams, tmp_path / "a", "boxes") == 0
    assert "threshold 0.5" in capsys.readouterr().out
    assert export(cams, tmp_path / "a", "coco") == 0
    assert "threshold 0.25" in capsys.readouterr().out


@pytest.mark.parametrize("every", [False, True])
def test_boxes_of_cams(cams: Path, tmp_path: Path, every: bool) -> None:
    out = tmp_path / "boxes"
    more = ("--components", "all") if every else ()
    assert export(cams, out, "boxes", "--threshold", 0.7, *more) == 0
    with (out / "boxes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    as_json = json.loads((out / "boxes.json").read_text())
    assert [{k: str(v) for k, v in row.items()} for row in as_json] == rows
    assert len(rows) > 4 if every else len(rows) == 4
    for name, array in maps().items():
        for channel, label in enumerate(("cat", "cow")):
            values = resize_bilinear(array, SIZE)[channel]
            mine = [r for r in as_json if (r["id"], r["class"]) == (name, label)]
            covered = np.zeros(SIZE, bool)
            for row in mine:
                inside = values[row["y0"] : row["y1"], row["x0"] : row["x1"]]
                assert inside.max() >= row["score"] - 1e-6
                assert row["score"] > 0.7
                covered[row["y0"] : row["y1"], row["x0"] : row["x1"]] = True
                for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                    assert edge.max() > 0.7
            if every:
                assert covered[values > 0.7].all()


def test_boxes_of_masks(store: Path, tmp_path: Path) -> None:
    assert export(store, tmp_path, "boxes") == 0
    rows = json.loads((tmp_path / "boxes.json").read_text())
    cat = {"id": "2007_01", "class": "cat", "x0": 20, "y0": 12, "x1": 30, "y1": 20, "score": 1.0}
    assert rows[0] == cat


def test_scores_know_their_background(run_dir: Path, tmp_path: Path) -> None:
    path = run_dir / "walk" / "scores.zip"
    array = np.full((2, 6, 8), 0.4, np.float16)
    array[1, :3] = 0.6
    with ArrayStoreWriter(path) as writer:
        writer.add(NAMES[0], array, [0, 3], SIZE)
    assert export(path, tmp_path, "voc") == 0
    mask = np.array(Image.open(tmp_path / "SegmentationClass" / f"{NAMES[0]}.png"))
    assert (mask[:10] == 10).all()
    assert not mask[14:].any()
    assert export(path, tmp_path, "coco") == 0
    (result,) = json.loads((tmp_path / "results.json").read_text())
    assert 0.5 < result["score"] <= 0.6001


def test_stores_elsewhere(
    cams: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = tmp_path / "away" / "x.zip"
    away.parent.mkdir()
    away.write_bytes(cams.read_bytes())
    out = tmp_path / "out"
    assert "name the data set's with --data-dir" in refused(capsys, away, out, "voc")
    data = ("--data-dir", run_dir.parents[1] / "data")
    assert "--kind" in refused(capsys, away, out, "voc", *data)
    assert export(away, out, "voc", *data, "--kind", "cams", "--threshold", 0.5) == 0
    edges = run_dir / "irnet" / "edges.zip"
    edges.parent.mkdir()
    edges.write_bytes(cams.read_bytes())
    assert "no classes to export" in refused(capsys, edges, out, "voc")


def test_a_store_is_opened_once(cams: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once an image: the table of contents of a large store takes seconds to read."""
    source = open_store(cams, None, 0.5, None, boxes=False)
    opened: list[Path] = []
    plain = zipfile.ZipFile.__init__

    def counted(self: zipfile.ZipFile, file: Path, *args: Any, **kwargs: Any) -> None:
        opened.append(file)
        plain(self, file, *args, **kwargs)

    monkeypatch.setattr(zipfile.ZipFile, "__init__", counted)
    assert [labelled.id for labelled in source.images()] == sorted(NAMES)
    assert len(opened) <= 1


def test_refusals(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    path = run_dir / "pseudo" / "masks.zip"
    assert "does not exist" in refused(capsys, path, out, "voc")
    with MaskStoreWriter(path):
        pass
    assert "holds no image" in refused(capsys, path, out, "voc")
    with MaskStoreWriter(path) as writer:
        writer.add(NAMES[0], np.full(SIZE, 4, np.uint8))
    assert "holds class 4, but the data set has 3" in refused(capsys, path, out, "coco")
    assert not out.exists()


def test_coco_names_give_numbers() -> None:
    names = ["val2014/COCO_val2014_000000000042", "000000000007"]
    assert image_ids(names) == {names[0]: 42, names[1]: 7}
    assert image_ids(["2007_000042", "x"]) == {"2007_000042": "2007_000042", "x": "x"}
    assert image_ids([names[1], "x"]) == {names[1]: names[1], "x": "x"}
