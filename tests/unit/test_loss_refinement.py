"""Normalised class maps and the refinement loss against loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch

from wsss.losses.normalisation import divided_by_peak, max_norm, softmax_norm
from wsss.losses.refinement import hardest_mean, refinement_loss


def maps_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_softmax_norm_is_the_equation() -> None:
    maps = maps_of(2, 3, 2, 2)
    got = softmax_norm(maps)
    for b in range(2):
        for y in range(2):
            for x in range(2):
                weights = [math.exp(float(v)) for v in maps[b, :, y, x]]
                shares = [w / sum(weights) for w in weights]
                expected = torch.tensor([1 - max(shares), *shares])
                torch.testing.assert_close(got[b, :, y, x], expected)


def test_max_norm_is_the_equation_and_its_bounds_carry_gradient() -> None:
    maps = maps_of(1, 2, 3, 3).requires_grad_()
    got = max_norm(maps, 1e-6)
    for k in range(2):
        x = maps[0, k].detach().clamp(min=0)
        low, high = float(x.min()), float(x.max())
        expected = ((x - low - 1e-6) / (high - low + 1e-6)).clamp(min=0)
        torch.testing.assert_close(got[0, k], expected)
    assert got.min() >= 0
    assert got.max() <= 1
    got[0, 0].sum().backward()
    assert maps.grad is not None
    top = int(maps[0, 0].argmax())
    # The largest pixel is 1 in any case: it matters to the others alone.
    assert maps.grad[0, 0].flatten()[top] < 0


def test_a_map_without_contrast_becomes_zero() -> None:
    constant = torch.full((1, 1, 3, 3), 0.7, requires_grad=True)
    got = max_norm(constant, 1e-6)
    assert not got.any()
    got.sum().backward()
    assert constant.grad is not None
    assert constant.grad.isfinite().all()
    assert not divided_by_peak(torch.zeros(1, 1, 2, 2)).any()


def test_the_largest_values_count() -> None:
    values = torch.tensor([[1.0, 5, 3, 2], [4, 4, 0, 0]])
    assert hardest_mean(values, torch.tensor([2, 3])) == pytest.approx((4 + 8 / 3) / 2)
    # One at least, all at most.
    assert hardest_mean(values, torch.tensor([0, 99])) == pytest.approx((5 + 2) / 2)


@pytest.mark.parametrize("most", [3, 5, 20, 99, None])
def test_only_as_many_as_count_are_put_in_order(most: int | None) -> None:
    values, counts = torch.rand(4, 20), torch.tensor([1, 3, 2, 0])
    ordered = values.sort(dim=1, descending=True).values
    expected = [ordered[b, : max(1, int(n))].mean() for b, n in enumerate(counts)]
    torch.testing.assert_close(hardest_mean(values, counts, most), torch.stack(expected).mean())


@pytest.mark.parametrize("per_batch", [False, True])
def test_the_refinement_loss_is_the_loop(per_batch: bool) -> None:
    plain, refined = maps_of(3, 4, 6, 5).relu(), maps_of(3, 4, 6, 5, seed=1).relu()
    labels = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1]])
    one, two = softmax_norm(plain), softmax_norm(refined)
    total = 0.0
    for b in range(3):
        positives = int(labels.sum()) if per_batch else int(labels[b].sum())
        values = []
        for k in range(5):
            here = 1.0 if k == 0 else float(labels[b, k - 1])
            values += (here * (one[b, k] - two[b, k]).abs()).flatten().tolist()
        count = min(int(0.2 * positives * 30), len(values))
        total += sum(sorted(values, reverse=True)[:count]) / count
    got = refinement_loss(plain, refined, labels, 0.2, labels.sum() if per_batch else None)
    assert float(got) == pytest.approx(total / 3, rel=1e-5)


def test_only_the_refined_maps_learn() -> None:
    plain, refined = (maps_of(1, 2, 4, 4, seed=s).requires_grad_() for s in (0, 1))
    refinement_loss(plain, refined, torch.tensor([[1.0, 0]])).backward()
    assert plain.grad is None
    assert refined.grad is not None
    assert refined.grad.any()


def test_more_labels_than_there_is_room_for() -> None:
    plain, refined = maps_of(8, 2, 3, 3), maps_of(8, 2, 3, 3, seed=1)
    labels = torch.ones(8, 2)
    assert refinement_loss(plain, refined, labels, 1.0, labels.sum()).isfinite()
