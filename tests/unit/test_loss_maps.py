"""Normalisations, equivariance and minimum pooling against loops written from the equations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from wsss.losses.equivariance import cross_equivariance, equivariance, hardest, minimum_pooling
from wsss.losses.normalisation import (
    floor_norm,
    max_norm,
    peak_norm,
    strongest_class,
    with_background,
    with_constant,
)

EPS = 1e-5


def maps(*shape: int, seed: int = 0) -> Tensor:
    """Values of both signs; channel 1 of image 0 never activates."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    values[0, 1] = -values[0, 1].abs()
    return values


def naive(values: Tensor, kind: str) -> np.ndarray:
    out = np.zeros(values.shape)
    for b, c in itertools.product(range(values.shape[0]), range(values.shape[1])):
        p = np.maximum(values[b, c].double().numpy(), 0)
        low, high = p.min(), p.max()
        if kind == "max":
            out[b, c] = np.maximum(p - low - EPS, 0) / (high - low + EPS)
        elif kind == "peak":
            out[b, c] = np.maximum(p - EPS, 0) / (high + EPS)
        else:
            q = np.where(p < low + EPS, 0, p)
            out[b, c] = (q - low - EPS) / (high - low + EPS)
    return out


@pytest.mark.parametrize(
    ("kind", "function"), [("max", max_norm), ("peak", peak_norm), ("floor", floor_norm)]
)
def test_normalisations_follow_their_equations(kind: str, function: object) -> None:
    values = maps(2, 3, 4, 5) + 0.7  # some channels have a positive minimum
    assert callable(function)
    np.testing.assert_allclose(function(values), naive(values, kind), rtol=1e-4, atol=1e-6)


def test_a_map_without_evidence() -> None:
    silent = torch.full((1, 2, 3, 3), -1.0)
    assert (max_norm(silent) == 0).all()
    assert (peak_norm(silent) == 0).all()
    torch.testing.assert_close(floor_norm(silent), torch.full_like(silent, -1.0))


def test_backgrounds() -> None:
    values = maps(2, 3, 4, 5).relu()
    found = with_background(values)
    assert torch.equal(found[:, 0], 1 - values.max(1).values)
    assert torch.equal(found[:, 1:], values)
    assert (with_constant(values, 0.3)[:, 0] == 0.3).all()


def test_only_the_strongest_class_stays() -> None:
    values = torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, 3.0], [0.5, 0.0, 1.0]]).reshape(1, 3, 1, 3)
    kept = strongest_class(values)[0, :, 0]
    # Equal ones stay, pixels without any activation too.
    assert kept.tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 3.0], [0.0, 0.0, 0.0]]
    assert values[0, 2, 0, 0] == 0.5  # the argument is left alone


def test_minimum_pooling_takes_the_lowest_quarter() -> None:
    values = maps(2, 3, 5, 7)
    expected = []
    for image in values:
        lowest = sorted(float(v) for v in image.max(0).values.flatten())[: 35 // 4]
        expected += [max(0.0, v) for v in lowest]
    assert float(minimum_pooling(values)) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_equivariance_counts_the_zeros() -> None:
    one, two = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    one[0, 2, 1, 1] = 0.8
    assert float(equivariance(one, two)) == pytest.approx(0.8 / 16)
    assert float(equivariance(one, one)) == 0


def test_the_hardest_share() -> None:
    values = torch.arange(20.0).view(2, 10)
    assert float(hardest(values, 0.2)) == pytest.approx((8 + 9 + 18 + 19) / 4)
    assert float(hardest(values, 0.01)) == pytest.approx((9 + 19) / 2)


def test_cross_equivariance_against_loops() -> None:
    other = max_norm(maps(2, 3, 4, 4))
    refined = max_norm(maps(2, 4, 4, 4, seed=1)).requires_grad_()
    other.requires_grad_()
    total = 0.0
    for b in range(2):
        differences = []
        for y, x in itertools.product(range(4), range(4)):
            cell = other[b, :, y, x].tolist()
            target = [1 - max(cell)] + [v if v == max(cell) else 0.0 for v in cell]
            differences += [
                abs(t - r) for t, r in zip(target, refined[b, :, y, x].tolist(), strict=True)
            ]
        top = sorted(differences, reverse=True)[: int(0.2 * 64)]
        total += sum(top) / len(top)
    loss = cross_equivariance(other, refined)
    assert float(loss) == pytest.approx(total / 2, rel=1e-4)
    loss.backward()
    assert other.grad is None
    assert refined.grad is not None
    assert int((refined.grad != 0).sum()) <= 2 * int(0.2 * 64)
