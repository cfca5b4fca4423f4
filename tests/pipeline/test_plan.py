"""``wsss plan`` lists the jobs that Snakemake runs, and a bench gives them times."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.conftest import TINY_WORKFLOW, Workspace
from tests.pipeline.repositories import call
from wsss.config.resolve import overlay
from wsss.planning.rates import read_bench


def job_stats(workspace: Workspace, **overrides: Any) -> dict[str, int]:
    """The table of jobs that Snakemake itself prints."""
    done = workspace.run("--dry-run", **overrides)
    assert done.returncode == 0, done.stderr
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("\n\n")[0]
    counts = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}
    assert counts.pop("total") == sum(counts.values())
    counts.pop("all")
    return counts


def planned(
    workspace: Workspace, *arguments: str, **overrides: Any
) -> subprocess.CompletedProcess[str]:
    """Run ``wsss plan`` with the same overlay."""
    file = workspace.folder / "overlay.yaml"
    file.write_text(yaml.safe_dump(overlay(TINY_WORKFLOW, overrides)))
    command = [sys.executable, "-m", "wsss", "plan", "--params", "params.yaml", "overlay.yaml"]
    return call(workspace.folder, *command, *arguments)


def plan(workspace: Workspace, *arguments: str, **overrides: Any) -> dict[str, Any]:
    """The plan as plain data."""
    done = planned(workspace, "--format", "json", *arguments, **overrides)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def fresh(make_workspace: Callable[[], Workspace]) -> Workspace:
    """A workspace in which nothing has run."""
    return make_workspace()


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {
            "run": {"variants": ["baseline", "irnet", "supervised"], "seeds": [0, 1]},
            "resources": {"shards": {"cam": 2, "seeds": 3, "walk": 2, "predict": 2, "crf": 2}},
        },
        {"run": {"variants": ["rtc", "rtc-two-stage", "muscle"]}, "evaluate": {"boxes": True}},
        {"data": {"splits": {"tune": None, "val": None}}, "cam": {"threshold": 0.3}}
        | {"run": {"variants": ["baseline"]}, "walk": {"background_threshold": 0.3}},
    ],
    ids=["three variants", "seeds and shards", "single-stage and soft", "without masks to score"],
)
def test_jobs_of_each_rule(fresh: Workspace, overrides: dict[str, Any]) -> None:
    found = plan(fresh, **overrides)
    assert found["jobs_per_rule"] == job_stats(fresh, **overrides)
    assert found["total"]["jobs"] == len(found["jobs"]) == sum(found["jobs_per_rule"].values())
    names = {job["name"] for job in found["jobs"]}
    assert all(set(job["after"]) <= names for job in found["jobs"])


def test_the_work_of_shards_adds_up(fresh: Workspace) -> None:
    def amounts(rule: str, **overrides: Any) -> list[float]:
        jobs = plan(fresh, **overrides)["jobs"]
        return [j["work"][0]["amount"] for j in jobs if j["rule"] == rule]

    shards = {"resources": {"shards": {"cam": 3, "seeds": 3}}}
    for rule in ("cam", "seeds_label"):
        (whole,), parts = amounts(rule), amounts(rule, **shards)
        assert len(parts) == 3
        assert sum(parts) == pytest.approx(whole, abs=0.01)


def test_what_is_done_is_not_planned(finished: Workspace) -> None:
    done = planned(finished)
    assert "Nothing to do" in done.stdout
    assert plan(finished, "--all")["jobs_per_rule"]["classify"] == 1
    # The manifest is read, not the description of the scenes.
    assert plan(finished)["data"]["origin"].endswith("dataset.json")


def test_sizes_on_disk(finished: Workspace) -> None:
    """Of stores that follow from grids, classes and tags alone."""
    jobs = {job["name"]: job for job in plan(finished, "--all")["jobs"]}
    for name in ("baseline/seed0/cam/maps.zip", "irnet/seed0/irnet/edges.zip"):
        there = (finished.folder / "results" / "scenes" / name).stat().st_size
        assert jobs[f"results/scenes/{name}"]["bytes"] == pytest.approx(there, rel=0.1)


def test_a_bench_gives_times(fresh: Workspace, tmp_path: Path) -> None:
    only = {"run": {"variants": ["supervised"]}}
    out = tmp_path / "bench.json"
    (fresh.folder / "bench.yaml").write_text(yaml.safe_dump(overlay(TINY_WORKFLOW, only)))
    command = ["-m", "wsss", "bench", "--params", "params.yaml", "bench.yaml", "--seconds", "0.1"]
    done = call(fresh.folder, sys.executable, *command, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    file = read_bench(out).file
    tasks = {entry.task for entry in file.entries}
    assert tasks == {"segment", "predict", "crf", "evaluate masks", "evaluate scores"}
    assert all(e.cpu_seconds > 0 and e.peak_mb > e.base_mb > 0 for e in file.entries)
    found = plan(fresh, "--bench", str(out), **only)
    assert found["total"]["unmeasured"] == []
    measured = [job for job in found["jobs"] if job["work"]]
    assert all(job["seconds"] > 0 and job["memory_mb"] > 50 for job in measured)
    assert found["total"]["critical_path_seconds"] <= found["total"]["seconds"]
    # Another configuration than the one that was measured gets no times.
    other = plan(fresh, "--bench", str(out), **only, segment={"crop": 96})
    assert other["total"]["unmeasured"] == ["segment"]


def test_mistakes_are_one_line(fresh: Workspace) -> None:
    done = planned(fresh, "--bench", "nothing.json")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nothing.json does not exist: write it with")
    done = planned(fresh, data={"source": "folder", "root": "nowhere"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: data: root-missing x1: nowhere is no folder")
    assert done.stderr.count("\n") == 1
