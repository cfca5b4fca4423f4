"""Results as records, records as runs; a store of our own, results made by hand."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from wsss.artifacts import save_csv, save_json, save_weights
from wsss.cli import main
from wsss.config import Params
from wsss.config.resolve import overlay, read_yaml
from wsss.config.schema import Tracking
from wsss.context import make_context
from wsss.errors import UserError
from wsss.pictures.story import Told
from wsss.pipeline import FILES, TRAINED
from wsss.stages import manifest
from wsss.tracking import live_writer, pictures, store, writer
from wsss.tracking.dump import dump
from wsss.tracking.layout import roles_of
from wsss.tracking.live import FINISHED
from wsss.tracking.publish import publish, records
from wsss.tracking.records import PARAM_LENGTH, Metric, Record, Times, flatten, metric_name
from wsss.tracking.results import Results, all_results
from wsss.tracking.store import Store, open_store
from wsss.tracking.writer import runs_by_key

IRNET = {"share": {"from": "baseline", "through": "seeds"}, "refine": {"method": "irnet"}}
CAM = ("cam", "baseline", 7.0)
ROWS = [{"step": step, "epoch": 0, "lr": 0.1 / step, "ce": 1 / step} for step in (10, 20, 25)]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    """A fresh database: making its tables takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracking = read_yaml(project / "params.yaml")["tracking"]
    open_store(Tracking.model_validate({**tracking, "uri": f"sqlite:///{path}"}))
    return path


@pytest.fixture
def fresh(params: Params, empty_store: Path) -> Params:
    """Results, and a store with its tables but no run."""
    path = Path(params.base.tracking.uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True)
    shutil.copy(empty_store, path)
    return params


