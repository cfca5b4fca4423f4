"""Multi-label losses against loops over images and classes."""

from __future__ import annotations

import math

import pytest
import torch

from wsss.losses.ranking import focal, pairwise_ranking


def sample(count: int = 3, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, classes, generator=generator)
    return logits, torch.randint(0, 2, (count, classes), generator=generator).float()


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_focal_is_the_equation() -> None:
    logits, labels = sample()
    total = 0.0
    for b in range(3):
        for k in range(5):
            p = sigmoid(float(logits[b, k]))
            q = p if labels[b, k] else 1 - p
            total += -0.5 * (1 - q) ** 2 * math.log(q + 1e-9)
    assert float(focal(logits, labels)) == pytest.approx(total / 3, rel=1e-5)


def test_ranking_is_the_equation_with_its_zeros() -> None:
    logits, labels = sample()
    total = 0.0
    for b in range(3):
        pairs = 0.0
        for i in range(5):
            for j in range(5):
                p = sigmoid(float(logits[b, i])) * float(labels[b, i])
                n = sigmoid(float(logits[b, j])) * (1 - float(labels[b, j]))
                pairs += math.exp(n - p)
        total += math.log(1 + pairs / 25)
    assert float(pairwise_ranking(logits, labels)) == pytest.approx(total / 3, rel=1e-5)


@pytest.mark.parametrize("loss", [focal, pairwise_ranking])
def test_the_right_answer_costs_less(loss) -> None:  # type: ignore[no-untyped-def]
    _, labels = sample()
    right = 8 * (2 * labels - 1)
    assert loss(right, labels) < loss(0 * right, labels) < loss(-right, labels)


def test_certain_answers_are_finite() -> None:
    labels = torch.tensor([[1.0, 0.0]])
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    value = focal(logits, labels) + pairwise_ranking(logits, labels)
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
