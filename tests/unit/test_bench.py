"""What a bench measures, with made-up clocks, and what a plan accepts of it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.artifacts import ArrayStore
from wsss.bench import child
from wsss.bench import run as bench_run
from wsss.bench.child import Job, Spent, measure
from wsss.bench.inputs import stores_of, write_store
from wsss.bench.run import bench_raw, tasks_of
from wsss.bench.subject import (
    Subject,
    draw_photo,
    usual_window,
    write_manifest,
    write_photos,
)
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.data.manifest import Manifest
from wsss.errors import UserError
from wsss.planning.rates import read_bench

SUBJECT = Subject((24, 32), 3, 2)
ENTRY = {
    "task": "classify",
    "key": "k",
    "unit": "step",
    "repeats": 2,
    "seconds": 0.5,
    "cpu_seconds": 0.25,
    "start_seconds": 4.0,
    "base_mb": 50.0,
    "peak_mb": 700.0,
    "cuda_peak_mb": None,
    "pixels": 100,
    "batch_pixels": 100,
    "artifact_bytes": 10,
}
FILE: dict[str, Any] = {
    "version": 2,
    "machine": "m",
    "device": "cpu",
    "python": "3.11",
    "versions": {},
    "shape": [24, 32],
    "classes": 3,
    "tags": 2,
    "entries": [ENTRY],
}


def job(params: Params, stage: str, folder: Path, variant: str = "baseline") -> Job:
    raw = bench_raw(params, folder)
    return Job(stage, "", variant, raw, SUBJECT, folder, 0.0)


@pytest.mark.parametrize(("stage", "unit"), [("classify", 1.0), ("seeds_label", 24 * 32 / 1e6)])
def test_a_unit_costs_the_difference(
    tiny_params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    unit: float,
) -> None:
    """A run takes 10 s and 2 s a unit by the wall, half of it by the processor."""
    # Neither the first run nor the first of many, which make everything ready, are part of it.
    preparing = iter([50.0, 0.0, 50.0])
    times = iter([0.0, 0.5, 0.0, 0.0, 0.7, 0.0])

    def once(_job: Job, count: int) -> Spent:
        extra, noise = next(preparing, 0.0), next(times, 0.0)
        return Spent(10 + 2 * count + noise + extra, 5 + count + extra)

    monkeypatch.setattr(child, "_bytes", lambda _: 1)
    monkeypatch.setattr(child, "_mix", lambda _: 0)
    found = measure(job(tiny_params, stage, tmp_path), once)
    assert found["cpu_seconds"] == pytest.approx(1 / unit)
    assert found["seconds"] == pytest.approx(2 / unit, rel=0.3)
    assert found["repeats"] >= 2


WINDOW = ((24, 32), (32, 24), (24, 32), (48, 16), (24, 32))


@pytest.mark.parametrize(
    ("window", "sizes", "largest"),
    [
        (WINDOW, list(WINDOW), 2 * 24 * 32),
        ((), [(24, 32)] * 2 + [(32, 24)] * 2 + [(21, 32)] * 2, 2 * 24 * 32),
    ],
)
def test_memory_is_that_of_a_window(
    raw_params: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    window: tuple[tuple[int, int], ...],
    sizes: list[tuple[int, int]],
    largest: int,
) -> None:
    seen: list[tuple[int, int]] = []

    def run(mixed: Job, count: int) -> None:
        assert mixed.folder != tmp_path
        seen.extend(mixed.subject.shape_of(number) for number in range(count))

    monkeypatch.setattr(child, "run", run)
    two = Params(overlay(raw_params, {"cam": {"batch": 2}}))
    assert child._mix(replace(job(two, "cam", tmp_path), window=window)) == largest
    assert seen == sizes
    assert child._mix(job(two, "classify", tmp_path)) == 0


def test_the_window_is_the_one_with_the_largest_batch(raw_params: dict[str, Any]) -> None:
    params = Params(overlay(raw_params, {"predict": {"batch": 2}, "cam": {"batch": 2}}))
    windows = {"walked": [WINDOW, ((40, 40), (20, 20))], "predicted": [WINDOW]}
    facts = replace(SUBJECT.facts(8), windows=windows)
    found = {
        task.stage: bench_run._window(task, params, facts) for task in tasks_of(params, SUBJECT)
    }
    assert (found["cam"], found["predict"]) == (windows["walked"][1], WINDOW)
    assert found["classify"] == ()


def test_tasks_that_cost_the_same_are_measured_once(raw_params: dict[str, Any]) -> None:
    more = {"again": {"classify": {"lr": 0.5}}, "other": {"classify": {"crop": 96}}}
    top = {"run": {"variants": ["baseline", "again", "other", "supervised"]}, "variants": more}
    tasks = tasks_of(Params(overlay(raw_params, top)), SUBJECT)
    trained = [(task.stage, task.variant) for task in tasks if task.stage == "classify"]
    assert trained == [("classify", "baseline"), ("classify", "other")]
    assert [t.variant for t in tasks if t.stage == "segment"] == ["baseline"]
    assert len({(task.task, task.key) for task in tasks}) == len(tasks)


def test_trainings_on_several_nodes_are_not_measured(raw_params: dict[str, Any]) -> None:
    params = Params(overlay(raw_params, {"distributed": {"nodes": 2, "processes": 2}}))
    stages = {task.stage for task in tasks_of(params, SUBJECT)}
    assert "predict" in stages
    assert not stages & {"classify", "segment"}


def test_a_bench_needs_no_data_no_network_and_no_tuning(
    raw_params: dict[str, Any], tmp_path: Path
) -> None:
    top = {
        "run": {"variants": ["baseline", "rtc", "rtc-two-stage"]},
        "backbone": {"name": "test_resnet", "weights": "hub", "allow_download": True},
        "classify": {"freeze_levels": 1},
        "cam": {"threshold": "tune"},
        "resources": {"shards": {"cam": 4}},
    }
    params = Params(bench_raw(Params(overlay(raw_params, top)), tmp_path))
    for name in params.base.run.variants:
        config = params.resolve(name)
        assert config.cam.threshold == 0.3
        assert config.resources.shards.cam == 1
        assert config.backbone.weights.startswith("file:")
        assert Path(config.backbone.weights.removeprefix("file:")).is_file()
        assert params.owners(name) == {}
        assert config.data.root == str(tmp_path / "photos")
    assert params.resolve("rtc-two-stage").method.name == "rtc"


def test_made_up_images_have_their_tags_in_their_masks(tmp_path: Path) -> None:
    write_photos(tmp_path, SUBJECT, 3)
    roles: dict[str, str | None] = dict.fromkeys(("train", "seed", "tune", "val"), "sample")
    write_manifest(tmp_path, tmp_path, SUBJECT, 3, roles)
    manifest = Manifest.load(tmp_path, tmp_path)
    assert len(manifest.items) == 3
    for item in manifest.items:
        assert manifest.read_image(item).shape == (24, 32, 3)
        drawn = set(np.unique(manifest.read_mask(item)).tolist()) - {0}
        assert drawn <= {c + 1 for c in manifest.present(item)}
        assert len(manifest.present(item)) == 2


def test_shapes_for_memory() -> None:
    varied = SUBJECT._replace(sizes=usual_window(SUBJECT.shape, 2))
    shapes = [varied.shape_of(number) for number in range(7)]
    assert shapes == [(24, 32), (24, 32), (32, 24), (32, 24), (21, 32), (21, 32), (24, 32)]
    assert SUBJECT.shape_of(5) == (24, 32)


def test_photos_have_the_spectrum_of_natural_images() -> None:
    """Amplitude falls with frequency, so power falls by four an octave (Field 1987)."""
    photos = [draw_photo(np.random.default_rng(n), (128, 128)).mean(2) for n in range(8)]
    power = np.mean([np.abs(np.fft.fft2(p - p.mean())) ** 2 for p in photos], 0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128))) * 128
    bands = [power[(radius >= r) & (radius < 2 * r)].mean() for r in (4, 8, 16)]
    for one, two in pairwise(bands):
        assert 4 < one / two < 64


@pytest.mark.parametrize(
    ("stage", "name", "ids"),
    [
        ("seeds_label", ("cam", "maps"), [0, 1]),
        ("crf", ("predict", "scores"), [0, 1, 2, 3]),
        ("pseudo", ("walk", "scores"), [0, 1, 2]),
    ],
)
def test_stores_that_a_stage_reads(
    tiny_params: Params, tmp_path: Path, stage: str, name: tuple[str, str], ids: list[int]
) -> None:
    config = tiny_params.resolve("baseline")
    assert stores_of(stage, "", config) == [name]
    write_store(name, tmp_path / "s.zip", config, SUBJECT, 2)
    entry = ArrayStore(tmp_path / "s.zip").get("p00000")
    assert (entry.classes, entry.size) == (ids, (24, 32))


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(content))
    return path


def test_which_clock_counts(tmp_path: Path) -> None:
    bench = read_bench(written(tmp_path, FILE))
    (entry,) = bench.file.entries
    # One thread: the processor's, whatever else ran. Several, or a GPU: the wall's.
    assert bench.seconds(entry, 1) == 0.25
    assert bench.seconds(entry, 4) == 0.5
    assert read_bench(written(tmp_path, {**FILE, "device": "cuda"})).seconds(entry, 1) == 0.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**FILE, "version": 9}, "has version 9, not 2"),
        ([], "is no bench"),
        ({**FILE, "entries": [{**ENTRY, "seconds": "fast"}]}, r"entries\.0\.seconds"),
        ({k: v for k, v in FILE.items() if k != "device"}, "device"),
    ],
)
def test_files_that_are_no_bench(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_bench(written(tmp_path, content))
