"""MLflow beside a real workflow: published by itself, rebuilt equal, never in the way."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.pipeline.conftest import Workspace
from wsss.config.resolve import overlay, read_yaml
from wsss.config.schema import Tracking
from wsss.tracking.dump import dump
from wsss.tracking.store import Store, open_store
from wsss.tracking.writer import CONTENT, KEY, LIVE

VARIANTS = ("baseline", "irnet", "supervised")
AGAIN = ("--forcerun", "compare")


@pytest.fixture(scope="module")
def copied(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished workflow that may be changed, not yet published."""
    folder = tmp_path_factory.mktemp("copy") / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Workspace(folder)


@pytest.fixture(scope="module")
def published(copied: Workspace) -> Workspace:
    """The same after a workflow's end has published it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSSS_PUBLISH", "1")
        done = copied.run(*AGAIN)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "mlflow: " in done.stdout + done.stderr
    return copied


def wsss(workspace: Workspace, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "wsss", *arguments],
        cwd=workspace.folder,
        env={**os.environ, "PYTHONPATH": str(workspace.folder), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def publish(workspace: Workspace, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    return wsss(workspace, "publish", "--params", "results/scenes/params.yaml", *more, **env)


def store_of(workspace: Workspace, name: str = "mlflow.db") -> Store:
    """Open a database; MLflow keeps it open, so that a name must not become another one's."""
    raw = read_yaml(workspace.folder / "params.yaml")["tracking"]
    raw = {**raw, "uri": f"sqlite:///{workspace.folder / name}"}
    return open_store(Tracking.model_validate(raw))


def runs(workspace: Workspace) -> dict[str, Any]:
    """All runs by key."""
    store = store_of(workspace)
    found = store.client.search_runs([store.experiment("scenes")], max_results=1000)
    assert len({run.data.tags[KEY] for run in found}) == len(found)
    return {run.data.tags[KEY]: run for run in found}


