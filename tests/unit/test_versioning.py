"""dvc.yaml's parts: where keys are stated, how jobs become stages, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.config.slices import STAGES
from wsss.errors import UserError
from wsss.versioning.document import refuse_stale_code
from wsss.versioning.graph import Job, complaint, parse, snakemake
from wsss.versioning.places import Places
from wsss.versioning.plots import plots
from wsss.versioning.stages import make_stages, template

BASE = "params.yaml"


def places(raw: dict[str, Any], *tops: dict[str, Any]) -> Places:
    """Places of params.yaml and of overlay files ``1.yaml``, ``2.yaml``, ..."""
    merged = raw
    for top in tops:
        merged = overlay(merged, top)
    files = {BASE: raw} | {f"{number}.yaml": top for number, top in enumerate(tops, 1)}
    return Places(files, Params(merged))


def found(where: Places, key: str, variant: str = "") -> set[str]:
    return {f"{place.file}:{place.key}" for place in where.of(key, variant)}


# Places


def test_a_section_that_nobody_overrides_is_one_place(raw_params: dict[str, Any]) -> None:
    where = places(raw_params)
    assert found(where, "crf", "baseline") == {"params.yaml:crf"}
    assert found(where, "cam.scales", "baseline") == {"params.yaml:cam.scales"}
    assert found(where, "road", "supervised") == {"params.yaml:variants.supervised.road"}


def test_a_variants_own_key_hides_that_of_the_top(raw_params: dict[str, Any]) -> None:
    raw_params["variants"]["own"] = {"crf": {"iterations": 3}}
    own = found(places(raw_params), "crf", "own")
    assert "params.yaml:variants.own.crf.iterations" in own
    assert "params.yaml:crf.iterations" not in own
    assert own >= {"params.yaml:crf.bilateral_sxy"}
    assert len(own) == len(raw_params["crf"])


def test_a_shared_variants_key_is_watched_at_its_source(raw_params: dict[str, Any]) -> None:
    raw_params["variants"] |= {
        "one": {"crf": {"iterations": 3}, "predict": {"flip": False}},
        "two": {"share": {"from": "one", "through": "cam"}, "predict": {"flip": True}},
    }
    where = places(raw_params)
    assert found(where, "crf.iterations", "two") == {"params.yaml:variants.one.crf.iterations"}
    assert found(where, "predict.flip", "two") == {"params.yaml:variants.two.predict.flip"}


def test_the_last_file_that_states_a_key_counts(raw_params: dict[str, Any]) -> None:
    where = places(
        raw_params,
        {"crf": {"iterations": 3}, "variants": {"baseline": {"predict": {"flip": False}}}},
        {"crf": {"iterations": 4}},
    )
    assert found(where, "crf.iterations") == {"2.yaml:crf.iterations"}
    assert found(where, "predict.flip", "baseline") == {"1.yaml:variants.baseline.predict.flip"}
    whole = overlay(raw_params["crf"], {"iterations": 1})
    assert found(places(raw_params, {"crf": whole}), "crf") == {"1.yaml:crf"}


def test_a_value_replaces_a_section_and_an_empty_one_nothing(raw_params: dict[str, Any]) -> None:
    top = {"segment": {"rates": {"deeplabv2": [1, 2]}}, "walk": {}, "data": {"splits": {}}}
    where = places(raw_params, top)
    assert found(where, "walk") == {"params.yaml:walk"}
    assert found(where, "data") == {"params.yaml:data"}
    assert found(where, "segment.rates") == {
        "1.yaml:segment.rates.deeplabv2",
        "params.yaml:segment.rates.deeplabv3plus",
    }
    raw_params["variants"]["baseline"] = None
    assert found(places(raw_params), "crf", "baseline") == {"params.yaml:crf"}


def test_every_key_of_every_stage_has_a_place_with_its_value(raw_params: dict[str, Any]) -> None:
    where, params = places(raw_params), Params(raw_params)
    for stage, keys in STAGES.items():
        variant = "" if stage == "manifest" else "supervised"
        config = params.resolve(variant) if variant else params.base
        for key in keys:
            for place in where.of(key, variant):
                overlaid = place.path[:1] == ("variants",)
                read = within(config.model_dump(mode="json"), place.path[2 * overlaid :])
                stated = within(raw_params, place.path)
                # A section may state some of its keys, and numbers as text.
                assert holds(read, stated), place.key


def within(values: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        values = values[part]
    return values


def holds(read: Any, stated: Any) -> bool:
    if isinstance(stated, dict):
        return all(holds(read[key], value) for key, value in stated.items())
    return bool(read == (float(stated) if isinstance(read, float) else stated))


def test_a_name_with_a_dot_is_refused(raw_params: dict[str, Any]) -> None:
    raw_params["variants"]["v1.2"] = {"road": "supervised"}
    with pytest.raises(UserError, match=r"'v1\.2': use a name without a dot"):
        places(raw_params)
    with pytest.raises(UserError, match=r"nothing states 'crf\.nonsense'"):
        places({**raw_params, "variants": {"a": {}}}).of("crf.nonsense")


# Snakemake's words

DRY_RUN = """\
Building DAG of jobs...

