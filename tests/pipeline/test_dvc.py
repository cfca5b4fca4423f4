"""Snakemake and DVC in step: runs, versions, clones and experiments, as a user has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import TINY
from tests.pipeline.conftest import Workspace
from tests.pipeline.graphs import Graph, downstream, dvc_graph
from tests.pipeline.repositories import call, make_repository, ok
from wsss.config.resolve import overlay, read_yaml
from wsss.versioning.graph import parse

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

# The shortest chain there is from data to a table; some keys are the variant's own.
SMALL = overlay(
    TINY,
    {
        "run": {"variants": ["supervised"]},
        "variants": {
            "supervised": {"segment": {"lr": 0.0003}, "evaluate": {"boundary_tolerance": 0.01}}
        },
    },
)
RUN = "results/scenes/supervised/seed0"
TRAINING = {"variants": {"supervised": {"segment": {"lr": 0.0005}}}}
CRF = {"crf": {"iterations": 2}}
EVALUATION = {"variants": {"supervised": {"evaluate": {"boundary_tolerance": 0.02}}}}
CODE = "wsss/stages/predict.py"
PAGE = {"report": {"images": 2}}
COMPARED = {"results/scenes/comparison.csv", "results/scenes/report.html"}
SCORED = {f"{RUN}/metrics/{what}.classes.csv" for what in ("single", "multi", "final")} | COMPARED
PREDICTED = {f"{RUN}/predict/scores.zip", f"{RUN}/predict/masks.zip"} | SCORED
TRAINED = {f"{RUN}/segment/curve.csv"} | PREDICTED
FILTERED = {f"{RUN}/predict/masks.zip", f"{RUN}/metrics/final.classes.csv"} | COMPARED


def edit(folder: Path, top: dict[str, Any]) -> None:
    """Change params.yaml."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(read_yaml(path), top), sort_keys=False))


def edit_code(folder: Path) -> None:
    """Change a source without changing what it does."""
    path = folder / CODE
    path.write_text(path.read_text() + "\n# edited\n")


def commit(folder: Path) -> None:
    """Commit everything that Git does not ignore."""
    ok(folder, "git", "add", "--all")
    ok(folder, "git", "commit", "--quiet", "--message", "a version")


def snakemake(folder: Path) -> None:
    """Run the workflow."""
    ok(folder, "snakemake", "--cores", "2", "--quiet", "all")


def planned(folder: Path) -> set[str]:
    """What Snakemake would run: the first name among each job's outputs."""
    text = call(folder, "snakemake", "--dry-run", "--quiet", "progress")
    jobs = parse(text.stdout + text.stderr)
    return {min(job.outputs) for job in jobs if job.rule != "all"}


def stale(folder: Path) -> set[str]:
    """The stages that DVC names."""
    return {*json.loads(ok(folder, "dvc", "status", "--json"))}


def nothing_to_do(folder: Path) -> bool:
    """Whether both tools are content."""
    assert stale(folder) == set()
    assert planned(folder) == set()
    return True


