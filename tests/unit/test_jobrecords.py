"""Which records of jobs belong to a result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from wsss.artifacts import save_json
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.jobrecords import records, stage_records
from wsss.paths import Paths
from wsss.stages.ownership import own_evaluations, own_stages

IRNET = {"share": {"from": "baseline", "through": "seeds"}, "refine": {"method": "irnet"}}


@pytest.fixture
def params(tiny_raw: dict[str, Any]) -> Params:
    """A variant without refinement, and one that refines its seeds."""
    return Params(overlay(tiny_raw, {"refine": {"method": "none"}, "variants": {"irnet": IRNET}}))


def put(folder: Path, name: str, age: int = 0) -> None:
    path = folder / f"{name}.run.json"
    save_json(path, {"name": name})
    os.utime(path, (10**9 - age, 10**9 - age))


def names(folder: Path, count: int, params: Params) -> list[str]:
    shards = params.base.resources.shards.model_copy(update={"cam": count})
    found = stage_records(Paths(folder, "toy", "baseline"), "cam", shards)
    assert [job.facts["name"] for job in found] == [
        job.path.name.removesuffix(".run.json") for job in found
    ]
    return [job.facts["name"] for job in found]


def test_one_number_of_shards_is_counted(tmp_path: Path, params: Params) -> None:
    folder = tmp_path / "toy" / "baseline" / "seed0" / "cam"
    assert names(tmp_path, 1, params) == []
    put(folder, "maps", age=50)
    for shard in range(11):
        put(folder / "shards", f"maps.{shard}of11", age=shard)
    for shard in (0, 1):
        put(folder / "shards", f"maps.{shard}of2", age=100)
        put(folder / "shards", f"other.{shard}of2")
    assert names(tmp_path, 1, params) == ["maps"]
    assert names(tmp_path, 2, params) == ["maps.0of2", "maps.1of2"]
    # No result depends on it: where the number is another one, the last that ran is told of.
    assert names(tmp_path, 3, params) == [f"maps.{shard}of11" for shard in range(11)]


def test_a_folder_holds_what_its_own_result_and_those_of_others_go_through(params: Params) -> None:
    # Confident seeds lie with the CAMs they are made from, though the variant itself uses none.
    rest = ["seeds_label", "pseudo", "segment", "predict", "crf"]
    assert own_stages(params, "baseline", ["irnet"]) == [
        *("classify", "cam", "seeds_confident", *rest)
    ]
    assert own_stages(params, "baseline", []) == ["classify", "cam", *rest]
    assert own_stages(params, "irnet", ["baseline"]) == [
        *("irnet", "edges", "walk", "pseudo", "segment", "predict", "crf")
    ]
    assert "crf" in own_evaluations(params, "baseline", ["irnet"])
    assert "walk" not in own_evaluations(params, "baseline", ["irnet"])
    assert own_evaluations(params, "irnet", [])[0] == "walk"
    assert own_stages(params, "supervised", ["irnet"]) == ["segment", "predict", "crf"]
    assert own_evaluations(params, "supervised", []) == ["single", "multi", "final"]


def test_boxes_may_be_scored_by_hand(params: Params) -> None:
    assert not params.base.evaluate.boxes
    assert "boxes" in own_evaluations(params, "baseline", ["irnet"])


def test_what_is_left_from_another_configuration_is_not_counted(
    tmp_path: Path, params: Params
) -> None:
    run = tmp_path / "toy" / "supervised" / "seed0"
    for name in ("segment/weights", "predict/masks", "metrics/final"):
        put(run / Path(name).parent, Path(name).name)
    for name in ("walk/scores", "cam/shards/maps.0of2", "metrics/walk"):
        put(run / Path(name).parent, Path(name).name)
    found = [job.facts["name"] for job in records(Paths(tmp_path, "toy", "supervised"), params)]
    assert found == ["weights", "masks", "final"]