def report(workspace: Workspace, variant: str, what: str) -> dict[str, Any]:
    path = workspace.path(variant, "seed0", "metrics", f"{what}.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


# What is there


def test_a_variant_has_its_headline_scores(published: Workspace) -> None:
    found = runs(published)
    upper = report(published, "supervised", "final")["miou"]
    for variant in VARIANTS:
        metrics = found[f"scenes/{variant}/seed0"].data.metrics
        final = report(published, variant, "final")["miou"]
        assert metrics["final_miou"] == final
        assert metrics["share_of_supervised"] == pytest.approx(final / upper, abs=1e-6)
        assert found[f"scenes/{variant}/seed0"].info.status == "FINISHED"
    # CAMs are shared, and counted once.
    cam = report(published, "baseline", "cam")["miou"]
    for variant in ("baseline", "irnet"):
        assert found[f"scenes/{variant}/seed0"].data.metrics["cam_miou"] == cam
    assert "cam_miou" not in found["scenes/supervised/seed0"].data.metrics
    assert "scenes/irnet/seed0/cam" not in found
    tags = found["scenes/irnet/seed0"].data.tags
    assert tags["shared.cam"] == "scenes/baseline/seed0/cam"
    assert found["scenes/baseline/seed0/cam"].info.run_id in tags["mlflow.note.content"]


def test_a_variant_says_what_it_was(published: Workspace) -> None:
    run = runs(published)["scenes/irnet/seed0"]
    params, tags = run.data.params, run.data.tags
    assert (params["refine.method"], params["walk.beta"]) == ("irnet", "10.0")
    assert (params["classify.epochs"], params["data.source"]) == ("1", "scenes")
    assert not [name for name in params if name.startswith(("run.", "resources.", "tracking."))]
    about = json.loads(published.path("data", "dataset.json").read_text())
    assert tags["data_hash"] == about["data_hash"]
    assert tags["status"] == "reference"
    assert "Inter-pixel Relations" in tags["paper"]
    assert len(tags["config_hash"]) == 32
    given = {i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs}
    assert {context: data.name for context, data in given.items()} == {
        "train": "scenes.train",
        "tune": "scenes.tune",
        "val": "scenes.val",
    }
    assert given["val"].digest == about["data_hash"]


def test_a_training_shows_every_column_of_its_curve(published: Workspace) -> None:
    store, found = store_of(published), runs(published)
    run = found["scenes/baseline/seed0/segment"]
    folder = published.path("baseline", "seed0", "segment")
    for name in ("curve.csv", "curve.run.csv"):
        head, *lines = (line.split(",") for line in (folder / name).read_text().splitlines())
        for index, column in enumerate(head[1:], 1):
            points = store.client.get_metric_history(run.info.run_id, column)
            got = [(point.step, point.value) for point in points]
            assert got == [(int(row[0]), float(row[index])) for row in lines if row[index]]
    metrics = run.data.metrics
    assert {"ce", "loss", "lr", "images_per_second", "memory_mb", "seconds"} <= set(metrics)
    assert run.data.tags["mlflow.parentRunId"] == found["scenes/baseline/seed0"].info.run_id


def test_pictures_are_there_for_a_variant_and_for_its_stages(published: Workspace) -> None:
    store, found = store_of(published), runs(published)
    seen = {}
    for key in ("baseline/seed0", "baseline/seed0/cam", "baseline/seed0/crf", "supervised/seed0"):
        run_id = found[f"scenes/{key}"].info.run_id
        files = store.client.list_artifacts(run_id, "pictures")
        seen[key] = {Path(file.path).name for file in files}
    assert [len(names) for names in seen.values()] == [6, 3, 3, 6]
    # The same images, so that variants can be compared.
    assert seen["baseline/seed0"] == seen["supervised/seed0"]
    assert seen["baseline/seed0/cam"] | seen["baseline/seed0/crf"] == seen["baseline/seed0"]


# Again, and from nothing


def test_publishing_twice_changes_nothing(published: Workspace) -> None:
    before, ids = (
        dump(store_of(published), "scenes"),
        {k: r.info for k, r in runs(published).items()},
    )
    done = publish(published)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    after = runs(published)
    assert {key: run.info.run_id for key, run in after.items()} == {
        key: info.run_id for key, info in ids.items()
    }
    assert dump(store_of(published), "scenes") == before


def test_a_lost_database_is_refilled_equal(published: Workspace) -> None:
    before = dump(store_of(published), "scenes")
    assert len(before) > 30
    assert sum(len(run["models"]) for run in before.values()) == len(VARIANTS)
    aside = published.folder / "aside"
    aside.mkdir()
    lost = [published.folder / name for name in ("mlflow.db", "mlartifacts")]
    for path in lost:
        path.rename(aside / path.name)
    done = publish(published, MLFLOW_TRACKING_URI="sqlite:///again.db")
    assert done.returncode == 0, done.stderr
    after = dump(store_of(published, "again.db"), "scenes")
    assert set(after) == set(before)
    for key in before:
        assert after[key] == before[key], key
    shutil.rmtree(published.folder / "mlartifacts")
    for path in lost:
        (aside / path.name).rename(path)


def test_a_run_that_was_cut_short_or_spoilt_is_written_again(published: Workspace) -> None:
    before, store = dump(store_of(published), "scenes"), store_of(published)
    found = runs(published)
    store.client.delete_tag(found["scenes/irnet/seed0"].info.run_id, CONTENT)
    store.client.delete_run(found["scenes/baseline/seed0/cam"].info.run_id)
    done = publish(published)
    assert "2 written" in done.stdout, done.stderr
    assert dump(store_of(published), "scenes") == before


# The model


@pytest.fixture(scope="module")
def photos(published: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images as files of one size and another."""
    folder = tmp_path_factory.mktemp("photos")
    with zipfile.ZipFile(published.path("data", "scenes.zip")) as archive:
        names = [name for name in archive.namelist() if name.startswith("images/")] or [
            name for name in archive.namelist() if name.endswith((".png", ".jpg"))
        ]
        for number, name in enumerate(names[:3]):
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            if number == 2:
                image = image.resize((70, 53))
            image.save(folder / f"{number}.png")
    return folder


LOAD = """
import sys
from pathlib import Path
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
photos = sorted(Path(sys.argv[3]).glob("*.png"))
frame = pd.DataFrame({"image": [photo.read_bytes() for photo in photos]})
for photo, mask in zip(photos, model.predict(frame)["mask"]):
    Path(sys.argv[4], photo.name).write_bytes(mask)
"""


def test_a_registered_model_predicts_in_a_clean_process_what_the_command_does(
    published: Workspace, photos: Path, tmp_path: Path
) -> None:
    done = publish(published, "--register", "scenes-net", "--variant", "supervised")
    assert "version 1: supervised, seed 0" in done.stdout, done.stderr
    again = publish(published, "--register", "scenes-net", "--variant", "supervised")
    assert "version 1 (registered before)" in again.stdout
    served, expected = tmp_path / "served", tmp_path / "expected"
    served.mkdir()
    loaded = subprocess.run(
        [
            *(sys.executable, "-c", LOAD, "sqlite:///mlflow.db", "models:/scenes-net/1"),
            *(str(photos), str(served)),
        ],
        cwd=published.folder,
        env={**os.environ, "PYTHONPATH": str(published.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    weights = published.path("supervised", "seed0", "segment", "weights.safetensors")
    by_hand = wsss(
        published,
        *("predict", "--weights", str(weights), "--images", str(photos), "--out", str(expected)),
    )
    assert by_hand.returncode == 0, by_hand.stderr
    masks = sorted((expected / "masks").glob("*.png"))
    assert len(masks) == 3
    for mask in masks:
        assert (served / mask.name).read_bytes() == mask.read_bytes()


def test_no_model_holds_a_pickle(published: Workspace) -> None:
    files = [path for path in (published.folder / "mlartifacts").rglob("*") if path.is_file()]
    models = [path for path in files if "models" in path.parts and path.suffix != ".pyc"]
    assert {path.name for path in models if path.suffix == ".safetensors"} == {
        "weights.safetensors"
    }
    allowed = {".safetensors", ".py", ".yaml", ".json", ".txt", ""}
    assert {path.suffix for path in models} <= allowed
    # Whatever its name: a pickle of any protocol since 2 starts with these two bytes.
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]


# A store that is down


@pytest.fixture
def refused() -> Iterator[str]:
    """The address of a port that nobody listens on."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_server_that_is_down_fails_no_workflow(
    published: Workspace, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_PUBLISH", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", refused)
    began = time.monotonic()
    done = published.run(*AGAIN)
    assert done.returncode == 0, done.stderr[-2000:]
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert refused in warnings[0]
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 90


def test_a_server_that_is_down_is_an_error_of_the_command(
    published: Workspace, refused: str
) -> None:
    done = publish(published, MLFLOW_TRACKING_URI=refused)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: MLflow store {refused} cannot be used")


def test_a_locked_database_fails_no_workflow_and_is_caught_up_with(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(store_of(published), "scenes")
    with closing(sqlite3.connect(published.folder / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setenv("WSSS_PUBLISH", "1")
        done = published.run(*AGAIN)
        assert done.returncode == 0
        assert "warning: not published: MLflow store sqlite:///mlflow.db" in done.stderr
        other.rollback()
    assert publish(published).returncode == 0
    assert dump(store_of(published), "scenes") == before


# Live


def test_a_live_curve_ends_as_the_published_one(
    make_workspace: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_workspace()
    training = {"classify": {"epochs": 10}, "tracking": {"live": True, "pictures": 0}}
    target = "results/scenes/baseline/seed0/classify/weights.safetensors"
    monkeypatch.setenv("WSSS_PUBLISH", "1")
    # The hook is off, so that what was live can be looked at.
    code = workspace.folder / "workflow" / "rules" / "common.smk"
    original = code.read_text()
    code.write_text(original.replace("if not publishes(BASE.tracking):", "if True:"))
    done = workspace.run(target, **training)
    assert done.returncode == 0, done.stderr[-2000:]
    found, store = runs(workspace), store_of(workspace)
    run = found["scenes/baseline/seed0/classify"]
    assert LIVE in run.data.tags
    assert run.info.status == "FINISHED"
    assert found["scenes/baseline/seed0"].info.status == "RUNNING"
    assert run.data.tags["mlflow.parentRunId"] == found["scenes/baseline/seed0"].info.run_id
    curve = workspace.path("baseline", "seed0", "classify", "curve.csv").read_text().splitlines()
    points = store.client.get_metric_history(run.info.run_id, "loss")
    assert [point.step for point in points] == [10, 20, 30]
    loss = curve[0].split(",").index("loss")
    expected = [float(line.split(",")[loss]) for line in curve[1:]]
    assert [point.value for point in points] == pytest.approx(expected, rel=1e-5)

    assert publish(workspace).returncode == 0
    assert "nothing to do" in publish(workspace).stdout
    converged = dump(store_of(workspace), "scenes")
    assert publish(workspace, MLFLOW_TRACKING_URI="sqlite:///never-live.db").returncode == 0
    assert dump(store_of(workspace, "never-live.db"), "scenes") == converged


def test_a_live_curve_without_a_store_costs_the_training_nothing(
    make_workspace: Callable[[], Workspace], refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_workspace()
    target = "results/scenes/baseline/seed0/classify/weights.safetensors"
    monkeypatch.setenv("WSSS_PUBLISH", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", refused)
    done = workspace.run(target, tracking={"live": True})
    assert done.returncode == 0, done.stderr[-2000:]
    log = workspace.path("baseline", "seed0", "logs", "classify.log").read_text()
    assert f"no live curve at {refused}" in log
    assert (workspace.folder / target).exists()
    assert yaml.safe_load((workspace.path() / "params.yaml").read_text())["tracking"]["live"]


def test_nothing_is_published_where_it_is_switched_off(copied: Workspace) -> None:
    off = overlay({}, {"tracking": {"mlflow": False}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSSS_PUBLISH", "1")
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nowhere.db")
        done = copied.run(*AGAIN, **off)
    assert done.returncode == 0
    assert "mlflow: " not in done.stdout + done.stderr
    assert not (copied.folder / "nowhere.db").exists()
