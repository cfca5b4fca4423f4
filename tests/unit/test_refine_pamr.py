"""PAMR against a naive loop over cells."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wsss.refine.local import refine_locally
from wsss.refine.pamr import pamr_weights

H, W = 6, 7


def image() -> Tensor:
    return torch.rand(1, 3, H, W, generator=torch.Generator().manual_seed(0))


def neighbours(y: int, x: int, dilation: int, centre: bool) -> list[tuple[int, int]]:
    return [
        (min(max(y + dy * dilation, 0), H - 1), min(max(x + dx * dilation, 0), W - 1))
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if centre or (dy, dx) != (0, 0)
    ]


def naive_weights(pixels: Tensor, dilations: tuple[int, ...], y: int, x: int) -> list[float]:
    scores = []
    for d in dilations:
        for qy, qx in neighbours(y, x, d, centre=False):
            value = 0.0
            for c in range(3):
                window = [
                    float(pixels[0, c, wy, wx])
                    for each in dilations
                    for wy, wx in neighbours(y, x, each, centre=True)
                ]
                mean = sum(window) / len(window)
                std = math.sqrt(sum((v - mean) ** 2 for v in window) / (len(window) - 1))
                difference = abs(float(pixels[0, c, qy, qx]) - float(pixels[0, c, y, x]))
                value -= difference / (1e-8 + 0.1 * std) / 3
            scores.append(value)
    total = sum(math.exp(s) for s in scores)
    return [math.exp(s) / total for s in scores]


@pytest.mark.parametrize("dilations", [(1,), (1, 3)])
def test_against_a_loop(dilations: tuple[int, ...]) -> None:
    weights = pamr_weights(image(), dilations)
    maps = torch.rand(1, 2, H, W, generator=torch.Generator().manual_seed(1))
    refined = refine_locally(maps, weights, 1, dilations)
    for y in range(H):
        for x in range(W):
            expected = naive_weights(image(), dilations, y, x)
            assert torch.allclose(weights[0, :, y, x], torch.tensor(expected), atol=1e-5)
            places = [p for d in dilations for p in neighbours(y, x, d, centre=False)]
            for m in range(2):
                value = sum(
                    w * float(maps[0, m, qy, qx])
                    for w, (qy, qx) in zip(expected, places, strict=True)
                )
                assert float(refined[0, m, y, x]) == pytest.approx(value, abs=1e-5)


def test_weights_sum_to_one_and_constants_stay() -> None:
    weights = pamr_weights(image())
    assert weights.shape == (1, 48, H, W)
    assert torch.allclose(weights.sum(1), torch.ones(1, H, W))
    constant = torch.full((1, 2, H, W), 0.3)
    assert torch.allclose(refine_locally(constant, weights), constant, atol=1e-5)


def test_a_map_stops_at_an_edge_of_the_image() -> None:
    colours = torch.zeros(1, 3, 12, 12)
    colours[..., 6:] = 1
    maps = torch.zeros(1, 1, 12, 12)
    maps[0, 0, 4:8, 1:4] = 1
    refined = refine_locally(maps, pamr_weights(colours, (1, 2, 4)), 10, (1, 2, 4))
    assert float(refined[0, 0, :, :6].mean()) > 0.05
    assert float(refined[0, 0, :, 6:].max()) < 0.01


def test_an_image_of_one_colour() -> None:
    weights = pamr_weights(torch.full((1, 3, 8, 8), 0.5))
    assert torch.allclose(weights, torch.full_like(weights, 1 / 48))


def test_no_gradient() -> None:
    colours = image().requires_grad_()
    maps = torch.rand(1, 2, H, W).requires_grad_()
    refined = refine_locally(maps, pamr_weights(colours))
    assert not refined.requires_grad
