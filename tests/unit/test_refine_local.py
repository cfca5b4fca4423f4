"""Pixel correlation and local refinement against loops written from the equations."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wsss.refine.local import neighbour_weights, offsets, refine_locally
from wsss.refine.pcm import correlation, pcm

DILATIONS = (1, 2, 4)


def image(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_columns_of_the_correlation_sum_to_one() -> None:
    features = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(0))
    features[0, :, 2, 3] = 0
    sums = correlation(features).sum(1)
    silent = torch.zeros(2, 30, dtype=torch.bool)
    silent[0, 2 * 6 + 3] = True
    torch.testing.assert_close(sums[~silent], torch.ones(59), atol=1e-4, rtol=0)
    assert (sums[silent] == 0).all()


def test_correlation_spreads_maps_as_written() -> None:
    generator = torch.Generator().manual_seed(1)
    features, maps = torch.randn(1, 4, 3, 3, generator=generator), torch.rand(1, 2, 3, 3)
    f = features[0].flatten(1).double().numpy()
    f = f / (np.linalg.norm(f, axis=0, keepdims=True) + 1e-5)
    expected = np.zeros((2, 9))
    for j in range(9):
        weights = [max(0.0, float(f[:, i] @ f[:, j])) for i in range(9)]
        total = sum(weights) + 1e-5
        for c in range(2):
            flat = maps[0, c].flatten()
            expected[c, j] = sum(w / total * float(v) for w, v in zip(weights, flat, strict=True))
    np.testing.assert_allclose(pcm(maps, features)[0].flatten(1), expected, rtol=1e-4)


def test_maps_of_another_grid_are_brought_to_the_features() -> None:
    features, maps = torch.randn(1, 4, 3, 5), torch.rand(1, 2, 7, 9)
    small = F.interpolate(maps, (3, 5), mode="bilinear", align_corners=True)
    torch.testing.assert_close(pcm(maps, features), pcm(small, features))


def test_correlation_is_exact_under_autocast() -> None:
    features, maps = torch.randn(1, 16, 8, 8), torch.rand(1, 2, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = pcm(maps, features)
    assert got.dtype == torch.float32
    assert torch.equal(got, pcm(maps, features))


def naive_weights(picture: np.ndarray, kind: str) -> np.ndarray:
    """(neighbours, H, W) of one (3, H, W) image."""
    places = offsets(DILATIONS)
    _, height, width = picture.shape

    def at(y: int, x: int) -> np.ndarray:
        found: np.ndarray = picture[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]
        return found

    out = np.zeros((len(places), height, width))
    lengths = np.array([math.hypot(*place) for place in places])
    for y, x in itertools.product(range(height), range(width)):
        near = np.array([at(y + dy, x + dx) for dy, dx in places])
        spread = near.std(0, ddof=1) + 1e-8
        factor = 4 if kind == "varm" else 1 / 0.3
        colour = [-np.mean((factor * abs(n - picture[:, y, x]) / spread) ** 2) for n in near]
        if kind == "varm":
            second = []
            for dy, dx in places:
                here = at(y + dy, x + dx)
                down = at(y + dy + 1, x + dx) - here if y + 1 < height else np.zeros(3)
                right = at(y + dy, x + dx + 1) - here if x + 1 < width else np.zeros(3)
                second.append(np.mean(down**2 + right**2))
            sign = -0.01
        else:
            second = list(-((lengths / (lengths.std(ddof=1) + 1e-8) / 0.3) ** 2))
            sign = 0.01
        first = np.exp(np.array(colour) - max(colour))
        other = np.exp(np.array(second) - max(second))
        out[:, y, x] = first / first.sum() + sign * other / other.sum()
    return out


@pytest.mark.parametrize("kind", ["varm", "par"])
def test_weights_follow_their_equations(kind: Literal["varm", "par"]) -> None:
    picture = image(7, 9)
    got = neighbour_weights(picture, kind, DILATIONS)[0]
    expected = naive_weights(picture[0].double().numpy(), kind)
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "total"), [("varm", 0.99), ("par", 1.01)])
def test_weights_sum_to_one_less_or_more(kind: Literal["varm", "par"], total: float) -> None:
    sums = neighbour_weights(image(20, 30), kind).sum(1)
    torch.testing.assert_close(sums, torch.full_like(sums, total))


def test_a_flat_image_has_equal_weights() -> None:
    weights = neighbour_weights(torch.full((1, 3, 30, 30), 0.4))
    torch.testing.assert_close(weights, torch.full_like(weights, 0.99 / 48))


def test_refinement_follows_the_weights() -> None:
    picture, soft = image(5, 6), torch.rand(1, 2, 5, 6)
    weights = neighbour_weights(picture, "varm", DILATIONS)
    expected = soft[0].double().numpy()
    for _ in range(3):
        before, expected = expected, np.zeros_like(expected)
        for (q, (dy, dx)), y, x in itertools.product(
            enumerate(offsets(DILATIONS)), range(5), range(6)
        ):
            source = before[:, min(max(y + dy, 0), 4), min(max(x + dx, 0), 5)]
            expected[:, y, x] += float(weights[0, q, y, x]) * source
    got = refine_locally(soft, weights, 3, DILATIONS)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_refinement_follows_edges_of_the_image() -> None:
    """A mask that overhangs a colour edge by two pixels retreats to it."""
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 16:] = 1
    picture += 0.02 * torch.rand(picture.shape, generator=torch.Generator().manual_seed(0))
    soft = torch.zeros(1, 2, 32, 32)
    soft[:, 0, :, :18], soft[:, 1, :, 18:] = 1, 1
    refined = refine_locally(soft, neighbour_weights(picture))
    found = refined.argmax(1)[0]
    assert (found[:, :16] == 0).all()
    assert (found[:, 16:] == 1).all()
