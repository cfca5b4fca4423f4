"""The whole workflow through the profile makes what it makes on one machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from tests.pipeline.conftest import Workspace
from tests.pipeline.test_workflow import artifacts
from tests.slurm.conftest import Cluster
from tests.slurm.one_node import OneNode, run

CHANGES: dict[str, Any] = {"run": {"variants": ["baseline"]}}
STAGES = ("cam", "seeds", "walk", "predict", "crf")
SHARDS = {"resources": {"shards": dict.fromkeys(STAGES, 2)}}
# Of the variant, those that ask for a GPU.
ON_GPUS = {"classify", "affinity", "segment", "cam", "walk", "predict"}
ARRAYS = {"cam", "seeds_alpha", "seeds_label", "walk", "predict", "crf"}
LOCAL = {"merge_cam", "merge_seeds", "merge_walk", "merge_predict", "merge_crf", "compare"}


def test_shards_as_arrays_make_the_same_bytes(
    make_workspace: Callable[[], Workspace], node: OneNode
) -> None:
    local = make_workspace()
    done = local.run(**CHANGES)
    assert done.returncode == 0, done.stderr[-4000:]
    cluster = Cluster(make_workspace(), node, {**CHANGES, **SHARDS})
    assert cluster.run() == 0, cluster.output()[-4000:]
    expected, got = artifacts(local.path()), artifacts(cluster.workspace.path())
    assert set(got) == set(expected)
    assert [name for name in expected if got[name] != expected[name]] == []
    check_jobs(cluster.run_id())
    profile = yaml.safe_load(cluster.profile.read_text())
    assert set(profile["slurm-array-jobs"].split(",")) >= ARRAYS


def check_jobs(run_id: str) -> None:
    """Arrays where there are shards, GPUs where networks run, nothing short in the queue."""
    fields = "Comment:100,ArrayTaskID:20,tres-per-job:40,State:20"
    query = ("squeue", "--array", "--states=all", "--noheader", f"--name={run_id}", "-O", fields)
    lines = run(*query).splitlines()
    seen: dict[str, list[tuple[str, str]]] = {}
    for comment, task, resources, state in map(str.split, lines):
        assert state == "COMPLETED"
        rule = comment.removeprefix("rule_").partition("_wildcards_")[0]
        seen.setdefault(rule, []).append((task, resources))
    for rule in ARRAYS:
        assert sorted(task for task, _ in seen[rule]) == ["1", "2"], rule
    assert {
        rule for rule, jobs in seen.items() if all("gpu:1" in used for _, used in jobs)
    } == ON_GPUS
    assert not LOCAL & set(seen)
