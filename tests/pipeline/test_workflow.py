"""The workflow as a user runs it: complete, idempotent, exact about what an edit makes stale."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import TINY
from tests.pipeline.conftest import Workspace
from wsss.artifacts import ArrayStore, MaskStore, load_weights
from wsss.config.schema import Shards

WEAK = {"cam", "cam_tune", "crf", "walk", "pseudo"}
SHARING = {"walk_tune", "walk", "pseudo"}
REPORTED = {"single", "multi", "final"}
BOTH = {"baseline", "irnet", "supervised"}
WALKED = {"baseline", "irnet"}
COUNTS = TINY["data"]["scenes"]

NETWORK = ("weights.safetensors", "curve.csv")
PREDICTED = {f"predict/{name}.zip" for name in ("scores", "single", "masks")}
SEGMENTED = {f"segment/{name}" for name in NETWORK} | PREDICTED
MADE = {
    "baseline": {
        *(f"{stage}/{name}" for stage in ("classify", "affinity") for name in NETWORK),
        *(f"seeds/{name}.zip" for name in ("low", "high", "crf", "confident")),
        *("cam/maps.zip", "walk/scores.zip", "pseudo/masks.zip"),
        *SEGMENTED,
    },
    # CAMs and seeds are the baseline's.
    "irnet": {
        *(f"irnet/{name}" for name in (*NETWORK, "edges.zip")),
        *("walk/scores.zip", "pseudo/masks.zip"),
        *SEGMENTED,
    },
    "supervised": SEGMENTED,
}
EVALUATED = {
    "baseline": WEAK | REPORTED,
    "irnet": SHARING | REPORTED,
    "supervised": REPORTED,
}
TAGGED = WEAK | SHARING


def names(folder: Path, suffix: str) -> set[str]:
    """Return the files with a suffix below a folder, without the records of jobs."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob(f"*{suffix}")
        if not path.name.endswith(".run.json")
    }


# What a run leaves


@pytest.mark.parametrize("variant", sorted(BOTH))
def test_every_artifact_exists_and_no_other(finished: Workspace, variant: str) -> None:
    run = finished.path(variant, "seed0")
    found = names(run, ".zip") | names(run, ".safetensors") | names(run, "curve.csv")
    assert found == MADE[variant]
    # Nothing half-written, no state of a training that has ended.
    assert not names(run, ".tmp")
    assert not list(run.glob(".state/*"))


@pytest.mark.parametrize("variant", sorted(BOTH))
def test_every_metric_says_what_it_measured(finished: Workspace, variant: str) -> None:
    folder = finished.path(variant, "seed0", "metrics")
    about = json.loads(finished.path("data", "dataset.json").read_text())
    assert names(folder, ".json") == {f"{what}.json" for what in EVALUATED[variant]}
    for what in EVALUATED[variant]:
        report = json.loads((folder / f"{what}.json").read_text())
        tuned = what.endswith("_tune")
        split = "tune" if tuned else "train" if what in TAGGED else "val"
        assert (report["split"], report["images"]) == (split, COUNTS[split])
        assert (report["variant"], report["seed"], report["what"]) == (variant, 0, what)
        assert report["data_hash"] == about["data_hash"]
        assert report["tags_used"] == (what in TAGGED)
        assert 0 <= report["miou"] <= 1
        for table in ("classes", "confusion"):
            assert (folder / f"{what}.{table}.csv").stat().st_size > 0


def test_predictions_leave_no_pixel_open(finished: Workspace) -> None:
    """255 means unknown; a prediction has an answer everywhere."""
    sizes = finished.path("data", "manifest.csv")
    expected = {row["id"] for row in csv.DictReader(sizes.open()) if row["split"] == "val"}
    for variant in BOTH:
        for name in ("masks", "single"):
            store = MaskStore(finished.path(variant, "seed0", "predict", f"{name}.zip"))
            assert set(store.ids) == expected
            for identifier in store.ids:
                mask = store.get(identifier)
                assert mask.max() <= 6
                assert max(mask.shape) == COUNTS["size"]
        scores = ArrayStore(finished.path(variant, "seed0", "predict", "scores.zip"))
        assert set(scores.ids) == expected


def test_the_table_lists_every_variant(finished: Workspace) -> None:
    table = finished.path("comparison.md").read_text()
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert set(rows) >= BOTH
    assert "100.0" in table  # the upper bound as a share of itself
    lines = list(csv.DictReader(finished.path("comparison.csv").open()))
    assert {line["variant"] for line in lines} == BOTH


