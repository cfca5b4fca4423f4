"""MCC and ToCo as a whole: what reaches what, and the corners of their objective."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.contract.test_methods import CLASSES, LATE, START, batch_of, config_of
from wsss.config.schema import Backbone as BackboneConfig
from wsss.data.training import Batch
from wsss.engine.optim import build_optimizer
from wsss.engine.task import Progress
from wsss.methods import mcc
from wsss.methods.mcc import Mcc, MccParams, _Look, _Maps
from wsss.models.backbones import build_backbone
from wsss.models.dropout import set_keys

TRAINING = config_of("mcc").classify
SMALL: dict[str, Any] = {
    "dim": 32,
    "depth": 4,
    "heads": 4,
    "projector_hidden": 32,
    "projector_bottleneck": 8,
    "projector_out": 32,
    "decoder_width": 16,
    "decoder_dilation": 1,
    "cam_scales": [1.0, 1.5],
    "mask_block": 1,
    "local_size": 32,
    "energy_cells": 256,
    "par_dilations": [1, 2],
}


def make(name: str = "tf_efficientnet_lite0", **params: Any) -> Mcc:
    torch.manual_seed(0)
    backbone = build_backbone(
        BackboneConfig(name=name, weights="random", allow_download=False), 16, True
    )
    return Mcc(backbone, CLASSES, MccParams.model_validate({**SMALL, **params}), 0.0)


def _ones(images: Tensor, label: Tensor) -> Tensor:
    return label[:, :, None, None] * torch.ones_like(images[:, :1])


def losses(method: Mcc, batch: Batch, progress: Progress = LATE) -> dict[str, Tensor]:
    set_keys(method, batch["key"])
    found = method.losses(batch, progress)
    assert torch.allclose(found.total, torch.stack(list(found.terms.values())).sum())
    assert found.total.isfinite()
    found.total.backward()
    return found.terms


def test_names_of_the_terms() -> None:
    assert list(losses(make(), batch_of(2, "mcc"))) == [
        "cls",
        "cls_aux",
        "aff",
        "mcc",
        "seg",
        "reg",
    ]
    toco = losses(make(locals="crops"), batch_of(2, "mcc"))
    assert list(toco) == ["cls", "cls_aux", "aff", "ctc", "seg", "reg"]


def test_terms_start_when_their_schedule_says() -> None:
    batch = batch_of(2, "mcc")
    first = losses(make(contrast_start=0.15, affinity_start=0.15), batch, START)
    assert list(first) == ["cls", "cls_aux", "seg"]
    assert first["seg"] == 0
    # At iteration 2000 of 20000 the masks do not train yet; one later they do.
    assert losses(make(), batch, Progress(2000, 20000, 0))["seg"] == 0
    assert losses(make(), batch, Progress(2001, 20000, 0))["seg"] > 0


@pytest.mark.parametrize(("kind", "count"), [("masks", 3), ("crops", 2), ("pixels", 2)])
def test_a_step_embeds_what_it_reads(
    kind: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source as a whole is a view of its own only where keys are hidden."""
    method, seen = make(locals=kind), []
    embed = method.encoder.embed
    monkeypatch.setattr(
        method.encoder, "embed", lambda net, x: (seen.append(tuple(x.shape)), embed(net, x))[1]
    )
    monkeypatch.setattr(method, "_activate", lambda x, y: _Maps(*(_ones(x, y) for _ in range(2))))
    losses(method, batch_of(2, "mcc"))
    assert seen[0] == (2 * count, 3, 64, 64)


def test_maps_are_made_for_a_term_that_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Tensor) -> None:
        raise AssertionError("nothing reads these maps")

    alone = {"contrast_weight": 0, "affinity_weight": 0, "seg_weight": 0, "energy_weight": 0}
    for params, progress in ((alone, LATE), ({**alone, "seg_weight": 0.1}, START)):
        method = make(**params)
        monkeypatch.setattr(method, "_activate", refuse)
        losses(method, batch_of(2, "mcc"), progress)


def test_the_decoder_is_in_the_graph_before_it_learns() -> None:
    """So that the optimiser counts its steps and decays it, as in the official code."""
    method = make().train()
    losses(method, batch_of(2, "mcc"), START)
    gradients = [p.grad for p in method.decoder.parameters()]
    assert all(g is not None and not g.any() for g in gradients)


