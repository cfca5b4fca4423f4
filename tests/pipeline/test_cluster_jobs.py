"""What jobs ask a cluster for, and which of them do not go there."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.conftest import TINY_WORKFLOW, Workspace
from tests.pipeline.graphs import DUMP
from tests.pipeline.repositories import ok
from wsss.config.resolve import overlay

TRAININGS = {"classify", "affinity", "segment"}
INFERENCE = {"cam", "walk", "predict"}
SEVERAL = ("gres", "mpi", "tasks", "tasks_per_gpu")


@pytest.fixture(scope="module")
def folder(make_workspace: Callable[[], Workspace]) -> Path:
    return make_workspace().folder


def jobs(folder: Path, *defaults: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """A job of each rule."""
    layers = overlay(overlay(TINY_WORKFLOW, {"run": {"variants": ["baseline"]}}), changes)
    (folder / "overlay.yaml").write_text(yaml.safe_dump(layers))
    found = json.loads(ok(folder, sys.executable, str(DUMP), "overlay.yaml", *defaults))
    return {job["rule"]: job for job in found}


def on_cluster(folder: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    return jobs(folder, "slurm_partition=main", **changes)


def asked(found: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Which rules ask for a resource, and for how much of it."""
    everything = {rule: job["resources"].get(name) for rule, job in found.items()}
    return {rule: value for rule, value in everything.items() if value}


def test_one_gpu_a_process(folder: Path) -> None:
    found = on_cluster(folder, distributed={"processes": 4})
    assert asked(found, "gpu") == dict.fromkeys(TRAININGS, 4) | dict.fromkeys(INFERENCE, 1)
    assert asked(found, "nodes") == dict.fromkeys(TRAININGS, 1)
    assert {rule: found[rule]["threads"] for rule in TRAININGS} == dict.fromkeys(TRAININGS, 4)
    # Else the plugin would not start the job's one step.
    assert not any(name in found["classify"]["resources"] for name in SEVERAL)


def test_gpus_depend_on_the_device_and_on_a_workstation_on_whether_there_are_any(
    folder: Path,
) -> None:
    assert not asked(on_cluster(folder, compute={"device": "cpu"}), "gpu")
    everything = TRAININGS | INFERENCE
    assert set(asked(jobs(folder, compute={"device": "cuda"}), "gpu")) == everything
    there = shutil.which("nvidia-smi") is not None
    assert set(asked(jobs(folder), "gpu")) == (everything if there else set())


def test_several_nodes_are_asked_for_by_node_and_start_their_own_step(folder: Path) -> None:
    wide = {"nodes": 2, "processes": 4}
    found = on_cluster(folder, distributed=wide)
    assert asked(found, "gpu") == dict.fromkeys(INFERENCE, 1)
    values = {"nodes": 2, "gres": "gpu:4", "mpi": "srun", "tasks": 2}
    for name, value in values.items():
        assert asked(found, name) == dict.fromkeys(TRAININGS, value)
    assert found["classify"]["resources"]["tasks_per_gpu"] == 0
    assert found["classify"]["params"]["start"] == (
        "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=4 "
    )
    found = on_cluster(folder, distributed=wide, compute={"device": "cpu"})
    assert "gres" not in found["classify"]["resources"]
    assert asked(found, "tasks") == dict.fromkeys(TRAININGS, 2)


def test_a_checkpoint_is_copied_by_one_process_without_a_gpu(folder: Path) -> None:
    (folder / "published.pth").touch()
    checkpoint = {"file": "published.pth", "layout": "irn-resnet50-cam", "classes": None}
    wide = {"nodes": 2, "processes": 4}
    found = on_cluster(folder, distributed=wide, classify={"checkpoint": checkpoint})
    classify = found["classify"]
    assert (classify["threads"], classify["params"]["start"]) == (1, "")
    assert {name: classify["resources"].get(name) for name in ("nodes", "gpu", *SEVERAL)} == {
        "nodes": 1,
        "gpu": 0,
        **dict.fromkeys(SEVERAL),
    }
    assert found["segment"]["resources"]["nodes"] == 2


@pytest.mark.parametrize("shards", [1, 2])
def test_scores_are_made_beside_snakemake_unless_there_is_much_to_score(
    folder: Path, shards: int
) -> None:
    changes = {"evaluate": {"boxes": True}, "resources": {"shards": {"cam": shards}}}
    found = on_cluster(folder, **changes)
    scores = {rule for rule in found if rule.startswith("evaluate")}
    assert {"evaluate", "evaluate_tune", "evaluate_cam", "evaluate_boxes"} <= scores
    assert {found[rule]["local"] for rule in scores} == {shards == 1}
    always = {"compare", "report"} | {rule for rule in found if rule.startswith("merge_")}
    assert {rule for rule, job in found.items() if job["local"]} - scores == always
