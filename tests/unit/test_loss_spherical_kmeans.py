"""Spherical k-means of many sets at once against one of a single set in plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.losses.spherical_kmeans import spherical_groups

B, P, D, M = 2, 40, 6, 3


def cells(seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(B, P, D, generator=torch.Generator().manual_seed(seed)), dim=2)


def random_sets() -> Tensor:
    return torch.randint(-1, M, (B, P), generator=torch.Generator().manual_seed(1))


def naive(points: list[Tensor], groups: int, iterations: int) -> tuple[list[Tensor], list[int]]:
    """Centroids and sizes of one set."""
    mean = F.normalize(torch.stack(points).sum(0), dim=0)
    centroids = [max(points, key=lambda p: float(p @ mean))]
    while len(centroids) < groups:
        centroids.append(min(points, key=lambda p: max(float(p @ c) for c in centroids)))
    for _ in range(iterations):
        members: list[list[Tensor]] = [[] for _ in centroids]
        for point in points:
            likes = [float(point @ c) for c in centroids]
            members[likes.index(max(likes))].append(point)
        for j, found in enumerate(members):
            if found:
                centroids[j] = F.normalize(torch.stack(found).sum(0), dim=0)
    return centroids, [len(found) for found in members]


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_against_a_loop(groups: int) -> None:
    features, sets = cells(), random_sets()
    got = spherical_groups(features, sets, M, groups, 4, least=1)
    for b in range(B):
        for m in range(M):
            points = [features[b, p] for p in range(P) if int(sets[b, p]) == m]
            assert len(points) >= groups
            centroids, sizes = naive(points, groups, 4)
            assert got.sizes[b, m].tolist() == sizes
            assert torch.allclose(got.centroids[b, m], torch.stack(centroids), atol=1e-5)


def test_groups_that_are_there_are_found() -> None:
    axes = torch.eye(D)[:3]
    noise = 0.05 * torch.randn(1, 30, D, generator=torch.Generator().manual_seed(0))
    features = F.normalize(axes.repeat(10, 1)[None] + noise, dim=2)
    got = spherical_groups(features, torch.zeros(1, 30, dtype=torch.int64), 1, 3, 3)
    assert sorted(got.sizes.flatten().tolist()) == [10, 10, 10]
    assert (got.cosines > 0.95).all()
    assert (got.centroids[0, 0] @ axes.T).amax(1).min() > 0.95


def test_cosines_are_means_over_members() -> None:
    got = spherical_groups(cells(), random_sets(), M, 1, 1)
    features, sets = cells(), random_sets()
    members = features[0][sets[0] == 1]
    expected = (members @ got.centroids[0, 1, 0]).mean()
    assert torch.allclose(got.cosines[0, 1, 0], expected, atol=1e-6)


def test_few_cells_are_one_group() -> None:
    sets = torch.full((B, P), -1)
    sets[0, :23], sets[1, :24] = 0, 0
    got = spherical_groups(cells(), sets, M, 3, 3, least=8)
    assert (got.sizes[0, 0] > 0).tolist() == [True, False, False]
    assert (got.sizes[1, 0] > 0).sum() > 1
    assert got.sizes.sum((1, 2)).tolist() == [23, 24]


def test_fewer_cells_than_groups() -> None:
    """Even where ``least`` asks for groups all the same."""
    sets = torch.full((B, P), -1)
    sets[0, :2], sets[1, 5] = 0, 1
    got = spherical_groups(cells(), sets, M, 4, 3, least=0)
    assert got.sizes.sum((1, 2)).tolist() == [2, 1]
    assert got.centroids.isfinite().all()
    assert got.cosines.isfinite().all()


def test_no_cells_and_equal_cells() -> None:
    nothing = spherical_groups(cells(), torch.full((B, P), -1), M, 3, 3)
    assert not nothing.sizes.any()
    assert nothing.centroids.isfinite().all()
    same = cells()[:, :1].expand(B, P, D)
    got = spherical_groups(same, torch.zeros(B, P, dtype=torch.int64), M, 3, 3)
    assert got.sizes[:, 0].max() == P
    assert got.sizes.sum((1, 2)).tolist() == [P, P]


def test_no_gradient_and_bf16() -> None:
    features = cells().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = spherical_groups(features.bfloat16(), random_sets(), M, 3, 3)
    assert got.centroids.dtype == torch.float32
    assert not got.centroids.requires_grad
    assert got.centroids.isfinite().all()