def test_no_gradient_into_the_teacher() -> None:
    method = make().train()
    losses(method, batch_of(2, "mcc"))
    assert not any(p.requires_grad or p.grad is not None for p in method.teacher.parameters())
    assert not {id(p) for p in method.teacher.parameters()} & {
        id(p) for group in build_optimizer(method, TRAINING).param_groups for p in group["params"]
    }
    assert all(p.grad is not None and p.grad.any() for p in method.projector.parameters())


def test_the_teacher_follows_after_each_step_exactly() -> None:
    method = make()
    before = {n: v.clone() for n, v in method.teacher.named_parameters()}
    assert all(torch.equal(before[n], v) for n, v in method.projector.named_parameters())
    with torch.no_grad():
        for parameter in method.projector.parameters():
            parameter.add_(1)
    method.after_step(START)
    for name, parameter in method.projector.named_parameters():
        expected = 0.9 * before[name] + 0.1 * parameter.detach()
        assert torch.allclose(dict(method.teacher.named_parameters())[name], expected, atol=1e-7)


def test_maps_while_training_leave_the_statistics_alone() -> None:
    method = make().train()
    before = {n: v.clone() for n, v in method.backbone.named_buffers()}
    maps = method._activate(torch.rand(2, 3, 64, 64), torch.ones(2, CLASSES))
    assert method.training
    assert method.backbone.training
    assert all(torch.equal(before[n], v) for n, v in method.backbone.named_buffers())
    assert not maps.main.requires_grad
    assert maps.main.amin((2, 3)).abs().max() == 0
    assert maps.main.max() <= 1


def test_maps_are_made_of_plainly_resized_images(monkeypatch: pytest.MonkeyPatch) -> None:
    method, images = make(cam_scales=[0.5], cam_flip=False), torch.rand(1, 3, 64, 64)
    seen: list[Tensor] = []
    encode = method._encode
    monkeypatch.setattr(method, "_encode", lambda x: (seen.append(x), encode(x))[1])
    method._activate(images, torch.ones(1, CLASSES))
    plain = F.interpolate(images, (32, 32), mode="bilinear", align_corners=False)
    assert torch.equal(seen[0], plain)


def test_absent_classes_have_no_map() -> None:
    method, label = make(), batch_of(2, "mcc")["label"]
    for maps in method._activate(torch.rand(2, 3, 64, 64), label):
        assert torch.equal(maps.amax((2, 3)) > 0, label > 0)


@pytest.mark.parametrize("kind", ["masks", "crops", "pixels"])
def test_batch_of_one_and_an_image_without_labels(kind: str) -> None:
    batch = batch_of(1, "mcc")
    losses(make(locals=kind).train(), batch)
    batch["label"] = torch.zeros(1, CLASSES)
    terms = losses(make(locals=kind).train(), batch)
    # No class, no evidence: all is background, every local view negative.
    assert all(value.isfinite() for value in terms.values())


def test_masks_are_refined_by_whole_grey_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = make(), batch_of(2, "mcc")
    look, seen = method._look(batch), []
    look = look._replace(image=look.image * 1.2 - 0.1)  # also out of range
    weights = mcc.neighbour_weights
    monkeypatch.setattr(
        mcc, "neighbour_weights", lambda x, *rest: (seen.append(x), weights(x, *rest))[1]
    )
    method._masks(torch.rand(2, CLASSES, 64, 64), look, batch["label"])
    levels = (look.image * 255).clamp(0, 255).to(torch.uint8).float() / 255
    halved = F.interpolate(levels, (32, 32), mode="bilinear", align_corners=False)
    assert torch.allclose(seen[0], halved, atol=1e-6)
    # What comes from a file is kept as it is.
    whole = torch.arange(256).float() / 255
    assert torch.equal((whole * 255).floor() / 255, whole)


def test_nothing_visible() -> None:
    assert losses(make(mask_rate=1.0).train(), batch_of(2, "mcc"))["mcc"] > 0


def test_everything_visible() -> None:
    """Local views are then whole ones: each judges the same, the mean of all cells."""
    method, batch = make(mask_rate=0.0, local_count=3).eval(), batch_of(3, "mcc")
    look = method._look(batch)
    regions = torch.zeros(3, CLASSES, 64, 64)
    regions[1, 0, :, :24] = 0.5  # uncertain over more than a fifth
    regions[2, 0, :, :4] = 0.5  # over less
    with torch.no_grad():
        patches = method.encoder.embed(method.backbone, look.source)
        found = method._masked(look, patches, regions, batch["key"])
        whole = method.encoder.encode(method.backbone, patches).cls
    assert found.positive.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert torch.allclose(found.cls, whole.repeat(3, 1), atol=1e-4)
    losses(method.train(), batch)


