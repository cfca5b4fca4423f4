"""The tables that put variants side by side."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from wsss.artifacts import load_json, save_json
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.errors import UserError
from wsss.paths import Paths
from wsss.stages.compare import compare, timings

SEED_LIST = {"role": "seed", "split": "train", "images": 437, "tags_used": True}
VAL_LIST = {"role": "val", "split": "val", "images": 245, "tags_used": False}


def put(results: Path, variant: str, seed: int, step: str, miou: float, **more: Any) -> Path:
    where = VAL_LIST if step in ("single", "multi", "final") else SEED_LIST
    path = Path(f"{Paths(results, 'toy', variant, seed).metrics(step)}.json")
    save_json(path, {"data_hash": "abc", "miou": miou, **where, **more})
    return path


def cam(results: Path, variant: str, seed: int, miou: float, oracle: float) -> None:
    more = {"oracle_miou": oracle, "threshold": 0.2, "threshold_source": "configured"}
    put(results, variant, seed, "cam", miou, **more)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed, lift in ((0, 0.0), (1, 0.02)):
        cam(tmp_path, "baseline", seed, 0.48 + lift, 0.5 + lift)
        steps = {"crf": 0.54, "walk": 0.6, "pseudo": 0.61, "single": 0.5, "multi": 0.51}
        for step, miou in {**steps, "final": 0.52}.items():
            put(tmp_path, "baseline", seed, step, miou + lift)
    cam(tmp_path, "plain", 0, 0.4, 0.41)
    put(tmp_path, "plain", 0, "final", 0.4)
    put(tmp_path, "plain", 1, "final", 0.4)
    for seed in (0, 1):
        for step in ("single", "multi", "final"):
            put(tmp_path, "supervised", seed, step, 0.7)
    return tmp_path


VARIANTS = ["baseline", "plain", "supervised"]


def test_text(results: Path) -> None:
    text = compare(results, "toy", VARIANTS, [0, 1])
    title, _, heads, ruler, *lines = text.splitlines()
    assert title == (
        "toy: mIoU (%), seed list 'train' (437 images), val list 'val' (245 images), seeds 0, 1"
    )
    assert set(ruler) == {"-", " "}
    assert "CAM seed† [oracle*]" in heads
    assert "val +CRF" in heads
    assert "val +CRF†" not in heads
    baseline, plain, supervised = (line.split("  ") for line in lines[:3])
    assert [c.strip() for c in baseline if c.strip()] == [
        *("baseline", "49.0 ± 1.4 [51.0 ± 1.4]", "55.0 ± 1.4", "61.0 ± 1.4", "62.0 ± 1.4"),
        *("51.0 ± 1.4", "52.0 ± 1.4", "53.0 ± 1.4", "75.7"),
    ]
    assert [c.strip() for c in plain if c.strip()] == [
        *("plain", "40.0 (n=1) [41.0 (n=1)]", "–", "–", "–", "–", "–", "40.0 ± 0.0", "57.1"),
    ]
    assert [c.strip() for c in supervised if c.strip()][-1] == "100.0"
    notes = "\n".join(lines[3:])
    assert "* oracle" in notes
    assert "† image-level tags" in notes
    assert "baseline 0.2 (configured); plain 0.2 (configured)." in notes
    assert "standard deviation" in notes


def test_files(results: Path) -> None:
    compare(results, "toy", VARIANTS, [0, 1])
    with (results / "toy" / "comparison.csv").open(newline="") as stream:
        table = {row["variant"]: row for row in csv.DictReader(stream)}
    assert list(table) == VARIANTS
    baseline = table["baseline"]
    assert (baseline["cam_miou"], baseline["cam_miou_sd"]) == ("0.49", "0.014142")
    assert (baseline["cam_oracle_miou"], baseline["cam_miou_n"]) == ("0.51", "2")
    assert baseline["share_of_supervised"] == "0.757143"
    assert (table["plain"]["walk_miou"], table["plain"]["walk_miou_n"]) == ("", "0")
    page = (results / "toy" / "comparison.md").read_text()
    assert page.startswith("# toy: mIoU (%), seed list 'train' (437 images)")
    assert "| supervised | – | – | – | – | 70.0 ± 0.0 |" in page
    assert page.count("\\*") == 2
    again = compare(results, "toy", VARIANTS, [0, 1])
    assert (results / "toy" / "comparison.md").read_text() == page
    assert again == compare(results, "toy", VARIANTS, [0, 1])


def test_one_seed_without_an_upper_bound(results: Path) -> None:
    text = compare(results, "toy", ["baseline"], [0])
    assert "seed 0\n" in text
    assert "48.0 [50.0]" in text
    assert "±" not in text
    assert "of supervised" not in text


def test_a_run_without_metrics_is_named(results: Path) -> None:
    with pytest.raises(UserError, match="no metrics of variant 'plain', seed 2"):
        compare(results, "toy", ["plain"], [0, 2])


@pytest.mark.parametrize("change", [{"data_hash": "old"}, {"split": "mini"}, {"images": 3}])
def test_unlike_numbers_do_not_stand_side_by_side(results: Path, change: dict[str, Any]) -> None:
    put(results, "plain", 1, "final", 0.4, **change)
    with pytest.raises(UserError, match=f"cannot be compared: {next(iter(change))}"):
        compare(results, "toy", VARIANTS, [0, 1])


def test_a_file_that_is_no_report(results: Path) -> None:
    path = put(results, "plain", 1, "final", 0.4)
    save_json(path, {key: v for key, v in load_json(path).items() if key != "miou"})
    with pytest.raises(UserError, match=r"final\.json lacks miou"):
        compare(results, "toy", VARIANTS, [0, 1])


def test_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to compare"):
        compare(tmp_path, "toy", [], [0])


def cost(path: Path, stage: str, variant: str, seed: int, seconds: float, peak: float) -> None:
    facts = {"stage": stage, "variant": variant, "seed": seed}
    save_json(path, {**facts, "seconds": seconds, "peak_rss_mb": peak})


def test_timings(tmp_path: Path, tiny_raw: dict[str, Any]) -> None:
    params = Params(overlay(tiny_raw, {"resources": {"shards": {"cam": 2}}}))
    root = tmp_path / "toy"
    cost(root / "data/manifest.run.json", "manifest", "", 0, 3, 100)
    for seed in (0, 1):
        run = root / "baseline" / f"seed{seed}"
        cost(run / "classify/weights.run.json", "classify", "baseline", seed, 60 + seed, 900)
        for shard in (0, 1):
            path = run / f"cam/shards/maps.{shard}of2.run.json"
            cost(path, "cam", "baseline", seed, 10, 500 + shard)
        # Left from a refinement and from a number of shards that are configured no more.
        cost(run / "irnet/weights.run.json", "irnet", "baseline", seed, 1000, 9000)
        cost(run / "cam/maps.run.json", "cam", "baseline", seed, 1000, 9000)
    cost(root / "supervised/seed0/segment/weights.run.json", "segment", "supervised", 0, 1, 1)
    text = timings(tmp_path, "toy", ["baseline"], [0, 1], params)
    with (root / "timings.csv").open(newline="") as stream:
        table = [list(row.values()) for row in csv.DictReader(stream)]
    assert table == [
        ["", "manifest", "1", "1", "3.0", "100"],
        ["baseline", "classify", "2", "2", "60.5", "900"],
        ["baseline", "cam", "2", "4", "20.0", "501"],
    ]
    assert "(shared)" in text
    assert "| baseline | cam | 2 | 4 | 20.0 | 501 |" in (root / "timings.md").read_text()


def test_memory_of_gpus_is_shown_where_one_was_used(tmp_path: Path, tiny_params: Params) -> None:
    run = tmp_path / "toy" / "supervised" / "seed0"
    cost(run / "predict/scores.run.json", "predict", "supervised", 0, 1, 100)
    path = run / "segment/weights.run.json"
    cost(path, "segment", "supervised", 0, 2, 200)
    assert "GPU" not in timings(tmp_path, "toy", ["supervised"], [0], tiny_params)
    save_json(path, {**load_json(path), "cuda_peak_mb": 1234.5})
    lines = timings(tmp_path, "toy", ["supervised"], [0], tiny_params).splitlines()
    assert lines[2].endswith("peak memory (MB)  peak GPU memory (MB)")
    assert [line.split()[-2:] for line in lines[4:]] == [["200", "1234"], ["100", "–"]]
    with (tmp_path / "toy" / "timings.csv").open(newline="") as stream:
        assert [row["cuda_peak_mb"] for row in csv.DictReader(stream)] == ["1234", ""]
