"""The script that runs the ladders and tells their results."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, load_script
from wsss.artifacts import save_csv, save_json
from wsss.config import Params
from wsss.config.resolve import overlay

VERSIONS = {"torch": "0"}


@pytest.fixture
def ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, its folders moved to a temporary place."""
    module = load_script("docs/ladder.py")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


@pytest.fixture
def params(raw_params: dict[str, Any], tmp_path: Path) -> Params:
    """A preset of two rungs, in the script's folder, too."""
    run = {"variants": ["baseline", "more"], "seeds": [0, 1], "results": "results"}
    save = tmp_path / "workflow" / "presets" / "ladder.yaml"
    save.parent.mkdir(parents=True)
    save.write_text(yaml.safe_dump({"run": run}))
    return Params(overlay(raw_params, {"run": run, "variants": {"more": {"cam": {"flip": True}}}}))


def finish(root: Path, rung: str, seed: int, miou: float) -> None:
    folder = root / "results" / "scenes" / rung / f"seed{seed}"
    save_json(folder / "metrics" / "cam.json", {"miou": miou, "oracle_miou": miou + 0.01})
    save_json(folder / "metrics" / "cam_tune.json", {"miou": miou - 0.03})
    record = {"seconds": 120.0, "peak_rss_mb": 1, "git": "x", "machine": "m", "versions": VERSIONS}
    save_json(folder / "classify" / "weights.run.json", record)
    save_csv(folder / "classify" / "curve.csv", [{"step": 1, "loss": 2}], ["step", "loss"])
    save_json(root / "results" / "scenes" / "data" / "dataset.json", {"data_hash": "d"})


