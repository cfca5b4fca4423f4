"""What a plan counts, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.artifacts import ArrayStoreWriter
from wsss.config import Config, Params
from wsss.config.resolve import overlay
from wsss.data.manifest import Item
from wsss.planning.dataset import DataFacts, data_facts, facts_of
from wsss.planning.disk import size_of
from wsss.planning.rates import cost_key
from wsss.planning.work import Work, evaluation_task, scale_passes, steps_an_epoch, work_of

# 10 train (one without tag), 4 of them also on seed; 3 tune, 2 val: 100 x 200 pixels.
ROLES = {"train": "train", "seed": "seed", "tune": "tune", "val": "val"}
PIXELS = 0.02  # Mpx


def items() -> list[Item]:
    found = [Item(f"a{n}", "", "m", ("cat", "dog")[: 1 + n % 2], ("train",)) for n in range(9)]
    found.append(Item("a9", "", "m", (), ("train",)))
    seeds = [Item(i.id, "", "m", i.labels, ("seed", "train")) for i in found[:4]]
    tune = [Item(f"b{n}", "", "m", ("cat",), ("tune",)) for n in range(3)]
    val = [Item(f"c{n}", "", "m", ("dog",), ("val",)) for n in range(2)]
    return [*seeds, *found[4:], *tune, *val]


@pytest.fixture
def facts() -> DataFacts:
    return facts_of("by hand", ("cat", "dog"), items(), ROLES, lambda _: (100, 200))


def config_of(raw: dict[str, Any], **more: Any) -> Config:
    return Params(overlay(raw, more)).resolve("baseline")


def test_groups(facts: DataFacts) -> None:
    counts = {name: group.images for name, group in facts.groups.items()}
    assert counts == {
        **{"train": 10, "seed": 4, "tune": 3, "val": 2, "labelled": 9, "seeded": 10},
        **{"walked": 13, "predicted": 2, "all": 15},
    }
    assert facts.groups["train"].tags == pytest.approx(13 / 10)
    assert facts.shape == (100, 200)
    assert facts.groups["all"].largest == 20_000


def test_without_val_the_training_images_are_predicted() -> None:
    found = facts_of("", ("cat",), items(), {**ROLES, "val": None}, lambda _: (10, 10))
    assert found.groups["predicted"] == found.groups["train"]
    assert found.groups["val"].images == 0


def test_steps(raw_params: dict[str, Any], facts: DataFacts) -> None:
    # Of 9 labelled images a batch of 4 makes 2 steps; the rest of an epoch is dropped.
    config = config_of(raw_params, classify={"epochs": 5, "batch": 4})
    (found,) = work_of("classify", config, facts)
    assert (found.task, found.unit, found.amount) == ("classify", "step", 10)
    assert steps_an_epoch(config.classify, 3) == 1


def test_passes(raw_params: dict[str, Any], facts: DataFacts) -> None:
    assert scale_passes([0.5, 1.0, 2.0], True) == 2 * (0.25 + 1 + 4)
    assert scale_passes([1.0], False) == 1
    config = config_of(raw_params, cam={"scales": [0.5, 1.0], "flip": True})
    (found,) = work_of("cam", config, facts)
    assert found.amount == pytest.approx(13 * PIXELS * 2.5)
    config = config_of(raw_params, predict={"scales": [1.0, 2.0], "flip": False})
    assert work_of("predict", config, facts)[0].amount == pytest.approx(2 * PIXELS * 5)


@pytest.mark.parametrize(
    ("stage", "images"),
    [
        ("seeds_label", 10),
        ("seeds_alpha", 2 * 10),
        ("seeds_confident", 2 * 10),
        ("edges", 2 * 13),
        ("walk", 13),
        ("crf", 2),
        ("pseudo", 10),
    ],
)
def test_inference(raw_params: dict[str, Any], facts: DataFacts, stage: str, images: int) -> None:
    config = config_of(raw_params, refine={"method": "irnet"})
    (found,) = work_of(stage, config, facts)
    assert found.amount == pytest.approx(images * PIXELS)


def test_irnet_measures_its_displacement(raw_params: dict[str, Any], facts: DataFacts) -> None:
    config = config_of(raw_params, irnet={"epochs": 2, "batch": 3})
    steps, displacement = work_of("irnet", config, facts)
    assert steps.amount == 2 * 3
    assert (displacement.task, displacement.amount) == ("edges", pytest.approx(9 * PIXELS))


def test_a_copy_and_an_import_are_no_work(raw_params: dict[str, Any], facts: DataFacts) -> None:
    config = config_of(raw_params, refine={"method": "none"})
    assert work_of("pseudo", config, facts) == []
    assert work_of("report", config, facts) == []
    checkpoint = {"file": "x", "layout": "deeplab-pytorch-v2", "classes": None}
    config = config_of(raw_params, segment={"checkpoint": checkpoint})
    assert work_of("segment", config, facts) == []


@pytest.mark.parametrize(
    ("what", "task", "images"),
    [
        ("cam", "evaluate_cam cams", 4),
        ("cam_tune", "evaluate_tune cams", 3),
        ("boxes", "evaluate_boxes boxes", 7),
        ("pseudo", "evaluate masks", 4),
        ("multi", "evaluate scores", 2),
        ("final", "evaluate masks", 2),
    ],
)
def test_evaluations(
    raw_params: dict[str, Any], facts: DataFacts, what: str, task: str, images: int
) -> None:
    (found,) = work_of("evaluate", config_of(raw_params), facts, what)
    assert (found.task, found.amount) == (task, pytest.approx(images * PIXELS))


def test_walked_scores_are_evaluated_by_their_background(raw_params: dict[str, Any]) -> None:
    assert evaluation_task("walk", config_of(raw_params)) == "evaluate_walk scores"
    cut = config_of(raw_params, walk={"background": "threshold"})
    assert evaluation_task("walk", cut) == "evaluate_walk cams"


def test_disk(raw_params: dict[str, Any], facts: DataFacts) -> None:
    config = config_of(raw_params, cam={"stride": 4}, refine={"method": "irnet"})
    tags = facts.groups["walked"].tags
    found = size_of("r/d/v/seed0/cam/maps.zip", config, facts)
    assert found == pytest.approx(13 * tags * 25 * 50 * 2, rel=0.15)
    # Background walks, too; a shard's name leads to the same store.
    walked = size_of("r/d/v/seed0/walk/shards/scores.0of2.zip", config, facts)
    assert walked is not None
    assert walked - found == 13 * 25 * 50 * 2
    assert size_of("r/d/v/seed0/metrics/final.json", config, facts) == 0
    assert size_of("r/d/v/seed0/classify/weights.safetensors", config, facts) is None


def test_maps_are_as_large_as_planned(
    raw_params: dict[str, Any], facts: DataFacts, tmp_path: Path
) -> None:
    config = config_of(raw_params, cam={"stride": 4})
    path = tmp_path / "maps.zip"
    with ArrayStoreWriter(path) as store:
        for item in items()[:13]:
            cams = np.zeros((len(item.labels), 25, 50), np.float16)
            store.add(item.id, cams, list(range(len(item.labels))), (100, 200))
    planned = size_of("r/d/v/seed0/cam/maps.zip", config, facts)
    assert path.stat().st_size == pytest.approx(planned, rel=0.02)


def test_scenes_are_planned_before_they_are_drawn(tiny_params: Params, tmp_path: Any) -> None:
    found = data_facts(tiny_params.base, tmp_path)
    assert [found.groups[r].images for r in ("train", "seed", "tune", "val")] == [12, 12, 4, 4]
    assert found.classes == 6
    assert max(found.shape) == 96
    assert 1 <= found.groups["train"].tags <= 4


def test_a_key_follows_costs_and_nothing_else(raw_params: dict[str, Any]) -> None:
    def key(task: str, **more: Any) -> str:
        return cost_key(task, config_of(raw_params, **more))

    assert key("classify") == key("classify", classify={"epochs": 99, "lr": 0.5})
    assert key("classify") != key("classify", classify={"crop": 160})
    assert key("classify") != key("segment")
    # The same network predicts, however it was trained.
    assert key("predict") == key("predict", road="supervised")
    assert key("predict") == key("predict", method={"name": "rtc", "params": {}})
    assert key("predict") != key("predict", segment={"net": "deeplabv2"})
    assert key("evaluate masks") == key("evaluate masks", road="supervised")


def test_work_says_where_it_comes_from(raw_params: dict[str, Any], facts: DataFacts) -> None:
    config = config_of(raw_params, cam={"scales": [1.0], "flip": True})
    assert work_of("cam", config, facts) == [
        Work("cam", "Mpx", pytest.approx(0.52), "13 images x 0.020 Mpx x 2 (1 scale, flipped)")
    ]
