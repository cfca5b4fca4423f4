"""Memory of planned jobs: of several processes, and of a GPU where it was measured."""

from __future__ import annotations

from typing import Any

import pytest

from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.data.manifest import Item
from wsss.planning import table
from wsss.planning.dataset import DataFacts, facts_of
from wsss.planning.plan import Plan, make_plan, plain
from wsss.planning.rates import Bench, BenchFile, Entry, cost_key
from wsss.versioning.graph import Job

MEASURED: dict[str, Any] = {
    **{"repeats": 2, "seconds": 0.5, "cpu_seconds": 0.25, "start_seconds": 4.0},
    **{"base_mb": 500.0, "peak_mb": 700.0, "cuda_peak_mb": 3000.0, "pixels": 100 * 200},
    **{"batch_pixels": 8 * 100 * 200},
    "artifact_bytes": 10,
}
FILE: dict[str, Any] = {
    **{"version": 1, "machine": "m", "device": "cuda", "python": "3.11", "versions": {}},
    **{"shape": (100, 200), "classes": 2, "tags": 1, "entries": []},
}


@pytest.fixture
def facts() -> DataFacts:
    items = [Item(f"a{n}", "", "m", ("cat",), ("train", "seed", "val")) for n in range(8)]
    roles = {"train": "train", "seed": "seed", "tune": None, "val": "val"}
    return facts_of("by hand", ("cat", "dog"), items, roles, lambda _: (100, 400))


def plan(raw: dict[str, Any], facts: DataFacts, gpu: bool, **changes: Any) -> Plan:
    params = Params(overlay(raw, changes))
    config = params.resolve("baseline")
    values = MEASURED if gpu else {**MEASURED, "cuda_peak_mb": None}
    entries = {
        (task, key): Entry(task=task, key=key, unit=unit, **values)
        for task, unit in (("classify", "step"), ("cam", "Mpx"))
        for key in [cost_key(task, config)]
    }
    run = "results/scenes/baseline/seed0"
    where = {"variant": "baseline", "seed": "0"}
    jobs = [
        Job("classify", where, (), (f"{run}/classify/weights.safetensors",)),
        Job("cam", where, (), (f"{run}/cam/maps.zip",)),
    ]
    device = "cuda" if gpu else "cpu"
    return make_plan(jobs, params, facts, Bench(BenchFile(**FILE | {"device": device}), entries))


def test_a_node_holds_all_processes_of_a_training(
    raw_params: dict[str, Any], facts: DataFacts
) -> None:
    wide = {"nodes": 2, "processes": 4}
    train, cam = plan(raw_params, facts, gpu=True, distributed=wide).jobs
    assert (train.process_mb, train.memory_mb, train.gpus) == (700, 4 * 700, 4)
    # Images of the data set are twice as large as those that were measured.
    assert (cam.process_mb, cam.memory_mb, cam.gpus) == (900, 900, 1)


def test_each_part_of_a_job_has_batches_of_its_own(
    raw_params: dict[str, Any], facts: DataFacts
) -> None:
    """IRNet's training passes over all images at its end, in batches of `walk.batch`."""
    params = Params(overlay(raw_params, {"walk": {"batch": 8}, "refine": {"method": "irnet"}}))
    config = params.resolve("baseline")
    entries = {
        (task, key): Entry(task=task, key=key, unit=unit, **MEASURED)
        for task, unit in (("irnet", "step"), ("edges", "Mpx"))
        for key in [cost_key(task, config)]
    }
    where = {"variant": "baseline", "seed": "0"}
    weights = "results/scenes/baseline/seed0/irnet/weights.safetensors"
    bench = Bench(BenchFile(**FILE), entries)
    (job,) = make_plan([Job("irnet", where, (), (weights,))], params, facts, bench).jobs
    # Twice as large a batch of photos as was measured; a training's crops do not change.
    assert (job.gpu_mb, job.process_mb) == (2 * 3000, 700)


def test_an_import_is_one_process_without_a_gpu(
    raw_params: dict[str, Any], facts: DataFacts
) -> None:
    checkpoint = {"file": "x", "layout": "irn-resnet50-cam", "classes": None}
    wide = {"nodes": 2, "processes": 4}
    train, _ = plan(
        raw_params, facts, gpu=True, distributed=wide, classify={"checkpoint": checkpoint}
    ).jobs
    assert (train.work, train.cores, train.gpus) == ((), 1, 0)


def test_memory_of_the_gpu_is_shown_where_it_was_measured(
    raw_params: dict[str, Any], facts: DataFacts
) -> None:
    found = plan(raw_params, facts, gpu=True, distributed={"processes": 4})
    assert [job["gpu_mb"] for job in plain(found, 1, 1)["jobs"]] == [3000, 6000]
    lines = table.lines(found, 1, 1)
    assert lines[2].split()[:6] == ["rule", "jobs", "time", "memory", "GPU", "disk"]
    (row,) = (line for line in lines if line.startswith("classify"))
    assert "2.8 GB  3.0 GB" in row
    without = plan(raw_params, facts, gpu=False)
    assert [job["gpu_mb"] for job in plain(without, 1, 1)["jobs"]] == [None, None]
    assert "GPU" not in "".join(table.lines(without, 1, 0))