def times(folder: Path) -> dict[str, int]:
    """When each file below a folder was changed."""
    return {str(p): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def versioned(make_workspace: Callable[[], Workspace]) -> Path:
    """A workflow that has run, as a version of DVC's; tests copy it."""
    folder = make_repository(make_workspace().folder)
    edit(folder, SMALL)
    ok(folder, "wsss", "dvc", "write")
    snakemake(folder)
    before = times(folder / "results")
    said = ok(folder, "wsss", "snapshot")
    assert "Snakemake and DVC have nothing to do" in said
    after = times(folder / "results")
    assert {file for file in after if before.get(file) != after[file]} == {
        str(folder / "results/scenes/graph.txt")
    }
    commit(folder)
    return folder


@pytest.fixture(scope="module")
def graph(versioned: Path) -> Graph:
    """DVC's graph."""
    return dvc_graph(versioned)


@pytest.fixture
def copied(versioned: Path, tmp_path: Path) -> Path:
    """A copy of the version, free to edit."""
    return Path(shutil.copytree(versioned, tmp_path / "copy", symlinks=True))


@pytest.fixture
def clone(versioned: Path, tmp_path: Path) -> Path:
    """A fresh clone with a remote that holds the version."""
    remote, folder = tmp_path / "remote", tmp_path / "clone"
    ok(versioned, "dvc", "remote", "add", "--local", "--default", "--force", "disk", str(remote))
    ok(versioned, "dvc", "push", "--quiet")
    ok(versioned, "git", "clone", "--quiet", str(versioned), str(folder))
    ok(folder, "dvc", "remote", "add", "--local", "--default", "disk", str(remote))
    return folder


def names_both(folder: Path, graph: Graph) -> set[str]:
    """What both tools would run; they must agree."""
    found = planned(folder)
    by_dvc = {first(folder, name) for name in stale(folder) - {"graph"}}
    assert by_dvc <= found
    # DVC names what an edit touches, Snakemake also what follows from it.
    assert downstream(graph, by_dvc) == found
    return found


def first(folder: Path, stage: str) -> str:
    """The first name among a stage's outputs."""
    outs = read_yaml(folder / "dvc.lock")["stages"][stage]["outs"]
    return min(out["path"] for out in outs)


# Edits


def test_both_tools_name_the_same_stages_after_an_edit(copied: Path, graph: Graph) -> None:
    assert nothing_to_do(copied)
    text, source = (copied / "params.yaml").read_text(), (copied / CODE).read_text()
    expected = {
        "training": (TRAINING, TRAINED),
        "crf": (CRF, FILTERED),
        "evaluation": (EVALUATION, SCORED),
        "no result": ({"resources": {"workers": 1}}, set[str]()),
    }
    for top, stages in expected.values():
        edit(copied, top)
        assert names_both(copied, graph) == stages
        (copied / "params.yaml").write_text(text)
    edit_code(copied)
    assert names_both(copied, graph) == PREDICTED
    (copied / CODE).write_text(source)
    assert nothing_to_do(copied)


@pytest.mark.parametrize(
    ("top", "rerun"),
    [
        (CRF, FILTERED),
        # An edit of the code, the same bytes again: nothing that follows is run.
        (None, {f"{RUN}/predict/scores.zip"}),
    ],
)
def test_after_dvc_repro_snakemake_has_nothing_to_do(
    copied: Path, top: dict[str, Any] | None, rerun: set[str]
) -> None:
    edit(copied, top) if top else edit_code(copied)
    said = ok(copied, "dvc", "repro")
    ran = {line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")}
    assert {first(copied, name) for name in ran - {"graph"}} == rerun
    assert nothing_to_do(copied)


def test_an_old_value_is_computed_again_not_taken_from_the_cache(copied: Path) -> None:
    """DVC's cache of runs would bring files of which Snakemake knows other parameters."""
    text = (copied / "params.yaml").read_text()
    edit(copied, PAGE)
    ok(copied, "dvc", "repro")
    assert nothing_to_do(copied)
    (copied / "params.yaml").write_text(text)
    assert "Running stage 'report" in ok(copied, "dvc", "repro")
    assert nothing_to_do(copied)


def test_after_snakemake_a_snapshot_leaves_dvc_nothing_to_do(copied: Path) -> None:
    for top in (TRAINING, CRF, EVALUATION):
        edit(copied, top)
    edit_code(copied)
    refused = call(copied, "wsss", "snapshot")
    assert refused.returncode == 1
    assert "jobs to do: run `snakemake --cores all` first" in refused.stderr
    assert "segment (supervised, 0)" in refused.stdout
    snakemake(copied)
    assert stale(copied)
    before = times(copied / "results")
    ok(copied, "wsss", "snapshot")
    assert times(copied / "results") == before
    assert nothing_to_do(copied)


def test_another_graph_is_refused_before_anything_runs(copied: Path) -> None:
    edit(copied, {"run": {"seeds": [0, 1]}})
    before = times(copied / "results")
    done = call(copied, "dvc", "repro")
    assert done.returncode != 0
    complaint = "error: dvc.yaml no longer describes params.yaml (changed:"
    assert complaint in done.stdout + done.stderr
    assert times(copied / "results") == before
    assert complaint in call(copied, "wsss", "snapshot").stderr


# Clones


def test_a_clone_is_restored_and_sees_the_next_edit(clone: Path, graph: Graph) -> None:
    early = call(clone, "wsss", "restore")
    assert early.returncode == 1
    assert "files of dvc.lock are missing" in early.stderr
    assert "run `dvc pull`" in early.stderr
    ok(clone, "dvc", "pull", "--quiet")
    assert "Snakemake and DVC have nothing to do" in ok(clone, "wsss", "restore")
    assert nothing_to_do(clone)
    text, source = (clone / "params.yaml").read_text(), (clone / CODE).read_text()
    edit(clone, TRAINING)
    assert names_both(clone, graph) == TRAINED
    assert "restore first and edit then" in call(clone, "wsss", "restore").stderr
    (clone / "params.yaml").write_text(text)
    edit_code(clone)
    assert names_both(clone, graph) == PREDICTED
    (clone / CODE).write_text(source)
    edit(clone, EVALUATION)
    assert names_both(clone, graph) == SCORED
    snakemake(clone)
    ok(clone, "wsss", "snapshot")
    assert nothing_to_do(clone)


def test_a_running_snakemake_is_left_alone(copied: Path) -> None:
    lock = copied / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/scenes/comparison.md\n")
    for command in ("snapshot", "restore"):
        done = call(copied, "wsss", command)
        assert done.returncode == 1
        assert "a Snakemake run holds this folder" in done.stderr


# Questions


def test_experiments_metrics_parameters_and_plots_are_compared(copied: Path) -> None:
    key = "crf.iterations"
    ok(copied, "dvc", "exp", "run", "--set-param", f"{key}=2")
    assert nothing_to_do(copied)
    params = json.loads(ok(copied, "dvc", "params", "diff", "--json"))
    assert params.get("params.yaml") == {key: {"old": 10, "new": 2, "diff": -8}}
    shown = json.loads(ok(copied, "dvc", "metrics", "show", "--json"))
    data = shown[""]["data"]
    assert {*data[f"{RUN}/miou.json"]["data"]} == {"single", "multi", "final"}
    compared = json.loads(ok(copied, "dvc", "metrics", "diff", "--json", "--all"))
    row = compared[f"{RUN}/miou.json"]["final"]
    assert row["new"] == data[f"{RUN}/miou.json"]["data"]["final"]
    figures = json.loads(ok(copied, "dvc", "plots", "diff", "--json"))
    assert not figures.get("errors")
    assert {"classes-final", "loss-segment"} <= {*figures["data"]}
    final = figures["data"]["classes-final"][0]
    assert final["revisions"] == ["workspace", "HEAD"]
    assert "<DVC" not in json.dumps(final["content"])