def test_a_rung_is_run_once_and_kept(
    ladder: ModuleType, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def snakemake(command: list[str], **_: Any) -> SimpleNamespace:
        asked.append([part for part in command if part.endswith(".json")])
        if "more" in command[1]:
            return SimpleNamespace(returncode=1)
        for seed, miou in enumerate((0.40, 0.44)):
            finish(tmp_path, "baseline", seed, miou)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", snakemake)
    assert ladder.run(params, []) == 1
    assert asked[0] == [f"results/scenes/baseline/seed{seed}/metrics/cam.json" for seed in (0, 1)]
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert kept == ["baseline-seed0.json", "baseline-seed1.json"]
    entry = json.loads((tmp_path / "kept" / kept[0]).read_text())
    assert (entry["data_hash"], entry["last_losses"]) == ("d", {"step": "1", "loss": "2"})
    asked.clear()
    ladder.run(params, [])
    assert [files[0].split("/")[2] for files in asked] == ["more"]


def test_the_table_says_mean_spread_and_difference(
    ladder: ModuleType, params: Params, tmp_path: Path
) -> None:
    for rung, values in {"baseline": (0.40, 0.44), "more": (0.50,)}.items():
        for seed, miou in enumerate(values):
            finish(tmp_path, rung, seed, miou)
            ladder.keep(params, rung, seed)
    lines = ladder.table().splitlines()
    assert lines[2] == (
        "| baseline | 42.0 ± 2.8 | +0.0 | [43.0 ± 2.8] | 39.0 ± 2.8 | – | – | – | 0, 1 | 2 |"
    )
    assert lines[3] == "| more | 50.0 | +8.0 | [51.0] | 47.0 | – | – | – | 0 | 2 |"
    assert "Not run yet" not in ladder.table()
    (tmp_path / "kept" / "more-seed0.json").unlink()
    assert "Not run yet: more." in ladder.table()
    assert "more" not in ladder.table(["baseline"])


def test_without_the_first_rung_nothing_is_held_against_another(
    ladder: ModuleType, params: Params, tmp_path: Path
) -> None:
    finish(tmp_path, "more", 0, 0.5)
    ladder.keep(params, "more", 0)
    assert "| more | 50.0 | – | [51.0] |" in ladder.table()
    assert "Not run yet: baseline." in ladder.table()


def test_an_unknown_word_is_an_error(
    ladder: ModuleType, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "load_params", lambda _: params)
    for words in (["rnu"], ["run", "nothing"], ["run", "baseline", "mroe"]):
        with pytest.raises(SystemExit) as error:
            ladder.main(words)
        assert error.value.code == 2
    monkeypatch.setattr(ladder, "run", lambda _, chosen: len(chosen))
    assert ladder.main(["run"]) == 0
    assert ladder.main(["run", "more", "baseline"]) == 2


def test_the_page_of_results_is_written_on_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    results = importlib.import_module("results")
    monkeypatch.setattr(results, "DOCS", tmp_path)
    for words in (["colect", "results/scenes"], ["collect"]):
        with pytest.raises(SystemExit) as error:
            results.main(words)
        assert error.value.code == 2
    assert not (tmp_path / "results.md").exists()


def test_a_full_rung_keeps_the_scores_of_what_it_shares(
    ladder: ModuleType, raw_params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = {"variants": ["baseline", "more"], "seeds": [0], "results": "results"}
    shared = {"more": {"share": {"from": "baseline", "through": "cam"}}}
    params = Params(overlay(raw_params, {"run": run, "variants": shared}))
    monkeypatch.setattr(ladder, "FULL", ("more",))
    finish(tmp_path, "baseline", 0, 0.4)
    final = tmp_path / "results" / "scenes" / "more" / "seed0" / "metrics" / "final.json"
    save_json(final, {"miou": 0.7})
    curve = final.parents[1] / "segment" / "curve.csv"
    save_csv(curve, [{"step": 1, "ce": 3}, {"step": 2, "ce": 1}], ["step", "ce"])
    ladder.keep(params, "more", 0)
    facts = json.loads((tmp_path / "kept" / "more-seed0.json").read_text())
    assert facts["last_losses"]["loss"] == "2"
    assert facts["losses"] == {"step": ["1"], "loss": ["2"]}
    assert facts["segment_losses"] == {"step": "2", "ce": "1"}
    scores = facts["scores"]
    assert (scores["cam"]["miou"], scores["final"]["miou"]) == (0.4, 0.7)
    asked = ladder.targets(params, "more", 0)
    assert "results/scenes/baseline/seed0/metrics/cam.json" in asked
    assert "results/scenes/more/seed0/metrics/final.json" in asked


@pytest.mark.parametrize(
    ("count", "steps"),
    [(31, [3, 6, 9, 12, 15, 18, 21, 24, 27, 31]), (10, range(1, 11)), (3, [1, 2, 3])],
)
def test_ten_rows_of_a_curve(
    ladder: ModuleType, tmp_path: Path, count: int, steps: Iterable[int]
) -> None:
    rows = [{"step": step, "loss": step / 2} for step in range(1, count + 1)]
    save_csv(tmp_path / "curve.csv", rows, ["step", "loss"])
    found = ladder.tenths(tmp_path / "curve.csv")
    assert [int(step) for step in found["step"]] == list(steps)
    assert [float(loss) for loss in found["loss"]] == [step / 2 for step in steps]


def test_the_preset_resolves(ladder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsss.config import load_params

    monkeypatch.setenv("VOC_ROOT", "somewhere")
    loaded = load_params([ROOT / "params.yaml", *(ROOT / path for path in ladder.OVERLAYS)])
    loaded.validate()
    monkeypatch.setattr(ladder, "ROOT", ROOT)
    assert ladder.rungs() == loaded.base.run.variants
    assert ladder.rungs()[0] == "baseline"
    assert {*ladder.FULL, *ladder.MASKS} <= set(ladder.rungs())


def test_a_rung_of_pseudo_masks_ends_with_them(
    ladder: ModuleType, raw_params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = {"variants": ["baseline", "more"], "seeds": [0], "results": "results"}
    more = {"share": {"from": "baseline", "through": "cam"}, "refine": {"method": "affinitynet"}}
    params = Params(overlay(raw_params, {"run": run, "variants": {"more": more}}))
    monkeypatch.setattr(ladder, "MASKS", ("more",))
    names = ladder.evaluations(params, "more")
    assert (names[0], names[-1]) == ("cam", "pseudo")
    asked = ladder.targets(params, "more", 0)
    assert "results/scenes/baseline/seed0/metrics/cam.json" in asked
    assert asked[-1] == "results/scenes/more/seed0/metrics/pseudo.json"


def test_the_rungs_are_their_methods(ladder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsss.config import load_params

    monkeypatch.setenv("VOC_ROOT", "somewhere")
    loaded = load_params([ROOT / "params.yaml", *(ROOT / path for path in ladder.OVERLAYS)])
    configs = {rung: loaded.resolve(rung) for rung in loaded.base.run.variants}
    for rung, config in configs.items():
        if rung.startswith("muscle") and rung != "muscle-beacon":
            assert (config.classify.dropout, config.classify.geometry) == (0, "undilated")
        if rung.startswith("mcc"):
            assert config.classify.jitter == [0, 0, 0, 0]
            assert config.classify.dropout == 0
    ends = ("muscle-full", "muscle-beacon", "baseline-full")
    assert all(configs[rung].segment.width == 256 for rung in ends)
    assert all(configs[rung].walk.beta == 8 for rung in ends)
    own = ("rtc-full", "dscnet-full", "dscnet-separate", "mcc-toco", "mcc-full")
    assert all(configs[rung].road == "single-stage" for rung in own)
