"""Presets: all are valid, say what they are, and hold the published numbers they speak of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, load_script
from wsss.cli import main
from wsss.config import Config, Params, load_params
from wsss.config.presets import Preset, headline, read_presets, table
from wsss.config.resolve import read_yaml
from wsss.config.schema import Training
from wsss.engine.optim import lr_factor
from wsss.errors import UserError
from wsss.methods import load_method
from wsss.models.backbones import build_backbone
from wsss.stages.evaluations import EVALUATIONS, wanted

FOLDER = ROOT / "workflow" / "presets"
PRESETS = read_presets(FOLDER)
RECIPES = [preset for preset in PRESETS if preset.about is not None]
NAMES = [preset.name.removeprefix("papers/") for preset in RECIPES]
# Recipes of the line of PSA and DeepLab: SGD, 20,000 or 100,000 iterations of segmentation.
_LINE = ("psa-", "irnet-", "seam-", "ppc-", "supervised-")
LINE = [name for name in NAMES if name.startswith(_LINE)]
# Images that the papers train on: VOC's train_aug; COCO's train2014 less those without a label.
IMAGES = {"voc": 10_582, "coco": 82_081}


@pytest.fixture(autouse=True)
def roots(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VOC_ROOT", "COCO_ROOT", "DATA_ROOT"):
        monkeypatch.setenv(name, "somewhere")


def params_of(preset: Preset) -> Params:
    return load_params([ROOT / "params.yaml", preset.path])


def config_of(preset: Preset) -> Config:
    assert preset.variant is not None
    return params_of(preset).resolve(preset.variant)


def recipe(name: str) -> Config:
    return config_of(RECIPES[NAMES.index(name)])


def trainings(config: Config) -> dict[str, Training]:
    """The trainings that a variant's road takes."""
    if config.road == "supervised":
        return {"segment": config.segment}
    if config.road == "single-stage":
        return {"classify": config.classify}
    refined: dict[str, dict[str, Training]] = {
        "affinitynet": {"affinity": config.affinity},
        "irnet": {"irnet": config.irnet},
        "none": {},
    }
    more = refined[config.refine.method]
    return {"classify": config.classify, **more, "segment": config.segment}


def test_the_recipes_asked_for_are_there() -> None:
    wanted = {"psa-voc", "psa-coco", "irnet-voc", "irnet-coco", "supervised-deeplabv2-voc"}
    assert wanted <= set(NAMES)
    assert {path.stem for path in (FOLDER / "papers").iterdir()} == set(NAMES)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_valid(path: Path) -> None:
    params = load_params([ROOT / "params.yaml", path])
    params.validate()
    for variant in params.variants:
        params.resolve(variant)


@pytest.mark.parametrize("preset", RECIPES, ids=NAMES)
def test_a_recipe_says_what_it_is(preset: Preset) -> None:
    about, config = preset.about, config_of(preset)
    assert about is not None
    assert config.about == about
    assert config.run.variants == [preset.variant]
    assert preset.name.endswith(f"-{config.run.dataset}")
    # The command is this file's own, and nobody has to look for it.
    assert about.command.split()[-1] == preset.path.relative_to(ROOT).as_posix()
    # An expected score has a score of ours beside it.
    assert set(about.expected) <= set(wanted(config)) <= set(EVALUATIONS)
    for expected in about.expected.values():
        assert (expected.miou == "unknown") == expected.source.startswith("none")
    assert about.hours.value == "unknown" or about.hours.source.startswith(("estimated", "timed"))
    assert about.deviations
    if not about.run_here:
        assert not (ROOT / "docs" / "metrics" / config.run.dataset / str(preset.variant)).exists()


@pytest.mark.parametrize("preset", RECIPES, ids=NAMES)
def test_a_recipe_states_every_number_of_its_trainings(preset: Preset) -> None:
    """Nothing of the demo's small settings reaches a paper's training."""
    top = read_yaml(preset.path)["variants"][preset.variant]
    always = {"output_stride", "epochs", "batch", "crop", "optimizer", "lr", "head_lr"}
    always |= {"weight_decay", "schedule", "warmup"}
    for stage, training in trainings(config_of(preset)).items():
        stated = always | ({"momentum"} if training.optimizer == "sgd" else set())
        stated |= {"power"} if training.schedule == "poly" else set()
        assert stated <= set(top[stage]), (stage, stated - set(top[stage]))
        vision = config_of(preset).method.name == "mcc"
        assert training.optimizer == "adamw" or not vision
        assert training.warmup == (0.075 if vision else 0)
        assert training.ema is None


