"""Trainings of several processes: on one node, and on two, which are this machine twice."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline.conftest import Workspace
from tests.slurm.conftest import TRAINING, Cluster, Reference, trained
from tests.slurm.one_node import OneNode, UnavailableError, give_way, run, wait_for
from wsss.artifacts import load_weights
from wsss.config.resolve import overlay

# `auto`: GPUs are asked for, and where torch sees none, processes train on the CPU.
SPREAD: dict[str, dict[str, Any]] = {
    name: overlay(TRAINING, {"compute": {"device": "auto"}, "distributed": distributed})
    for name, distributed in {
        "one node": {"nodes": 1, "processes": 2},
        "two nodes": {"nodes": 2, "processes": 1},
    }.items()
}


def fresh(reference: Reference, folder: Path) -> Workspace:
    """A copy of the project with data and without results."""
    shutil.copytree(reference.workspace.folder, folder, symlinks=True)
    shutil.rmtree(folder / "results" / "scenes" / "baseline")
    return Workspace(folder)


@pytest.fixture(scope="module")
def expected(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that two processes make without SLURM."""
    workspace = fresh(reference, tmp_path_factory.mktemp("two") / "project")
    done = workspace.run(trained(0), **SPREAD["one node"])
    assert done.returncode == 0, done.stderr[-4000:]
    return workspace.folder / trained(0)


def stages_in(folder: Path) -> Iterator[str]:
    """What the processes of a project are: agents that start others, and those that train."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            own = b"python" in words[0] and b"wsss classify " in b" ".join(words)
            if own and (process / "cwd").readlink() == folder:
                variables = (process / "environ").read_bytes().split(b"\0")
                yield "trains" if any(v.startswith(b"RANK=") for v in variables) else "agent"
        except (FileNotFoundError, ProcessLookupError):
            continue


def gpus_asked_for(number: str) -> list[str]:
    """What a job asks for in GPUs: of the job, and of each node."""
    fields = "tres-per-job:40,tres-per-node:40"
    return run("squeue", f"--job={number}", "--noheader", "-O", fields).split()


@pytest.mark.parametrize(
    ("kind", "agents", "gpus"),
    [("one node", 1, ["gres:gpu:2", "N/A"]), ("two nodes", 2, ["N/A", "gres:gpu:1"])],
)
def test_a_preempted_training_goes_on(
    kind: str,
    agents: int,
    gpus: list[str],
    reference: Reference,
    expected: Path,
    node: OneNode,
    tmp_path: Path,
) -> None:
    cluster = Cluster(fresh(reference, tmp_path / "project"), node, SPREAD[kind])
    if kind == "two nodes":
        try:
            node.start_second()
        except UnavailableError as why:
            pytest.skip(str(why))
        cluster.edit_profile(("slurm_partition: main ", "slurm_partition: both "))
    cluster.pace(0.2)
    with cluster.started(trained(0)) as snakemake:
        number = cluster.wait_until_training(0, pace=1)
        assert Counter(stages_in(cluster.folder)) == {"agent": agents, "trains": 2}
        assert gpus_asked_for(number) == gpus
        give_way()
        wait_for(lambda: "state saved at step" in cluster.log(0), "no state is saved")
        cluster.pace(0)
        assert cluster.end(snakemake) == 0, cluster.output()[-4000:]
    assert cluster.output().count("Trying to restart job") == 1
    assert "continuing at step" in cluster.log(0)
    (one, _), (other, _) = load_weights(expected), load_weights(cluster.folder / trained(0))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
