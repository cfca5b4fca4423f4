"""Contrast of images against a loop over anchors."""

from __future__ import annotations

import math

import pytest
import torch

from wsss.losses.image_contrast import image_contrast


def naive(embeddings: torch.Tensor, labels: torch.Tensor, temperature: float) -> float:
    count, total = len(labels), 0.0
    units = [e / (float(e.norm()) + 1e-6) for e in embeddings]
    for i in range(count):
        positives, negatives = [], []
        for j in range(i + 1, count):
            value = math.exp(float(units[i] @ units[j]) / temperature)
            if bool((labels[i] == labels[j]).all()):
                positives.append(value)
            elif not bool((labels[i] * labels[j]).any()):
                negatives.append(value)
        if positives and len(negatives) > len(positives):
            up, down = 1e-6 + sum(positives), 1e-6 + sum(negatives)
            total -= math.log(up / (up + down))
    return total / count


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(10, 7, generator=generator)
    labels = (torch.rand(10, 3, generator=generator) < 0.4).float()
    labels[labels.sum(1) == 0, 0] = 1
    expected = naive(embeddings, labels, 0.5)
    assert float(image_contrast(embeddings, labels, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_some_of_these_samples_have_a_contrast() -> None:
    labels = torch.eye(3)[torch.tensor([0, 0, 1, 2])]
    assert image_contrast(torch.randn(4, 5), labels) > 0


def test_without_an_exact_match_of_labels_it_is_zero() -> None:
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    embeddings = torch.randn(4, 5, requires_grad=True)
    value = image_contrast(embeddings, labels)
    value.backward()
    assert value == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_as_many_negatives_as_positives_are_not_enough() -> None:
    labels = torch.eye(2)[torch.tensor([0, 0, 1])]
    assert image_contrast(torch.randn(3, 5), labels) == 0


def test_a_batch_of_one_and_empty_labels() -> None:
    assert image_contrast(torch.randn(1, 5), torch.ones(1, 2)) == 0
    assert image_contrast(torch.randn(3, 5), torch.zeros(3, 2)) == 0


def test_alike_images_of_one_class_cost_less() -> None:
    labels = torch.eye(2)[torch.tensor([0, 0, 1, 1])]
    sorted_out = torch.eye(2)[torch.tensor([0, 0, 1, 1])]
    mixed_up = torch.eye(2)[torch.tensor([0, 1, 0, 1])]
    assert image_contrast(sorted_out, labels) < image_contrast(mixed_up, labels)


def test_a_zero_embedding_has_a_finite_gradient() -> None:
    embeddings = torch.zeros(4, 5, requires_grad=True)
    image_contrast(embeddings, torch.eye(2)[torch.tensor([0, 0, 1, 1])]).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