@pytest.mark.parametrize("name", LINE)
def test_the_line_of_psa_trains_by_plain_sgd(name: str) -> None:
    for training in trainings(recipe(name)).values():
        assert training.optimizer == "sgd"
        assert training.clip is None


@pytest.mark.parametrize("name", LINE)
def test_segmentation_trains_the_published_number_of_iterations(name: str) -> None:
    config = recipe(name)
    dataset = config.run.dataset
    steps = IMAGES[dataset] // config.segment.batch * config.segment.epochs
    assert steps == pytest.approx({"voc": 20_000, "coco": 100_000}[dataset], rel=0.02)


def test_momentum_is_what_the_official_optimiser_uses() -> None:
    """PSA's and IRNet's optimiser passes the weight decay where SGD takes its momentum."""
    for name in LINE:
        for stage, training in trainings(recipe(name)).items():
            assert training.momentum == (0.9 if stage == "segment" else 0.0), (name, stage)


def test_published_numbers() -> None:
    psa, irn = recipe("psa-voc"), recipe("irnet-voc")
    assert (psa.classify.epochs, psa.classify.batch, psa.classify.lr) == (15, 16, 0.1)
    assert (psa.affinity.epochs, psa.affinity.batch, psa.affinity.radius) == (8, 8, 5)
    assert (psa.seeds.alpha_low, psa.seeds.alpha_high) == (4, 32)
    assert (psa.seeds.alpha_crf.bilateral_sxy, psa.seeds.alpha_crf.bilateral_srgb) == (80, 13)
    assert (psa.walk.beta, psa.walk.steps, psa.walk.background_alpha) == (8, 256, 16)
    assert (irn.classify.epochs, irn.classify.crop, irn.classify.long_side) == (5, 512, [320, 640])
    assert (irn.irnet.epochs, irn.irnet.batch, irn.irnet.radius) == (3, 32, 10)
    assert (irn.seeds.confident_fg, irn.seeds.confident_bg) == (0.30, 0.05)
    assert (irn.seeds.label_crf.bilateral_sxy, irn.seeds.label_crf.bilateral_srgb) == (50, 5)
    assert (irn.walk.beta, irn.walk.radius, irn.walk.background_threshold) == (10, 5, 0.25)
    assert irn.cam.threshold == 0.15
    rtc = recipe("rtc-voc")
    assert (rtc.classify.epochs, rtc.classify.batch, rtc.classify.lr) == (25, 8, 0.01)
    assert IMAGES["voc"] // rtc.classify.batch * rtc.classify.epochs == 33_050
    assert (rtc.classify.crop, rtc.classify.long_side) == (448, [448, 768])
    assert rtc.method.params == {"view_size": 128, "dilation": 12}
    assert (rtc.crf.confidence, rtc.crf.bilateral_sxy, rtc.crf.bilateral_srgb) == (0.7, 50, 5)
    assert sorted(rtc.predict.scales) == [0.5, 1, 1.5, 2]
    two = params_of(RECIPES[NAMES.index("rtc-voc")]).resolve("rtc-two-stage")
    assert (two.road, two.backbone.name, two.about) == ("two-stage", "wide_resnet38", None)
    assert (two.cam.maps, two.cam.threshold) == ("decoder", 0.17)
    # The same network and rates as SEAM's, from the same codebase.
    seam = recipe("seam-voc")
    assert (two.segment, two.crf) == (seam.segment, seam.crf)
    assert sorted(two.predict.scales) == sorted(seam.predict.scales)


def test_the_numbers_of_seam_and_ppc() -> None:
    seam, ppc = recipe("seam-voc"), recipe("ppc-voc")
    for config in (seam, ppc):
        first = config.classify
        assert (first.epochs, first.batch, first.lr, first.weight_decay) == (8, 8, 0.01, 5e-4)
        assert (first.crop, first.long_side) == (448, [448, 768])
        assert (config.seeds.alpha_low, config.seeds.alpha_high) == (4, 24)
        assert sorted(config.cam.scales) == [0.5, 1, 1.5, 2]
        assert (config.cam.threshold, config.affinity.lr) == (0.26, 0.01)
        assert (config.walk.beta, config.walk.steps, config.walk.radius) == (8, 2**6, 5)
        schema = load_method(config.method.name).Params
        literal = {"own_ranked": True} if config is ppc else {}  # all else is the default
        assert schema.model_validate(config.method.params) == schema.model_validate(literal)
    assert (seam.walk.background, seam.walk.background_alpha) == ("alpha", 6)
    assert (ppc.walk.background, ppc.walk.background_threshold) == ("threshold", 0.27)