def test_the_report_shows_every_variant(finished: Workspace, tmp_path: Path) -> None:
    page = finished.path("report.html").read_text()
    for part in ("comparison", "intervals", "classes", "images", "confusion", "thresholds"):
        assert f'id="{part}"' in page
    for variant in BOTH:
        assert f"{variant}: prediction" in page
    assert "Not scored yet" not in page
    # Also a part of Snakemake's own.
    done = finished.run("--report", str(tmp_path / "snakemake.html"))
    assert done.returncode == 0, done.stderr
    assert "report.html" in (tmp_path / "snakemake.html").read_text()


def test_every_job_leaves_a_log_and_a_record(finished: Workspace) -> None:
    stages = {
        "baseline": {
            *("classify", "cam", "seeds_alpha", "seeds_label", "seeds_confident"),
            *("affinity", "walk", "pseudo"),
        },
        "irnet": {"irnet", "edges", "walk", "pseudo"},
        "supervised": set[str](),
    }
    for variant, own in stages.items():
        run = finished.path(variant, "seed0")
        jobs = own | {"segment", "predict", "crf"}
        logs = jobs | {f"evaluate_{what}" for what in EVALUATED[variant]}
        assert names(run / "logs", ".log") == {f"{name}.log" for name in logs}
        for name in logs:
            assert f"variant {variant}" in (run / "logs" / f"{name}.log").read_text()
        records = [json.loads(path.read_text()) for path in run.rglob("*.run.json")]
        assert jobs <= {record["stage"] for record in records}
        assert len(records) == len(logs)
        assert all(record["seconds"] >= 0 for record in records)
    assert names(finished.path("logs"), ".log") == {
        *("manifest.log", "compare.log", "report.log"),
    }


# What is stale


def test_a_second_run_has_nothing_to_do(finished: Workspace) -> None:
    done = finished.run()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def evaluations(whats: set[str], variants: set[str]) -> dict[str, set[str]]:
    return {f"evaluate {what}": variants for what in whats}


# What every change of a result ends with.
SUMMED = {"compare": {""}, "report": {""}}


def after_walk(variants: set[str]) -> dict[str, set[str]]:
    tuned = {"evaluate walk_tune": {"irnet"}} if "irnet" in variants else {}
    return {
        **dict.fromkeys(("walk", "pseudo", "segment", "predict", "crf"), variants),
        **evaluations({"walk", "pseudo"} | REPORTED, variants),
        **tuned,
        **SUMMED,
    }


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (
            {"crf": {"iterations": 3}},
            {"crf": BOTH, **evaluations({"final"}, BOTH), **SUMMED},
        ),
        # The other variant states its own.
        ({"walk": {"beta": 9}}, after_walk({"baseline"})),
        ({"walk": {"steps": 15}}, after_walk(WALKED)),
        (
            {"evaluate": {"bins": 50}},
            {
                **evaluations({"cam", "cam_tune", "crf"}, {"baseline"}),
                **evaluations({"walk"}, WALKED),
                # A tuned threshold may become another one.
                "seeds_label": {"baseline"},
                "evaluate walk_tune": {"irnet"},
                **{rule: {"irnet"} for rule in ("pseudo", "segment", "predict", "crf")},
                **evaluations({"pseudo"} | REPORTED, {"irnet"}),
                **SUMMED,
            },
        ),
        (
            {"evaluate": {"boundary_tolerance": 0.01}},
            {
                **evaluations({"cam", "crf"}, {"baseline"}),
                **evaluations({"walk", "pseudo"}, WALKED),
                **evaluations(REPORTED, BOTH),
                **SUMMED,
            },
        ),
        ({"evaluate": {"boxes": True}}, {"evaluate_boxes": {"baseline"}, **SUMMED}),
        ({"report": {"bootstrap": 200}}, {"report": {""}}),
        ({"resources": {"workers": 1, "processes": 2}}, {}),
    ],
)
def test_an_edited_key_reruns_what_reads_it(
    finished: Workspace, edit: dict[str, Any], expected: dict[str, set[str]]
) -> None:
    assert finished.planned(**edit) == expected


def test_an_edited_source_reruns_the_stages_that_contain_it(finished: Workspace) -> None:
    source = finished.folder / "wsss" / "refine" / "walk.py"
    original = source.read_text()
    source.write_text(original + "\n# edited\n")
    try:
        assert finished.planned() == after_walk(WALKED)
    finally:
        source.write_text(original)


