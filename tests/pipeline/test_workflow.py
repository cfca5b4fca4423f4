"""The workflow as a user runs it: complete, idempotent, exact about what an edit makes stale."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.conftest import Workspace
from wsss.artifacts import MaskStore, load_weights

TWO_STAGE = {"cam", "cam_tune", "crf", "walk", "pseudo", "single", "multi", "final"}
UPPER = {"single", "multi", "final"}
BOTH = {"baseline", "supervised"}


def test_every_target_exists_and_says_what_it_is(finished: Workspace) -> None:
    for variant, expected in (("baseline", TWO_STAGE), ("supervised", UPPER)):
        folder = finished.path(variant, "seed0", "metrics")
        reports = {
            p.stem: json.loads(p.read_text())
            for p in folder.glob("*.json")
            if not p.name.endswith(".run.json")
        }
        assert set(reports) == expected
        for name, report in reports.items():
            assert report["seed"] == 0
            assert report["variant"] == variant
            assert report["images"] > 0
            assert report["split"]
            assert len(report["data_hash"]) == 32
            assert report["tags_used"] == (name not in UPPER)
            assert 0 <= report["miou"] <= 1
    table = finished.path("comparison.md").read_text()
    assert "baseline" in table
    assert "supervised" in table
    assert "100.0" in table


def test_masks_are_complete(finished: Workspace) -> None:
    store = MaskStore(finished.path("supervised", "seed0", "predict", "masks.zip"))
    assert len(store) == 4
    for name in store.ids:
        mask = store.get(name)
        assert mask.max() <= 6
        assert max(mask.shape) == 96


def test_every_stage_leaves_a_log_and_a_record(finished: Workspace) -> None:
    for stage in ("classify", "cam", "seeds_alpha", "affinity", "walk", "segment", "crf"):
        assert "stage" in finished.path("baseline", "seed0", "logs", f"{stage}.log").read_text()
    records = list(finished.path("baseline").rglob("*.run.json"))
    assert len(records) >= 10
    for record in records:
        assert json.loads(record.read_text())["seconds"] >= 0


def test_a_second_run_has_nothing_to_do(finished: Workspace) -> None:
    done = finished.run()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"crf": {"iterations": 3}}, {"crf": BOTH, "evaluate": BOTH, "compare": {""}}),
        (
            {"walk": {"beta": 9}},
            {
                "walk": {"baseline"},
                "pseudo": {"baseline"},
                "segment": {"baseline"},
                "predict": {"baseline"},
                "crf": {"baseline"},
                "evaluate": {"baseline"},
                "compare": {""},
            },
        ),
        ({"evaluate": {"bins": 50}}, {"evaluate": BOTH, "compare": {""}}),
        ({"resources": {"workers": 1}}, {}),
    ],
)
def test_an_edited_key_reruns_what_reads_it(
    finished: Workspace, edit: dict[str, dict[str, int]], expected: dict[str, set[str]]
) -> None:
    assert finished.planned(**edit) == expected


def test_an_edited_source_reruns_the_stages_that_contain_it(finished: Workspace) -> None:
    source = finished.folder / "wsss" / "refine" / "walk.py"
    original = source.read_text()
    source.write_text(original + "\n# edited\n")
    try:
        planned = finished.planned()
    finally:
        source.write_text(original)
    downstream = {"walk", "pseudo", "segment", "predict", "crf", "evaluate", "compare"}
    assert set(planned) == downstream
    assert planned["walk"] == {"baseline"}
    assert finished.planned() == {}


def artifacts(root: Path) -> dict[str, bytes]:
    """Return the bytes of everything that must be reproducible."""
    skipped = (".run.json", ".log", "timings.csv", "timings.md", "params.yaml")
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(skipped) and "shards" not in path.parts
    }


def test_another_run_in_shards_gives_the_same_bytes(
    finished: Workspace, make_workspace: Callable[[], Workspace]
) -> None:
    other = make_workspace()
    done = other.run(resources={"shards": dict.fromkeys(("cam", "seeds", "walk", "crf"), 2)})
    assert done.returncode == 0, done.stderr[-4000:]
    assert list(other.path("baseline").rglob("*0of2.zip"))
    expected, got = artifacts(finished.path()), artifacts(other.path())
    assert set(got) == set(expected)
    assert [name for name in expected if got[name] != expected[name]] == []


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
    assert len(MaskStore(workspace.path("baseline", "seed0", "predict", "masks.zip"))) == len(rows)
    file = ("baseline", "seed0", "classify", "weights.safetensors")
    blind, seeing = (load_weights(w.path(*file))[0] for w in (workspace, finished))
    assert all(np.array_equal(blind[name], seeing[name]) for name in seeing)


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
