"""Regions, prototypes, their memory and the contrast against naive loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wsss.labels import IGNORE
from wsss.losses.region_contrast import (
    Prototypes,
    region_contrast,
    region_masks,
    region_prototypes,
    remember,
)

B, C, D, H, W = 2, 3, 5, 4, 6


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random_masks() -> Tensor:
    choice = torch.randint(0, 4, (B, H, W), generator=generator())
    return torch.tensor([0, 1, 3, IGNORE])[choice]  # class 2 is nowhere


def features() -> Tensor:
    return torch.randn(B, D, H, W, generator=generator())


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


# Regions


def test_masks_against_a_loop() -> None:
    total = torch.rand(B, C, H, W, generator=generator())
    total[0] *= 7  # a scale of its own: maxima are per image and class
    label = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    valid = torch.ones(B, H, W, dtype=torch.bool)
    valid[0, 0] = False
    got = region_masks(total, label, 0.6, valid)
    for b in range(B):
        peaks = [float(total[b, c].max()) for c in range(C)]
        for y in range(H):
            for x in range(W):
                best, score = 0, -1.0
                for c in range(C):
                    value = float(total[b, c, y, x]) / (peaks[c] + 1e-5) * float(label[b, c])
                    if value > score:
                        best, score = c + 1, value
                expected = best if score >= 0.6 else 0
                expected = expected if valid[b, y, x] else IGNORE
                assert int(got[b, y, x]) == expected


def test_maps_of_zeros_and_images_without_label_are_background() -> None:
    total = torch.zeros(1, C, H, W)
    assert (region_masks(total, torch.ones(1, C), 0.3) == 0).all()
    assert (region_masks(total + 1, torch.zeros(1, C), 0.3) == 0).all()


# Prototypes


def test_prototypes_against_a_loop() -> None:
    f, masks = features(), random_masks()
    got = region_prototypes(f, masks, C + 1)
    for k in range(C + 1):
        cells = [
            unit(f[b, :, y, x])
            for b in range(B)
            for y in range(H)
            for x in range(W)
            if int(masks[b, y, x]) == k
        ]
        assert bool(got.known[k]) == bool(cells)
        if cells:
            expected = unit(torch.stack(cells).mean(0))
            assert torch.allclose(got.vectors[k], expected, atol=1e-6)
        else:
            assert not got.vectors[k].any()


def test_no_gradient_reaches_prototypes() -> None:
    f = features().requires_grad_()
    assert not region_prototypes(f, random_masks(), C + 1).vectors.requires_grad


def test_features_of_zeros_make_no_prototype() -> None:
    got = region_prototypes(torch.zeros(B, D, H, W), random_masks(), C + 1)
    assert not got.known.any()


def test_memory_against_a_loop() -> None:
    old = Prototypes(torch.zeros(3, D), torch.tensor([True, True, False]))
    old.vectors[0], old.vectors[1] = unit(torch.randn(D)), unit(torch.randn(D))
    new = Prototypes(torch.zeros(3, D), torch.tensor([True, False, True]))
    new.vectors[0], new.vectors[2] = unit(torch.randn(D)), unit(torch.randn(D))
    got = remember(old, new, 0.9)
    assert got.known.all()
    assert torch.allclose(got.vectors[0], unit(0.9 * old.vectors[0] + 0.1 * new.vectors[0]))
    assert torch.equal(got.vectors[1], old.vectors[1])  # absent from the batch: as it was
    assert torch.equal(got.vectors[2], new.vectors[2])  # seen for the first time: not halved


# Contrast


def naive_contrast(f: Tensor, prototypes: Prototypes, masks: Tensor, t: float) -> float:
    values = []
    known = [k for k in range(len(prototypes.known)) if prototypes.known[k]]
    for b in range(B):
        for y in range(H):
            for x in range(W):
                own = int(masks[b, y, x])
                if own == IGNORE or own not in known:
                    continue
                v = unit(f[b, :, y, x])
                z = {k: math.exp(float(v @ prototypes.vectors[k]) / t) for k in known}
                values.append(-math.log(z[own] / sum(z.values())))
    return sum(values) / len(values)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_contrast_against_a_loop(temperature: float) -> None:
    f, masks = features(), random_masks()
    prototypes = region_prototypes(features().flip(0), masks, C + 1)
    assert not prototypes.known.all()
    got = region_contrast(f, prototypes, masks, temperature)
    assert float(got) == pytest.approx(naive_contrast(f, prototypes, masks, temperature), rel=1e-5)


def test_a_class_never_seen_is_no_negative() -> None:
    """Not even one of logit 0: adding an unknown class changes nothing."""
    f, masks = features(), torch.randint(0, 2, (B, H, W), generator=generator())
    two = region_prototypes(f, masks, 2)
    more = Prototypes(
        torch.cat([two.vectors, torch.randn(3, D)]), torch.tensor([1, 1, 0, 0, 0]) > 0
    )
    first, second = (region_contrast(f, p, masks, 0.1) for p in (two, more))
    assert torch.allclose(first, second)


def test_equal_prototypes_give_the_logarithm_of_their_number() -> None:
    same = Prototypes(unit(torch.ones(D)).expand(4, D), torch.ones(4, dtype=torch.bool))
    got = region_contrast(features(), same, random_masks(), 0.1)
    assert float(got) == pytest.approx(math.log(4), rel=1e-5)


def test_nothing_to_compare_is_zero_with_a_gradient_of_zero() -> None:
    f = features().requires_grad_()
    nothing = torch.full((B, H, W), IGNORE)
    known = region_prototypes(features(), random_masks(), C + 1)
    unknown = Prototypes(torch.zeros(C + 1, D), torch.zeros(C + 1, dtype=torch.bool))
    for prototypes, masks in ((known, nothing), (unknown, random_masks()), (unknown, nothing)):
        f.grad = None
        loss = region_contrast(f, prototypes, masks, 0.1)
        loss.backward()
        assert float(loss.detach()) == 0
        assert f.grad is not None
        assert not f.grad.any()


def test_bf16_features_and_autocast() -> None:
    f, masks = features().bfloat16().requires_grad_(), random_masks()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = region_contrast(f, region_prototypes(f, masks, C + 1), masks, 0.1)
    assert loss.dtype == torch.float32
    loss.backward()
    assert f.grad is not None
    assert f.grad.isfinite().all()
