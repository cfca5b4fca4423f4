"""The localisation evaluation: threshold from the tune list, oracle apart, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.artifacts import ArrayStoreWriter
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.context import Context, make_context
from wsss.data.manifest import Item, Manifest
from wsss.errors import UserError
from wsss.stages import boxes
from wsss.stages.evaluations import EVALUATIONS, stage_of, wanted

SIDE = 40


def _context(raw: dict[str, Any], root: Path) -> Context:
    data = {"source": "folder", "root": str(root)}
    return make_context(Params(overlay(raw, {"data": data})), "evaluate_boxes", "baseline", 0)


def _data(context: Context, root: Path, lists: dict[str, list[str]]) -> Path:
    """Square objects of 20 px; a CAM's core of 20 px scores 0.9, a rim around it its own value."""
    rims = {"tune": 0.25, "seed": 0.5}
    items = []
    store = context.paths.store("cam", "maps")
    with ArrayStoreWriter(store) as writer:
        for number, (name, splits) in enumerate(lists.items()):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[10:30, 10:30] = number % 2 + 1
            Image.fromarray(mask).save(root / f"{name}.mask.png")
            Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(root / f"{name}.png")
            cam = np.zeros((1, SIDE, SIDE), np.float32)
            cam[0, 2:38, 2:38] = rims[splits[-1]]
            cam[0, 10:30, 10:30] = 0.9
            writer.add(name, cam, [number % 2], (SIDE, SIDE))
            tag = ("cat", "dog")[number % 2]
            items.append(Item(name, f"{name}.png", f"{name}.mask.png", (tag,), tuple(splits)))
    roles = {"train": "seed", "seed": "seed", "tune": "tune", "val": None}
    manifest = Manifest("folder", root, ("cat", "dog"), (1, 2), (), roles, "h", tuple(items))
    manifest.save(context.paths.data)
    return store


def test_threshold_is_chosen_on_the_tune_list(tiny_raw: dict[str, Any], tmp_path: Path) -> None:
    context = _context(tiny_raw, tmp_path)
    lists = {"a": ["seed"], "b": ["seed"], "c": ["seed"], "d": ["tune"], "e": ["tune"]}
    _data(context, tmp_path, lists)
    boxes.run(context)
    out = context.paths.metrics("boxes")
    report = json.loads(out.with_suffix(".json").read_text())
    # The lowest threshold that drops the rim of the tune images; it keeps that of the seed images,
    # whose box then has an IoU of (20/36)^2 = 0.31.
    assert report["threshold"] == 0.25
    assert report["threshold_source"] == "tune"
    assert report["tune_maxboxacc_v2"] == 1
    assert [report[f"boxacc_{n}"] for n in (30, 50, 70)] == [1, 0, 0]
    assert report["maxboxacc_v2"] == pytest.approx(1 / 3, abs=1e-6)
    assert report["oracle_maxboxacc_v2"] == 1
    assert [report[f"oracle_threshold_{n}"] for n in (30, 50, 70)] == [0, 0.5, 0.5]
    assert (report["pairs"], report["images"], report["role"]) == (3, 3, "seed")
    assert out.with_name("boxes.run.json").is_file()
    with out.with_name("boxes.classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["class"], r["pairs"], r["boxacc_30"], r["boxacc_50"]) for r in rows] == [
        ("cat", "2", "1.0", "0.0"),
        ("dog", "1", "1.0", "0.0"),
    ]
    with out.with_name("boxes.sweep.csv").open() as stream:
        sweep = list(csv.DictReader(stream))
    assert len(sweep) == 100
    assert (sweep[24]["tune_boxacc_70"], sweep[25]["tune_boxacc_70"]) == ("0.0", "1.0")


def test_lists_must_not_share_images(tiny_raw: dict[str, Any], tmp_path: Path) -> None:
    context = _context(tiny_raw, tmp_path)
    _data(context, tmp_path, {"a": ["seed"], "b": ["seed", "tune"]})
    with pytest.raises(UserError, match="both on the tune list"):
        boxes.run(context)
    assert not context.paths.metrics("boxes").with_suffix(".json").exists()


def test_a_store_of_other_images(tiny_raw: dict[str, Any], tmp_path: Path) -> None:
    context = _context(tiny_raw, tmp_path)
    store = _data(context, tmp_path, {"a": ["seed"], "b": ["tune"]})
    with ArrayStoreWriter(store) as writer:
        writer.add("b", np.zeros((1, SIDE, SIDE)), [1], (SIDE, SIDE))
    with pytest.raises(UserError, match=r"lacks 1 of the 1 images to score \(such as a\)"):
        boxes.run(context)


@pytest.mark.parametrize("road", ["two-stage", "single-stage", "supervised"])
def test_boxes_are_wanted_where_asked_for(tiny_raw: dict[str, Any], road: str) -> None:
    def whats(asked: bool, **more: Any) -> list[str]:
        raw = overlay(tiny_raw, {"road": road, "evaluate": {"boxes": asked}, **more})
        return wanted(Params(raw).base)

    assert "boxes" not in whats(False)
    assert ("boxes" in whats(True)) == (road != "supervised")
    untuned = {"data": {"splits": {"tune": None}}, "cam": {"threshold": 0.3}}
    assert "boxes" not in whats(True, **untuned)
    assert stage_of("boxes") == "evaluate_boxes"
    assert EVALUATIONS["boxes"].tags
