"""The affinity and its loss against naive loops, with their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wsss.losses.affinity import EPSILON, affinity, pair_loss, pair_sizes
from wsss.refine.affinity_labels import PairMasks, pair_masks
from wsss.refine.pairs import half_disc_offsets

GRIDS = [(5, 6), (1, 7), (7, 1), (1, 1), (2, 3)]
OFFSETS = half_disc_offsets(3)


def random_features(grid: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 4, *grid, generator=torch.Generator().manual_seed(0), dtype=dtype)


def random_labels(grid: tuple[int, int]) -> Tensor:
    choice = torch.randint(0, 4, (2, *grid), generator=torch.Generator().manual_seed(1))
    return torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[choice]


def naive_affinity(features: Tensor) -> Tensor:
    """Plain autograd, one pair at a time."""
    batch, _, height, width = features.shape
    rows = []
    for b in range(batch):
        for dy, dx in OFFSETS:
            for y in range(height):
                for x in range(width):
                    if not (0 <= y + dy < height and 0 <= x + dx < width):
                        rows.append(0 * features[b, 0, y, x])
                        continue
                    difference = features[b, :, y, x] - features[b, :, y + dy, x + dx]
                    rows.append(torch.exp(-difference.abs().mean()))
    return torch.stack(rows).reshape(batch, len(OFFSETS), height, width)


def naive_loss(values: Tensor, labels: Tensor) -> float:
    """Sums and counts of the three kinds of pairs over the batch."""
    sums, counts = [0.0] * 3, [EPSILON] * 3
    batch, height, width = labels.shape
    for b in range(batch):
        for p, (dy, dx) in enumerate(OFFSETS):
            for y in range(height):
                for x in range(width):
                    if not (0 <= y + dy < height and 0 <= x + dx < width):
                        continue
                    here, there = int(labels[b, y, x]), int(labels[b, y + dy, x + dx])
                    if 255 in (here, there):
                        continue
                    kind = 2 if here != there else int(here > 0)
                    value = float(values[b, p, y, x])
                    sums[kind] -= math.log((1 - value if kind == 2 else value) + EPSILON)
                    counts[kind] += 1
    background, foreground, negative = (s / c for s, c in zip(sums, counts, strict=True))
    return background / 4 + foreground / 4 + negative / 2


def loss_of(values: torch.Tensor, pairs: PairMasks) -> torch.Tensor:
    return pair_loss(values, pairs, pair_sizes(pairs))


def test_parts_of_a_batch_add_up() -> None:
    labels, values = random_labels((5, 6)), affinity(random_features((5, 6)), OFFSETS)
    whole = pair_masks(labels, OFFSETS)
    sizes = pair_sizes(whole)
    parts = [
        pair_loss(values[b : b + 1], pair_masks(labels[b : b + 1], OFFSETS), sizes)
        for b in range(len(labels))
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), pair_loss(values, whole, sizes))


@pytest.mark.parametrize("grid", GRIDS)
def test_affinity_and_gradient_equal_the_naive_loop(grid: tuple[int, int]) -> None:
    ours = random_features(grid).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    values, expected = affinity(ours, OFFSETS), naive_affinity(theirs)
    torch.testing.assert_close(values, expected)
    weights = torch.rand(values.shape, generator=torch.Generator().manual_seed(2))
    (values * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_loss_equals_the_naive_loop(grid: tuple[int, int]) -> None:
    labels, values = random_labels(grid), affinity(random_features(grid), OFFSETS)
    loss = loss_of(values, pair_masks(labels, OFFSETS))
    assert float(loss) == pytest.approx(naive_loss(values, labels), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite(scale: float) -> None:
    features = (random_features((5, 6)) * scale).requires_grad_()
    loss = loss_of(affinity(features, OFFSETS), pair_masks(random_labels((5, 6)), OFFSETS))
    loss.backward()
    assert loss.isfinite()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_only_ignored_pairs_cost_nothing() -> None:
    features = random_features((5, 6)).requires_grad_()
    labels = torch.full((2, 5, 6), 255, dtype=torch.uint8)
    loss = loss_of(affinity(features, OFFSETS), pair_masks(labels, OFFSETS))
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_loss_falls_when_features_follow_the_labels() -> None:
    labels = random_labels((5, 6))
    followed = labels[:, None].float().repeat(1, 4, 1, 1)
    masks = pair_masks(labels, OFFSETS)
    losses = [
        float(loss_of(affinity(f, OFFSETS), masks)) for f in (followed * 9, random_features((5, 6)))
    ]
    assert losses[0] < 0.01 < losses[1]


def test_half_precision_is_computed_in_single() -> None:
    features = random_features((5, 6))
    values = affinity(features.bfloat16(), OFFSETS)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, affinity(features, OFFSETS), atol=0.02, rtol=0)
