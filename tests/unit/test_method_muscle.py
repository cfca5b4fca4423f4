"""MuSCLe's schedule, what its terms teach, and its maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.contract.test_methods import CLASSES, batch_of
from wsss.config import Params
from wsss.config.schema import Backbone as BackboneConfig
from wsss.data.training import Batch
from wsss.data.views import Overlap
from wsss.engine.task import Progress
from wsss.losses.regions import DEFAULT
from wsss.methods.muscle import Muscle, MuscleParams
from wsss.models.backbones import build_backbone
from wsss.models.dropout import KeyedDropPath, set_keys

TERMS = ("focal", "soft", "rank", "er", "imc", "pix", "emd")


def muscle(**params: Any) -> Muscle:
    torch.manual_seed(0)
    backbone = build_backbone(
        BackboneConfig(name="tf_efficientnet_lite0", weights="random", allow_download=False),
        16,
        True,
    )
    return Muscle(backbone, CLASSES, MuscleParams(**params), 0.0).train()


def at(percent: int) -> Progress:
    return Progress(percent, 100, percent // 10)


def matched(count: int = 4) -> Batch:
    """A batch in which images have contrasts: two of one class, the rest of others."""
    batch = batch_of(count, "muscle", 128)  # views of 64 pixels: patches fit
    batch["label"] = torch.eye(CLASSES)[torch.tensor([0, 0, 1, 2])]
    return batch


def run(method: Muscle, batch: Batch, progress: Progress) -> dict[str, Tensor]:
    """Return the terms of all phases, gradients of their sum in place."""
    terms = {}
    method.zero_grad()
    for phase in range(method.phases(progress)):
        set_keys(method, batch["key"])
        losses = method.losses(batch, progress, phase)
        losses.total.backward()
        terms |= losses.terms
    return terms


def learning(method: Muscle) -> set[str]:
    return {n for n, p in method.named_parameters() if p.grad is not None and bool(p.grad.any())}


@pytest.mark.parametrize(
    ("percent", "count"), [(0, 4), (24, 4), (25, 5), (49, 5), (50, 6), (74, 6), (75, 7), (99, 7)]
)
def test_terms_come_one_after_the_other(percent: int, count: int) -> None:
    terms = run(muscle(), matched(), at(percent))
    assert tuple(terms) == TERMS[:count]
    assert all(value.isfinite() and value.dtype == torch.float32 for value in terms.values())


def test_a_weight_of_zero_leaves_a_term_out_and_others_scale() -> None:
    batch = matched()
    bare = muscle(**dict.fromkeys(TERMS[2:], 0.0))
    assert tuple(run(bare, batch, at(99))) == ("focal", "soft")
    assert bare.phases(at(99)) == 1
    heavy = muscle(**{**dict.fromkeys(TERMS[1:], 0.0), "focal": 3.0})
    set_keys(heavy, batch["key"])
    losses = heavy.losses(batch, at(0))
    torch.testing.assert_close(losses.total, 3 * losses.terms["focal"])


def test_constants_of_the_losses_are_parameters() -> None:
    assert muscle().regions == DEFAULT
    own = {"overlap_least": 9, "overlap_aspect": 4.0, "patch_smallest": 5, "patch_largest": 4}
    own |= {"patch_step": 3, "patch_least": 2, "patch_pooled": 10, "patch_pooling": 2}
    regions = muscle(**own, epsilon=0.2, sinkhorn="alternate").regions
    assert (regions.transport.epsilon, regions.transport.alternate) == (0.2, True)
    found = (
        *(regions.least_overlap, regions.largest_aspect, regions.smallest, regions.largest),
        *(regions.step, regions.least_patch, regions.largest_patch, regions.pooling),
    )
    assert found == tuple(own.values())
    with pytest.raises(ValueError, match="patch_smallest"):
        MuscleParams(patch_smallest=1)
    method, batch = muscle(erase=0.0).eval(), matched()
    plain, halved, sharp = (
        muscle(erase=0.0, **more).eval().losses(batch, at(0)).terms["focal"].detach()
        for more in ({}, {"focal_alpha": 0.25}, {"focal_gamma": 0.0})
    )
    torch.testing.assert_close(halved, plain / 2)
    logits = method(batch["image"]).logits.detach()
    signed = torch.where(batch["label"] > 0, logits, -logits)
    torch.testing.assert_close(sharp, -0.5 * F.logsigmoid(signed).sum(1).mean())


def test_views_are_asked_for_when_a_term_needs_them(tiny_params: Params) -> None:
    training = tiny_params.base.classify.model_copy(update={"crop": 448})
    assert muscle().views(training, 0.5) is None
    views = muscle().views(training, 0.5625)
    assert views is not None
    assert (views.size, views.least) == (224, 448)
    assert muscle(pix=0.0).views(training, 0.75) is None
    assert muscle(pix=0.0).views(training, 0.76) is not None
    assert muscle(pix=0.0, emd=0.0).views(training, 1.0) is None


def test_the_second_step_runs_as_at_inference_and_leaves_statistics_alone() -> None:
    method, batch = muscle(), matched()
    before = {n: b.clone() for n, b in method.named_buffers()}
    set_keys(method, torch.arange(99))  # keys of another batch: a dropout that drew would fail
    losses = method.losses(batch, at(99), 1)
    assert set(losses.terms) == {"pix", "emd"}
    assert all(torch.equal(before[n], b) for n, b in method.named_buffers())
    assert method.training
    assert all(m.training for m in method.backbone.modules())


def test_in_the_second_step_the_classifier_has_a_gradient_of_zero() -> None:
    """Not none: the optimiser's momentum and decay move it, as in the official code."""
    method, batch = muscle(), matched()
    method.losses(batch, at(99), 1).total.backward()
    assert method.classifier.weight.grad is not None
    assert not method.classifier.weight.grad.any()
    assert {"project.weight", "project.bias"} <= learning(method)
    assert any(name.startswith("backbone.network.blocks.6") for name in learning(method))