[Sat Nov 21 10:49:35 2026]
rule manifest:
    output: results/scenes/data/manifest.csv, results/scenes/data/dataset.json
    log: results/scenes/logs/manifest.log
    jobid: 2
    reason: Missing output files: results/scenes/data/manifest.csv
    wildcards: dataset=scenes
    resources: tmpdir=/tmp
localrule crf:
    input: a.csv, b.zip
    output: c.zip
    reason: Input files updated by another job: b.zip
    wildcards: dataset=scenes, variant=none, seed=0
rule all:
    input: c.zip
    jobid: 0
Job stats:
job         count
"""


def test_a_dry_run_is_read() -> None:
    manifest, crf, last = parse(DRY_RUN)
    assert manifest.rule == "manifest"
    assert manifest.inputs == ()
    assert manifest.outputs[1] == "results/scenes/data/dataset.json"
    assert manifest.changed
    assert str(manifest) == "manifest"
    assert crf.wildcards == {"dataset": "scenes", "variant": "none", "seed": "0"}
    assert crf.inputs == ("a.csv", "b.zip")
    assert not crf.changed
    assert str(crf) == "crf (none, 0)"
    assert last.rule == "all"


def test_the_line_that_says_why_is_found() -> None:
    assert complaint("Building\nerror: params.yaml: no\nmore\n") == "params.yaml: no"
    assert complaint("one\ntwo\n\n") == "two"
    assert complaint("") == "it says nothing"


def test_params_yaml_comes_first() -> None:
    assert snakemake([BASE], "-n")[-1:] == ["-n"]
    assert snakemake([BASE, "a.yaml"], "-n")[-3:] == ["--configfile", "a.yaml", "-n"]
    with pytest.raises(UserError, match=r"put params\.yaml first"):
        snakemake(["a.yaml"])


# Stages


def crf(variant: str, seed: int = 0, shard: int | None = None) -> Job:
    run = f"results/scenes/{variant}/seed{seed}"
    shards = {} if shard is None else {"shard": str(shard)}
    name = "masks.zip" if shard is None else f"shards/masks.{shard}of2.zip"
    return Job(
        "crf",
        {"dataset": "scenes", "variant": variant, "seed": str(seed)} | shards,
        ("results/scenes/data/manifest.csv", f"{run}/predict/scores.zip"),
        (f"{run}/predict/{name}",),
    )


def made(raw: dict[str, Any], *jobs: Job) -> dict[str, Any]:
    stages = make_stages(jobs, Params(raw), {BASE: raw})
    return {stage.name: stage for stage in stages}


def test_variants_and_seeds_of_one_kind_are_one_stage(raw_params: dict[str, Any]) -> None:
    raw_params["run"] |= {"variants": ["supervised", "baseline"], "seeds": [1, 0]}
    jobs = [crf(v, s) for v in ("baseline", "supervised") for s in (0, 1)]
    stages = made(raw_params, *jobs)
    assert [*stages] == ["graph", "crf"]
    stage = stages["crf"]
    assert stage.matrix == {"variant": ["supervised", "baseline"], "seed": [1, 0]}
    run = "results/scenes/${item.variant}/seed${item.seed}"
    assert stage.outs == [f"{run}/predict/masks.zip"]
    assert stage.cmd == f"wsss dvc run crf {run}/predict/masks.zip"
    assert "wsss/stages/crf.py" in stage.deps
    # Nothing before it is made here: the check of the graph comes first.
    assert stage.deps[0] == stages["graph"].outs[0]
    assert stage.params == {BASE: ["crf"]}


def test_another_kind_is_another_stage(raw_params: dict[str, Any]) -> None:
    raw_params["variants"] |= {
        "b": {"crf": {"iterations": 1}},
        "c": {"crf": {"iterations": 2}},
    }
    raw_params["run"]["variants"] = ["baseline", "b", "supervised", "c"]
    stages = made(raw_params, *map(crf, ("c", "supervised", "b", "baseline")))
    assert stages["crf"].matrix["variant"] == ["baseline", "supervised"]
    assert stages["crf-b"].matrix["variant"] == ["b", "c"]
    assert "variants.${item.variant}.crf.iterations" in stages["crf-b"].params[BASE]


def test_shards_are_a_part_of_the_matrix(raw_params: dict[str, Any]) -> None:
    stage = made(raw_params, crf("baseline", shard=1), crf("baseline", shard=0))["crf"]
    assert stage.matrix == {"variant": ["baseline"], "seed": [0], "shard": [0, 1]}
    assert stage.outs[0].endswith("/shards/masks.${item.shard}of2.zip")


def test_a_matrix_with_holes_is_refused(raw_params: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="every combination of variant, seed"):
        made(raw_params, crf("baseline", 0), crf("supervised", 1))


def test_only_the_jobs_own_variant_becomes_that_of_the_matrix() -> None:
    wildcards = {"variant": "irnet", "seed": "0"}
    assert template("results/irnet/baseline/seed0/cam/maps.zip", wildcards) == (
        "results/irnet/baseline/seed${item.seed}/cam/maps.zip"
    )
    assert template("results/irnet/irnet/seed0/irnet/edges.zip", wildcards) == (
        "results/irnet/${item.variant}/seed${item.seed}/irnet/edges.zip"
    )


def test_plots_lay_the_variants_over_each_other() -> None:
    figures = plots(
        [
            "r/a/seed0/segment/curve.csv",
            "r/b/seed0/segment/curve.csv",
            "r/a/seed0/metrics/final.classes.csv",
            "r/a/seed0/metrics/boxes.sweep.csv",
            "r/a/seed0/metrics/final.confusion.csv",
            "r/a/seed0/predict/masks.zip",
        ]
    )
    assert [name for figure in figures for name in figure] == [
        "classes-final",
        "loss-segment",
        "sweep-boxes",
    ]
    loss = figures[1]["loss-segment"]
    assert loss["x"] == "step"
    assert loss["y"] == dict.fromkeys(
        ("r/a/seed0/segment/curve.csv", "r/b/seed0/segment/curve.csv"), "loss"
    )


# What is refused


def test_a_new_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deps = ["data.csv", "wsss/__init__.py", "wsss/atomic.py", "wsss/errors.py"]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"crf": {"deps": deps}}}))
    refuse_stale_code("crf@baseline-0")
    refuse_stale_code("dvc.yaml:crf@baseline-0")
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"crf": {"deps": deps[:-1]}}}))
    with pytest.raises(UserError, match=r"wsss/errors\.py, which its sources import"):
        refuse_stale_code("crf@baseline-0")
