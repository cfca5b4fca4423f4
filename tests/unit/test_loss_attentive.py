"""Multi-scale attention against naive loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wsss.losses.attentive import (
    attentive_loss,
    attentive_target,
    dissimilarity,
    scale_weights,
)

B, C, H, W = 3, 4, 5, 6


def maps(count: int, seed: int) -> Tensor:
    return torch.randn(count, B, C, H, W, generator=torch.Generator().manual_seed(seed)).relu()


LABEL = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])


def valid() -> Tensor:
    inside = torch.ones(B, H, W)
    inside[0, :2] = 0
    return inside


def naive(
    main: Tensor, support: Tensor, label: Tensor, inside: Tensor, weighted: bool, grow: bool
) -> float:
    total = 0.0
    for one in main:
        differences, cells = 0.0, 0.0
        for b in range(B):
            keep = inside[b] > 0
            for c in range(C):
                if not label[b, c]:
                    continue
                mine = one[b, c][keep]
                theirs = [s[b, c][keep] for s in support]
                raised = [1.0] * len(theirs)
                if weighted:
                    norms = [float(mine.norm() * t.norm()) for t in theirs]
                    cosines = [float(mine @ t) / n for t, n in zip(theirs, norms, strict=True)]
                    raised = [1 + (1 - cosine) for cosine in cosines]
                target = sum(w / sum(raised) * t for w, t in zip(raised, theirs, strict=True))
                for cell, goal in zip(mine.tolist(), target.tolist(), strict=True):
                    differences += abs(goal - cell) if goal > cell or not grow else 0
                cells += len(mine)
        total += differences / cells
    return total


@pytest.mark.parametrize("grow", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_against_a_loop(weighted: bool, grow: bool) -> None:
    main, support, inside = maps(2, 0), maps(3, 1), valid()
    got = attentive_loss(main, support, LABEL, inside, weighted, grow)
    want = naive(main, support, LABEL, inside, weighted, grow)
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_maps_that_only_grow_are_never_drawn_down() -> None:
    main, support = maps(2, 0).requires_grad_(), maps(2, 1)
    attentive_loss(main, support, LABEL, valid(), grow=True).backward()
    assert main.grad is not None
    assert (main.grad <= 0).all()
    assert main.grad.any()


@pytest.mark.parametrize("weighted", [True, False])
def test_equal_scales_give_zero(weighted: bool) -> None:
    one = maps(1, 0)
    main, support = one.expand(3, -1, -1, -1, -1), one.expand(4, -1, -1, -1, -1)
    loss = attentive_loss(main, support, LABEL, valid(), weighted)
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_weights_sum_to_one_and_favour_the_unlike() -> None:
    main, support = maps(1, 0)[0], maps(2, 1)
    support[1] = 3 * main  # of the same shape: size does not count
    distances = torch.stack([dissimilarity(main, one) for one in support])
    weights = scale_weights(distances)
    assert torch.allclose(weights.sum(0), torch.ones(B, C))
    assert torch.allclose(distances[1], torch.zeros(B, C), atol=1e-6)
    assert (weights[0] > weights[1]).all()


def test_a_target_does_not_exceed_what_the_support_network_sees() -> None:
    main, support = maps(1, 0)[0], maps(3, 1)
    target = attentive_target(main, support)
    assert (target <= support.amax(0) + 1e-6).all()
    assert (target >= support.amin(0) - 1e-6).all()


def test_gradient_reaches_the_main_network_alone_and_present_classes_alone() -> None:
    main, support = maps(2, 0).requires_grad_(), maps(2, 1).requires_grad_()
    attentive_loss(main, support, LABEL, valid()).backward()
    assert support.grad is None
    assert main.grad is not None
    present = LABEL[None, :, :, None, None] * valid()[None, :, None] > 0
    assert not main.grad[~present.expand_as(main)].any()
    assert main.grad[present.expand_as(main)].any()


@pytest.mark.parametrize("nothing", ["label", "valid", "maps"])
def test_nothing_to_compare_is_zero(nothing: str) -> None:
    main, support = maps(2, 0).requires_grad_(), maps(2, 1)
    label = LABEL * 0 if nothing == "label" else LABEL
    inside = valid() * 0 if nothing == "valid" else valid()
    factor = 0 if nothing == "maps" else 1
    loss = attentive_loss(main * factor, support * factor, label, inside)
    loss.backward()
    assert float(loss.detach()) == 0
    assert main.grad is not None
    assert main.grad.isfinite().all()


def test_one_image_and_bf16() -> None:
    main = maps(2, 0)[:, :1].bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = attentive_loss(main, maps(2, 1)[:, :1].bfloat16(), LABEL[:1], valid()[:1])
    assert loss.dtype == torch.float32
    loss.backward()
    assert main.grad is not None
    assert main.grad.isfinite().all()
