"""Pixel-wise group contrast against naive loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.labels import IGNORE
from wsss.losses.group_contrast import (
    Bank,
    Queue,
    bank_of,
    choose_anchors,
    enqueue,
    group_contrast,
    largest_sets,
    purity,
)
from wsss.losses.info_nce import info_nce
from wsss.losses.spherical_kmeans import Groups, spherical_groups

B, P, D, K = 3, 30, 5, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cells() -> Tensor:
    return F.normalize(torch.randn(B, P, D, generator=generator()), dim=2)


def random_masks() -> Tensor:
    """Class 3 is in the first image alone, class 2 nowhere."""
    masks = torch.randint(0, 2, (B, P), generator=generator(1))
    masks[0, :6] = 3
    masks[:, -4:] = IGNORE
    return masks


def parts(  # type: ignore[no-untyped-def]
    masks: Tensor, anchors: int = 8, queue: Queue | None = None, hard: float = 0.5
):
    features = cells()
    sets = largest_sets(masks, K, 3)
    groups = spherical_groups(features, sets.slots, sets.classes.shape[1], 2, 3, least=2)
    uniform = torch.rand(B, P, generator=generator(2))
    chosen = choose_anchors(features, sets, anchors, uniform, hard)
    return features, sets, groups, chosen, bank_of(groups, sets, queue)


# Sets


def test_the_largest_classes_of_each_image() -> None:
    masks = torch.tensor([[0, 0, 0, 1, 1, 3, 255], [2, 2, 255, 255, 255, 255, 255]])
    sets = largest_sets(masks, 4, 2)
    assert sets.classes[0].tolist() == [0, 1]
    assert sets.sizes.tolist() == [[3, 2], [2, 0]]
    assert sets.slots.tolist() == [[0, 0, 0, 1, 1, -1, -1], [0, 0, -1, -1, -1, -1, -1]]
    assert largest_sets(masks, 4, 9).classes.shape == (2, 4)


# Anchors


@pytest.mark.parametrize(("share", "hard"), [(0.5, 4), (0.0, 0), (1.0, 8), (0.3, 2)])
def test_anchors_are_the_least_typical_cells_and_random_others(share: float, hard: int) -> None:
    features, sets, _, anchors, _ = parts(random_masks(), hard=share)
    for b in range(B):
        for m in range(sets.classes.shape[1]):
            members = [p for p in range(P) if int(sets.slots[b, p]) == m]
            chosen = anchors.cells[b, m][anchors.valid[b, m]].tolist()
            assert len(chosen) == min(8, len(members))
            assert len(set(chosen)) == len(chosen), "a cell twice"
            assert set(chosen) <= set(members)
            if members:
                mean = F.normalize(features[b, members].sum(0), dim=0)
                by_likeness = sorted(members, key=lambda p: float(features[b, p] @ mean))
                assert set(by_likeness[:hard]) <= set(chosen)


def test_random_anchors_depend_on_the_draw_alone() -> None:
    features, sets, *_ = parts(random_masks())
    draws = [torch.rand(B, P, generator=generator(seed)) for seed in (3, 3, 4)]
    one, again, other = (choose_anchors(features, sets, 8, draw) for draw in draws)
    assert torch.equal(one.cells, again.cells)
    assert not torch.equal(one.cells, other.cells)


# Contrast


def test_info_nce_against_a_loop() -> None:
    similar = torch.randn(4, 6, generator=generator())
    positives = torch.rand(4, 6, generator=generator(1)) < 0.4
    negatives = (torch.rand(4, 6, generator=generator(2)) < 0.5) & ~positives
    positives[0], negatives[1] = False, False
    got = info_nce(similar, positives, negatives)
    for i in range(4):
        against = sum(math.exp(float(similar[i, n])) for n in range(6) if negatives[i, n])
        own = [math.exp(float(similar[i, u])) for u in range(6) if positives[i, u]]
        values = [-math.log(e / (e + against)) for e in own]
        expected = sum(values) / len(values) if values else 0
        assert float(got[i]) == pytest.approx(expected, abs=1e-5)
    assert got[0] == got[1] == 0


def naive_contrast(masks: Tensor, temperature: float, extra: list[tuple[int, Tensor]]) -> float:
    features, sets, groups, anchors, _ = parts(masks)
    bank = [
        (b, int(sets.classes[b, m]), groups.centroids[b, m, j])
        for b in range(B)
        for m in range(sets.classes.shape[1])
        for j in range(2)
        if groups.sizes[b, m, j] > 0
    ]
    bank += [(-1, kind, vector) for kind, vector in extra]
    values = []
    for b in range(B):
        for m in range(sets.classes.shape[1]):
            kind = int(sets.classes[b, m])
            positives = [u for image, c, u in bank if c == kind and image != b]
            positives = positives or [u for image, c, u in bank if c == kind]
            negatives = [u for _, c, u in bank if c != kind]
            for a in anchors.cells[b, m][anchors.valid[b, m]].tolist():
                v = features[b, a]
                against = sum(math.exp(float(v @ u) / temperature) for u in negatives)
                own = [math.exp(float(v @ u) / temperature) for u in positives]
                values.append(sum(-math.log(e / (e + against)) for e in own) / len(own))
    return sum(values) / len(values)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_contrast_against_a_loop(temperature: float) -> None:
    features, sets, _, anchors, bank = parts(random_masks())
    got = group_contrast(features, sets, anchors, bank, temperature)
    assert float(got) == pytest.approx(naive_contrast(random_masks(), temperature, []), rel=1e-4)


def test_a_queue_adds_positives_and_negatives() -> None:
    queue = Queue(torch.zeros(K, 2, D), torch.zeros(K, 2, dtype=torch.bool))
    queue.vectors[3, 0], queue.valid[3, 0] = F.normalize(torch.ones(D), dim=0), True
    queue.vectors[2, 1], queue.valid[2, 1] = F.normalize(-torch.ones(D), dim=0), True
    features, sets, _, anchors, bank = parts(random_masks(), queue=queue)
    got = group_contrast(features, sets, anchors, bank, 0.1)
    extra = [(3, queue.vectors[3, 0]), (2, queue.vectors[2, 1])]
    assert float(got) == pytest.approx(naive_contrast(random_masks(), 0.1, extra), rel=1e-4)


def test_gradient_reaches_the_anchors_alone() -> None:
    features, sets, groups, anchors, _ = parts(random_masks())
    features = features.clone().requires_grad_()
    centroids = groups.centroids.clone().requires_grad_()
    bank = bank_of(groups._replace(centroids=centroids), sets)
    group_contrast(features, sets, anchors, bank, 0.1).backward()
    assert centroids.grad is None
    used = {(b, int(p)) for b in range(B) for p in anchors.cells[b][anchors.valid[b]]}
    assert features.grad is not None
    moved = {(b, p) for b in range(B) for p in range(P) if features.grad[b, p].any()}
    assert moved == used


@pytest.mark.parametrize("kind", ["ignore", "one class", "one image"])
def test_degenerate_batches(kind: str) -> None:
    masks = random_masks()
    masks = {
        "ignore": torch.full_like(masks, IGNORE),
        "one class": torch.ones_like(masks),
        "one image": masks,
    }[kind]
    features, sets, _, anchors, bank = parts(masks)
    if kind == "one image":
        features, masks = features[:1], masks[:1]
        sets = largest_sets(masks, K, 3)
        groups = spherical_groups(features, sets.slots, 3, 2, 3)
        anchors = choose_anchors(features, sets, 8, torch.rand(1, P))
        bank = bank_of(groups, sets)
    features = features.clone().requires_grad_()
    loss = group_contrast(features, sets, anchors, bank, 0.1)
    loss.backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    if kind == "one image":
        assert loss.item() > 0
    else:  # nothing to contrast, or nothing to contrast it with
        assert loss.item() == 0


# What the streams exchange


def test_purity_is_the_mean_cosine_inside_groups() -> None:
    _, sets, groups, _, _ = parts(random_masks())
    got = purity(groups, sets, K)
    assert got.shape == (B, K)
    assert (got[:, 2] == 0).all()
    assert (got[1:, 3] == 0).all()
    for b in range(B):
        for m in range(3):
            if sets.sizes[b, m]:
                sizes, cosines = groups.sizes[b, m], groups.cosines[b, m]
                expected = float((sizes * cosines).sum() / sizes.sum())
                assert float(got[b, sets.classes[b, m]]) == pytest.approx(max(0, expected))


def test_equal_cells_are_pure() -> None:
    sets = largest_sets(torch.zeros(1, 9, dtype=torch.int64), 2, 2)
    same = F.normalize(torch.ones(1, 9, D), dim=2)
    assert purity(spherical_groups(same, sets.slots, 2, 2, 2), sets, 2).tolist() == [
        pytest.approx([1.0, 0.0])
    ]


def test_the_queue_is_first_in_first_out() -> None:
    queue = Queue(torch.zeros(2, 3, 1), torch.zeros(2, 3, dtype=torch.bool))
    sets = largest_sets(torch.tensor([[1, 1]]), 2, 1)
    for value in range(1, 6):
        groups = Groups(torch.full((1, 1, 1, 1), float(value)), torch.ones(1, 1, 1), torch.ones(1))
        queue = enqueue(queue, groups, sets)
        newest = [float(v) for v in range(value, 0, -1)][:3]
        assert queue.vectors[1, : len(newest), 0].tolist() == newest
        assert queue.valid[1].tolist() == [k < len(newest) for k in range(3)]
        assert not queue.valid[0].any()


def test_bf16_autocast_is_finite() -> None:
    features, sets, _, anchors, bank = parts(random_masks())
    features = features.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = group_contrast(features, sets, anchors, bank, 0.1)
    assert loss.dtype == torch.float32
    loss.backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_a_bank_says_where_its_vectors_come_from() -> None:
    _, sets, groups, _, bank = parts(random_masks())
    assert isinstance(bank, Bank)
    assert bank.images.view(groups.sizes.shape)[2].unique().tolist() == [2]
    assert torch.equal(bank.classes.view(groups.sizes.shape)[..., 0], sets.classes)
