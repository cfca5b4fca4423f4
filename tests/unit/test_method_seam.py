"""SEAM and PPC as a whole: which parts each loss trains, their equations, their seeds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tiny_backbone import tiny_backbone
from wsss.config.schema import Backbone as BackboneConfig
from wsss.data.training import Batch
from wsss.engine.task import Losses, Progress
from wsss.losses.normalisation import max_norm
from wsss.losses.siamese import Pooling, averaged
from wsss.methods.ppc import Ppc, PpcParams
from wsss.methods.seam import Seam, SeamParams
from wsss.models import wide_resnet38
from wsss.models.backbones import Backbone, build_backbone
from wsss.models.dropout import set_keys
from wsss.models.wide_resnet38 import WideResNet38, Widths

CLASSES = 3
SEAM_TERMS = {"cls", "min", "er", "ecr"}
NCE = {"nce_cross_prototype", "nce_cross_label", "nce_intra"}
SMALL = {"view_size": 20, "shallow_width": 4, "deep_width": 4}
USUAL = [[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]]


def seam(backbone: Backbone | None = None, **params: Any) -> Seam:
    network = backbone or tiny_backbone()
    torch.manual_seed(1)
    return Seam(network, CLASSES, SeamParams.model_validate({**SMALL, **params}), 0.5).train()


def ppc(backbone: Backbone | None = None, **params: Any) -> Ppc:
    network = backbone or tiny_backbone()
    torch.manual_seed(1)
    values = {**SMALL, "projection": 8, "negative_first": 1, "negative_last": 3, **params}
    return Ppc(network, CLASSES, PpcParams.model_validate(values), 0.5).train()


def batch_of(labels: list[list[float]], side: int = 48) -> Batch:
    generator = torch.Generator().manual_seed(1)
    count = len(labels)
    return {
        "image": torch.rand(count, 3, side, side, generator=generator),
        "label": torch.tensor(labels),
        "valid": torch.ones(count, 1, side, side, dtype=torch.bool),
        "key": torch.arange(count),
        "id": [f"i{k}" for k in range(count)],
    }


def losses(method: Seam, batch: Batch) -> Losses:
    set_keys(method, batch["key"])
    return method.losses(batch, Progress(0, 100, 0))


def parts_with_gradient(method: Seam) -> set[str]:
    return {n.split(".")[0] for n, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("term", "reached"),
    [
        ("cls", {"backbone", "classifier"}),
        ("er", {"backbone", "classifier"}),
        # The module gets maps and features without gradient, and the targets have none.
        ("min", {"correlation"}),
        ("ecr", {"correlation"}),
        # Features alone: prototypes and pseudo labels are given.
        *((name, {"backbone", "project"}) for name in sorted(NCE)),
    ],
)
def test_each_term_trains_its_own_part(term: str, reached: set[str]) -> None:
    method = ppc()
    found = losses(method, batch_of(USUAL)).terms[term]
    assert float(found.detach()) > 0
    found.backward()
    assert parts_with_gradient(method) == reached


def test_the_total_is_the_sum_of_its_terms() -> None:
    for method, names in ((seam(), SEAM_TERMS), (ppc(), SEAM_TERMS | NCE)):
        found = losses(method, batch_of(USUAL))
        assert set(found.terms) == names
        torch.testing.assert_close(found.total, torch.stack(list(found.terms.values())).sum())


@pytest.mark.parametrize(
    ("weight", "gone"),
    [
        ("min_weight", "min"),
        ("er_weight", "er"),
        ("ecr_weight", "ecr"),
        ("cross_prototype_weight", "nce_cross_prototype"),
        ("cross_label_weight", "nce_cross_label"),
        ("intra_weight", "nce_intra"),
    ],
)
def test_a_weight_of_zero_leaves_a_term_out(weight: str, gone: str) -> None:
    batch = batch_of(USUAL)
    every, some = losses(ppc(), batch).terms, losses(ppc(**{weight: 0}), batch).terms
    assert set(some) == set(every) - {gone}
    assert all(torch.equal(some[name], every[name]) for name in some)


def test_ppc_without_its_contrasts_is_seam() -> None:
    off = {"cross_prototype_weight": 0, "cross_label_weight": 0, "intra_weight": 0}
    batch = batch_of(USUAL)
    one, two = seam(), ppc(**off)
    two.load_state_dict(one.state_dict(), strict=False)
    assert torch.equal(losses(one, batch).total, losses(two, batch).total)


def wide(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=True)


def test_the_terms_are_those_of_the_paper() -> None:
    """Written out from the equations, image by image; without dropout."""
    method, batch = seam().eval(), batch_of(USUAL)
    small = wide(batch["image"], 20)
    found = losses(method, batch).terms
    with torch.no_grad():
        views = [
            (method._look(images), side) for images, side in ((batch["image"], 48), (small, 20))
        ]
    cls, low = 0.0, 0.0
    er, ecr = 0.0, 0.0
    for index, label in enumerate(batch["label"]):
        present = label[:, None, None]
        full = torch.cat([torch.ones(1), label])[:, None, None]
        maps, refined = [], []
        for view, side in views:
            cam, spread = (wide(m[index][None], side) for m in (view.cam, view.refined))
            score = cam.mean((2, 3))[0].sigmoid()
            bce = -(label * score.log() + (1 - label) * (1 - score).log()).mean()
            cls += float(bce) / len(USUAL) / 2
            strongest = (spread[0, 1:] * present).amax(0).flatten().sort().values
            low += float(strongest[: side * side // 4].relu().mean()) / len(USUAL) / 2
            maps.append(wide(max_norm(cam), 20)[0] * present)
            refined.append(wide(max_norm(spread), 20)[0] * full)
        er += float((maps[0] - maps[1]).abs().mean()) / len(USUAL)
        for target, mine in ((maps[1], refined[0]), (maps[0], refined[1])):
            best = target.amax(0, keepdim=True)
            winner = torch.cat([1 - best, torch.where(target < best, 0, target)])
            gaps = (winner - mine).abs().flatten().sort(descending=True).values
            ecr += float(gaps[: int(0.2 * len(gaps))].mean()) / len(USUAL)
    for name, value in {"cls": cls, "min": low, "er": er, "ecr": ecr}.items():
        assert float(found[name].detach()) == pytest.approx(value, rel=1e-4), name


def test_the_correlation_sees_the_image_and_two_levels() -> None:
    """The module's own equation: relu'd projections beside the colours, cosines, columns to 1."""
    method, images = seam().eval(), torch.rand(1, 3, 32, 32)
    levels = method.backbone(images)
    cam = torch.randn(1, CLASSES, 8, 8)
    got = method._refine(cam, images, levels)
    module = method.correlation
    conv4, conv5 = (wide(levels[i], 8) for i in (0, 0))  # of two levels, the finer one twice
    joined = torch.cat(
        [
            wide(method.backbone.normalise(images), 8),
            module.shallow(conv4).relu(),
            module.deep(conv5).relu(),
        ],
        1,
    )
    unit = F.normalize(module.merge(joined).flatten(2)[0], dim=0)
    alike = (unit.T @ unit).relu()
    alike = alike / alike.sum(0, keepdim=True)
    peak = cam.relu()[0] / cam.relu()[0].amax((1, 2), keepdim=True)
    best = peak.amax(0, keepdim=True)
    spread = torch.cat([1 - best, torch.where(peak < best, 0, peak)]).flatten(1) @ alike
    torch.testing.assert_close(got[0].flatten(1), spread, atol=1e-4, rtol=1e-3)


def test_zero_logits_cost_the_logarithm_of_two() -> None:
    method = ppc()
    torch.nn.init.zeros_(method.classifier.weight)
    found = losses(method, batch_of(USUAL))
    assert float(found.terms["cls"].detach()) == pytest.approx(math.log(2), rel=1e-6)
    assert float(found.terms["er"].detach()) == 0
    assert found.total.isfinite()


@pytest.mark.parametrize("labels", [[[1.0, 0, 0]], [[0.0, 0, 0]], [[1.0, 1, 1], [0, 0, 0]]])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"background_cells": "lowest", "absent_negatives": False, "own_ranked": True}],
)
def test_odd_batches_are_finite(
    labels: list[list[float]], bf16: bool, options: dict[str, Any]
) -> None:
    """One image, no class, classes that no image of the batch has."""
    method = ppc(**options)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        found = losses(method, batch_of(labels))
    assert found.total.dtype == torch.float32
    assert all(value.isfinite() for value in found.terms.values())
    found.total.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_switches_change_the_contrast() -> None:
    batch = batch_of(USUAL)
    plain = losses(ppc(), batch).terms
    fewer = losses(ppc(absent_negatives=False), batch).terms
    lowest = losses(ppc(background_cells="lowest"), batch).terms
    ranked = losses(ppc(own_ranked=True), batch).terms
    assert fewer["nce_cross_prototype"] < plain["nce_cross_prototype"]
    assert not torch.equal(lowest["nce_cross_label"], plain["nce_cross_label"])
    assert not torch.equal(ranked["nce_intra"], plain["nce_intra"])


def test_random_cells_follow_the_sample() -> None:
    batch = batch_of(USUAL)
    method = ppc().eval()
    first, again = losses(method, batch), losses(method, batch)
    other = losses(method, {**batch, "key": batch["key"] + 100})
    assert torch.equal(first.terms["nce_intra"], again.terms["nce_intra"])
    assert not torch.equal(first.terms["nce_intra"], other.terms["nce_intra"])
    assert torch.equal(first.terms["nce_cross_label"], other.terms["nce_cross_label"])


def test_ranks_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="negative_first 5 exceeds negative_last 3"):
        PpcParams(negative_first=5, negative_last=3)


def test_border_cells_weigh_half_among_pixels_and_the_same_among_cells() -> None:
    weights = {}
    poolings: tuple[Pooling, ...] = ("pixels", "cells")
    for pooling in poolings:
        cam = torch.zeros(1, 3, 8, 8)
        cam[0, 0, 4, 4] = cam[0, 1, 0, 4] = cam[0, 2, 0, 0] = 1
        weights[pooling] = averaged(cam, (512, 512), pooling)[0]
    assert weights["cells"].tolist() == [1 / 64] * 3
    inner, edge, corner = weights["pixels"].tolist()
    assert inner == pytest.approx(1 / 49, rel=0.05)
    assert edge == pytest.approx(inner / 2, rel=0.05)
    assert corner == pytest.approx(inner / 4, rel=0.05)


def test_pooling_reaches_the_loss_and_the_logits_of_inference() -> None:
    batch = batch_of(USUAL)
    for make in (seam, ppc):
        method, other = make(), make(pooling="cells")
        assert losses(method, batch).terms["cls"] != losses(other, batch).terms["cls"]
        output = other.eval()(batch["image"])
        assert torch.equal(output.logits, output.cam.mean((2, 3)))


def test_seeds_are_stretched_after_they_are_summed() -> None:
    method, images = seam().eval(), torch.rand(2, 3, 48, 32)
    with torch.no_grad():
        refined, plain = method.seeds(None)(images), method.seeds("cam")(images)
        assert torch.equal(plain, method(images).cam.relu())
    assert torch.equal(refined, method.seeds("refined")(images))
    seeds = method.normalise_seeds(refined * 8)
    assert seeds.amin((2, 3)).max() == 0
    assert seeds.amax((2, 3)).min() > 0.99
    with pytest.raises(ValueError, match="no seeds of kind 'decoder'"):
        method.seeds("decoder")


def test_they_stand_on_wide_resnet38(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = Widths(4, 6, 8, 10, 12, 16, 24)
    monkeypatch.setattr(wide_resnet38, "WideResNet38", lambda: WideResNet38(widths))
    config = BackboneConfig(name="wide_resnet38", weights="random", allow_download=False)
    backbone = build_backbone(config, 8, False)
    method = ppc(backbone, view_size=24)
    # conv4, conv5 and conv6, all at stride 8.
    taps = backbone.last(3)
    assert [backbone.channels[i] for i in taps] == [10, 12, 24]
    assert [backbone.reductions[i] for i in taps] == [8, 8, 8]
    assert losses(method, batch_of(USUAL, 40)).total.isfinite()