def test_the_numbers_of_muscle() -> None:
    config = recipe("muscle-voc")
    first, last = config.classify, config.segment
    assert (first.optimizer, first.lr, first.weight_decay) == ("adam", 1e-4, 5e-5)
    assert (first.epochs, first.batch, first.crop, first.long_side) == (16, 16, 448, [448, 768])
    assert IMAGES["voc"] // first.batch * first.epochs == 10_576
    assert (first.geometry, first.bn_momentum) == ("undilated", 0.01)
    assert (sorted(config.cam.scales), config.cam.resize) == ([0.5, 1.0, 1.5, 2.0], "bicubic")
    walk = config.walk
    assert (walk.beta, walk.steps, walk.radius, walk.background_threshold) == (8, 2**6, 5, 0.35)
    assert (last.optimizer, last.lr, last.weight_decay, last.clip) == ("adam", 1e-5, 1e-5, 9)
    assert (last.epochs, last.batch, last.scale) == (8, 6, [0.5, 1.75])
    assert (last.net, last.labels, last.bifpn.layers, last.width) == ("bifpn", "both", 3, 256)
    assert last.boundary is not None
    assert (last.boundary.weight, last.boundary.step, last.boundary.points) == (0.05, 7, 128)
    assert sorted(config.predict.scales) == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    crf = config.crf
    assert (crf.iterations, crf.certainty) == (4, 0.5)
    assert (crf.gaussian_sxy, crf.gaussian_weight) == (3 / 1.5, 1)
    assert crf.bilateral_sxy == pytest.approx(32 / 1.5, abs=1e-3)
    assert (crf.bilateral_srgb, crf.bilateral_weight) == (10, 10)


@pytest.mark.parametrize("name", ["mcc-voc", "toco-voc"])
def test_the_numbers_of_mcc(name: str) -> None:
    config = recipe(name)
    training, crf = config.classify, config.crf
    steps = IMAGES["voc"] // training.batch * training.epochs
    assert steps == pytest.approx(20_000, rel=0.06)  # the nearest number of whole epochs
    assert (training.lr, training.head_lr, training.weight_decay) == (6e-5, 10, 0.01)
    assert (training.crop, training.scale) == (448, [0.5, 2.0])
    assert (crf.bilateral_sxy, crf.bilateral_srgb, crf.gaussian_weight) == (121, 5, 1)
    assert config.cam.threshold == 0.5
    assert (config.cam.flip_combine, config.predict.combine) == ("max", "max_logits")
    # The official warm-up: 1 - (1 - t / 1500) (1 - 1e-6) of the rate.
    assert lr_factor(0.0, training) == pytest.approx(1e-6)
    assert lr_factor(0.03, training) == pytest.approx(1 - (1 - 0.4) * (1 - 1e-6))


def test_nothing_of_the_demo_shrinks_views_on_voc() -> None:
    params = load_params([ROOT / "params.yaml", ROOT / "workflow" / "presets" / "voc.yaml"])
    base = params.base.classify
    for name in ("rtc", "seam", "ppc"):
        found, published = params.resolve(name), recipe(f"{name}-voc").method.params
        view = published["view_size"] / 448 * found.classify.crop
        assert found.method.params["view_size"] == view, name
        assert (found.classify.epochs, found.classify.dropout) == (base.epochs, base.dropout)


def test_nothing_of_the_demo_is_among_the_parameters_of_mcc() -> None:
    assert recipe("mcc-voc").method.params == {"energy_cells": 12544}
    crops = {"locals": "crops", "local_size": 96, "region_main_start": 1.0, "energy_cells": 12544}
    assert recipe("toco-voc").method.params == crops


def test_coco_differs_from_voc_in_data_and_length_alone() -> None:
    for name in ("psa", "irnet"):
        here, there = recipe(f"{name}-voc").model_dump(), recipe(f"{name}-coco").model_dump()
        for config in (here, there):
            for key in ("run", "data", "about"):
                del config[key]
            del config["segment"]["epochs"]
        assert here == there, name


def test_recipes_that_share_a_network_share_its_numbers() -> None:
    for name in ("irnet-voc", "irnet-coco"):
        weak, full = recipe(name), recipe("supervised-deeplabv2-voc")
        different = {"epochs"} if name == "irnet-coco" else set()
        mine, theirs = (c.segment.model_dump(exclude=different) for c in (weak, full))
        assert mine == theirs
        assert (weak.crf, weak.predict) == (full.crf, full.predict)


