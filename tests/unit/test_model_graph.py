"""The graph of a batch's classes against naive loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.models.graph import (
    ResidualGcn,
    cosine_maps,
    drop_edges,
    edges,
    mask_features,
    node_features,
    propagation,
)

B, C, D = 3, 4, 5
N = B * C
LABEL = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
KEYS = torch.tensor([7, 8, 1 << 40])


def nodes() -> Tensor:
    return torch.randn(B, C, D, generator=torch.Generator().manual_seed(0))


def naive_edges(k: int, temperature: float, together: float) -> Tensor:
    flat, present = nodes().reshape(N, D), LABEL.flatten() > 0
    across = torch.zeros(N, N)
    within = torch.zeros(N, N)
    for i in range(N):
        if not present[i]:
            continue
        likes = {
            j: float(F.cosine_similarity(flat[i], flat[j], dim=0)) / temperature
            for j in range(N)
            if present[j] and j // C != i // C
        }
        nearest = sorted(likes, key=lambda j: -likes[j])[:k]
        total = sum(math.exp(likes[j]) for j in nearest)
        for j in nearest:
            across[i, j] = math.exp(likes[j]) / total
        for j in range(N):
            if present[j] and j // C == i // C and j != i:
                within[i, j] = together
    return (across + across.T) / 2 + within


@pytest.mark.parametrize(("k", "together"), [(1, 1.0), (2, 0.5), (8, 0.0)])
def test_edges_against_a_loop(k: int, together: float) -> None:
    got = edges(nodes(), LABEL, k, 0.2, together)
    assert torch.allclose(got, naive_edges(k, 0.2, together), atol=1e-5)
    assert torch.equal(got, got.T)


def test_absent_nodes_and_lonely_images_have_no_edges() -> None:
    assert not edges(nodes(), torch.zeros(B, C), 8, 0.1, 1.0).any()
    one = edges(nodes()[:1], LABEL[:1], 8, 0.1, 1.0)
    assert one.nonzero().tolist() == [[0, 1], [1, 0]]


def test_propagation_against_a_loop() -> None:
    links = edges(nodes(), LABEL, 8, 0.2, 1.0)
    got = propagation(links, LABEL)
    looped = links + torch.diag(LABEL.flatten())
    for i in range(N):
        for j in range(N):
            if float(looped[i, j]) == 0:
                assert float(got[i, j]) == 0
                continue
            expected = looped[i, j] / (looped[i].sum() * looped[j].sum()).sqrt()
            assert float(got[i, j]) == pytest.approx(float(expected), rel=1e-5)


def test_node_features_are_weighted_means() -> None:
    maps, features = torch.rand(2, 3, 4, 5), torch.randn(2, D, 4, 5)
    maps[0, 1] = 0
    got = node_features(maps, features)
    for b in range(2):
        for c in range(3):
            total = sum(maps[b, c, y, x] * features[b, :, y, x] for y in range(4) for x in range(5))
            expected = total / maps[b, c].sum().clamp(min=1e-5)
            assert torch.allclose(got[b, c], expected, atol=1e-5)
    assert not got[0, 1].any()


def test_views_depend_on_the_keys_alone() -> None:
    links = torch.ones(N, N)
    one, again = (drop_edges(links, KEYS, 0.2, 5) for _ in range(2))
    assert torch.equal(one, again)
    assert torch.equal(one, one.T), "an edge is cut in both directions"
    assert not torch.equal(one, drop_edges(links, KEYS, 0.2, 6))
    assert not torch.equal(one, drop_edges(links, KEYS + 1, 0.2, 5))
    assert torch.equal(drop_edges(links, KEYS, 0.0, 5), links)


def test_an_edge_is_drawn_for_itself_whatever_else_is_in_the_batch() -> None:
    whole, part = drop_edges(torch.ones(N, N), KEYS, 0.4, 1), torch.ones(2 * C, 2 * C)
    assert torch.equal(whole[: 2 * C, : 2 * C], drop_edges(part, KEYS[:2], 0.4, 1))


def test_as_many_edges_and_features_are_dropped_as_asked_for() -> None:
    keys, classes = torch.arange(32), 10
    links = drop_edges(torch.ones(320, 320), keys, 0.2, 0)
    assert float((links == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    masked = mask_features(torch.ones(32, classes, 64), keys, 0.1, 0)
    assert float((masked == 0).float().mean()) == pytest.approx(0.1, abs=0.01)


def test_convolutions_add_to_what_was_there() -> None:
    torch.manual_seed(0)
    gcn = ResidualGcn(D, 2)
    spread = propagation(edges(nodes(), LABEL, 8, 0.2, 1.0), LABEL)
    expected = nodes().reshape(N, D)
    for layer in gcn.layers:
        expected = expected + (spread @ expected @ layer.weight.T).relu()
    assert torch.allclose(gcn(nodes(), spread), expected.view(B, C, D), atol=1e-5)


def test_cosine_maps() -> None:
    features, vectors = torch.randn(B, D, 2, 3), nodes()
    got = cosine_maps(features, vectors)
    expected = F.cosine_similarity(features[1, :, 0, 2], vectors[1, 3], dim=0)
    assert got.shape == (B, C, 2, 3)
    assert torch.allclose(got[1, 3, 0, 2], expected, atol=1e-6)
    shared = cosine_maps(features, vectors[0])
    assert torch.allclose(shared[0], got[0], atol=1e-6)
    assert not cosine_maps(features, vectors * 0).any()