@pytest.mark.parametrize("term", ["er", "pix", "emd"])
def test_losses_on_maps_reach_features_and_projection_but_not_the_classifier(term: str) -> None:
    only = {**dict.fromkeys(TERMS, 0.0), term: 1.0}
    method = muscle(**only, pix_from=0.0, emd_from=0.0)
    batch = matched()
    set_keys(method, batch["key"])
    method.losses(batch, at(99), int(term != "er")).total.backward()
    reached = learning(method)
    assert "project.weight" in reached
    assert "classifier.weight" not in reached
    assert "backbone.network.conv_stem.weight" in reached


def test_the_classification_losses_leave_the_projection_alone() -> None:
    method = muscle(**dict.fromkeys(TERMS[3:], 0.0))
    run(method, matched(), at(99))
    assert "classifier.weight" in learning(method)
    assert not {"project.weight", "project.bias"} & learning(method)


def test_maps_are_cams_averaged_over_alike_cells() -> None:
    method = muscle().eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        maps, out = method.maps(images), method(images)
        taps = method.backbone.taps(images)
        torch.testing.assert_close(maps.plain, out.cam.relu())
        guides = [
            F.interpolate(taps[i], (4, 6), mode="bilinear", align_corners=True).relu()
            for i in (0, 2, 4)
        ]
        early = F.interpolate(taps[0].relu(), (4, 6), mode="bilinear", align_corners=True)
        assert not torch.allclose(early, guides[0], atol=1e-3)
        cells = method.project(torch.cat(guides, 1)).flatten(2)
        for b in range(2):
            units = [c / (c.norm() + 1e-5) for c in cells[b].T]
            for j, mine in enumerate(units):
                weights = torch.stack([(other @ mine).clamp(min=0) for other in units])
                weights = weights / (weights.sum() + 1e-5)
                expected = maps.plain[b].flatten(1) @ weights
                got = maps.refined[b].flatten(1)[:, j]
                torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(method.seed_maps(images), maps.refined)
        torch.testing.assert_close(method.seeds("cam")(images), maps.plain)
        torch.testing.assert_close(method.seeds(None)(images), maps.refined)