@pytest.mark.parametrize("name", ["psa-voc", "irnet-voc", "supervised-deeplabv2-voc"])
def test_its_backbones_exist_and_freeze_as_it_says(name: str) -> None:
    import wsss.torchvision_shim  # noqa: F401  (timm imports torchvision)

    import timm  # isort: skip  (after the shim)

    config = recipe(name)
    assert config.backbone.name in timm.list_pretrained()
    for stage, training in trainings(config).items():
        backbone = build_backbone(config.backbone, training.output_stride, False, training.geometry)
        backbone.freeze(training.freeze_levels, training.freeze_affine)
        assert backbone.reductions[-1] == training.output_stride
        frozen = {n for n, p in backbone.network.named_parameters() if not p.requires_grad}
        levels = {0: set(), 2: {"conv1", "bn1", "layer1"}, 3: {"conv1", "bn1", "layer1", "layer2"}}
        weights = {n.split(".")[0] for n in frozen if n.endswith("weight") and "conv" in n}
        expected = {part for part in levels[training.freeze_levels] if part != "bn1"}
        assert weights == expected, stage


@pytest.mark.parametrize(
    "name", ["irnet-voc", "psa-coco", "supervised-deeplabv2-voc", "rtc-voc", "ppc-voc", "mcc-voc"]
)
def test_snakemake_plans_it(name: str, tmp_path: Path) -> None:
    top = tmp_path / "top.yaml"
    top.write_text(yaml.safe_dump({"run": {"results": str(tmp_path / "results")}}))
    preset = RECIPES[NAMES.index(name)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--nolock"),
            *("--directory", str(tmp_path), "--snakefile", str(ROOT / "Snakefile")),
            *("--configfile", str(ROOT / "params.yaml"), str(preset.path), str(top)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    planned = {line.split()[1].rstrip(":") for line in done.stdout.splitlines() if "rule " in line}
    stages = set(trainings(recipe(name)))
    assert stages <= planned, planned
    assert not {"classify", "affinity", "irnet"} - stages & planned


def test_reconstructions_are_named_so_and_expect_nothing() -> None:
    for name in ("pss-voc", "dscnet-voc"):
        config = recipe(name)
        assert config.about is not None
        assert "reconstruction" in config.about.title
        assert "reconstruction" in config.about.deviations[0]
        assert {one.miou for one in config.about.expected.values()} == {"unknown"}
        method = load_method(config.method.name)
        method.Params.model_validate(config.method.params)
        assert method.info.status == "reconstruction"
        assert not method.info.expected


# The list


def test_the_page_is_up_to_date() -> None:
    module = load_script("docs/presets.py")
    written = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    assert written == module.page(), "run python docs/presets.py"


def test_the_command_lists_every_preset(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VOC_ROOT", "COCO_ROOT", "DATA_ROOT"):
        monkeypatch.delenv(name)
    assert main(["presets", "--folder", str(FOLDER)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines() == table(PRESETS)
    for path in FOLDER.rglob("*.yaml"):
        assert path.relative_to(FOLDER).with_suffix("").as_posix() in printed


def test_the_headline_is_the_last_known_score() -> None:
    about = RECIPES[NAMES.index("irnet-voc")].about
    assert about is not None
    assert headline(about) == "final 63.5 (DeepLabV2, ResNet-50, val)"
    fewer = {key: value for key, value in about.expected.items() if key != "final"}
    assert headline(about.model_copy(update={"expected": fewer})).startswith("pseudo 66.5")
    unknown = RECIPES[NAMES.index("irnet-coco")].about
    assert unknown is not None
    assert headline(unknown) == "unknown"


def head(**changes: Any) -> dict[str, Any]:
    about = RECIPES[0].about
    assert about is not None
    kept = {**about.model_dump(), **changes}
    return {key: value for key, value in kept.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"paper": None}, "variants.x.about.paper"),
        ({"run_here": "no"}, "variants.x.about.run_here"),
        ({"expected": {}}, "variants.x.about.expected"),
        ({"expected": {"cam": {"miou": 4830, "setting": "a", "source": "b"}}}, "expected.cam.miou"),
        ({"speed": "fast"}, "variants.x.about.speed"),
    ],
)
def test_an_incomplete_head_is_named(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"variants": {"x": {"about": head(**changes)}}}))
    with pytest.raises(UserError, match=key) as caught:
        read_presets(tmp_path)
    assert str(path) in str(caught.value)


def test_no_folder_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--folder", str(tmp_path / "none")]) == 1
    assert "is no folder" in capsys.readouterr().err
