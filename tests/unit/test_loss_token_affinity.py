"""Token affinity and its labels against loops written from their equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wsss.losses.token_affinity import cell_labels, token_affinity_loss


def naive(features: Tensor, labels: Tensor) -> float:
    total = 0.0
    for maps, ids in zip(features, labels, strict=True):
        tokens, classes = maps.flatten(1).T, ids.flatten().tolist()
        like, unlike, alike, different = 0.0, 0.0, 0, 0
        for i, one in enumerate(tokens):
            for j, other in enumerate(tokens):
                if i == j or 255 in (classes[i], classes[j]):
                    continue
                value = abs(float(one @ other) / float(one.norm() * other.norm()))
                if classes[i] == classes[j]:
                    like, alike = like + value, alike + 1
                else:
                    unlike, different = unlike + value, different + 1
        total += 0.5 * (1 - like / (alike + 1)) + 0.5 * unlike / (different + 1)
    return total / len(features)


@pytest.mark.parametrize("count", [1, 3])
def test_it_is_what_loops_give(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    features = torch.randn(count, 6, 3, 4, generator=generator)
    labels = torch.randint(0, 4, (count, 3, 4), generator=generator)
    labels[labels == 3] = 255
    value = token_affinity_loss(features, labels)
    assert float(value) == pytest.approx(naive(features, labels), rel=1e-5)


def test_without_known_cells_nothing_learns() -> None:
    features = torch.randn(2, 6, 3, 4, requires_grad=True)
    value = token_affinity_loss(features, torch.full((2, 3, 4), 255))
    value.backward()
    assert float(value) == 0.5
    assert features.grad is not None
    assert not features.grad.any()


def test_zero_tokens_are_finite_in_bf16() -> None:
    features = torch.zeros(1, 6, 3, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = token_affinity_loss(features.bfloat16(), torch.zeros(1, 3, 4, dtype=torch.int64))
    value.backward()
    assert value.isfinite()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_labels_of_cells() -> None:
    cam = torch.zeros(1, 3, 1, 6)
    cam[0, 2, 0] = torch.tensor([0.2, 0.25, 0.3, 0.7, 0.71, 0.9])
    cam[0, 0, 0, 2] = 0.8
    valid = torch.tensor([[[True, True, True, True, True, False]]])
    assert cell_labels(cam, 0.25, 0.7, valid).tolist() == [[[0, 0, 1, 255, 3, 255]]]


def test_half_precision_gives_what_single_does() -> None:
    """Norms of 768 numbers of size 20 leave the range of fp16 when they are squared."""
    generator = torch.Generator().manual_seed(2)
    features = (torch.randn(2, 768, 6, 6, generator=generator) * 20).half().requires_grad_()
    labels = torch.randint(0, 4, (2, 6, 6), generator=generator)
    labels[labels == 3] = 255
    with torch.autocast("cpu", dtype=torch.float16):
        value = token_affinity_loss(features, labels)
    exact = token_affinity_loss(features.detach().float(), labels)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)
    (value * 1024).backward()  # as a loss scaler does
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad.any()
