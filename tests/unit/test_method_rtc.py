"""RTC as a whole: which parts each loss trains, its schedule, its scores, odd batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.config.schema import Backbone as BackboneConfig
from wsss.data.training import Batch
from wsss.engine.task import Losses, Progress
from wsss.inference.cam import multi_scale_cam
from wsss.inference.scales import multi_scale
from wsss.methods.rtc import Rtc, RtcParams
from wsss.models import wide_resnet38
from wsss.models.backbones import build_backbone
from wsss.models.dropout import set_keys
from wsss.models.wide_resnet38 import WideResNet38, Widths
from wsss.randomness import keys_of_pass

CLASSES = 3
START, LATE = Progress(0, 100, 0), Progress(90, 100, 9)
TERMS = {
    *("cls", "min", "er", "ecr", "nce_intra", "nce_cross_label", "nce_cross_prototype"),
    *("com", "seg"),
}


def make(backbone: str = "resnet18.a1_in1k", stride: int = 16, **params: Any) -> Rtc:
    torch.manual_seed(0)
    config = BackboneConfig(name=backbone, weights="random", allow_download=False)
    values = {
        "view_size": 32,
        "dilation": 2,
        "cam_width": 16,
        "deep_width": 8,
        "shallow_width": 8,
        "decoder_width": 8,
        "low_width": 4,
        "seg_dilations": [1, 2, 4],
        **params,
    }
    network = build_backbone(config, stride, False)
    return Rtc(network, CLASSES, RtcParams.model_validate(values), 0.5).train()


def batch_of(labels: list[list[float]], side: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(1)
    count = len(labels)
    return {
        "image": torch.rand(count, 3, side, side, generator=generator),
        "label": torch.tensor(labels),
        "valid": torch.ones(count, 1, side, side, dtype=torch.bool),
        "key": torch.arange(count),
        "id": [f"i{k}" for k in range(count)],
    }


USUAL = [[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]]


def losses(method: Rtc, batch: Batch, progress: Progress = LATE) -> Losses:
    set_keys(method, batch["key"])
    return method.losses(batch, progress)


def parts(method: Rtc) -> dict[str, str]:
    """The part of the network that each parameter belongs to."""
    names = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            names[name] = name.split(".")[0]
    return names


BACKBONE, CAM = {"backbone"}, {"backbone", "project", "classifier"}


@pytest.mark.parametrize(
    ("term", "reached"),
    [
        ("cls", CAM),
        ("er", CAM),
        ("com", CAM),
        # The refinement gets maps and features without gradient, and the targets have none.
        ("min", {"crr"}),
        ("ecr", {"crr"}),
        # Features alone: prototypes and pseudo labels are given.
        ("nce_intra", {"backbone", "project"}),
        ("nce_cross_label", {"backbone", "project"}),
        ("nce_cross_prototype", {"backbone", "project"}),
        ("seg", {"backbone", "decoder"}),
    ],
)
def test_each_term_trains_its_own_part(term: str, reached: set[str]) -> None:
    method = make()
    found = losses(method, batch_of(USUAL)).terms[term]
    assert float(found.detach()) > 0
    found.backward()
    names = parts(method)
    got = {names[n] for n, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert got == reached


def test_the_total_is_the_sum_of_its_terms() -> None:
    found = losses(make(), batch_of(USUAL))
    assert set(found.terms) == TERMS
    torch.testing.assert_close(found.total, torch.stack(list(found.terms.values())).sum())


def test_zero_logits_cost_the_logarithm_of_two() -> None:
    method = make()
    torch.nn.init.zeros_(method.classifier.weight)
    found = losses(method, batch_of(USUAL))
    assert float(found.terms["cls"].detach()) == pytest.approx(math.log(2), rel=1e-6)
    # Maps without any evidence: nothing to disagree on, and no mask to train the decoder with.
    assert float(found.terms["er"].detach()) == 0
    assert float(found.terms["seg"].detach()) == 0
    assert found.total.isfinite()


def test_equal_features_cost_the_logarithm_of_the_classes() -> None:
    """Every prototype is the same then: each contrast is 0.1 ln(C + 1)."""
    method = make()
    batch = batch_of(USUAL)
    features = torch.rand(1, 16, 1, 1)
    original = method.activate

    def constant(levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        f, cam = original(levels)
        return features.expand_as(f), cam

    method.activate = constant  # type: ignore[method-assign]
    found = losses(method, batch).terms
    for name in ("nce_intra", "nce_cross_label", "nce_cross_prototype"):
        assert float(found[name].detach()) == pytest.approx(0.1 * math.log(CLASSES + 1), rel=1e-5)


@pytest.mark.parametrize(
    ("weight", "gone"),
    [
        ("min_weight", {"min"}),
        ("er_weight", {"er"}),
        ("ecr_weight", {"ecr"}),
        ("nce_weight", {"nce_intra", "nce_cross_label", "nce_cross_prototype"}),
        ("com_weight", {"com"}),
        ("seg_weight", {"seg"}),
    ],
)
def test_a_weight_of_zero_leaves_a_term_out(weight: str, gone: set[str]) -> None:
    batch = batch_of(USUAL)
    every, some = losses(make(), batch).terms, losses(make(**{weight: 0}), batch).terms
    assert set(some) == TERMS - gone
    assert all(torch.equal(some[name], every[name]) for name in some)


@pytest.mark.parametrize(("step", "started"), [(0, False), (27, False), (28, True), (99, True)])
def test_masks_are_learned_from_a_fraction_of_training_on(step: int, started: bool) -> None:
    found = losses(make(), batch_of(USUAL), Progress(step, 100, 0))
    assert bool(found.terms["seg"].detach() > 0) is started


def test_padding_trains_no_mask() -> None:
    method, batch = make(), batch_of(USUAL)
    batch["valid"] = torch.zeros_like(batch["valid"])
    assert float(losses(method, batch).terms["seg"].detach()) == 0


@pytest.mark.parametrize(
    "labels",
    [
        [[1.0, 0, 0]],
        [[0.0, 0, 0]],
        [[1.0, 1.0, 1.0], [0, 0, 0]],
        [[0.0, 0, 1.0]] * 4,
    ],
)
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("options", [{}, {"background_cells": "lowest", "absent_negatives": False}])
def test_odd_batches_are_finite(
    labels: list[list[float]], bf16: bool, options: dict[str, Any]
) -> None:
    """One image, no class, classes that no image of the batch has."""
    method = make(**options)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        found = losses(method, batch_of(labels))
    assert found.total.dtype == torch.float32
    assert all(value.isfinite() for value in found.terms.values())
    found.total.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_a_class_that_never_activates_is_finite() -> None:
    method = make()
    with torch.no_grad():
        method.classifier.weight[1] = -1
    found = losses(method, batch_of(USUAL))
    assert found.total.isfinite()
    found.total.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_other_prototypes_are_other_losses() -> None:
    batch = batch_of(USUAL)
    names = ("nce_intra", "nce_cross_label", "nce_cross_prototype")
    plain = losses(make(), batch).terms
    lowest = losses(make(background_cells="lowest"), batch).terms
    fewer = losses(make(absent_negatives=False), batch).terms
    assert any(not torch.equal(plain[n], lowest[n]) for n in names)
    assert all(fewer[n] < plain[n] for n in names)  # one term less in each denominator


def test_the_views_of_an_image_drop_other_channels() -> None:
    keys = torch.tensor([5, 1 << 40])
    assert torch.equal(keys_of_pass(keys, 0), keys)
    assert not (keys_of_pass(keys, 1) == keys).any()


def test_scores_are_gated_probabilities_above_a_constant() -> None:
    method, images = make().eval(), torch.rand(2, 3, 48, 64)
    with torch.no_grad():
        scores, logits, gate = method.scores(images), method.segment(images), method(images).logits
    wide = F.interpolate(logits, (48, 64), mode="bilinear", align_corners=True).softmax(1)
    torch.testing.assert_close(scores[:, 1:], wide[:, 1:] * gate.sigmoid()[:, :, None, None])
    assert (scores[:, 0] == torch.tensor(0.17)).all()


def test_seeds_of_three_kinds() -> None:
    method, images = make().eval(), torch.rand(2, 3, 48, 64)
    with torch.no_grad():
        maps = {kind: method.seeds(kind)(images) for kind in method.seed_kinds}
        own = method.seeds(None)(images)
    assert torch.equal(own, maps["refined"])
    assert torch.equal(maps["cam"], method(images).cam.relu().detach())
    with torch.no_grad():
        assert torch.equal(maps["decoder"], method.scores(images)[:, 1:])
    assert all(m.shape[:2] == (2, CLASSES) and (m >= 0).all() for m in maps.values())
    with pytest.raises(ValueError, match="no seeds of kind 'other'"):
        method.seeds("other")


def test_seeds_of_the_decoder_are_its_predictions_scores() -> None:
    """Of several passes the mean, which compares with the constant background, and no peak."""
    method, images = make().eval(), torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        passes = list(multi_scale(method.scores, images, [1.0, 0.5], True, (8, 12), 16))
        got = multi_scale_cam(
            method.seeds("decoder"),
            *(images, [1.0, 0.5], True, (8, 12), 16),
            method.normaliser("decoder", 4),
        )
    torch.testing.assert_close(got, torch.stack(passes).mean(0)[:, 1:])
    total = torch.rand(1, CLASSES, 4, 4)
    for kind in ("refined", "cam", None):
        assert torch.equal(method.normaliser(kind, 4)(total), method.normalise_seeds(total))


def test_maps_are_averages_of_equal_cells() -> None:
    """The refinement makes a constant map of constant activations."""
    method, images = make().eval(), torch.rand(1, 3, 64, 64)
    levels = method.backbone(images)
    cam = torch.full((1, CLASSES, 4, 4), 0.5)
    refined = method._refine(cam, images, levels)
    # Every class is as strong as the others and at its maximum: no background.
    torch.testing.assert_close(refined[:, 1:], torch.ones(1, CLASSES, 4, 4), atol=1e-3, rtol=0)
    assert refined[:, 0].abs().max() < 1e-3


@pytest.mark.parametrize(
    ("backbone", "stride", "taps"),
    [
        ("tf_efficientnet_lite0", 16, (1, 2, 3, 4)),
        ("resnet18.a1_in1k", 8, (1, 2, 3, 4)),
        ("vit_tiny_patch16_224", 16, (3, 1, 2, 3)),
    ],
)
def test_it_stands_on_any_network(backbone: str, stride: int, taps: tuple[int, ...]) -> None:
    method = make(backbone, stride)
    assert method._taps() == taps
    assert losses(method, batch_of(USUAL)).total.isfinite()


def test_it_stands_on_wide_resnet38(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = Widths(4, 6, 8, 10, 12, 16, 24)
    monkeypatch.setattr(wide_resnet38, "WideResNet38", lambda: WideResNet38(widths))
    method = make("wide_resnet38", 8, view_size=16)
    # conv3 to conv6: the maps of stride 4, 8, 8, 8.
    assert [method.backbone.reductions[i] for i in method._taps()] == [4, 8, 8, 8]
    found = losses(method, batch_of(USUAL, 32))
    found.total.backward()
    assert found.total.isfinite()
    assert all(p.grad is not None for p in method.parameters())
