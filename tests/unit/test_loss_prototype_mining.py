"""PPC's semi-hard prototypes and chosen cells against loops written from their description."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.losses.prototype_mining import Mining, chosen_cells, mined_contrast, rank_within

B, D, H, W = 2, 6, 5, 7
K = 21
PPC = Mining()


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(classes: int = K, seen: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, prototypes, labels of ``seen`` classes, draws."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, seen, (B, H, W), generator=generator)
    draws = torch.rand(B, H, W, generator=generator)
    return draw(B, D, H, W, seed=0), F.normalize(draw(classes, D, seed=1), dim=1), labels, draws


def naive(
    features: Tensor,
    centres: Tensor,
    labels: Tensor,
    draws: Tensor,
    mining: Mining,
    allowed: list[int] | None = None,
) -> float:
    """The loss, cell by cell and class by class, in float64."""
    protos = centres.double().numpy()
    cells = features.double().permute(0, 2, 3, 1).reshape(-1, D).numpy()
    own, uniform = labels.flatten().tolist(), draws.flatten().tolist()
    per_class: dict[int, list[tuple[float, float, float]]] = {}
    for cell, mine, luck in zip(cells, own, uniform, strict=True):
        unit = cell / np.linalg.norm(cell)
        energy = [float(unit @ p) / 0.1 for p in protos]
        rivals = [
            energy[k]
            for k in range(len(protos))
            if (k != mine or mining.own_ranked) and (allowed is None or k in allowed or k == mine)
        ]
        rivals.sort(reverse=True)
        chosen = rivals[mining.first - 1 : mining.last]
        negative = sum(math.exp(e) for e in chosen)
        loss = -math.log(math.exp(energy[mine]) / (math.exp(energy[mine]) + negative))
        per_class.setdefault(mine, []).append((energy[mine], luck, loss))
    means = []
    for members in per_class.values():
        half, skipped = len(members) // 2, int(0.1 * len(members))
        hard = sorted(members)[skipped : skipped + half]
        lucky = sorted(members, key=lambda m: m[1])[:half]
        chosen_losses = [loss for _, _, loss in hard + lucky]
        means.append(sum(chosen_losses) / len(chosen_losses) if chosen_losses else 0.0)
    return sum(means) / len(means)


@pytest.mark.parametrize("seen", [1, 4, 21])
@pytest.mark.parametrize("own_ranked", [True, False])
def test_against_loops(seen: int, own_ranked: bool) -> None:
    given = inputs(seen=seen)
    mining = PPC._replace(own_ranked=own_ranked)
    got = mined_contrast(*given, mining)
    assert float(got) == pytest.approx(naive(*given, mining), rel=1e-4)


def test_absent_prototypes_may_be_left_out() -> None:
    given = inputs()
    mining = PPC._replace(first=2, last=3)
    allowed = torch.zeros(K, dtype=torch.bool)
    allowed[:3] = True  # class 3 has cells, but is no negative
    got = mined_contrast(*given, mining, negatives=allowed)
    assert float(got) == pytest.approx(naive(*given, mining, allowed=[0, 1, 2]), rel=1e-4)


def test_few_prototypes_leave_the_least_similar_one() -> None:
    features, centres, labels, draws = inputs(classes=3, seen=3)
    given = (features, centres, labels, draws)
    got = mined_contrast(*given, PPC)
    assert float(got) == pytest.approx(naive(*given, PPC._replace(first=3, last=3)), rel=1e-4)


def test_equal_prototypes_cost_the_logarithm_of_those_that_count() -> None:
    features, _, labels, draws = inputs()
    centres = F.normalize(draw(1, D, seed=4), dim=1).expand(K, D)
    got = mined_contrast(features, centres, labels, draws, PPC)
    assert float(got) == pytest.approx(math.log(1 + 10), rel=1e-5)


def test_a_class_of_one_cell_adds_nothing_but_counts() -> None:
    features, centres, labels, draws = inputs(seen=1)
    whole = float(mined_contrast(features, centres, labels, draws, PPC))
    labels[1, 4, 6] = 5
    alone = float(mined_contrast(features, centres, labels, draws, PPC))
    assert alone == pytest.approx(naive(features, centres, labels, draws, PPC), rel=1e-4)
    assert alone == pytest.approx(whole / 2, rel=0.2)


def test_half_of_the_cells_are_hard_and_half_random() -> None:
    own = torch.tensor([0] * 20 + [1] * 5 + [3])
    ease = torch.arange(26).float()
    draws = ease.flip(0)
    counts, sizes = chosen_cells(ease, own, draws, 4, PPC)
    assert sizes.tolist() == [20, 5, 0, 1]
    # Hard: places 2 to 11 of 20; random: the ten with the lowest draws, the last ones here.
    assert counts[:20].tolist() == [0.0] * 2 + [1.0] * 8 + [2.0] * 2 + [1.0] * 8
    assert counts[20:25].tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert counts[25] == 0


def test_other_draws_choose_other_cells() -> None:
    features, centres, labels, draws = inputs()
    first = mined_contrast(features, centres, labels, draws, PPC)
    other = mined_contrast(features, centres, labels, 1 - draws, PPC)
    hard = PPC._replace(random_share=0.0)
    assert not torch.equal(first, other)
    assert torch.equal(
        mined_contrast(features, centres, labels, draws, hard),
        mined_contrast(features, centres, labels, 1 - draws, hard),
    )


def test_ranks_are_within_groups() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0])
    groups = torch.tensor([0, 1, 0, 0, 1])
    ranks = rank_within(values, groups, torch.tensor([3, 2]))
    assert ranks.tolist() == [2, 1, 0, 1, 0]


@pytest.mark.parametrize("seen", [1, 4])
def test_gradients_reach_the_features_alone(seen: int) -> None:
    features, centres, labels, draws = inputs(seen=seen)
    features.requires_grad_()
    centres.requires_grad_()
    mining = PPC._replace(own_ranked=False)
    mined_contrast(features, centres, labels, draws, mining).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad.any()
    assert centres.grad is None


def test_features_of_zero_are_finite() -> None:
    _, centres, labels, draws = inputs()
    features = torch.zeros(B, D, H, W, requires_grad=True)
    loss = mined_contrast(features, centres, labels, draws, PPC)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(11), rel=1e-5)
    assert features.grad is not None
    assert features.grad.isfinite().all()