def test_logits_are_the_classifier_on_the_pooled_features() -> None:
    method = muscle().eval()
    with torch.no_grad():
        out = method(torch.rand(2, 3, 64, 64))
        torch.testing.assert_close(out.logits, out.cam.mean((2, 3)))


def test_seeds_are_stretched_between_minimum_and_maximum() -> None:
    total = torch.rand(1, 2, 5, 6) * 7 + 1
    got = muscle().normalise_seeds(total)
    for k in range(2):
        low, high = total[0, k].min(), total[0, k].max()
        expected = (total[0, k] - low - 1e-6) / (high - low + 1e-6)
        expected[total[0, k] < low + 1e-6] = 0
        torch.testing.assert_close(got[0, k], expected)
    constant = muscle().normalise_seeds(torch.full((1, 1, 3, 3), 2.0))
    assert (constant == 0).all()
    tiny = muscle().normalise_seeds(torch.full((1, 1, 3, 3), 1e-7))
    assert (tiny.half() == 0).all()


def test_a_row_for_the_background_is_compared_but_never_predicted() -> None:
    method = muscle(background="row")
    images = torch.rand(1, 3, 64, 64)
    assert method.classifier.out_channels == CLASSES + 1
    assert method.eval()(images).logits.shape == (1, CLASSES)
    assert method.seed_maps(images).shape[1] == CLASSES
    method.train()
    terms = run(method, matched(), at(99))
    assert tuple(terms) == TERMS
    assert method.classifier.weight.grad is not None


def test_patches_are_a_function_of_the_samples_keys() -> None:
    method, batch = muscle().eval(), matched()

    def emd(keys: list[int]) -> Tensor:
        batch["host_keys"] = keys
        return method.losses(batch, at(99), 1).terms["emd"]

    assert emd([0, 1, 2, 3]) == emd([0, 1, 2, 3]) != emd([10, 11, 12, 13])


def test_views_that_hardly_overlap() -> None:
    method, batch = muscle(), matched()
    tiny = Overlap(1, 2, 0, 0, 47, 46)
    batch |= {"overlaps": [tiny] * 4, "overlap": torch.tensor([tiny] * 4)}
    losses = method.losses(batch, at(99), 1)
    losses.total.backward()
    assert losses.terms["emd"] == 0
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_a_batch_of_one_with_one_class() -> None:
    batch = {
        key: value[:1] if isinstance(value, Tensor | list) else value
        for key, value in batch_of(4, "muscle", 128).items()
    }
    terms = run(muscle(), batch, at(99))
    assert terms["imc"] == 0
    assert all(value.isfinite() for value in terms.values())


def test_both_steps_are_finite_in_bf16() -> None:
    method, batch = muscle(), matched()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = run(method, batch, at(99))
    assert all(value.isfinite() and value.dtype == torch.float32 for value in terms.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_random_erasing_follows_the_key() -> None:
    """The same image with another key loses another rectangle."""
    method, batch = muscle(erase=1.0, drop_path=0.0).eval(), matched()
    values = []
    for keys in (batch["key"], batch["key"], batch["key"] + 50):
        values.append(method.losses({**batch, "key": keys}, at(0)).total.detach())
    assert values[0] == values[1] != values[2]
    whole = muscle(erase=0.0, drop_path=0.0).eval()
    totals = {
        float(whole.losses({**batch, "key": k}, at(0)).total.detach())
        for k in (batch["key"] + 9, batch["key"])
    }
    assert len(totals) == 1


def test_residual_branches_drop_more_often_the_deeper_they_are() -> None:
    rates = [m.rate for m in muscle().modules() if isinstance(m, KeyedDropPath)]
    count = 16  # blocks of Lite0
    assert rates == [pytest.approx(0.2 * i / count) for i in range(count)]


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "tf_efficientnet_b1"])
def test_other_backbones(name: str) -> None:
    config = BackboneConfig(name=name, weights="random", allow_download=False)
    method = Muscle(build_backbone(config, 16, True), CLASSES, MuscleParams(), 0.0).train()
    terms = run(method, matched(), at(99))
    assert tuple(terms) == TERMS
    assert all(value.isfinite() for value in terms.values())
