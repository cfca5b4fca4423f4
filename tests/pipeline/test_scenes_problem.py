"""The generated scenes pose the field's problem: a plain CAM finds the part, misses the body."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.artifacts import ArrayStore, load_json
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.context import make_context
from wsss.refine.crf import threshold_labels
from wsss.refine.resize import resize_bilinear
from wsss.stages import cam, classify, evaluate, manifest


@pytest.fixture(scope="module")
def recalls(tmp_path_factory: pytest.TempPathFactory, project: Path) -> dict[str, float]:
    """Recall of the demo's own plain CAM on parts and bodies, at the threshold of `tune`."""
    from wsss.config.resolve import read_yaml

    changes: dict[str, Any] = {
        "run": {"results": str(tmp_path_factory.mktemp("scenes"))},
        "data": {"scenes": {"val": 1}},
    }
    params = Params(overlay(read_yaml(project / "params.yaml"), changes))
    manifest.run(make_context(params, "manifest", "", 0))
    classify.run(make_context(params, "classify", "baseline", 0))
    context = make_context(params, "cam", "baseline", 0)
    out = context.paths.store("cam", "maps")
    cam.run(context, out)
    evaluate.run(make_context(params, "evaluate_cam", "baseline", 0), "cam_tune")
    tuned = load_json(context.paths.metrics("cam_tune").with_suffix(".json"))
    return _recalls(context.manifest, ArrayStore(out), tuned["threshold"])


def _recalls(data: Any, store: ArrayStore, threshold: float) -> dict[str, float]:
    found = {"part": 0, "body": 0}
    total = {"part": 0, "body": 0}
    for item in data.role("train"):
        entry, truth = store.get(item.id), data.read_mask(item)
        part = data.read_mask(replace(item, mask=item.mask.replace("masks/", "parts/")))
        labels = threshold_labels(resize_bilinear(entry.array, entry.size), threshold)
        ids = np.array([0, *(c + 1 for c in entry.classes)])[labels]
        regions = {"part": part > 0, "body": (truth > 0) & (part == 0)}
        for name, region in regions.items():
            found[name] += int((ids == truth)[region].sum())
            total[name] += int(region.sum())
    return {**{name: found[name] / total[name] for name in found}, "threshold": threshold}


def test_plain_cam_misses_most_of_the_bodies(recalls: dict[str, float]) -> None:
    assert recalls["body"] < 0.6


def test_plain_cam_finds_the_parts(recalls: dict[str, float]) -> None:
    assert recalls["part"] > 0.6
    assert recalls["part"] > recalls["body"] + 0.2