def test_masks_of_padding_alone_teach_nothing() -> None:
    batch = batch_of(2, "mcc")
    batch["valid"] = torch.zeros_like(batch["valid"])
    method = make().train()
    terms = losses(method, batch)
    assert terms["seg"] == 0
    assert terms["reg"] == 0
    assert not any(p.grad.any() for p in method.decoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["masks", "crops", "pixels"])
def test_bf16_is_finite(kind: str) -> None:
    method = make(locals=kind).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses(method, batch_of(2, "mcc"))
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_it_trains_a_vision_transformer() -> None:
    method = make("deit_tiny_patch16_224").train()
    losses(method, batch_of(2, "mcc"))
    silent = {n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()}
    teacher = {n for n in silent if n.startswith("teacher.")}
    assert len(teacher) == len(list(method.teacher.parameters()))
    assert silent - teacher == {"backbone.network.vit.pos_embed"}
    with torch.no_grad():
        assert method.eval().segment(torch.rand(1, 3, 40, 72)).shape == (1, CLASSES + 1, 3, 5)


def test_local_passes_are_one_batch_view_by_view() -> None:
    """The k-th masked pass of image b has the mask that its flag is of."""
    method, batch = make(mask_rate=0.5).eval(), batch_of(3, "mcc")
    look = method._look(batch)
    regions = torch.rand(3, CLASSES, 64, 64)
    with torch.no_grad():
        patches = method.encoder.embed(method.backbone, look.source)
        together = method._masked(look, patches, regions, batch["key"])
        for b in range(3):
            one = method._masked(
                *(_Look(*(v[b : b + 1] for v in look if v is not None)), patches.take(b, b + 1)),
                *(regions[b : b + 1], batch["key"][b : b + 1]),
            )
            assert torch.equal(one.positive[0], together.positive[b])
            assert torch.allclose(one.cls, together.cls[b::3], atol=1e-5)


def test_shared_geometry_and_the_literal_one() -> None:
    batch = batch_of(8, "mcc")
    plain = make(distortion=False)._look(batch)
    assert torch.equal(plain.image, batch["image"])
    assert torch.equal(plain.source, batch["image"])
    literal = make(distortion=False, literal_flips=True)._look(batch)
    mirrored = [
        [
            bool(torch.equal(view, original.flip(2)))
            for view, original in zip(views, batch["image"], strict=True)
        ]
        for views in (literal.image, literal.source)
    ]
    assert 0 < sum(mirrored[0]) < 8
    assert mirrored[0] != mirrored[1]
    assert torch.equal(literal.valid, plain.valid)


def test_padding_on_the_token_grid_and_the_literal_rule() -> None:
    """A box that starts at pixel 28 leaves no cell of a grid of 4 in the official code."""
    valid = torch.zeros(1, 64, 64, dtype=torch.bool)
    valid[:, 28:, :] = True
    final, maps = torch.randn(1, 8, 4, 4), torch.zeros(1, CLASSES, 64, 64)
    maps[:, 0, :, 32:] = 1
    assert float(make(literal_box=True)._affinity(final, maps, valid)) == 0.5
    assert float(make()._affinity(final, maps, valid)) != 0.5


def test_views_are_distorted_apart_and_padding_keeps_the_mean() -> None:
    batch = batch_of(2, "mcc")
    batch["valid"][:, :, :, 40:] = False
    method = make()
    look = method._look(batch)
    assert not torch.allclose(look.image, look.source)
    mean = method.backbone.mean[:, None, None].expand(3, 64, 24)
    for view in (look.image, look.source):
        assert torch.equal(view[0, :, :, 40:], mean)


def test_seeds_reach_from_zero_to_one() -> None:
    seeds = make().normalise_seeds(torch.rand(2, 3, 5, 5) + 4)
    assert torch.equal(seeds.amin((2, 3)), torch.zeros(2, 3))
    assert seeds.max() <= 1
    assert seeds.amax((2, 3)).min() > 0.99
