"""Evaluation of stores against a small data set: the numbers, the files, the refusals."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter
from wsss.data.manifest import Item, Manifest
from wsss.errors import UserError
from wsss.labels import IGNORE
from wsss.metrics.boundary import boundary_counts, boundary_f
from wsss.metrics.confusion import confusion, scores
from wsss.metrics.sweep import apply_threshold, thresholds, top_foreground
from wsss.metrics.tally import PART
from wsss.refine.resize import resize_bilinear
from wsss.stages.scored_stores import (
    About,
    evaluate_cams,
    evaluate_masks,
    evaluate_scores,
    tune_cams,
)

CLASSES = ("cat", "dog")
N = 3
ABOUT = About("toy", "baseline", 1, "thing")
TOLERANCE = 0.05


class Toy:
    """A data set of two lists with masks, random activations and predictions of all images."""

    def __init__(self, folder: Path, count: int = 6) -> None:
        rng = np.random.default_rng(3)
        self.folder = folder
        self.truth: dict[str, np.ndarray] = {}
        self.maps: dict[str, tuple[np.ndarray, list[int]]] = {}
        self.guess: dict[str, np.ndarray] = {}
        items = []
        for index in range(count):
            name = f"img{index:03d}"
            size = (int(rng.integers(9, 21)), int(rng.integers(9, 21)))
            mask = np.zeros(size, np.uint8)
            mask[2:7, 3:8] = index % 2 + 1
            mask[2, 2:5] = IGNORE
            Image.fromarray(mask).save(folder / f"{name}.mask.png")
            Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / f"{name}.png")
            present = [index % 2] if index % 3 else [0, 1]
            grid = (len(present), -(-size[0] // 4), -(-size[1] // 4))
            self.truth[name] = mask
            self.maps[name] = (rng.random(grid).astype(np.float16), present)
            noise = rng.integers(0, N, size)
            known = np.where(mask == IGNORE, 0, mask)
            self.guess[name] = np.where(rng.random(size) < 0.8, known, noise).astype(np.uint8)
            lists = ("all", "tuning") if index >= count - 2 else ("all", "scored")
            tags = tuple(CLASSES[c] for c in present)
            items.append(Item(name, f"{name}.png", f"{name}.mask.png", tags, lists))
        roles = {"train": "all", "seed": "scored", "tune": "tuning", "val": "scored"}
        self.manifest = Manifest("folder", folder, CLASSES, (1, 2), (), roles, "abc", tuple(items))

    @property
    def scored(self) -> list[str]:
        return [item.id for item in self.manifest.split("scored")]

    def cams(self) -> Path:
        path = self.folder / "cams.zip"
        with ArrayStoreWriter(path) as store:
            for name, (maps, present) in self.maps.items():
                store.add(name, maps, present, self.truth[name].shape)
        return path

    def masks(self) -> Path:
        path = self.folder / "masks.zip"
        with MaskStoreWriter(path) as store:
            for name, mask in self.guess.items():
                store.add(name, mask)
        return path

    def top(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        maps, present = self.maps[name]
        return top_foreground(resize_bilinear(maps, self.truth[name].shape), present)

    def cam_miou(self, threshold: float, names: list[str]) -> float:
        pairs = ((self.truth[n], apply_threshold(*self.top(n), threshold)) for n in names)
        return scores(sum(confusion(gt, pred, N) for gt, pred in pairs)).miou


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_masks(toy: Toy, tmp_path: Path) -> None:
    out = tmp_path / "metrics" / "final"
    report = evaluate_masks(
        *(toy.manifest, toy.masks(), "val", out, ABOUT),
        tags_used=False,
        boundary_tolerance=TOLERANCE,
    )
    names = toy.scored
    matrix = sum(confusion(toy.truth[n], toy.guess[n], N) for n in names)
    edges = sum(boundary_counts(toy.truth[n], toy.guess[n], N, TOLERANCE) for n in names)
    expected = scores(matrix)
    assert json.loads((tmp_path / "metrics" / "final.json").read_text()) == report
    assert report == {
        "what": "thing",
        "dataset": "toy",
        "variant": "baseline",
        "seed": 1,
        "role": "val",
        "split": "scored",
        "images": 4,
        "data_hash": "abc",
        "tags_used": False,
        "units": "fractions in [0, 1]",
        "absent_classes": "",
        "miou": round(expected.miou, 6),
        "precision": round(expected.mean_precision, 6),
        "recall": round(expected.mean_recall, 6),
        "boundary_f": round(boundary_f(edges)[1], 6),
        "boundary_tolerance": TOLERANCE,
    }
    table = rows(tmp_path / "metrics" / "final.classes.csv")
    assert [row["class"] for row in table] == ["background", "cat", "dog"]
    assert [float(row["iou"]) for row in table] == [round(float(v), 6) for v in expected.iou]
    assert table[0]["boundary_f"] == ""
    assert [int(row["gt_pixels"]) for row in table] == expected.gt_pixels.tolist()
    cells = rows(tmp_path / "metrics" / "final.confusion.csv")
    assert [[int(v) for v in [*row.values()][1:]] for row in cells] == matrix.tolist()
    rebuilt = np.zeros_like(matrix)
    for row in rows(tmp_path / "metrics" / "final.images.csv"):
        assert row["id"] in names
        rebuilt[int(row["gt"]), int(row["pred"])] += int(row["count"])
    np.testing.assert_array_equal(rebuilt, matrix)


def test_cams_at_the_configured_threshold_and_the_oracle_apart(toy: Toy, tmp_path: Path) -> None:
    out = tmp_path / "cam"
    report = evaluate_cams(
        *(toy.manifest, toy.cams(), "seed", out, ABOUT), threshold=0.333, bins=20
    )
    curve = [toy.cam_miou(float(edge), toy.scored) for edge in thresholds(20)]
    assert report["miou"] == round(toy.cam_miou(0.333, toy.scored), 6)
    assert (report["threshold"], report["threshold_source"]) == (0.333, "configured")
    assert report["oracle_miou"] == round(max(curve), 6)
    assert report["oracle_threshold"] == round(int(np.argmax(curve)) / 20, 6)
    assert report["tags_used"] is True
    assert "boundary_f" in report
    table = rows(tmp_path / "cam.sweep.csv")
    assert [float(row["threshold"]) for row in table] == [round(i / 20, 6) for i in range(20)]
    assert [float(row["miou"]) for row in table] == [round(v, 6) for v in curve]


def test_a_tuned_threshold_comes_from_the_tune_list(toy: Toy, tmp_path: Path) -> None:
    store, names = toy.cams(), [item.id for item in toy.manifest.role("tune")]
    tuned = tune_cams(toy.manifest, store, tmp_path / "cam_tune", ABOUT, bins=20)
    curve = [toy.cam_miou(float(edge), names) for edge in thresholds(20)]
    assert tuned["miou"] == round(max(curve), 6)
    assert tuned["threshold"] == round(int(np.argmax(curve)) / 20, 6)
    assert (tuned["role"], tuned["split"], tuned["images"]) == ("tune", "tuning", 2)
    assert not [key for key in tuned if key.startswith("oracle")]
    assert "boundary_f" not in tuned
    assert not (tmp_path / "cam_tune.images.csv").exists()
    report = evaluate_cams(
        *(toy.manifest, store, "seed", tmp_path / "cam", ABOUT),
        threshold="tune",
        tuned=tmp_path / "cam_tune.json",
        bins=20,
    )
    assert (report["threshold"], report["threshold_source"]) == (tuned["threshold"], "tune")
    assert report["miou"] == round(toy.cam_miou(tuned["threshold"], toy.scored), 6)


def test_scores_are_scored_by_argmax(toy: Toy, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path, matrix = tmp_path / "walk.zip", np.zeros((N, N), np.int64)
    with ArrayStoreWriter(path) as store:
        for name, truth in toy.truth.items():
            classes = [0, toy.maps[name][1][-1] + 1]
            maps = rng.random((2, 5, 4)).astype(np.float16)
            store.add(name, maps, classes, truth.shape)
            if name in toy.scored:
                pred = np.array(classes)[resize_bilinear(maps, truth.shape).argmax(axis=0)]
                matrix += confusion(truth, pred, N)
    report = evaluate_scores(toy.manifest, path, "seed", tmp_path / "walk", ABOUT, tags_used=True)
    assert report["miou"] == round(scores(matrix).miou, 6)
    assert "threshold" not in report
    assert not (tmp_path / "walk.sweep.csv").exists()


def test_bytes_do_not_depend_on_processes(tmp_path: Path) -> None:
    toy = Toy(tmp_path, 2 * PART + 5)
    store = toy.cams()
    for processes in (1, 2):
        evaluate_cams(
            *(toy.manifest, store, "seed", tmp_path / f"p{processes}" / "cam", ABOUT),
            threshold=0.4,
            processes=processes,
        )
    written = [{f.name: f.read_bytes() for f in (tmp_path / p).iterdir()} for p in ("p1", "p2")]
    assert len(written[0]) == 5
    assert written[0] == written[1]
    assert all(b"\r" not in content for content in written[0].values())


def test_classes_that_never_occur_are_listed(toy: Toy, tmp_path: Path) -> None:
    manifest = replace(toy.manifest, classes=("cat", "dog", "yak"), mask_values=(1, 2, 3))
    report = evaluate_masks(
        manifest, toy.masks(), "val", tmp_path / "final", ABOUT, tags_used=False
    )
    assert report["absent_classes"] == "yak"
    assert rows(tmp_path / "final.classes.csv")[3]["iou"] == ""


# What is refused


def score_masks(toy: Toy, tmp_path: Path) -> None:
    evaluate_masks(toy.manifest, toy.masks(), "val", tmp_path / "m", ABOUT, tags_used=False)


def without_image(toy: Toy) -> None:
    del toy.guess["img001"]


def of_another_size(toy: Toy) -> None:
    toy.truth["img002"] = toy.truth["img002"][:-1]
    toy.guess["img002"] = np.zeros((8, 7), np.uint8)


def with_ignore(toy: Toy) -> None:
    toy.guess["img003"][0, 0] = IGNORE


def without_masks(toy: Toy) -> None:
    items = (replace(i, mask=None) if i.id == "img002" else i for i in toy.manifest.items)
    toy.manifest = replace(toy.manifest, items=tuple(items))


def without_a_list(toy: Toy) -> None:
    toy.manifest = replace(toy.manifest, roles={**toy.manifest.roles, "val": None})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_image, r"masks\.zip lacks 1 of the 4 images .*img001"),
        (of_another_size, r"image img002: the ground truth is \d+x\d+ .*7x8"),
        (with_ignore, r"image img003: the prediction holds the id 255 \(ignore\)"),
        (without_masks, r"evaluation needs masks, but 1 of the 4 .*'scored' .*img002"),
        (without_a_list, r"no list plays the role 'val'"),
    ],
)
def test_refusals(toy: Toy, tmp_path: Path, spoil: Callable[[Toy], None], message: str) -> None:
    spoil(toy)
    with pytest.raises(UserError, match=message):
        score_masks(toy, tmp_path)
    assert not list(tmp_path.glob("m.*"))


def test_masks_of_nothing_but_void(toy: Toy, tmp_path: Path) -> None:
    for name in toy.scored:
        void = np.full(toy.truth[name].shape, IGNORE, np.uint8)
        Image.fromarray(void).save(tmp_path / f"{name}.mask.png")
    with pytest.raises(UserError, match="nothing but 255"):
        score_masks(toy, tmp_path)


def score_cams(toy: Toy, tmp_path: Path, **settings: object) -> None:
    given = {"threshold": 0.3, **settings}
    evaluate_cams(toy.manifest, toy.cams(), "seed", tmp_path / "cam", ABOUT, **given)  # type: ignore[arg-type]


def test_activations_of_another_size(toy: Toy, tmp_path: Path) -> None:
    toy.truth["img002"] = np.zeros((30, 40), np.uint8)
    with pytest.raises(UserError, match=r"image img002: .*40x30"):
        score_cams(toy, tmp_path)


def test_activations_of_a_class_that_is_none(toy: Toy, tmp_path: Path) -> None:
    toy.maps["img001"] = (toy.maps["img001"][0], [2])
    with pytest.raises(UserError, match=r"image img001: .*class 2, expected 0\.\.1"):
        score_cams(toy, tmp_path)


def test_activations_that_are_not_finite(toy: Toy, tmp_path: Path) -> None:
    toy.maps["img001"][0][0, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"image img001: .*nan"):
        score_cams(toy, tmp_path)


def test_tune_needs_a_tuning_result(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tune first"):
        score_cams(toy, tmp_path, threshold="tune")


def test_a_tuning_result_of_other_data(toy: Toy, tmp_path: Path) -> None:
    tune_cams(replace(toy.manifest, data_hash="old"), toy.cams(), tmp_path / "cam_tune", ABOUT)
    with pytest.raises(UserError, match="not tuned on this data"):
        score_cams(toy, tmp_path, threshold="tune", tuned=tmp_path / "cam_tune.json")


def test_tuning_on_reported_images(toy: Toy, tmp_path: Path) -> None:
    tune_cams(toy.manifest, toy.cams(), tmp_path / "cam_tune", ABOUT)
    toy.manifest = replace(toy.manifest, roles={**toy.manifest.roles, "seed": "all"})
    with pytest.raises(UserError, match=r"both on the tune list 'tuning' and on .*'all'"):
        score_cams(toy, tmp_path, threshold="tune", tuned=tmp_path / "cam_tune.json")
