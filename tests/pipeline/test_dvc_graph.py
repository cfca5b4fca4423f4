"""dvc.yaml and the rules describe one workflow: each tool is asked for its own graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.pipeline.conftest import TINY_WORKFLOW, Workspace
from tests.pipeline.graphs import Graph, drift, dvc_graph, snakemake_graph
from tests.pipeline.repositories import call, make_repository, ok
from wsss.config.resolve import overlay

# Everything at once: a shared variant, overridden keys, shards, seeds, boxes, soft labels.
RICH = overlay(
    TINY_WORKFLOW,
    {
        "run": {"variants": ["baseline", "irnet", "soft", "supervised"], "seeds": [0, 1]},
        "resources": {"shards": {"cam": 2, "seeds": 1, "walk": 1, "crf": 1}},
        "evaluate": {"boxes": True},
        "segment": {"lr": 0.0007},
        "variants": {
            "soft": {
                "share": {"from": "irnet", "through": "pseudo"},
                "segment": {"labels": "soft", "ignore_below": 0.6, "lr": 0.0003},
            },
        },
    },
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

Edit = Callable[[dict[str, Any]], object]


def write(folder: Path, *overlays: str) -> None:
    """Write dvc.yaml as a user does."""
    ok(folder, "wsss", "dvc", "write", "--params", "params.yaml", *overlays)


@pytest.fixture(scope="module")
def rich(make_workspace: Callable[[], Workspace]) -> Path:
    """A workspace with a dvc.yaml for the rich configuration in an overlay."""
    folder = make_repository(make_workspace().folder)
    (folder / "overlay.yaml").write_text(yaml.safe_dump(RICH))
    write(folder, "overlay.yaml")
    return folder


@pytest.fixture(scope="module")
def rules(rich: Path) -> Graph:
    """Snakemake's graph of the rich configuration."""
    return snakemake_graph(rich, "overlay.yaml")


def test_both_graphs_agree_on_files_parameters_code_and_order(rich: Path, rules: Graph) -> None:
    assert len(rules) > 80
    assert drift(rules, dvc_graph(rich)) == []


def test_the_dvc_yaml_of_the_project_is_what_would_be_written(
    make_workspace: Callable[[], Workspace],
) -> None:
    folder = make_repository(make_workspace().folder)
    committed = (ROOT / "dvc.yaml").read_text()
    assert (folder / "dvc.yaml").read_text() == committed
    assert drift(snakemake_graph(folder), dvc_graph(folder)) == []
    write(folder)
    assert (folder / "dvc.yaml").read_text() == committed


def test_an_overridden_key_is_watched_where_it_is_stated(rich: Path) -> None:
    stages = yaml.safe_load((rich / "dvc.yaml").read_text())["stages"]
    soft = {key for entry in stages["segment-soft"]["params"] for key in watched(entry)}
    assert "overlay.yaml:variants.${item.variant}.segment.lr" in soft
    assert {"overlay.yaml:segment.batch", "params.yaml:segment.momentum"} <= soft
    assert not soft & {"params.yaml:segment", "params.yaml:segment.lr", "overlay.yaml:segment.lr"}
    # Handed down by the variant it shares from.
    predict = {key for entry in stages["crf"]["params"] for key in watched(entry)}
    assert predict == {"params.yaml:crf"}


def watched(entry: str | dict[str, list[str]]) -> list[str]:
    if isinstance(entry, str):
        return [f"params.yaml:{entry}"]
    return [f"{file}:{key}" for file, keys in entry.items() for key in keys]


# The comparison fails when either side drifts

SINGLE = 'part("predict", "single", SHARDS.predict),'
SEGMENT = "workflow/rules/segment.smk"


@pytest.mark.parametrize(
    "edit",
    [
        lambda stages: stages["segment"]["outs"].pop(),
        lambda stages: stages["merge_cam"]["deps"].pop(),
        lambda stages: stages["classify"]["deps"].remove("wsss/methods/baseline.py"),
        lambda stages: stages["crf"]["params"].clear(),
        lambda stages: stages["pseudo"]["deps"].remove(
            "results/scenes/${item.variant}/seed${item.seed}/walk/scores.zip"
        ),
    ],
)
def test_a_dvc_yaml_that_drifts_is_found(rich: Path, rules: Graph, edit: Edit) -> None:
    path = rich / "dvc.yaml"
    original = path.read_text()
    content = yaml.safe_load(original)
    edit(content["stages"])
    path.write_text(yaml.safe_dump(content))
    try:
        assert drift(rules, dvc_graph(rich))
    finally:
        path.write_text(original)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (SEGMENT, SINGLE, f'{SINGLE}\n        f"{{RUN}}/predict/x",'),
        (SEGMENT, 'MANIFEST,\n        f"{RUN}/predict/scores', 'f"{RUN}/predict/scores'),
        ("workflow/rules/refine.smk", 'keys("pseudo")', 'keys("soft")'),
        ("wsss/config/slices.py", '"crf": ("crf",)', '"crf": ("crf", "pseudo")'),
    ],
)
def test_rules_that_drift_are_found(rich: Path, name: str, old: str, new: str) -> None:
    path = rich / name
    original = path.read_text()
    assert original.count(old) == 1
    path.write_text(original.replace(old, new))
    try:
        assert drift(snakemake_graph(rich, "overlay.yaml"), dvc_graph(rich))
    finally:
        path.write_text(original)


# Edits that change the graph


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ({}, ""),
        ({"variants": {"soft": {"segment": {"lr": 0.1}}}, "crf": {"iterations": 1}}, "changed"),
        ({"variants": {"soft": {"segment": {"ignore_below": 0.7}}}}, ""),
        ({"variants": {"soft": {"predict": {"flip": False}}}}, "predict"),
        ({"evaluate": {"boxes": False}}, "gone: evaluate_boxes"),
    ],
)
def test_the_check_refuses_another_graph_and_no_other_value(
    rich: Path, top: dict[str, Any], said: str
) -> None:
    path = rich / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay(RICH, top)))
    try:
        done = call(rich, "wsss", "dvc", "check")
    finally:
        path.write_text(yaml.safe_dump(RICH))
    assert done.returncode == (1 if said else 0), done.stderr
    if said:
        assert "error: dvc.yaml no longer describes params.yaml + overlay.yaml" in done.stderr
        assert said in done.stderr
        assert "run `wsss dvc write`" in done.stderr
        assert len(done.stderr.splitlines()) == 1