@pytest.fixture
def raw(tiny_raw: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Two variants that share their CAMs, and the bound; no pictures, no models."""
    extra = {
        "run": {"variants": ["baseline", "irnet", "supervised"]},
        "variants": {"irnet": IRNET},
        "tracking": {
            "uri": f"sqlite:///{tmp_path}/store/mlflow.db",
            "artifacts": str(tmp_path / "store" / "artifacts"),
            "pictures": 0,
            "models": False,
        },
    }
    return overlay(tiny_raw, extra)


@pytest.fixture
def params(raw: dict[str, Any]) -> Params:
    """Results of a workflow, as small as they can be."""
    found = Params(raw)
    manifest.run(make_context(found, "manifest", "", 0))
    for variant in ("baseline", "irnet", "supervised"):
        _train(found, variant, "segment")
        _evaluate(found, variant, "final", 0.3 if variant == "supervised" else 0.2)
        _store(found, variant, "predict", "masks")
    _train(found, "baseline", "classify")
    _store(found, "baseline", "cam", "maps")
    _record(make_context(found, "cam", "baseline", 0).paths.store("cam", "maps"), *CAM)
    _evaluate(found, "baseline", "cam", 0.25, threshold=0.4, threshold_source="tune")
    return found


def _train(params: Params, variant: str, stage: str) -> None:
    context = make_context(params, stage, variant, 0)
    path = context.paths.run / stage / "weights.safetensors"
    import torch

    save_weights(path, {"w": torch.zeros(2)}, context.meta())
    save_csv(path.with_name("curve.csv"), ROWS, ("step", "epoch", "lr", "ce"))
    costs = [
        {"step": row["step"], "images_per_second": 5.5, "memory_mb": 100 + row["step"]}
        for row in ROWS
    ]
    columns = ("step", "images_per_second", "memory_mb", "cuda_peak_mb")
    save_csv(path.with_name("curve.run.csv"), costs, columns)
    _record(path, stage, variant, 12.5)


def _record(artifact: Path, stage: str, variant: str, seconds: float) -> None:
    facts = {"stage": stage, "variant": variant, "seed": 0, "seconds": seconds, "git": "abc"}
    save_json(artifact.with_name(f"{artifact.stem}.run.json"), {**facts, "peak_rss_mb": 64.0})


def _store(params: Params, variant: str, folder: str, name: str) -> None:
    run = make_context(params, "crf", variant, 0).paths.run
    path = run / folder / f"{name}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(variant.encode())


def _evaluate(params: Params, variant: str, what: str, miou: float, **more: Any) -> None:
    context = make_context(params, "crf", variant, 0)
    out = context.paths.run / "metrics"
    facts = {"data_hash": context.manifest.data_hash, "variant": variant, "seed": 0, "images": 4}
    save_json(out / f"{what}.json", {**facts, "what": what, "miou": miou, **more})
    save_csv(
        out / f"{what}.classes.csv",
        [{"class": "a&b", "iou": miou, "gt_pixels": 3}, {"class": "c", "iou": ""}],
        ("class", "iou", "gt_pixels"),
    )
    if "threshold" in more:
        save_csv(
            out / f"{what}.sweep.csv",
            [{"threshold": 0.1, "miou": 0.1}, {"threshold": 0.2, "miou": 0.2}],
            ("threshold", "miou"),
        )
    _record(out / f"{what}.json", f"evaluate_{what}", variant, 1.0)


def by_key(params: Params) -> dict[str, Record]:
    return {record.key: record for run in all_results(params) for record in records(run)}


def opened(params: Params) -> Store:
    return open_store(params.base.tracking)


# Plain data


def test_nested_values_become_dotted_names_and_text() -> None:
    values = {"a": {"b": 1, "c": None, "d": {}}, "e": [1.5, "x"], "f": "text", "g": True}
    assert flatten(values) == {
        **{"a.b": "1", "a.c": "null", "a.d": "{}"},
        **{"e": '[1.5, "x"]', "f": "text", "g": "true"},
    }


def test_a_value_too_long_for_the_store_is_cut_and_says_so() -> None:
    text = flatten({"classes": ["name"] * 2000})["classes"]
    assert len(text) == PARAM_LENGTH
    assert text.endswith("(16000 characters)")
    assert flatten({"k": "x" * PARAM_LENGTH})["k"] == "x" * PARAM_LENGTH


def test_names_of_classes_become_names_of_metrics() -> None:
    assert metric_name("iou/dining table (old) & Stühle") == "iou/dining table _old_ _ Stühle"


def test_the_hash_is_of_everything_but_the_times() -> None:
    base = Record("d/v/seed0", "v", None, True, Times(1, 2), {"a": "1"}, {"t": "x"})
    assert Record(**{**base.__dict__, "times": Times(5, 9)}).content == base.content
    for change in (
        {"params": {"a": "2"}},
        {"tags": {"t": "y"}},
        {"metrics": (Metric("m", 0.5),)},
        {"complete": False},
        {"name": "w"},
    ):
        assert Record(**{**base.__dict__, **change}).content != base.content, change


def test_every_stage_with_artifacts_is_known() -> None:
    from wsss.config.slices import STAGES

    without = {"manifest", "compare", "report"}
    stages = {s for s in STAGES if not s.startswith("evaluate")} - without
    assert stages == set(FILES)
    assert [roles_of(s) for s in ("classify", "crf", "evaluate_cam", "evaluate_cam_tune")] == [
        *(("train",), ("val",)),
        *(("seed",), ("tune",)),
    ]
    assert set(TRAINED) < set(FILES)


# Reading


def test_only_what_a_variant_ran_itself_is_its_run(params: Params) -> None:
    assert set(by_key(params)) == {
        *(f"scenes/{variant}/seed0" for variant in ("baseline", "irnet", "supervised")),
        *(
            f"scenes/{v}/seed0/{s}"
            for v in ("baseline", "irnet", "supervised")
            for s in ("segment", "crf", "evaluate_final")
        ),
        *(f"scenes/baseline/seed0/{s}" for s in ("classify", "cam", "evaluate_cam")),
    }
    irnet = by_key(params)["scenes/irnet/seed0"]
    assert irnet.links == {
        stage: f"scenes/baseline/seed0/{stage}" for stage in ("classify", "cam", "evaluate_cam")
    }
    scores = {metric.name: metric.value for metric in irnet.metrics}
    assert (scores["cam_miou"], scores["cam_threshold"]) == (0.25, 0.4)
    assert scores["share_of_supervised"] == pytest.approx(0.2 / 0.3, abs=1e-6)
    assert scores["final_iou/a_b"] == 0.2
    assert "final_iou/c" not in scores
    # Its own jobs: segment, crf has no record, one evaluation.
    assert scores["seconds"] == 13.5


def test_what_is_left_from_another_configuration_is_no_run(params: Params) -> None:
    before = by_key(params)
    _train(params, "baseline", "irnet")
    _store(params, "supervised", "walk", "scores")
    _evaluate(params, "supervised", "walk", 0.7)
    run = make_context(params, "crf", "baseline", 0).paths.run
    for shard in (0, 1):
        _record(run / f"cam/shards/maps.{shard}of2.zip", "cam", "baseline", 5.0)
    assert {key: r.content for key, r in by_key(params).items()} == {
        key: r.content for key, r in before.items()
    }


def test_a_stage_that_only_another_variant_needs_is_a_run(
    params: Params, raw: dict[str, Any]
) -> None:
    _store(params, "baseline", "seeds", "confident")
    found = by_key(params)
    key = "scenes/baseline/seed0/seeds_confident"
    assert key in found
    assert found["scenes/irnet/seed0"].links["seeds_confident"] == key
    assert "seeds_confident" not in found["scenes/baseline/seed0"].links
    # That one need not be of the run to be published.
    assert key in by_key(Params(overlay(raw, {"run": {"variants": ["baseline", "supervised"]}})))


def test_curves_keep_their_steps_and_leave_empty_cells_out(params: Params) -> None:
    segment = by_key(params)["scenes/irnet/seed0/segment"]
    curve = [(m.step, m.value) for m in segment.metrics if m.name == "ce"]
    assert curve == [(10, 0.1), (20, 0.05), (25, 0.04)]
    assert [m.step for m in segment.metrics if m.name == "memory_mb"] == [10, 20, 25]
    assert "cuda_peak_mb" not in {m.name for m in segment.metrics}
    sweep = by_key(params)["scenes/baseline/seed0/evaluate_cam"].metrics
    assert [(m.step, m.value) for m in sweep if m.name == "sweep/miou"] == [(0, 0.1), (1, 0.2)]


def test_the_peak_on_the_gpu_is_told_where_one_was_used(params: Params, tmp_path: Path) -> None:
    path = tmp_path / "results/scenes/irnet/seed0/segment/weights.run.json"
    save_json(path, {**json.loads(path.read_text()), "cuda_peak_mb": 512.0})
    found = by_key(params)
    for key in ("scenes/irnet/seed0", "scenes/irnet/seed0/segment"):
        metrics = {metric.name: metric.value for metric in found[key].metrics}
        assert metrics["peak_cuda_mb"] == 512.0
    other = found["scenes/supervised/seed0"].metrics
    assert "peak_cuda_mb" not in {metric.name for metric in other}


def test_a_half_finished_variant_is_there_and_says_so(params: Params) -> None:
    record = by_key(params)["scenes/baseline/seed0"]
    assert not record.complete
    assert record.tags["complete"] == "no"


def test_a_score_of_other_data_is_left_out(params: Params, tmp_path: Path) -> None:
    path = tmp_path / "results/scenes/irnet/seed0/metrics/final.json"
    save_json(path, {**json.loads(path.read_text()), "data_hash": "another"})
    found = by_key(params)
    assert "scenes/irnet/seed0/evaluate_final" not in found
    assert "final_miou" not in {m.name for m in found["scenes/irnet/seed0"].metrics}


def test_a_training_with_other_parameters_than_configured_says_which(
    params: Params, raw: dict[str, Any]
) -> None:
    edited = Params(overlay(raw, {"segment": {"lr": 0.5}}))
    found = by_key(edited)
    assert found["scenes/irnet/seed0/segment"].tags["other_params"] == "segment.lr"
    assert found["scenes/irnet/seed0"].tags["other_params"] == "segment: segment.lr"
    # A stage's own run shows what it was run with.
    assert (
        found["scenes/irnet/seed0/segment"].params
        == by_key(params)["scenes/irnet/seed0/segment"].params
    )


def test_what_changes_no_result_changes_no_run(params: Params, raw: dict[str, Any]) -> None:
    edit = {"resources": {"workers": 3}, "run": {"variants": ["irnet", "supervised"]}}
    before = {key: record.content for key, record in by_key(params).items()}
    after = {k: r.content for k, r in by_key(Params(overlay(raw, edit))).items()}
    assert after == before


def test_the_paper_is_named(params: Params, raw: dict[str, Any], project: Path) -> None:
    tags = {v: by_key(params)[f"scenes/{v}/seed0"].tags for v in ("irnet", "supervised")}
    assert "CVPR 2016" in tags["irnet"]["paper"]
    assert "Inter-pixel Relations" in tags["irnet"]["paper"]
    assert tags["supervised"]["paper"].startswith("none")
    preset = read_yaml(project / "workflow" / "presets" / "papers" / "irnet-voc.yaml")
    about = next(iter(preset["variants"].values()))["about"]
    record = by_key(Params(overlay(raw, {"about": about})))["scenes/irnet/seed0"]
    assert record.tags["paper"] == about["paper"]
    # It lists what it does otherwise than the paper.
    assert record.tags["status"] == "reconstruction"


# Pictures


def test_every_panel_belongs_to_a_stage_or_to_all() -> None:
    """Titles are how panels are told apart: a new one must be placed."""
    import inspect

    from wsss.pictures import story

    text = inspect.getsource(story._Teller)
    begun = (*(t for titles in pictures.TITLES.values() for t in titles), *pictures._ALWAYS)
    titles = [
        *("image", "CAM: x", "CAM > 0.5", "boundary", "walk: x", "walk, best class"),
        *("walk > 0.5", "prediction, all scales", "prediction, scale 1", "prediction + CRF"),
        *("seeds, more background", "seeds, less", "confident seeds", "label-CRF seeds"),
        *("pseudo mask", "ground truth"),
    ]
    assert all(title.startswith(begun) for title in titles)
    for title in ("prediction, all scales", "label-CRF seeds", "confident seeds", "pseudo mask"):
        assert f'"{title}' in text
    assert Told._fields == ("panels", "shown", "missing")


# Writing


def test_publishing_twice_changes_nothing(fresh: Params) -> None:
    first = publish(fresh)
    assert (first.runs, first.written, first.removed) == (15, 15, 0)
    before = dump(opened(fresh), "scenes")
    second = publish(fresh)
    assert (second.written, second.removed, second.updated) == (0, 0, 0)
    assert dump(opened(fresh), "scenes") == before


def test_an_edited_result_is_written_again_alone(fresh: Params) -> None:
    publish(fresh)
    _evaluate(fresh, "irnet", "final", 0.9)
    done = publish(fresh)
    # The evaluation, and the variant that it is the headline of.
    assert done.written == 2
    found = dump(opened(fresh), "scenes")
    assert found["scenes/irnet/seed0"]["metrics"]["final_miou"] == [(0, 0.9)]
    # Stages that stay hang below the new run of their variant.
    parent = found["scenes/irnet/seed0/segment"]["tags"]["mlflow.parentRunId"]
    assert parent == "scenes/irnet/seed0"


def test_a_stage_that_is_gone_is_taken_out(fresh: Params, tmp_path: Path) -> None:
    publish(fresh)
    (tmp_path / "results/scenes/irnet/seed0/predict/masks.zip").unlink()
    assert publish(fresh).removed == 1
    assert "scenes/irnet/seed0/crf" not in dump(opened(fresh), "scenes")


def test_runs_of_other_variants_and_of_people_are_left_alone(
    fresh: Params, raw: dict[str, Any]
) -> None:
    publish(fresh)
    store_ = opened(fresh)
    experiment = store_.experiment("scenes")
    theirs = store_.client.create_run(experiment, run_name="my own").info.run_id
    variants = {name: raw["variants"][name] for name in ("baseline", "supervised")}
    fewer = {**raw, "run": {**raw["run"], "variants": list(variants)}, "variants": variants}
    done = publish(Params(fewer))
    assert done.removed == 0
    assert "scenes/irnet/seed0" in dump(store_, "scenes")
    assert store_.client.get_run(theirs).info.lifecycle_stage == "active"


def test_a_deleted_experiment_comes_back(fresh: Params) -> None:
    publish(fresh)
    before, store_ = dump(opened(fresh), "scenes"), opened(fresh)
    store_.client.delete_experiment(store_.experiment("scenes"))
    publish(fresh)
    assert dump(opened(fresh), "scenes") == before


def _lock(path: Path, *files: Path) -> None:
    """Write the lock that `dvc commit` writes of files."""
    outs = [
        {
            "path": str(file),
            "hash": "md5",
            "md5": hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest(),
            "size": file.stat().st_size,
        }
        for file in files
    ]
    path.write_text(yaml.safe_dump({"schema": "2.0", "stages": {"one": {"outs": outs}}}))


def test_the_lock_of_dvc_is_a_tag_of_the_runs_whose_files_it_holds(
    fresh: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lock, root = tmp_path / "dvc.lock", tmp_path / "results" / "scenes"
    irnet = root / "irnet" / "seed0" / "metrics" / "final.json"
    other = tmp_path / "results" / "other" / "irnet" / "seed0" / "metrics" / "final.json"
    save_json(other, {"miou": 0.5})
    _lock(lock, other)
    publish(fresh)
    _lock(lock, irnet, other)
    done = publish(fresh)
    assert (done.written, done.updated) == (0, 1)
    found = {key: run["tags"].get("dvc_lock") for key, run in dump(opened(fresh), "scenes").items()}
    tag = found.pop("scenes/irnet/seed0")
    assert tag is not None
    assert set(found.values()) == {None}
    # What lies beside it in the lock is no matter.
    _lock(lock, irnet)
    assert publish(fresh).updated == 0
    # Files of another version than the lock's, of the same size: nothing is said.
    text = irnet.read_text()
    irnet.write_text(text.replace("0.2", "0.9"))
    publish(fresh)
    tags = dump(opened(fresh), "scenes")["scenes/irnet/seed0"]["tags"]
    assert "dvc_lock" not in tags
    irnet.write_text(text)
    publish(fresh)
    assert dump(opened(fresh), "scenes")["scenes/irnet/seed0"]["tags"]["dvc_lock"] == tag
    lock.write_text("no mapping")
    assert publish(fresh).updated == 1


def test_publishing_that_was_killed_is_made_good_by_the_next(
    fresh: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    ended, left = MlflowClient.set_terminated, iter(range(3))

    def killed(self: MlflowClient, run_id: str, *given: Any, **named: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        ended(self, run_id, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(fresh)
    publish(fresh)
    store_ = opened(fresh)
    found = runs_by_key(store_, store_.experiment("scenes"))
    assert {run.info.status for runs in found.values() for run in runs} == {"FINISHED", "KILLED"}
    assert {key for key, runs in found.items() if runs[0].info.status == "KILLED"} == {
        # Not all of their evaluations are there.
        *("scenes/baseline/seed0", "scenes/irnet/seed0", "scenes/supervised/seed0")
    }


def test_a_network_that_could_not_be_read_is_added_once_it_can(
    fresh: Params, raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Params(overlay(raw, {"tracking": {"models": True}}))
    first = publish(models)
    assert [note.partition(": no model: ")[0] for note in first.notes] == [
        f"scenes/{variant}/seed0" for variant in ("baseline", "irnet", "supervised")
    ]
    assert "/irnet/seed0/segment/weights.safetensors does not fit" in first.notes[1]
    assert publish(models).notes == first.notes
    before = {key: run["metrics"] for key, run in dump(opened(fresh), "scenes").items()}
    asked: list[str] = []
    monkeypatch.setattr(writer, "log_network", lambda run_id, _network: asked.append(run_id))
    done = publish(models)
    assert (done.written, done.notes, len(asked)) == (3, [], 3)
    store_ = opened(fresh)
    assert store_.client.get_run(asked[1]).data.tags["variant"] == "irnet"
    assert {key: run["metrics"] for key, run in dump(store_, "scenes").items()} == before


def test_a_result_that_goes_away_is_not_the_stores_fault(
    fresh: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results/scenes/supervised/seed0/segment/curve.csv"
    read = Path.read_bytes

    def gone(self: Path) -> bytes:
        if self == path:
            self.unlink()
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", gone)
    with pytest.raises(UserError, match=r"a result cannot be read .*curve\.csv"):
        publish(fresh)
    # Between two looks at the folder: what is listed is not there any more.
    monkeypatch.undo()
    save_csv(path, ROWS, ("step", "epoch", "lr", "ce"))
    monkeypatch.setattr("wsss.tracking.stages.file_hash", lambda path: (path / "no").stat())
    with pytest.raises(UserError, match="a result cannot be read"):
        publish(fresh)


# Live


def _job(params: Params, stage: str) -> dict[str, Any]:
    tracking = params.base.tracking.model_dump()
    return {"dataset": "scenes", "variant": "irnet", "seed": 0, "stage": stage} | {
        "tracking": tracking
    }


def _status(store_: Store, run_id: str) -> str:
    return str(store_.client.get_run(run_id).info.status)


def test_a_network_that_trains_keeps_its_curve_while_others_publish(fresh: Params) -> None:
    publish(fresh)
    store_ = opened(fresh)
    again = live_writer._begin(store_, _job(fresh, "segment")).info.run_id
    other = live_writer._begin(store_, _job(fresh, "irnet")).info.run_id
    _evaluate(fresh, "irnet", "final", 0.9)
    assert publish(fresh).written == 2
    assert (_status(store_, again), _status(store_, other)) == ("RUNNING", "RUNNING")
    experiment = store_.experiment("scenes")
    found = runs_by_key(store_, experiment)
    parent = found["scenes/irnet/seed0"][0]
    assert parent.info.status == "RUNNING"
    for run_id in (again, other):
        run = store_.client.get_run(run_id)
        assert run.info.lifecycle_stage == "active"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    # What stood there before is there beside it, once.
    assert len(found["scenes/irnet/seed0/segment"]) == 2
    assert dump(store_, "scenes")["scenes/irnet/seed0/segment"]["params"]
    # It goes on in the same run after it was stopped, and ends with the stage.
    live_writer._end(store_, store_.client.get_run(again), finished=False)
    assert live_writer._begin(store_, _job(fresh, "segment")).info.run_id == again
    live_writer._end(store_, store_.client.get_run(other), finished=False)
    live_writer._end(store_, store_.client.get_run(again), finished=True)
    _train(fresh, "irnet", "segment")
    publish(fresh)
    found = runs_by_key(store_, experiment)
    assert len(found["scenes/irnet/seed0/segment"]) == 1
    assert found["scenes/irnet/seed0"][0].info.status == "KILLED"
    assert publish(fresh).updated == 0


def test_a_variant_of_which_only_a_training_was_seen_says_how_that_ended(fresh: Params) -> None:
    store_ = opened(fresh)
    run = live_writer._begin(store_, _job(fresh, "segment"))
    parent = run.data.tags["mlflow.parentRunId"]
    assert _status(store_, parent) == "RUNNING"
    lines = ['{"step": 10, "lr": 0.1, "cuda_peak_mb": null}\n']
    assert not live_writer._follow(store_, run, lines)
    live_writer._end(store_, run, finished=False)
    assert _status(store_, parent) == _status(store_, run.info.run_id) == "KILLED"
    assert live_writer._begin(store_, _job(fresh, "segment")).info.run_id == run.info.run_id
    assert _status(store_, parent) == _status(store_, run.info.run_id) == "RUNNING"
    assert live_writer._follow(store_, run, [*lines, json.dumps(FINISHED)])
    live_writer._end(store_, run, finished=True)
    assert _status(store_, run.info.run_id) == "FINISHED"
    assert len(store_.client.get_metric_history(run.info.run_id, "lr")) == 1


# The store


OPEN = """
import sys
from wsss.config.schema import Tracking
from wsss.tracking.store import open_store

tracking = Tracking.model_validate_json(sys.argv[1])
sys.stdin.readline()
open_store(tracking).experiment("scenes")
"""


def test_processes_that_open_a_fresh_database_at_once_do_not_harm_it(params: Params) -> None:
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, params.base.tracking.model_dump_json()],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("go\n")
        job.stdin.flush()
    said = [job.communicate()[1] for job in jobs]
    # Only the experiment may be made by another first.
    failed = [text for job, text in zip(jobs, said, strict=True) if job.returncode]
    assert all("already exists" in text for text in failed), failed
    assert opened(params).client.get_experiment_by_name("scenes") is not None


Break = Callable[[Path], Any]


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [_garbage, _folder])
def test_a_store_that_is_none_is_one_line(params: Params, spoil: Break) -> None:
    path = Path(params.base.tracking.uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True)
    spoil(path)
    with pytest.raises(UserError, match=r"MLflow store sqlite:.* cannot be used"):
        publish(params)


def test_a_locked_database_is_known_in_seconds(
    fresh: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BUSY_SECONDS", 0.3)
    opened(fresh)
    path = fresh.base.tracking.uri.removeprefix("sqlite:///")
    began = time.monotonic()
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="database is locked"):
            publish(fresh)
    assert time.monotonic() - began < 10
    assert publish(fresh).written == 15


def test_a_read_only_database_is_known_at_once(
    fresh: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(fresh)
    path = Path(fresh.base.tracking.uri.removeprefix("sqlite:///"))
    path.chmod(0o444)
    if os.geteuid() == 0:  # who may write everything
        monkeypatch.setattr(os, "access", lambda where, _mode: Path(where) != path)
    with pytest.raises(UserError, match=r"read-?only"):
        publish(fresh)


def test_a_publisher_that_is_held_up_gives_up(
    fresh: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsss.tracking.publish._PATIENCE", 0.3)
    uri = fresh.base.tracking.uri
    opened(fresh)
    with (
        store.alone(uri, "publish", 1),
        pytest.raises(UserError, match="another process is publishing"),
    ):
        publish(fresh)


# The command


@pytest.mark.usefixtures("fresh")
def test_the_command_says_what_it_did_and_fails_only_by_hand(
    raw: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump(raw))
    command = ["publish", "--params", str(file)]
    assert main(command) == 0
    assert "mlflow: 15 runs, 15 written" in capsys.readouterr().out
    monkeypatch.setenv("WSSS_PUBLISH", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/all.yaml")
    assert main(command) == 1
    assert capsys.readouterr().err.startswith("error: MLflow store")
    assert main([*command, "--auto"]) == 0
    assert capsys.readouterr().err.startswith("warning: not published: MLflow store")
    monkeypatch.setenv("WSSS_PUBLISH", "0")
    assert main([*command, "--auto"]) == 0
    assert capsys.readouterr() == ("", "")


def test_no_results_is_an_error_that_names_the_folder(raw: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="holds no finished stage"):
        publish(Params(raw))


def test_results_are_found_in_the_order_of_the_run(params: Params) -> None:
    assert [(r.variant, r.seed) for r in all_results(params)] == [
        *(("baseline", 0), ("irnet", 0)),
        ("supervised", 0),
    ]
    assert Results(params, "irnet", 0).key == "scenes/irnet/seed0"
