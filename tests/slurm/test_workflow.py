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
# Of the variant, those that ask for a GPU: of the job, and of its node, as some clusters want it.
TRAININGS = {"classify", "affinity", "segment"}
INFERENCE = {"cam", "walk", "predict"}
BY_NODE = ("cam: &inference {", "cam: &inference {gpu: 0, gres: \"'gpu:1'\", ")
ARRAYS = {"cam", "seeds_alpha", "seeds_label", "walk", "predict", "crf"}
MERGES = {"merge_cam", "merge_seeds", "merge_walk", "merge_predict", "merge_crf"}
LOCAL = {*MERGES, "compare", "report"}


def test_shards_as_arrays_make_the_same_bytes(
    make_workspace: Callable[[], Workspace], node: OneNode
) -> None:
    local = make_workspace()
    done = local.run(**CHANGES)
    assert done.returncode == 0, done.stderr[-4000:]
    cluster = Cluster(make_workspace(), node, {**CHANGES, **SHARDS})
    cluster.edit_profile(BY_NODE)
    assert cluster.run() == 0, cluster.output()[-4000:]
    expected, got = artifacts(local.path()), artifacts(cluster.workspace.path())
    assert set(got) == set(expected)
    assert [name for name in expected if got[name] != expected[name]] == []
    check_jobs(cluster.run_id())
    profile = yaml.safe_load(cluster.profile.read_text())
    assert set(profile["slurm-array-jobs"].split(",")) >= ARRAYS


def check_jobs(run_id: str) -> None:
    """Arrays where there are shards, GPUs where networks run, nothing short in the queue."""
    fields = "Comment:100,ArrayTaskID:20,tres-per-job:40,tres-per-node:40,State:20"
    query = ("squeue", "--array", "--states=all", "--noheader", f"--name={run_id}", "-O", fields)
    lines = run(*query).splitlines()
    seen: dict[str, list[tuple[str, ...]]] = {}
    for comment, *asked, state in map(str.split, lines):
        assert state == "COMPLETED"
        rule = comment.removeprefix("rule_").partition("_wildcards_")[0]
        seen.setdefault(rule, []).append(tuple(asked))
    for rule in ARRAYS:
        assert sorted(task for task, *_ in seen[rule]) == ["1", "2"], rule
    for column, rules in ((1, TRAININGS), (2, INFERENCE)):
        found = {rule for rule, jobs in seen.items() if all("gpu:1" in job[column] for job in jobs)}
        assert found == rules
    assert not LOCAL & set(seen)
