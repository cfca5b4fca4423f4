"""Semantic-wise graph contrast against naive loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.losses.graph_contrast import graph_contrast, node_classification

B, C, D = 3, 4, 5
LABEL = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])


def views() -> tuple[Tensor, Tensor]:
    both = torch.randn(2, B, C, D, generator=torch.Generator().manual_seed(0))
    return both[0], both[1]


def naive(one: Tensor, two: Tensor, label: Tensor, weights: Tensor, t: float) -> float:
    nodes = [
        (view, b, c, F.normalize(given[b, c], dim=0))
        for view, given in enumerate((one, two))
        for b in range(len(label))
        for c in range(C)
        if label[b, c]
    ]
    total, share = 0.0, 0.0
    for view, b, c, v in nodes:
        own = [
            math.exp(float(v @ u) / t)
            for w, n, k, u in nodes
            if k == c and (n != b or w != view)  # other images, or itself in the other view
        ]
        against = sum(math.exp(float(v @ u) / t) for _, _, k, u in nodes if k != c)
        value = sum(-math.log(e / (e + against)) for e in own) / len(own)
        total += float(weights[b, c]) * value
        share += float(weights[b, c])
    return total / share


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_against_a_loop(temperature: float) -> None:
    one, two = views()
    weights = torch.rand(B, C, generator=torch.Generator().manual_seed(1))
    got = graph_contrast(one, two, LABEL, weights, temperature)
    assert float(got) == pytest.approx(naive(one, two, LABEL, weights, temperature), rel=1e-5)


def test_absent_nodes_take_no_part() -> None:
    one, two = views()
    changed = torch.where(LABEL[..., None] > 0, one, 100.0)
    first, second = (graph_contrast(v, two, LABEL, torch.ones(B, C), 0.1) for v in (one, changed))
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ["no labels", "no weights", "one class", "one image"])
def test_degenerate_batches(kind: str) -> None:
    one, two = (view.requires_grad_() for view in views())
    label, weights = LABEL.clone(), torch.ones(B, C)
    if kind == "no labels":
        label = label * 0
    elif kind == "no weights":
        weights = weights * 0
    elif kind == "one class":
        label = torch.eye(C)[0].expand(B, C)
    else:
        one, two, label, weights = one[:1], two[:1], label[:1], weights[:1]
    loss = graph_contrast(one, two, label, weights, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0) if kind != "one image" else loss.item() > 0


def test_no_gradient_reaches_the_weights() -> None:
    one, two = (view.requires_grad_() for view in views())
    weights = torch.ones(B, C, requires_grad=True)
    graph_contrast(one, two, LABEL, weights, 0.1).backward()
    assert weights.grad is None
    assert one.grad is not None
    assert one.grad[LABEL > 0].any()
    assert not one.grad[LABEL == 0].any()


def test_nodes_are_classified() -> None:
    logits = torch.randn(B, C, C, generator=torch.Generator().manual_seed(0))
    values = [
        -float(logits[b, c].log_softmax(0)[c]) for b in range(B) for c in range(C) if LABEL[b, c]
    ]
    got = node_classification(logits, LABEL)
    assert float(got) == pytest.approx(sum(values) / len(values), rel=1e-5)
    assert float(node_classification(logits * 0, LABEL)) == pytest.approx(math.log(C))
    assert float(node_classification(logits, LABEL * 0)) == 0
