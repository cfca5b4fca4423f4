"""Configuration: every mistake is one line that names the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from wsss.config import STAGES, Params, load_params, stage_params, view
from wsss.config.resolve import overlay
from wsss.config.slices import MODULES
from wsss.errors import UserError

SWEPT = {"evaluate_cam", "evaluate_walk"}


def test_the_shipped_file_and_every_preset_are_valid(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOC_ROOT", "somewhere")
    monkeypatch.setenv("DATA_ROOT", "somewhere")
    monkeypatch.setenv("COCO_ROOT", "somewhere")
    presets = sorted((project / "workflow" / "presets").rglob("*.yaml"))
    assert presets
    for files in [[], *([p] for p in presets)]:
        load_params([project / "params.yaml", *files]).validate()


def test_nothing_in_the_shipped_file_is_shared_by_an_anchor(project: Path) -> None:
    """`dvc exp run --set-param` sets one place, then all that alias it back to the old value."""
    tokens = yaml.scan((project / "params.yaml").read_text())
    assert not [t for t in tokens if isinstance(t, yaml.AliasToken | yaml.AnchorToken)]


def test_every_recipe_names_a_backbone_of_timm_and_where_it_comes_from(project: Path) -> None:
    import wsss.torchvision_shim  # noqa: F401

    import timm  # isort: skip

    recipes = sorted((project / "workflow" / "presets" / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        config = load_params([project / "params.yaml", path]).base
        assert timm.get_pretrained_cfg(config.backbone.name, allow_unregistered=False)
        header = path.read_text().split("backbone:")[0]
        for word in ("Source:", "Expected", "Hardware", "Differences:", "Not run here", path.name):
            assert word in header, (path.name, word)


MISTAKES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"clasify": {}}, ("unknown key 'clasify'", "did you mean 'classify'")),
    ({"classify": {"epoch": 3}}, ("unknown key 'classify.epoch'", "'epochs'", "crop")),
    ({"classify": {"epochs": "three"}}, ("classify.epochs is 'three'", "integer")),
    ({"classify": {"epochs": 0}}, ("classify.epochs is 0", "greater than or equal to 1")),
    ({"classify": {"flip": 1}}, ("classify.flip is 1", "boolean")),
    ({"classify": {"micro_batch": 5}}, ("classify", "micro_batch 5", "batch 8")),
    ({"classify": {"scale": [1, 2]}}, ("exactly one of long_side and scale",)),
    ({"segment": {"scale": [2.0, 1.0]}}, ("segment", "lower bound")),
    ({"segment": {"scale": [0.5, -1.0, 2.0]}}, ("segment.scale.1", "-1.0")),
    ({"segment": {"net": "unet"}}, ("segment.net is 'unet'", "deeplabv2")),
    ({"segment": {"rates": {"deeplabv2": []}}}, ("segment.rates.deeplabv2",)),
    ({"road": "triple-stage"}, ("road is 'triple-stage'", "two-stage", "supervised")),
    ({"data": {"source": "voc"}}, ("data.root", "'voc'")),
    ({"data": {"source": "voc", "root": "$NOT_SET_ANYWHERE/x"}}, ("$NOT_SET_ANYWHERE",)),
    ({"cam": {"threshold": "tune"}, "data": {"splits": {"tune": None}}}, ("data.splits.tune",)),
    ({"cam": {"threshold": 1.5}}, ("cam.threshold", "1.5")),
    ({"seeds": {"alpha_low": 40}}, ("alpha_low 40", "alpha_high")),
    ({"walk": {"radius": 9}}, ("walk.radius 9", "affinity.radius 5")),
    ({"backbone": {"weights": "imagenet"}}, ("backbone.weights is 'imagenet'", "package:")),
    ({"run": {"variants": ["bogus"]}}, ("unknown variant 'bogus'", "baseline")),
    ({"variants": {"baseline": {"data": {}}}}, ("variants.baseline", "'data'")),
    ({"variants": {"baseline": {"method": {"name": "x"}}}}, ("method.name is 'x'", "baseline")),
    (
        {"variants": {"baseline": {"method": {"params": {"tau": 1}}}}},
        ("variants.baseline", "method.params.tau is 1"),
    ),
    ({"variants": {"baseline": {"road": "single-stage"}}}, ("road", "two-stage")),
]


@pytest.mark.parametrize(("mistake", "parts"), MISTAKES)
def test_a_mistake_is_one_line_that_names_it(
    raw_params: dict[str, Any], mistake: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as caught:
        Params(overlay(raw_params, mistake)).validate()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_missing_key_is_named(raw_params: dict[str, Any]) -> None:
    del raw_params["walk"]["beta"]
    with pytest.raises(UserError, match=r"missing key 'walk\.beta'"):
        _ = Params(raw_params).base


def test_numbers_that_yaml_reads_as_strings_are_numbers(raw_params: dict[str, Any]) -> None:
    raw_params["classify"]["lr"] = "1e-4"
    assert Params(raw_params).base.classify.lr == pytest.approx(1e-4)


def test_overlays_state_only_differences(raw_params: dict[str, Any]) -> None:
    raw_params["variants"]["wide"] = {"segment": {"width": 7}}
    params = Params(raw_params)
    assert params.resolve("wide").segment.width == 7
    assert params.resolve("wide").segment.epochs == params.base.segment.epochs
    assert params.base.segment.width != 7


def test_overlay_leaves_its_arguments_alone() -> None:
    base = {"a": {"b": 1, "c": [1]}}
    assert overlay(base, {"a": {"b": 2}, "d": 3}) == {"a": {"b": 2, "c": [1]}, "d": 3}
    assert base == {"a": {"b": 1, "c": [1]}}


def test_a_stage_sees_its_own_keys_only(raw_params: dict[str, Any]) -> None:
    config = Params(raw_params).base
    seen = view(config, "cam")
    assert seen.cam.scales == config.cam.scales
    assert seen.classify.output_stride == config.classify.output_stride
    for hidden in (lambda: seen.cam.threshold, lambda: seen.classify.epochs, lambda: seen.crf):
        with pytest.raises(AttributeError):
            hidden()


def test_an_edit_changes_the_parameters_of_the_stages_that_read_it(
    raw_params: dict[str, Any],
) -> None:
    def readers(edit: dict[str, Any]) -> set[str]:
        before, after = Params(raw_params).base, Params(overlay(raw_params, edit)).base
        return {s for s in STAGES if stage_params(before, s) != stage_params(after, s)}

    assert readers({"crf": {"iterations": 3}}) == {"crf"}
    assert readers({"cam": {"threshold": 0.3}}) == {"seeds_label", "soft", "evaluate_cam"}
    assert readers({"walk": {"beta": 9}}) == {"walk"}
    assert readers({"evaluate": {"bins": 50}}) == SWEPT | {"evaluate_boxes", "evaluate_tune"}
    assert readers({"evaluate": {"box_min_area": 0.1}}) == {"evaluate_boxes"}
    assert readers({"evaluate": {"boxes": True}}) == set()
    assert readers({"evaluate": {"boundary_tolerance": 0.1}}) == SWEPT | {"evaluate"}
    assert readers({"resources": {"workers": 3, "shards": {"cam": 2}}}) == set()
    assert "affinity" not in readers({"classify": {"epochs": 1}})


def test_every_stage_names_an_existing_module(project: Path) -> None:
    for stage in STAGES:
        assert (project / "wsss" / "stages" / f"{MODULES[stage]}.py").is_file(), stage
