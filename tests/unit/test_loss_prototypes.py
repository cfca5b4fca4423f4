"""Prototypes, their contrast and the compensator against loops written from the equations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.losses.compensation import compensate, compensation_loss
from wsss.losses.normalisation import floor_norm, max_norm
from wsss.losses.prototypes import (
    Selection,
    prototype_contrast,
    prototypes,
    pseudo_labels,
    select_cells,
)

B, K, D, H, W = 2, 4, 6, 3, 5
COUNT = 7


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scores_and_features() -> tuple[Tensor, Tensor]:
    scores = floor_norm(draw(B, K, H, W, seed=0))
    scores[:, 0] = 0.2
    return scores, draw(B, D, H, W, seed=1).relu()


def unit(vector: np.ndarray) -> np.ndarray:
    result: np.ndarray = vector / np.linalg.norm(vector)
    return result


def naive_cells(scores: Tensor, features: Tensor, k: int) -> list[tuple[float, np.ndarray]]:
    """All cells of the batch, (score, feature), best first."""
    cells = [
        (float(scores[b, k, y, x]), features[b, :, y, x].double().numpy())
        for b, y, x in itertools.product(range(B), range(H), range(W))
    ]
    return sorted(cells, key=lambda cell: -cell[0])[:COUNT]


def test_prototypes_are_weighted_means_over_the_whole_batch() -> None:
    scores, features = scores_and_features()
    got = prototypes(select_cells(scores, features, COUNT)).numpy()
    for k in range(1, K):
        chosen = naive_cells(scores, features, k)
        mean = sum(w * f for w, f in chosen) / sum(w for w, _ in chosen)
        np.testing.assert_allclose(got[k], unit(mean), rtol=1e-4, atol=1e-6)


def test_a_class_without_evidence_has_the_plain_mean() -> None:
    """Its scores are all -1: weights and their sum change sign together."""
    features = draw(B, D, H, W, seed=1).relu()
    silent = floor_norm(torch.full((B, K, H, W), -1.0))
    chosen = select_cells(silent, features, COUNT)
    expected = F.normalize(chosen.features.mean(1), dim=1)
    torch.testing.assert_close(prototypes(chosen), expected)


def test_weights_that_cancel_give_a_finite_prototype() -> None:
    chosen = Selection(torch.tensor([[1.0, -1.0]]), torch.ones(1, 2, D))
    assert prototypes(chosen).isfinite().all()


def test_a_batch_with_fewer_cells_gives_them_all() -> None:
    scores, features = scores_and_features()
    chosen = select_cells(scores, features, 1000)
    assert chosen.weights.shape == (K, B * H * W)
    assert chosen.features.shape == (K, B * H * W, D)


def test_pseudo_labels_know_the_present_classes_alone() -> None:
    scores, _ = scores_and_features()
    presence = torch.tensor([[1.0, 1, 0, 0], [1.0, 0, 1, 1]])
    got = pseudo_labels(scores, presence)
    for b, y, x in itertools.product(range(B), range(H), range(W)):
        values = [float(s) * float(p) for s, p in zip(scores[b, :, y, x], presence[b], strict=True)]
        exponents = np.exp(values)
        assert int(got[b, y, x]) == int(np.argmax(exponents / exponents.sum()))
    assert set(got[0].unique().tolist()) <= {0, 1}


def test_contrast_against_loops() -> None:
    scores, features = scores_and_features()
    centres = prototypes(select_cells(scores, features, COUNT))
    labels = pseudo_labels(scores, torch.ones(B, K))
    total = 0.0
    for b, y, x in itertools.product(range(B), range(H), range(W)):
        f = unit(features[b, :, y, x].double().numpy())
        energies = np.exp(centres.double().numpy() @ f / 0.1)
        total += -math.log(energies[int(labels[b, y, x])] / energies.sum())
    got = prototype_contrast(features, centres, labels, 0.1)
    assert float(got) == pytest.approx(total / (B * H * W), rel=1e-4)


@pytest.mark.parametrize("classes", [1, 5, 20])
def test_equal_prototypes_give_the_logarithm_of_their_number(classes: int) -> None:
    features = draw(B, D, H, W, seed=3)
    centres = F.normalize(draw(1, D, seed=4), dim=1).expand(classes + 1, D)
    labels = torch.randint(0, classes + 1, (B, H, W))
    loss = prototype_contrast(features, centres, labels)
    assert float(loss) == pytest.approx(math.log(classes + 1), rel=1e-6)


def test_absent_prototypes_may_be_left_out() -> None:
    scores, features = scores_and_features()
    centres = prototypes(select_cells(scores, features, COUNT))
    labels = torch.zeros(B, H, W, dtype=torch.int64)
    labels[0, 0, 0] = 3
    kept = torch.tensor([True, True, False, False])
    got = prototype_contrast(features, centres, labels, negatives=kept)
    some = prototype_contrast(features, centres[:2], labels.clamp(max=1))
    assert got.isfinite()
    assert not torch.isclose(got, some)  # the cell of class 3 keeps its own
    only = prototype_contrast(features[1:], centres, labels[1:], negatives=kept)
    torch.testing.assert_close(only, prototype_contrast(features[1:], centres[:2], labels[1:]))


def test_no_gradient_reaches_prototypes_or_scores() -> None:
    scores, features = (t.requires_grad_() for t in scores_and_features())
    centres = prototypes(select_cells(scores, features, COUNT))
    assert not centres.requires_grad
    prototype_contrast(features, centres, pseudo_labels(scores, torch.ones(B, K))).backward()
    assert scores.grad is None
    assert features.grad is not None
    assert features.grad.any()


def test_the_compensator_against_loops() -> None:
    scores, features = scores_and_features()
    chosen = select_cells(scores, features, COUNT)
    got = compensate(scores, features, chosen)
    for k in range(1, K):
        cells = naive_cells(scores, features, k)
        for b, y, x in itertools.product(range(B), range(H), range(W)):
            f = unit(features[b, :, y, x].double().numpy())
            attention = np.exp([f @ unit(t) for _, t in cells])
            attention /= attention.sum()
            added = sum(a * w for a, (w, _) in zip(attention, cells, strict=True))
            expected = float(scores[b, k, y, x]) + added
            assert float(got[b, k, y, x]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_absent_classes_keep_their_scores_and_that_changes_no_loss() -> None:
    scores, features = scores_and_features()
    chosen = select_cells(scores, features, COUNT)
    present = torch.tensor([True, False, True, False])
    some, every = (compensate(scores, features, chosen, p) for p in (present, None))
    assert torch.equal(some[:, ~present], scores[:, ~present])
    assert torch.equal(some[:, present], every[:, present])
    label = present.float().expand(B, K)
    maps = max_norm(draw(B, K, 8, 8, seed=5)) * label[:, :, None, None]
    losses = [compensation_loss(maps, target, label) for target in (some, every)]
    assert torch.equal(*losses)


def test_the_compensation_loss_against_loops() -> None:
    new, label = draw(B, 3, H, W, seed=6), torch.tensor([[1.0, 0, 1], [0.0, 1, 1]])
    maps = max_norm(draw(B, 3, 6, 6, seed=7)) * label[:, :, None, None]
    maps = maps.requires_grad_()
    target = F.interpolate(max_norm(new), (6, 6), mode="bilinear", align_corners=True)
    target = target * label[:, :, None, None]
    total = 0.0
    for b in range(B):
        differences = []
        for y, x in itertools.product(range(6), range(6)):
            one, two = (t[b, :, y, x].tolist() for t in (target, maps))
            kept = [[v if v == max(cell) else 0.0 for v in cell] for cell in (one, two)]
            differences += [abs(a - c) for a, c in zip(*kept, strict=True)]
        top = sorted(differences, reverse=True)[: int(0.8 * 108)]
        total += sum(top) / len(top)
    loss = compensation_loss(maps, new.requires_grad_(), label)
    assert float(loss) == pytest.approx(total / B, rel=1e-4)
    loss.backward()
    assert new.grad is None
    assert maps.grad is not None
    # Entries that are not the largest of their cell get nothing.
    beaten = maps < maps.amax(1, keepdim=True)
    assert (maps.grad[beaten] == 0).all()
    assert maps.grad.any()