# Reproducibility


def artifacts(root: Path) -> dict[str, bytes]:
    """Return the bytes of everything that must be reproducible."""
    timed = (".run.json", ".run.csv", ".log", "timings.csv", "timings.md", "report.html")
    skipped = (*timed, "params.yaml")
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(skipped) and "shards" not in path.parts
    }


def test_another_run_in_shards_gives_the_same_bytes(
    finished: Workspace, make_workspace: Callable[[], Workspace]
) -> None:
    other = make_workspace()
    shards = {"shards": dict.fromkeys(Shards.model_fields, 2)}
    done = other.run(resources=shards, run={"variants": ["baseline"]})
    assert done.returncode == 0, done.stderr[-4000:]
    stores = ("cam/shards/maps", "seeds/shards/low", "walk/shards/scores", "predict/shards/scores")
    for name in stores:
        assert_in_two(other.path("baseline", "seed0", name))
    # The other walk, on predicted boundaries.
    walked = ("irnet", "seed0", "walk")
    done = other.run("results/scenes/irnet/seed0/walk/scores.zip", resources=shards)
    assert done.returncode == 0, done.stderr[-4000:]
    assert_in_two(other.path(*walked, "shards", "scores"))
    for parts in (("data",), ("baseline",), walked):
        expected, got = artifacts(finished.path(*parts)), artifacts(other.path(*parts))
        assert set(got) == set(expected)
        assert [name for name in expected if got[name] != expected[name]] == []


def assert_in_two(store: Path) -> None:
    """Both shards of a store hold images, and what they cost was recorded."""
    for shard in range(2):
        assert len(ArrayStore(store.with_name(f"{store.name}.{shard}of2.zip"))) > 0
        assert store.with_name(f"{store.name}.{shard}of2.run.json").exists()


def test_own_photos_without_masks_teach_the_same_network(
    finished: Workspace, make_workspace: Callable[[], Workspace], tmp_path: Path
) -> None:
    """Weak training reads no mask: where there is none, it learns the very same weights."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = []
    with zipfile.ZipFile(finished.path("data", "scenes.zip")) as archive:
        for row in csv.DictReader(finished.path("data", "manifest.csv").open()):
            if row["split"] == "train":
                member = row["image"].partition("::")[2]
                (photos / f"{row['id']}.png").write_bytes(archive.read(member))
                rows.append(f"{row['id']}.png,{row['labels']}")
    (photos / "labels.csv").write_text("\n".join(["image,labels", *rows]) + "\n")
    classes = json.loads(finished.path("data", "dataset.json").read_text())["classes"]
    workspace = make_workspace()
    done = workspace.run(
        run={"variants": ["baseline"]},
        cam={"threshold": 0.4},
        data={
            "source": "folder",
            "root": str(photos),
            "classes": classes,
            "splits": {"seed": None, "tune": None, "val": None},
        },
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert not list(workspace.path().rglob("metrics/*"))
    assert not workspace.path("comparison.md").exists()
    page = workspace.path("report.html").read_text()
    assert all(f'id="{part}"' in page for part in ("agreement", "unsure", "sheet", "training"))
    assert 'id="comparison"' not in page
    blind, seeing = (w.path("baseline", "seed0") for w in (workspace, finished))
    # Every photo gets a mask.
    store = MaskStore(blind / "predict" / "masks.zip")
    assert len(store) == len(rows)
    assert all(store.get(identifier).max() <= len(classes) for identifier in store.ids)
    # Metadata names the data set; the tensors know nothing of it.
    for stage in ("classify", "affinity", "segment"):
        states = [load_weights(run / stage / "weights.safetensors")[0] for run in (blind, seeing)]
        assert set(states[0]) == set(states[1])
        assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    for artifact in ("seeds/low.zip", "pseudo/masks.zip"):
        assert (blind / artifact).read_bytes() == (seeing / artifact).read_bytes()


# Mistakes


def test_bad_configuration_stops_before_any_job(make_workspace: Callable[[], Workspace]) -> None:
    workspace = make_workspace()
    done = workspace.run(classify={"epoch": 3})
    assert done.returncode != 0
    output = done.stdout + done.stderr
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "classify.epoch" in errors[0]
    assert "Traceback" not in output
    assert not workspace.path().exists()


def test_the_workflow_is_lint_free(finished: Workspace) -> None:
    done = finished.run("--lint")
    assert done.returncode == 0, done.stdout + done.stderr
